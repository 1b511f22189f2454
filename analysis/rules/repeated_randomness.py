"""The rule ``repeated-randomness``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.lines import line_of_loss
from stepscope.analysis.loss_inputs import comparisons
from stepscope.analysis.neurons import neurons_of
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_STEPS = 10


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
        yield from self._same_noise(view)
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

    def _same_noise(self, view: View) -> Iterable[Finding]:
        """Inputs that differ from their targets by the very same numbers in each sample of each step."""
        for comparison in comparisons(view):
            target = comparison.target
            for place in view.flow.of_type("input") if target is not None else ():
                if place == target or target is None or not _is_one_offset(view, place, target):
                    continue
                summary = (
                    f"{place.node} differs from {target.node} by the same numbers in each sample of each step: if that "
                    f"is noise, all get the same noise, as if a seed were set for each sample."
                )
                history = view.history(place.node, role=place.role)
                yield self.finding(
                    view, place.node, "warning", summary, [evidence(history, "std", "its spread")],
                    step=view.began, nodes=[target.node], confidence=0.9,
                    causes="A generator that is seeded in __getitem__, or a noise that is drawn once.",
                    remedy="Seed once, before the loop; draw the noise of each sample anew.",
                )  # fmt: skip
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


def _is_one_offset(view: View, place: Place, target: Place) -> bool:
    """Whether input minus target is one row, not of one number only, for all kept samples, which differ."""
    if not view.training or view.shape(place, view.training[-1]) != view.shape(target, view.training[-1]):
        return False
    rows = []
    for step in view.training[:: max(1, len(view.training) // _STEPS)]:
        one, two = neurons_of(step, place), neurons_of(step, target)
        if one is None or two is None or one.samples.shape != two.samples.shape or one.samples.ndim != 2:
            return False
        rows.append((one.samples.astype(np.float64), two.samples.astype(np.float64)))
    given, wanted = (np.concatenate([pair[side] for pair in rows]) for side in (0, 1))
    noise = given - wanted
    size = float(np.abs(noise).mean())
    is_same = float(np.abs(noise - noise[0]).max()) < 1e-3 * size
    return is_same and float(np.ptp(noise[0])) > size and float(wanted.std(0).mean()) > 0.1 * size
