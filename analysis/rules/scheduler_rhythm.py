"""The rule ``scheduler-rhythm``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.curves import fallen
from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.history import Values
from stepscope.analysis.optimizers import settings
from stepscope.analysis.parameters import trainable
from stepscope.analysis.rates import begins_anew, climbs_to_the_end, passes_warm_up, rises_again
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View
from stepscope.store import Series


@dataclass(frozen=True)
class SchedulerRhythm(Rule):
    """A learning-rate schedule is stepped too often, or never.

    Symptom: the loss rises and falls with the rate; or the rate stays where the schedule begins.

    How it is measured: the recorded curves of the learning rates. A rate that swings smoothly between its peak and
    almost nothing, several times, is a cosine that runs past its end; one that jumps up again after a few steps
    restarts too often. A rate that never changes although a schedule was made for the optimizer (torch leaves
    ``initial_lr`` in its settings) was never stepped, or not yet: that is
    worth knowing only, unless the rate is still that of the first moment of a warm-up. A warm-up (``initial_lr``, or
    the ``max_lr`` of a cycle) that is climbed in stairs of many steps each, and has not got far, is stepped too seldom.

    Besides: a rate that falls smoothly to almost nothing and rises to the last step again (past the end of a cosine);
    one that climbs evenly past the rate it warms up to, to the last step; one that climbs evenly to the last step while
    the loss stays: its warm-up is longer than the training; and one that jumps up once, midway, and goes
    through its first values again: a schedule whose state was not loaded with the checkpoint.

    Causes: ``scheduler.step()`` in the loop over batches for a schedule whose length is in epochs, or nowhere.

    Remedy: step the schedule at the rhythm its length is given in.

    Attributes:
        low: the part of the peak that a swing reaches. Source: triangular cycles on purpose (Smith, 2017) keep a tenth
            or more, restarts jump up at once.
        swings: how many times down and up again.
        least: recorded steps below which nothing is said of a rate that does not change.
        warm: the part of the initial rate below which a warm-up is stuck.
        quick: restarts that come after fewer steps are no schedule. Source: warm restarts are published with periods of
            an epoch and more.
        fall: the part of the loss that must be gone, for a warm-up of the whole training to be meant. Source: of ours.
        stair: how many recorded steps a rate stays the same, in the mean, on stairs. Source: gradients are seldom
            accumulated over more than eight.
    """

    name = "scheduler-rhythm"
    causes = "scheduler.step() is called for every batch although its length is in epochs; or it is never called."
    remedy = "Step the schedule at the rhythm that its length is given in; call scheduler.step()."
    low: float = 0.01
    swings: int = 2
    least: int = 50
    warm: float = 0.1
    quick: float = 20.0
    stair: float = 8.0
    fall: float = 0.1

    def check(self, view: View) -> Iterable[Finding]:
        initial = [float(group["initial_lr"]) for group in settings(view) if _is_number(group.get("initial_lr"))]
        for group, name in view.trial.scalar_names:
            if group != "optimizer" or not name.split("[")[0].endswith("lr"):
                continue
            curve = view.trial.scalars(name, group=group)
            if self._swings(curve.values) >= self.swings:
                yield self._swinging(view, name, curve)
            elif initial and len(curve.values) >= 3 and np.ptp(curve.values) == 0:
                yield from self._standing(view, name, curve, max(initial))
            elif (period := self._period(curve)) < self.quick:
                yield self._restarting(view, name, curve, period)
            elif self._is_slow(curve.values, max(_peaks(view), default=0.0)):
                yield self._climbing(view, name, curve, max(_peaks(view)))
            elif climbs_to_the_end(curve.values, curve.steps) and fallen(view) < self.fall and not view.is_young:
                yield self._warming(view, name, curve)
            else:
                yield from self._astray(view, name, curve, min(initial, default=np.inf))

    def _astray(self, view: View, name: str, curve: Series, initial: float) -> Iterable[Finding]:
        """Courses that end, or begin, where they should not."""
        rates = curve.values
        of_swa = any("swa_lr" in group or "max_lr" in group for group in settings(view))
        first, last = f"{rates[0]:.3g}", f"{rates[-1]:.3g}"
        found: tuple[int | None, str, str]
        for found in (
            (
                None if of_swa else rises_again(rates),
                f"falls to almost nothing and rises again, to {last} at the last step: its schedule goes on past its "
                f"end (T_max of a cosine)",
                "Give the schedule the length of the whole training.",
            ),
            (
                None if of_swa else passes_warm_up(rates, initial),
                f"climbs evenly from {first} to {last} at the last step, past the {initial:.3g} that it warms up to: "
                f"the warm-up never ends",
                "Let the factor end at one: min(1.0, (step + 1) / warm_up).",
            ),
            (
                begins_anew(rates),
                f"jumps from the midst of its way back to {np.max(rates):.3g}, and goes through its first values "
                f"again: its schedule begins anew",
                "Save and load the state of the scheduler with the checkpoint.",
            ),
        ):
            place, how, remedy = found
            if place is not None:
                summary = f"The learning rate {name} {how}."
                yield self._at_parameters(view, "warning", summary, int(curve.steps[place]), 0.8, remedy)

    def _warming(self, view: View, name: str, curve: Series) -> Finding:
        summary = (
            f"The learning rate {name} climbs to the last step, from {curve.values[0]:.3g} to {curve.values[-1]:.3g}, "
            f"and the loss has not fallen: its warm-up is longer than the training."
        )
        remedy = "Make the warm-up a few hundredths of the training's steps, up to a tenth."
        return self._at_parameters(view, "warning", summary, int(curve.steps[0]), 0.8, remedy)

    def _swings(self, values: Values) -> int:
        """How many times the rate goes smoothly from almost nothing up to its peak again."""
        peak = float(np.max(values)) if len(values) else 0.0
        if not peak > 0:
            return 0
        count, bottom = 0, -1
        for index, value in enumerate(values.tolist()):
            if value < self.low * peak:
                bottom = index
            elif value > 0.9 * peak and bottom >= 0:
                count += index - bottom > 3 and bottom > 0
                bottom = -1
        return count - (0 if values[0] > 0.9 * peak else 1)

    def _swinging(self, view: View, name: str, curve: Series) -> Finding:
        lowest = int(np.argmax(curve.values < self.low * np.max(curve.values)))
        summary = (
            f"The learning rate {name} swings between {np.max(curve.values):.3g} and almost nothing, first at "
            f"step {curve.steps[lowest]}: its schedule is stepped past its end."
        )
        return self._at_parameters(view, "warning", summary, int(curve.steps[lowest]), 0.75)

    def _standing(self, view: View, name: str, curve: Series, initial: float) -> Iterable[Finding]:
        rate = float(curve.values[0])
        is_stuck = rate < self.warm * initial
        if not is_stuck and len(curve.values) < self.least:
            return
        level: Level = "warning" if is_stuck else "info"
        where = f", where its warm-up to {initial:.3g} begins" if is_stuck else ""
        summary = (
            f"The learning rate {name} stays at {rate:.3g}{where} in {len(curve.values)} recorded steps, although a "
            f"schedule was made for it: it is not stepped{'' if is_stuck else ', or not yet'}."
        )
        yield self._at_parameters(view, level, summary, int(curve.steps[0]), 0.8 if is_stuck else 0.5)

    def _period(self, curve: Series) -> float:
        """After how many steps a rate jumps up again, in the median; infinite if it hardly ever does."""
        before, lowest, after = curve.values[:-2], curve.values[1:-1], curve.values[2:]
        rises = np.flatnonzero((lowest < before) & (after > 1.2 * lowest)) + 2
        return float(np.median(np.diff(curve.steps[rises]))) if len(rises) > 4 else np.inf

    def _restarting(self, view: View, name: str, curve: Series, period: float) -> Finding:
        summary = (
            f"The learning rate {name} goes down and jumps up again every {period:.0f} steps, between "
            f"{np.min(curve.values):.3g} and {np.max(curve.values):.3g}: its schedule, whose length is in epochs, is "
            f"stepped for every batch."
        )
        return self._at_parameters(view, "warning", summary, int(curve.steps[0]), 0.75)

    def _is_slow(self, rates: Values, peak: float) -> bool:
        """Whether a rate climbs in long stairs, and was low nearly all the time."""
        rises, falls = np.diff(rates) > 0, np.diff(rates) < 0
        in_stairs = rises.sum() > 1 and rises.sum() * self.stair <= len(rates) and not falls.any()
        return bool(in_stairs and len(rates) >= self.least and np.median(rates) < self.warm * peak)

    def _climbing(self, view: View, name: str, curve: Series, peak: float) -> Finding:
        stairs = int((np.diff(curve.values) > 0).sum())
        summary = (
            f"The learning rate {name} climbs from {curve.values[0]:.3g} to {curve.values[-1]:.3g} only, of the "
            f"{peak:.3g} it warms up to, in {stairs} stairs of {len(curve.values) / (stairs + 1):.0f} recorded steps: "
            f"its schedule is stepped too seldom."
        )
        return self._at_parameters(view, "warning", summary, int(curve.steps[0]), 0.75)

    def _at_parameters(
        self, view: View, level: Level, summary: str, step: int, confidence: float, remedy: str = ""
    ) -> Finding:
        held = [parameter.node for parameter in trainable(view)]
        first = held[0] if held else ""
        return self.finding(
            view, first, level, summary, step=step, nodes=held[1:], confidence=confidence, remedy=remedy
        )


def _peaks(view: View) -> list[float]:
    """The rates that schedules lead to: torch leaves them in the settings of the optimizer."""
    known = [group.get("max_lr", group.get("initial_lr")) for group in settings(view)]
    return [float(rate) for rate in known if isinstance(rate, (int, float))]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float))
