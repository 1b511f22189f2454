"""The rule ``non-finite``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from stepscope.analysis.birthplace import Birth, find_birth, first_call_not_finite
from stepscope.analysis.clipping import unclipped_peak
from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.lines import SLOPES, line_at_edge, line_of_node, sites_of
from stepscope.analysis.onset import first_not_finite
from stepscope.analysis.robust import largest
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence
from stepscope.store import Step
from stepscope.store.records import Call, SourceLine

_REASONS = {
    "log": "log of zero is -inf, of a negative number NaN; add a small eps inside it, or use log_softmax, logsigmoid "
    "or log1p.",
    "sqrt": "sqrt of a negative number is NaN and its gradient at zero is infinite; add a small eps inside it.",
    "div": "A division by zero; add a small eps to the denominator.",
    "truediv": "A division by zero; add a small eps to the denominator.",
    "norm": "The gradient of a norm at zero is not a number; add a small eps under the root.",
    "exp": "exp overflows float32 above 88 and float16 above 11; subtract the maximum first.",
    "softmax": "A row of nothing but -inf (everything masked) has no softmax; leave such rows out.",
    "ctc_loss": "A text that is longer than what is heard has an infinite loss; pass zero_infinity=True, or leave "
    "such pairs out.",
    "pow": "A power of zero or of a negative number with a fractional exponent.",
}


_OTHERS = {
    "ctc_loss": "a ctc_loss, which is infinite for a text that is longer than what is heard",
    "exp": "an exp, which overflows",
}
"""What can be infinite without an infinite slope, the likelier first."""
_GROWN, _SMALL = 100.0, 0.05
"""A parameter that became so many times as large before it broke was blown up by its updates; many begin at zero."""


@dataclass(frozen=True)
class NonFinite(Rule):
    """Values or gradients that are NaN or infinite, with the place where they were born.

    Symptom: the loss is NaN, or jumps to infinity; everything downstream follows.

    How it is measured: in the first recorded step that has them, the first tensor in data-flow and iteration order
    that is not finite while all that it was computed from is finite; between these two, the first operation known
    to make infinite numbers of finite ones (``exp``, ``log``, a division, products of half precision) that did. If
    all values are finite, the same on the way back: the first gradient on the path from the loss, and the operation
    there that did, if ``torch.where`` has hidden what it made. Infinite tensors that only feed finite ones are
    attention masks and no finding; gradients that overflow in a step that the optimizer leaves out are a loss scale
    being sought, and no more than worth knowing. The health check of unrecorded steps may know an earlier step: it is
    named. A parameter that an unrecorded step broke, and that had not grown before, leads to the operation behind it
    whose slope can be infinite (``log``, ``sqrt``), if there is but one; if there is none, to a ``ctc_loss`` or an
    ``exp``.

    Causes: a learning rate that is too high, a division by zero, log or sqrt of zero, an overflow of the dtype, data
    that holds NaN.

    Remedy: make the named operation safe (eps, log_softmax, clamp), clean the data, lower the learning rate, clip
    gradients.

    Source: no threshold. The idea of a birthplace is that of PyTorch's anomaly mode and of TorchLens.
    """

    name = "non-finite"
    causes = (
        "An operation at the edge of its domain (log or sqrt of zero, a division by zero), an overflow of the dtype, "
        "weights that a too high learning rate blew up, or data that holds NaN."
    )
    remedy = (
        "Make the named operation safe (an eps, log_softmax, clamp), or lower the learning rate, or clip gradients."
    )

    def check(self, view: View) -> Iterable[Finding]:
        step = _first_bad_step(view)
        if step is None:
            return
        birth = find_birth(step)
        if birth is not None:
            yield self._finding(view, step, birth)

    def _finding(self, view: View, step: Step, birth: Birth) -> Finding:
        level = _level(view, step)
        call = None if _was_broken_before(birth) else first_call_not_finite(step, birth)
        if call is not None and birth.quantity == "value":
            birth = replace(birth, operation=call.operation)
        history = view.history(birth.node, birth.quantity, role=birth.role, training=False)
        statistic = "nan_count" if birth.nans else "inf_count"
        shown = [evidence(history, statistic, f"{birth.count} elements at step {step.number}")]
        shown += [
            evidence(view.history(source, training=False), "abs_max", "a source, still finite")
            for source in birth.before[:2]
        ]
        return self.finding(
            view, birth.node, level, _summary(view, step, birth, call) + _onset(view, step) + _unclipped(view, birth),
            shown, step=step.number, iteration=birth.iteration, confidence=0.95, remedy=_remedy(view, birth, call),
            source=call.source if call else _line(view, birth),
        )  # fmt: skip


def _first_bad_step(view: View) -> Step | None:
    """The first recorded step with non-finite numbers that matter, also among those that were not looked at."""
    first = next((step for step in view.steps if find_birth(step)), None)
    if first is None or len(view.steps) == len(view.trial.steps):
        return first
    before = max((step.number for step in view.steps if step.number < first.number), default=-1)
    for number in view.trial.steps.tolist():
        if before < number < first.number and find_birth(view.trial.step(number)):
            return view.trial.step(number)
    return first


def _level(view: View, step: Step) -> Level:
    """An error if it stays; worth knowing if the optimizer left out every step that had it (a loss scale is sought)."""
    bad = [other for other in view.steps if other.number >= step.number and find_birth(other)]
    if any(map(_updates, view.steps)) and not any(map(_updates, bad)):
        return "info"
    last = view.steps[-1].number
    middle = (step.number + last) / 2
    stays = last == step.number or any(other.number > middle for other in bad)
    return "error" if stays else "warning"


def _updates(step: Step) -> bool:
    return any(tensor.quantity == "update" for tensor in step.layout.tensors)


def _line(view: View, birth: Birth) -> SourceLine | None:
    """The line between the last finite and the first broken numbers; None for that of the node itself."""
    if _was_broken_before(birth):
        return _slope(view, birth)[1]
    if birth.quantity == "value":
        return line_at_edge(view, birth.before, [birth.node])
    behind = (line_of_node(view, node) for node in birth.before if view.nodes[node].operation in _REASONS)
    return line_at_edge(view, [birth.node], birth.before, slope=True) or next(behind, None)


def _was_broken_before(birth: Birth) -> bool:
    """Whether a parameter holds broken numbers: the step that gave them was not recorded."""
    return birth.type == "parameter" and birth.quantity == "value"


def _slope(view: View, birth: Birth) -> tuple[str, SourceLine | None]:
    """The only operation behind a parameter that can have given its gradient, and its line; empty if none is sure.

    One with an infinite slope; where there is none, a loss that can be infinite, or an ``exp``, which overflows.
    """
    sizes = view.history(birth.node, training=False).of("abs_max")
    sizes = sizes[np.isfinite(sizes)]
    if len(sizes) and sizes.max() > _GROWN * max(float(sizes[0]), _SMALL):
        return "", None
    behind = view.flow.downstream(view.flow.of_node(birth.node))
    made = {(view.flow.vertices[place].operation, view.flow.vertices[place].source) for place in behind}
    made |= {
        (site.operation, site.source) for site in sites_of(view, "edge") if behind & site.before and behind & site.after
    }
    for operations in (SLOPES, *([other] for other in _OTHERS)):
        found = {(operation, source) for operation, source in made if operation in operations}
        if found:
            return found.pop() if len(found) == 1 else ("", None)
    return "", None


def _summary(view: View, step: Step, birth: Birth, call: Call | None) -> str:
    kind = "NaN" if birth.nans else "infinite"
    what = "values" if birth.quantity == "value" else "gradients"
    where = f"{birth.node} at step {step.number}"
    if birth.type == "input" or birth.type == "target":
        return f"The data holds {kind} values: {birth.count} of them in {where}."
    if _was_broken_before(birth):
        made_by, _ = _slope(view, birth)
        odd = _OTHERS.get(made_by, f"a {made_by}, whose slope can be infinite")
        slope = f" On its way to the loss is {odd}." if made_by else ""
        return f"{where} holds {birth.count} {kind} values: an earlier update broke it.{slope}"
    how = f" (made by {birth.operation})" if birth.operation else ""
    behind = "all that it was computed from is finite" if birth.quantity == "value" else (
        "the gradients of all that was computed from it are finite"
    )  # fmt: skip
    hidden = "" if call is None or birth.quantity == "value" else (
        f" On the way there, {call.operation} gives numbers that are not finite: what follows keeps them out of the "
        f"values, as torch.where does, but not out of the gradients."
    )  # fmt: skip
    return f"The first {kind} {what} are born in {where}{how}: {birth.count} of them, while {behind}.{hidden}"


def _onset(view: View, step: Step) -> str:
    """When it began, if the health check saw that between the recorded steps."""
    seen = first_not_finite(view.trial)
    before = max((other.number for other in view.steps if other.number < step.number), default=-1)
    if seen is None or not before < seen[0] < step.number:
        return ""
    return f" It began at step {seen[0]}, which was not recorded: there the health check saw it in the {seen[1]}."


def _unclipped(view: View, birth: Birth) -> str:
    """That gradients had grown far beyond their usual size, if they had, and nothing clipped them."""
    peak = None if birth.type in ("input", "target") else unclipped_peak(view)
    if peak is None:
        return ""
    return (
        f" Before, the gradients' norm had been {peak.norm:.3g} at step {peak.step}, where {peak.usual:.2g} is usual, "
        f"and nothing had clipped them."
    )


def _remedy(view: View, birth: Birth, call: Call | None) -> str:
    if birth.type in ("input", "target"):
        return "Find the samples that hold them, and drop or impute them before they reach the model."
    if _was_broken_before(birth):
        return _REASONS.get(_slope(view, birth)[0], NonFinite.remedy)
    if call is not None and birth.quantity != "value":
        return f"Keep what {call.operation} is given in its domain, by a clamp say: torch.where behind it is too late."
    if birth.quantity != "value":
        reason = _REASONS.get(birth.operation) or next(
            (_REASONS[sink] for sink in birth.operations if sink in _REASONS), ""
        )
        return reason or NonFinite.remedy
    sources = [view.history(node, training=False).of("abs_max") for node in birth.before]
    huge = any(largest(values) > 1e15 for values in sources)
    if huge:
        return "Its sources had grown beyond 1e15: lower the learning rate or clip gradients, then look again."
    return _REASONS.get(birth.operation, NonFinite.remedy)
