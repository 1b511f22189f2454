"""The rule ``frozen-parameters``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.parameters import listed
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View


@dataclass(frozen=True)
class FrozenParameters(Rule):
    """All parameters of the optimizers are frozen, or some of them.

    Symptom: the loss does not change at all; ``backward`` needed ``requires_grad_()`` on the loss to run.

    How it is measured: parameters that a watched optimizer holds and that do not require a gradient. All of them: an
    error; some: worth knowing, as freezing a part of a net is common.

    Causes: a net that was frozen before its new head was added, a loop that freezes too much, loaded weights.

    Remedy: ``requires_grad_(True)`` for what is to learn; give the optimizer only that.

    Source: no threshold. TrainCheck (Jiang et al. 2025) reports such a case.
    """

    name = "frozen-parameters"
    about = "optimizer"
    causes = "A loop that freezes too much, a net that was frozen before its new head was added, or loaded weights."
    remedy = "Call requires_grad_(True) on what is to learn; give the optimizer only that."

    def check(self, view: View) -> Iterable[Finding]:
        held = {
            info.names[0]: info.trainable
            for module in view.trial.network
            for info in module.parameters
            if info.optimizers and not info.is_buffer
        }
        frozen = [name for name, can_learn in held.items() if not can_learn]
        if not frozen or not view.steps:
            return
        everything = len(frozen) == len(held)
        what = "All" if everything else f"{len(frozen)} of {len(held)}"
        summary = (
            f"{what} parameters of the optimizer are frozen ({listed(frozen)}): requires_grad is False, they get no "
            f"gradient."
        )
        level: Level = "error" if everything else "info"
        yield self.finding(
            view, frozen[0], level, summary, step=view.steps[0].number, nodes=frozen[1:], confidence=0.95
        )
