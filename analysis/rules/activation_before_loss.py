"""The rule ``activation-before-loss``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.baseline import count_classes
from stepscope.analysis.bounds import line_of_making, maker, operation_of, same_numbers
from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.flow import Place
from stepscope.analysis.lines import line_of_node, sites_of
from stepscope.analysis.loss_inputs import Comparison, comparisons, unreduced
from stepscope.analysis.robust import largest, smallest
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class _Clash:
    level: Level
    text: str
    remedy: str


_RAW = "Give the loss the raw output of the last layer."
_CLASHES: dict[tuple[str, str], _Clash] = {
    ("cross_entropy", "softmax"): _Clash("error", "cross_entropy applies a softmax itself, so there are two", _RAW),
    ("cross_entropy", "sigmoid"): _Clash("warning", "cross_entropy wants logits of any size, not 0 to 1", _RAW),
    ("cross_entropy", "relu"): _Clash(
        "warning", "cross_entropy wants logits of any sign, not only positive ones", _RAW
    ),
    ("cross_entropy", "tanh"): _Clash("warning", "cross_entropy wants logits of any size, not -1 to 1", _RAW),
    ("cross_entropy", "log_softmax"): _Clash("info", "cross_entropy applies a log_softmax itself; twice is once", _RAW),
    ("binary_cross_entropy_with_logits", "sigmoid"): _Clash("error", "the loss applies a sigmoid itself", _RAW),
    ("binary_cross_entropy_with_logits", "softmax"): _Clash("error", "the loss applies a sigmoid itself", _RAW),
    ("binary_cross_entropy_with_logits", "relu"): _Clash(
        "error", "its logits must be negative to say no, and are never below 0", _RAW
    ),
    ("nll_loss", "softmax"): _Clash(
        "error", "nll_loss wants logarithms of probabilities", "Use log_softmax instead of softmax."
    ),
    ("nll_loss", "sigmoid"): _Clash(
        "error", "nll_loss wants logarithms of probabilities", "Use log_softmax instead of sigmoid."
    ),
    ("nll_loss", "linear"): _Clash(
        "error",
        "nll_loss wants logarithms of probabilities, not raw scores (log_softmax is missing)",
        "Use log_softmax before it, or cross_entropy.",
    ),
    ("nll_loss", "relu"): _Clash(
        "error", "nll_loss wants logarithms of probabilities", "Use log_softmax instead of relu."
    ),
    ("kl_div", "softmax"): _Clash(
        "error", "kl_div wants logarithms of probabilities", "Use log_softmax for its input; the target stays as it is."
    ),
    ("kl_div", "sigmoid"): _Clash(
        "error", "kl_div wants logarithms of probabilities", "Use logsigmoid or log_softmax for its input."
    ),
    ("kl_div", "linear"): _Clash("error", "kl_div wants logarithms of probabilities", "Use log_softmax before it."),
    **{
        ("ctc_loss", operation): _Clash(
            "error", "ctc_loss wants logarithms of probabilities", "Give it log_softmax(2) of the raw scores."
        )
        for operation in ("softmax", "sigmoid", "linear", "conv1d", "relu")
    },
    **{
        ("binary_cross_entropy", operation): _Clash(
            "error",
            "the loss wants probabilities from 0 to 1 (a sigmoid is missing)",
            "Use sigmoid as the last activation, or binary_cross_entropy_with_logits on the raw output.",
        )
        for operation in ("linear", "conv1d", "conv2d", "conv3d", "relu", "leaky_relu", "elu", "softplus", "tanh")
    },
    **{
        ("poisson_nll_loss", operation): _Clash(
            "warning", "the loss takes the exponential itself", "Give it the raw output, or log_input=False."
        )
        for operation in ("exp", "softplus", "relu")
    },
    ("binary_cross_entropy_with_logits", "tanh"): _Clash(
        "warning", "the loss wants logits of any size, not -1 to 1", _RAW
    ),
    ("binary_cross_entropy_with_logits", "log_softmax"): _Clash(
        "error",
        "the loss wants logits of any sign; no logarithm of a share is above 0, so no chance exceeds a half",
        _RAW,
    ),
    ("cross_entropy", "exp"): _Clash("warning", "cross_entropy wants logits, not their exponentials", _RAW),
    ("sigmoid", "sigmoid"): _Clash(
        "error", "a sigmoid of a sigmoid lies between 0.5 and 0.73", "Leave one of them out."
    ),
    ("sigmoid", "relu"): _Clash("warning", "a sigmoid of what is never below 0 is never below 0.5", "Leave it out."),
    ("log_softmax", "sigmoid"): _Clash("warning", "a softmax wants scores of any size, not 0 to 1", _RAW),
    ("log_softmax", "relu"): _Clash("warning", "a softmax wants scores of any sign, not only positive ones", _RAW),
    ("log_softmax", "tanh"): _Clash("warning", "a softmax wants scores of any size, not -1 to 1", _RAW),
    ("softmax", "softmax"): _Clash("warning", "a softmax of a softmax is almost uniform", "Leave one of them out."),
    ("log_softmax", "softmax"): _Clash(
        "error", "a log_softmax of a softmax is almost uniform", "Leave the softmax out."
    ),
}

_LOSSES = frozenset(["cross_entropy", "nll_loss", "kl_div", "binary_cross_entropy_with_logits", "poisson_nll_loss"])
"""Those that may be given with ``reduction="none"``, and averaged later."""
_WANTS_LOGARITHMS = frozenset(["nll_loss", "ctc_loss", "kl_div"])
_LOGARITHMS = frozenset(["log", "log_"])
_AFFINE = frozenset(
    ["linear", "conv1d", "conv2d", "conv3d", "addmm", "baddbmm", "matmul", "bmm", "einsum", "embedding"]
)
"""What may give any number: that of these all lie between 0 and 1 may be chance."""
_SIGMOIDS = frozenset(["reciprocal", "rdiv", "rtruediv", "truediv", "div", "rsub", "hardsigmoid", "clamp"])
"""What a sigmoid may be made with by hand."""
_SEVERAL = _Clash(
    "error", "a softmax shares one among the classes, but samples have several, or none", "Use sigmoid, one a class."
)
_LAYERS = frozenset(["linear", "conv1d", "conv2d", "conv3d", "batch_norm"])
_CLAMPS = frozenset(["clamp", "clip", "clamp_min", "clamp_max", "hardtanh"])
_MISSING = ("linear", "conv1d", "conv2d", "conv3d")
"""Nothing is too much before the loss, but something is missing: the line of the loss is the one to look at."""


@dataclass(frozen=True)
class ActivationBeforeLoss(Rule):
    """An activation in front of a loss, or of another activation, that already contains it.

    Symptom: training is slow and stops at a high loss; a classifier is never sure of anything.

    How it is measured: the loss's operation and the operation that made its prediction are looked up in a table of
    pairs that do not go together. Activations by hand, or behind reshapes, are known by their numbers: all lie between
    0 and 1, and those of each sample add up to 1 (softmax), or the loss wants logarithms, which are never above 0.
    What a layer gave and ``clamp`` cut off between 0 and 1 for binary_cross_entropy counts as what it was before.

    Causes: softmax or sigmoid as the last layer, together with a loss that works on logits; probabilities, or raw
    scores, for a loss that wants logarithms of probabilities (nll_loss, kl_div, ctc_loss); a ReLU, or nothing, for one
    that wants probabilities (binary_cross_entropy).

    Remedy: give cross_entropy and binary_cross_entropy_with_logits the raw output of the last layer; give nll_loss and
    ctc_loss a log_softmax, and binary_cross_entropy a sigmoid.

    Source: the documentation of PyTorch's losses; no threshold.
    """

    name = "activation-before-loss"
    causes = "A softmax or sigmoid as the last layer, as other frameworks want it, with a loss that works on logits."
    remedy = _RAW

    def check(self, view: View) -> Iterable[Finding]:
        seen: set[tuple[Place, Place]] = set()
        plain = {place for site in sites_of(view, "no exponential") for place in site.after}
        for comparison in (*comparisons(view), *unreduced(view, _LOSSES)):
            place = maker(view, comparison.prediction)
            if (comparison.loss, place) in seen or comparison.loss in plain:
                continue
            seen.add((comparison.loss, place))
            if comparison.operation == "binary_cross_entropy":
                place = _before_clamp(view, place)
            operation = operation_of(view, place)
            clash = _CLASHES.get((comparison.operation, operation))
            if clash is None and (holds := _held(view, comparison, operation)):
                clash = _CLASHES.get((comparison.operation, holds))
            if comparison.operation == "binary_cross_entropy" and not _is_of_layer(view, place, operation):
                clash = None
            if comparison.operation == "binary_cross_entropy" and operation == "softmax":
                clash = _SEVERAL if _has_several(view, comparison) else None
            if clash is not None and not _is_logarithm_taken(view, comparison, operation):
                yield self._finding(view, place, operation, comparison.loss.node, comparison.operation, clash)
        yield from self._twice(view)

    def _twice(self, view: View) -> Iterable[Finding]:
        """Activations that directly follow one another under the model's own names."""
        for place, vertex in view.flow.vertices.items():
            for link in view.flow.sources.get(place, ()):
                before = view.flow.vertices[link.place]
                clash = _CLASHES.get((vertex.operation, before.operation))
                is_alias = link.place in set(view.flow.same_tensor(place)) and same_numbers(view, place, link.place)
                if clash is None or is_alias or vertex.type == "loss" or len(view.flow.sources[place]) > 1:
                    continue
                if vertex.module != before.module:
                    yield self._finding(view, link.place, before.operation, place.node, vertex.operation, clash)

    def _finding(
        self, view: View, place: Place, operation: str, loss: str, loss_operation: str, clash: _Clash
    ) -> Finding:
        history = view.history(place.node, role=place.role)
        shown = [evidence(history, "max", "its largest values"), evidence(history, "min", "its smallest values")]
        text = clash.text[0].lower() + clash.text[1:]
        summary = f"{place.node} is made by {operation} and goes into {loss_operation} ({loss}): {text}."
        step = int(history.steps[0]) if len(history) else None
        line = line_of_node(view, loss) if operation in _MISSING else line_of_making(view, place)
        return self.finding(
            view, place.node, clash.level, summary, shown, step=step, nodes=[loss], confidence=0.97,
            remedy=clash.remedy, source=line,
        )  # fmt: skip


