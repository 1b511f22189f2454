"""The rule ``trained-twice``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding
from stepscope.analysis.optimizers import held_by, watched
from stepscope.analysis.parameters import Parameter, gather, in_sentence, listed, trainable
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class TrainedTwice(Rule):
    """Parameters that two optimizers hold: each undoes what the other one wants.

    Symptom: losses that work against each other; a generator that makes its critic blind, or steps twice as large.

    How it is measured: the table of the model's parameters says which of the watched optimizers hold each, of those
    that are there from the first recorded training step on.

    Causes: two optimizers made from ``model.parameters()`` of the whole, or a shared part that was given to both.

    Remedy: give each parameter to one optimizer; use parameter groups for different settings.

    Source: no threshold.
    """

    name = "trained-twice"
    about = "optimizer"
    causes = "Two optimizers made from the parameters of the whole model, or a shared part that was given to both."
    remedy = "Give each parameter to one optimizer; for other settings in one part, use parameter groups."

    def check(self, view: View) -> Iterable[Finding]:
        holders, at_first = held_by(view), set(watched(view))
        found: dict[tuple[str, ...], list[Parameter]] = {}
        for parameter in trainable(view) if view.training else ():
            names = holders.get(parameter.node, ())
            if len(set(names)) > 1 and at_first.issuperset(names):  # what came later has taken the place of another
                found.setdefault(tuple(dict.fromkeys(names)), []).append(parameter)
        for names, parameters in found.items():
            yield self._finding(view, names, parameters)

    def _finding(self, view: View, names: tuple[str, ...], parameters: list[Parameter]) -> Finding:
        nodes = [parameter.node for parameter in parameters]
        where = listed(gather(view, parameters))
        summary = f"{where}: {len(names)} optimizers, {' and '.join(names)}, hold {in_sentence(nodes)}."
        shown = [evidence(view.history(nodes[0], "update"), "norm", "how far it moves in a step")]
        return self.finding(view, nodes[0], "warning", summary, shown, step=view.began, nodes=nodes[1:], confidence=0.8)
