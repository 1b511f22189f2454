"""The rule ``repeated-randomness``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding
from stepscope.analysis.lines import line_of_loss
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class RepeatedRandomness(Rule):
    """The random numbers of every step are the same: noise, masks and draws that should vary never do.

    Symptom: a model that is trained with noise learns this noise alone; dropout drops the same units for ever; shuffled
    epochs have one order.

    How it is measured: the recorder notes where torch's random generators are when a step begins, and when it ends. In
    (almost) all training steps something is drawn from them (they are elsewhere at the end, or a call drew and they are
    not); and they begin, or end, at the very same place.

    Causes: ``torch.manual_seed`` in the training loop, or in a function that it calls, for the sake of repeatable runs.

    Remedy: set the seed once, before the loop; give what has to be repeatable a generator of its own.

    Attributes:
        share: of the steps. Source: states of 5,000 bytes do not come back by chance.
        least: steps below which nothing is said.
    """

    name = "repeated-randomness"
    causes = "The seed is set in every step (torch.manual_seed), or the state of the generator is restored."
    remedy = "Set the seed once, before the loop; give what has to be repeatable a torch.Generator of its own."
    share: float = 0.9
    least: int = 8

    def check(self, view: View) -> Iterable[Finding]:
        known = [step.facts.get("random") for step in view.training]
        states = [state for state in known if isinstance(state, (list, tuple)) and len(state) == 3]
        drawing = [state for state in states if state[0] != state[1] or state[2]]
        if len(states) < self.least or len(drawing) < self.share * len(states):
            return
        for side, when in ((0, "begin"), (1, "end")):
            most = max(Counter(state[side] for state in drawing).values())
            if most >= self.share * len(states):
                yield self._finding(view, most, when)
                return

    def _finding(self, view: View, count: int, when: str) -> Finding:
        loss = view.objectives[0].node if view.objectives else ""
        summary = (
            f"{count} of {len(view.training)} training steps {when} at the same place of torch's random numbers, and "
            f"draw some: all of them get the same random numbers (noise, masks), as if a seed were set in each."
        )
        shown = [evidence(view.history(loss), "mean", "drawn from the same numbers")] if loss else []
        nodes = [place.node for place in view.flow.of_type("target", "input")]
        return self.finding(
            view, loss, "warning", summary, shown, step=view.began, nodes=list(dict.fromkeys(nodes)),
            confidence=0.95, source=line_of_loss(view),
        )  # fmt: skip