def _before_clamp(view: View, place: Place) -> Place:
    """What was cut off to lie between 0 and 1, and nothing else, if that is what made a prediction."""
    behind = [link.place for link in view.flow.sources.get(place, ()) if not link.lag]
    if view.flow.vertices[place].operation not in _CLAMPS or len(behind) != 1:
        return place
    cut, whole = (view.history(one.node, role=one.role) for one in (place, behind[0]))
    if view.flow.vertices[behind[0]].type != "calculated" or not len(cut) or len(cut) != len(whole):
        return place
    low, high = smallest(cut.of("min")), largest(cut.of("max"))
    is_same = all(np.allclose(np.clip(whole.of(end), low, high), cut.of(end), atol=1e-6) for end in ("min", "max"))
    return maker(view, behind[0]) if is_same else place


def _is_of_layer(view: View, place: Place, operation: str) -> bool:
    """Whether a layer gave these numbers, or those that an activation was applied to: a similarity may be a chance."""
    if operation in _LAYERS:
        return True
    behind = [link.place for link in view.flow.sources.get(place, ()) if not link.lag]
    if len(behind) != 1 or operation_of(view, behind[0]) not in _LAYERS:
        return False
    made, given = (view.history(one.node, role=one.role).of("max") for one in (place, behind[0]))
    return operation != "relu" or (len(made) == len(given) and bool(np.allclose(np.maximum(given, 0), made)))


