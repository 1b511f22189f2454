"""The rule ``pretrained-input``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.flow import Place
from stepscope.analysis.history import History
from stepscope.analysis.layers import rms
from stepscope.analysis.loss_inputs import is_floating
from stepscope.analysis.robust import median
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class PretrainedInput(Rule):
    """Inputs that are not normalised go into a frozen net, which cannot learn to live with them.

    Symptom: a borrowed net gives features that are little better than those of one at random.

    How it is measured: the root mean square of a floating input, and its mean against its standard deviation, in the
    median of the training steps, where a module reads it that has weights of which none learns.

    Causes: bytes from 0 to 255, or pixels from 0 to 1, for a net whose checkpoint wants them centred.

    Remedy: subtract the mean, and divide by the standard deviation, that belong to the checkpoint.

    Attributes:
        large, small: sizes beyond which an input is called unnormalised. Source: those of ``input-scale``.
        severe, tiny: sizes beyond which it is very likely harmful. Source: those of ``input-scale``.
        off: how many of its standard deviations the mean may lie from 0, or it is worth knowing. Source: pixels from 0
            to 1 that should have been normalised for nets of ImageNet have about 2.
    """

    name = "pretrained-input"
    causes = "Data that are prepared in another way than those the net was trained with."
    remedy = "Subtract the mean, and divide by the standard deviation, that belong to the checkpoint."
    large: float = 10.0
    small: float = 2e-2
    severe: float = 20.0
    tiny: float = 1e-3
    off: float = 1.5

    def check(self, view: View) -> Iterable[Finding]:
        for place in view.flow.of_type("input"):
            frozen = [link.place.node for link in view.flow.sinks.get(place, ()) if _is_frozen(view, link.place.node)]
            history = view.history(place.node, role=place.role)
            if frozen and len(history) and is_floating(view, place):
                yield from self._look(view, place, history, frozen)

    def _look(self, view: View, place: Place, history: History, frozen: list[str]) -> Iterable[Finding]:
        mean, std, size = median(history.of("mean")), median(history.of("std")), median(rms(history))
        level: Level = "info" if self.tiny < size < self.severe else "warning"
        if size > self.large or 0 < size < self.small:
            summary = (
                f"{place.node} goes into {frozen[0]} unnormalised (mean {mean:.3g}, std {std:.3g}), which is frozen: a "
                f"pretrained net was hardly trained on such inputs (bytes from 0 to 255, say)."
            )
            shown = [evidence(history, "abs_max", "its size")]
        elif abs(mean) > self.off * std > 0:
            summary = (
                f"{place.node} is not centred: its mean is {mean:.3g} and its standard deviation {std:.3g}, and "
                f"{frozen[0]}, which gets it, is frozen: was it trained on such inputs, or is a mean to be subtracted?"
            )
            shown = [evidence(history, "mean", "its mean")]
        else:
            return
        yield self.finding(
            view, place.node, level, summary, shown, nodes=frozen, step=int(history.steps[0]), confidence=0.6
        )


def _is_frozen(view: View, path: str) -> bool:
    """Whether a module has weights, none of which learns."""
    module = view.modules.get(path)
    weights = [info for info in module.parameters if not info.is_buffer] if module else []
    return any(len(info.shape) > 1 for info in weights) and not any(info.trainable for info in weights)
