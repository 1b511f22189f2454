"""The rule ``wide-bottleneck``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.curves import fallen
from stepscope.analysis.finding import Finding
from stepscope.analysis.layers import layers
from stepscope.analysis.lines import sites_of
from stepscope.analysis.loss_inputs import Comparison, comparisons
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class WideBottleneck(Rule):
    """An autoencoder that is nowhere narrower than what it is to give back: it can copy.

    Symptom: a reconstruction that is all but perfect, also of what the net has never seen, such as faults to be found.

    How it is measured: the loss, the only one, compares what linear layers give with their own input, a vector for each
    sample; no layer between has fewer outputs than that, and most of the loss is gone. Where noise
    or dropout disturbs the input, there is more to learn than to copy.

    Causes: a size of the code that was raised until the error was small enough.

    Remedy: make the code narrower than the input; or add noise to the input, or a penalty that keeps the code sparse.

    Source: Goodfellow, Bengio and Courville, Deep learning (2016), 14.1 and 14.2: undercomplete and regularised
    autoencoders.

    Attributes:
        learned: the part of the first loss that is gone.
    """

    name = "wide-bottleneck"
    causes = "A size of the code that was raised until the error was small, or an argument in the wrong place."
    remedy = "Make the code narrower than the input, add noise to the input, or keep the code sparse by a penalty."
    learned: float = 0.5

    def check(self, view: View) -> Iterable[Finding]:
        if view.is_young or len(view.losses) != 1 or fallen(view) < self.learned or _is_disturbed(view):
            return
        for comparison in comparisons(view):
            target, shape = comparison.target, comparison.shape
            is_own = target is not None and target in view.flow.upstream([comparison.prediction])
            if is_own and len(shape) == 2 and shape == comparison.target_shape:
                yield from self._look(view, comparison, shape[1])
                return

    def _look(self, view: View, comparison: Comparison, width: int) -> Iterable[Finding]:
        behind = {place.node for place in view.flow.upstream([comparison.prediction])} | {comparison.prediction.node}
        between = [layer for layer in layers(view) if layer.module in behind]
        if len(between) < 2 or any(len(layer.shape) != 2 for layer in between):
            return
        narrowest = min(between[:-1], key=lambda layer: layer.shape[0])
        if narrowest.shape[0] < width:
            return
        summary = (
            f"The narrowest of {len(between)} layers, {narrowest.module}, gives {narrowest.shape[0]} numbers, and the "
            f"input that is to be reconstructed has {width}: the bottleneck is too wide, so that the net can copy all."
        )
        history = view.history(comparison.loss.node, role=comparison.loss.role)
        yield self.finding(
            view, narrowest.module, "info", summary, [evidence(history, "mean", "the error of the reconstruction")],
            step=view.began, nodes=[comparison.prediction.node, comparison.loss.node], confidence=0.6,
        )  # fmt: skip


def _is_disturbed(view: View) -> bool:
    """Whether random numbers are added to the input, or a dropout leaves out parts of it."""
    drops = any("Dropout" in module.module_class for module in view.modules.values())
    return drops or bool(sites_of(view, "noised") or sites_of(view, "dropout"))
