"""The rule ``unchanged-parameters``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.finding import Finding
from stepscope.analysis.lines import line_of_step
from stepscope.analysis.optimizers import held_by, settings
from stepscope.analysis.parameters import (
    Parameter,
    gather,
    gradients,
    has_gradient,
    in_sentence,
    is_gradient_zero,
    is_left_over,
    is_unchanged,
    listed,
    standstill,
    trainable,
)
from stepscope.analysis.robust import median
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence
from stepscope.store.records import ZERO_GRAD, SourceLine

_NOTHING = 1e-6
"""The part of the largest gradient of all parameters that counts as none: ten times the rounding of float32."""
_ROUNDING = 1e-5
"""The part of the gradient of its layer's weight that a sum of float32 leaves of what should cancel out."""


@dataclass(frozen=True)
class UnchangedParameters(Rule):
    """Parameters that get a gradient but never change.

    Symptom: the loss stays where it is, or a part of the net does not learn although its gradients look fine.

    How it is measured: the gradient is not zero, but all statistics of the value are the same, bit for bit, in all
    (at least three) recorded training steps, and every update is zero. Or: it changed at first, then stands still for
    at least ten recorded steps and three times longer than ever before, while gradients arrive and the learning rate is
    not over. A gradient that is itself always the same, where others change, is left over from an earlier training of
    what is only asked now (a teacher), and is no gradient.

    Causes: the optimizer was given other parameters (made before a layer was added or replaced, or only a part of the
    model), ``optimizer.step()`` is not called, or after ``zero_grad()``, the learning rate is 0, or updates are smaller
    than the dtype can express (bfloat16 keeps three digits).

    Remedy: make the optimizer after the model is complete, from ``model.parameters()``; check that ``step()`` runs and
    the learning rate is not 0; keep a float32 copy of low-precision weights.

    Source: smdebug's UnchangedTensor (three steps), without its tolerance.
    """

    name = "unchanged-parameters"
    about = "optimizer"
    causes = "The optimizer does not hold them, optimizer.step() is not called, or their learning rate is 0."
    remedy = (
        "Make the optimizer from model.parameters() once the model is complete; check step() and the learning rate."
    )

    def check(self, view: View) -> Iterable[Finding]:
        every = trainable(view)
        learning = [p for p in every if has_gradient(view, p.node) and not is_gradient_zero(view, p.node)]
        learning = _without_vanishing(view, [p for p in learning if not _is_used_zero(view, p)])
        learning = [p for p in learning if not is_left_over(view, p.node)] or learning
        if not learning and _has_backward(view):
            learning = [parameter for parameter in every if not has_gradient(view, parameter.node)]
        still = [parameter for parameter in learning if is_unchanged(view, parameter.node)]
        if still and len(still) == len(learning):
            yield self._everything(view, still)
        elif still and not _are_rounded(view, still):
            yield self._some(view, still)
        yield from self._stopped(view, [parameter for parameter in learning if parameter not in still])

    def _stopped(self, view: View, moving: list[Parameter]) -> Iterable[Finding]:
        """What changed at first, and from some step on no more, although gradients arrive and the rate is not zero."""
        since = {parameter: standstill(view, parameter.node) for parameter in moving}
        found = [parameter for parameter, step in since.items() if step is not None]
        if not any(len(parameter.shape) > 1 for parameter in found) or _is_rate_over(view):
            return  # of a bias before a normalisation the gradient is but rounding
        nodes = [parameter.node for parameter in found]
        step = min(step for step in since.values() if step is not None)
        summary = (
            f"{listed(gather(view, found))}: from step {step} on nothing changes {in_sentence(nodes)} any more, "
            f"although gradients arrive: the optimizer may hold other tensors than the model since then."
        )
        shown = [evidence(view.history(nodes[0]), "norm", f"the same from step {step} on")]
        causes = (
            "Weights that were loaded with assign=True, moved or replaced after the optimizer was made; a skipped step."
        )
        yield self.finding(
            view, nodes[0], "warning", summary, shown, step=step, nodes=nodes[1:], causes=causes, confidence=0.9
        )

    def _everything(self, view: View, still: list[Parameter]) -> Finding:
        rates = sorted({str(group.get("lr")) for group in settings(view)})
        with_rates = f" (learning rate {', '.join(rates)})" if rates else ""
        stepped = any(tensor.quantity == "update" for tensor in view.training[-1].layout.tensors)
        arrives = any(has_gradient(view, parameter.node) for parameter in still)
        why = "every update is zero" if stepped else "no optimizer stepped in a recorded step"
        if not arrives:
            why = "their gradients are gone when the optimizer steps (zero_grad() between backward() and step()?)"
        summary = (
            f"Nothing is trained: of {len(still)} parameters none changes in {len(view.training)} training steps "
            f"although gradients are computed; {why}{with_rates}."
        )
        line = None if arrives else line_of_step(view, ZERO_GRAD)
        return self._at(view, still, "error", summary, line)

    def _some(self, view: View, still: list[Parameter]) -> Finding:
        nodes = [parameter.node for parameter in still]
        usual = ("value", "gradient", "update")
        held = any(name.partition(":")[0] not in usual for name in view.nodes[nodes[0]].quantities)
        why = (
            "they are in an optimizer, so their learning rate is 0 or the updates are too small for the dtype"
            if held
            else "they seem to be in no optimizer"
        )
        summary = (
            f"{listed(gather(view, still))}: nothing changes {in_sentence(nodes)} in {len(view.training)} training "
            f"steps, although gradients arrive and others change; {why}."
        )
        return self._at(view, still, "warning", summary)

    def _at(
        self, view: View, group: list[Parameter], level: str, summary: str, line: SourceLine | None = None
    ) -> Finding:
        nodes = [parameter.node for parameter in group]
        shown = [evidence(view.history(nodes[0]), "norm", "its value is always the same")]
        if has_gradient(view, nodes[0]):
            shown.append(evidence(view.history(nodes[0], "gradient"), "norm", "its gradient is not zero"))
        return self.finding(
            view, nodes[0], "error" if level == "error" else "warning", summary, shown,
            step=view.began, nodes=nodes[1:], source=line,
        )  # fmt: skip


