"""The rule ``optimizer-settings``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from stepscope.analysis.curves import fallen
from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.optimizers import settings
from stepscope.analysis.parameters import learning
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class OptimizerSettings(Rule):
    """Settings of the optimizer that hardly anybody means: betas the wrong way round, momentum of almost 1, ascent.

    Symptom: the loss swings, rises, or settles late, though the learning rate looks fine.

    How it is measured: from the recorded settings. Adam's ``beta1`` above its ``beta2`` averages gradients over more
    steps than their squares. A momentum of ``m`` makes a steady step ``1 / (1 - m)`` times as large as the learning
    rate says, and takes as many steps to turn round. ``maximize=True`` climbs. All are worth knowing; a loss that did
    not fall well makes them a warning.

    Causes: values in the wrong order or of another optimizer; a sign that is turned twice.

    Remedy: ``betas=(0.9, 0.999)``; a momentum of 0.9, or a learning rate that is smaller by as much; a loss to be
    minimised.

    Attributes:
        momentum: from here on it counts. Source: 0.9 is usual, 0.99 is the highest that is published often.
        slowest: from above here on Adam's beta1 does. Source: 0.9 and 0.95 are usual, 0.99 is seen now and then.
        apart: so many times the smallest learning rate of a group is the largest. Source: layer-wise decay by 0.75 over
            24 layers, as for BEiT, comes to 1e3.
        fall: the part of the first loss that should be gone.
    """

    name = "optimizer-settings"
    about = "optimizer"
    causes = "Values in the wrong order or taken over from another optimizer; a sign that is turned twice."
    remedy = "Use betas of (0.9, 0.999), a momentum of 0.9 or a smaller learning rate, and a loss to be minimised."
    momentum: float = 0.985
    slowest: float = 0.99
    apart: float = 1e4
    fall: float = 0.1

    def check(self, view: View) -> Iterable[Finding]:
        nodes = learning(view)
        odd = [text for group in settings(view) for text in self._odd(group)] + list(self._apart(view))
        said = dict.fromkeys(odd if nodes else ())
        if said:
            level: Level = "warning" if fallen(view) < self.fall else "info"
            shown = [evidence(view.history(nodes[0], "update"), "norm", "how far it moves in a step")]
            yield self.finding(
                view, nodes[0], level, "The optimizer has odd settings: " + "; ".join(said) + ".", shown,
                step=view.began, nodes=nodes[1:], confidence=0.7,
            )  # fmt: skip

    def _apart(self, view: View) -> Iterable[str]:
        rates = [
            group["lr"] for group in settings(view) if isinstance(group.get("lr"), (int, float)) and group["lr"] > 0
        ]
        if rates and max(rates) > self.apart * min(rates):
            yield f"the learning rates of its groups lie between {min(rates):g} and {max(rates):g}"

    def _odd(self, group: dict[str, Any]) -> Iterable[str]:
        betas, momentum = group.get("betas"), group.get("momentum")
        if isinstance(betas, (list, tuple)) and len(betas) == 2 and betas[0] > betas[1]:
            yield f"its betas ({betas[0]:g}, {betas[1]:g}) seem to be swapped"
        elif isinstance(betas, (list, tuple)) and betas and betas[0] > self.slowest:
            yield f"a beta1 of {betas[0]:g} averages gradients over the last {1 / (1 - betas[0]):.0f} steps"
        if isinstance(momentum, (int, float)) and self.momentum <= momentum < 1 and "betas" not in group:
            yield f"a momentum of {momentum:g} adds up to steps {1 / (1 - momentum):.0f} times the learning rate"
        if group.get("maximize") is True:
            yield "it climbs the loss (maximize=True)"