def _is_logarithm_taken(view: View, comparison: Comparison, operation: str) -> bool:
    """Whether the logarithms of probabilities that a loss wants are taken on the way to it."""
    if comparison.operation not in _WANTS_LOGARITHMS or operation not in ("softmax", "sigmoid"):
        return False
    logarithms = [site for site in sites_of(view, "edge") if site.operation in _LOGARITHMS]
    return any(comparison.prediction in site.before and comparison.loss in site.after for site in logarithms)


def _has_several(view: View, comparison: Comparison) -> bool:
    """Whether the answers of a sample do not add up to one."""
    if comparison.target is None or comparison.target_shape != comparison.shape or len(comparison.shape) != 2:
        return False
    history = view.history(comparison.target.node, role=comparison.target.role)
    return comparison.shape[1] > 1 and largest(history.over_batch("mean", "batch_std")) > 1e-3


def _held(view: View, comparison: Comparison, operation: str) -> str:
    """Which activation's numbers a loss is given, by the numbers alone; empty if they may be anything."""
    history = view.history(comparison.prediction.node, role=comparison.prediction.role)
    if operation in _AFFINE or not len(history):
        return ""
    low, high = smallest(history.of("min")), largest(history.of("max"))
    if not 0 <= low < high <= 1:
        return ""
    if comparison.operation in _WANTS_LOGARITHMS or _adds_up_to_one(view, comparison):
        return "softmax"
    return "sigmoid" if operation in _SIGMOIDS else ""


def _adds_up_to_one(view: View, comparison: Comparison) -> bool:
    """Whether every sample's values have the mean of one class's share, as probabilities do."""
    if len(comparison.shape) < 2 or comparison.shape[1] < 2:
        return False
    history = view.history(comparison.prediction.node, role=comparison.prediction.role)
    means, spread = history.over_batch("mean", "batch_mean"), history.over_batch("mean", "batch_std")
    share = 1 / count_classes(comparison.shape, comparison.target_shape)
    return bool(largest(np.abs(means - share)) < 1e-4 * share and largest(spread) < 1e-4 * share)