def _is_rate_over(view: View) -> bool:
    """Whether a learning rate has become so small that weights may stand still in their dtype."""
    pairs = zip(settings(view), settings(view, last=True), strict=False)
    rates = [(first.get("lr"), last.get("lr")) for first, last in pairs]
    return any(
        isinstance(one, (int, float)) and isinstance(two, (int, float)) and two < 1e-3 * one for one, two in rates
    )


def _are_rounded(view: View, still: list[Parameter]) -> bool:
    """Whether only vectors stand still, that are held at the rate of all: their updates are lost beside their size.

    Scales of 1 in a normalisation are the first to which a rate that is far too low can add nothing.
    """
    holders, rates = held_by(view), [group.get("lr") for group in settings(view)]
    step = view.training[0]
    rows = [step.layout.row(parameter.node, "value", None, None) for parameter in still]
    precise = all(row is not None and step.layout.tensors[row].dtype == "float32" for row in rows)
    held = all(len(parameter.shape) == 1 and holders.get(parameter.node) for parameter in still)
    return precise and held and len(set(rates)) == 1 and rates[0] != 0


def _has_backward(view: View) -> bool:
    """Whether gradients were recorded of a calculated tensor that parameters can learn from."""
    places = (place for place in view.flow.of_type("calculated", "loss") if has_gradient(view, place.node))
    behind = view.flow.upstream(places, differentiable=True)
    return any(view.flow.vertices[place].type == "parameter" for place in behind)


def _is_used_zero(view: View, parameter: Parameter) -> bool:
    """Whether the optimizer itself saw a zero in every step, whatever other losses gave (two terms that cancel)."""
    used = view.history(parameter.node, "gradient")
    return len(used) > 0 and bool(np.all(used.of("abs_max") == 0))


def _without_vanishing(view: View, group: list[Parameter]) -> list[Parameter]:
    """Without those whose gradients are nothing next to the largest ones: that is another finding.

    Nor a bias whose gradient is but rounding next to that of its own layer's weight, as before a normalisation.
    """
    sizes = {p: max(median(history.of("abs_max")) for history in gradients(view, p.node)) for p in group}
    most = max(sizes.values(), default=0.0)
    of_layer: dict[str, float] = defaultdict(float)
    for parameter, size in sizes.items():
        of_layer[parameter.module] = max(of_layer[parameter.module], size)
    return [
        p
        for p, size in sizes.items()
        if not size < _NOTHING * most and not (len(p.shape) == 1 and size < _ROUNDING * of_layer[p.module])
    ]
