"""The rule ``settings-change``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from stepscope.analysis.finding import Finding
from stepscope.analysis.parameters import trainable
from stepscope.analysis.rule import Rule
from stepscope.analysis.turned import turned_curves
from stepscope.analysis.view import View, evidence
from stepscope.store import Step

_IGNORED = frozenset(["initial_lr", "swa_lr", "max_lr", "min_lr", "base_momentum", "max_momentum"])
_DELAY = 2


@dataclass(frozen=True)
class SettingsChange(Rule):
    """The loss jumps up for good at the very step at which the optimizer has other settings.

    Symptom: all was well until one step, and a setting of the optimizer is another one from there on.

    How it is measured: the settings of all parameter groups three recorded steps before a lasting jump of the loss (see
    ``loss-jump``), and in the first one after it. Of the learning rate only a rise counts, beyond a factor that
    schedules do not take in one step.

    Causes: a schedule with a wrong milestone or factor, settings of another run loaded with a checkpoint, a warm-up
    that begins again at the full rate.

    Remedy: look at what sets it: the schedule, or the checkpoint that was loaded.

    Attributes:
        rise: of the learning rate in these steps. Source: ours; a one-cycle schedule of a hundred steps rises by less
            than that, but for its first ten.
    """

    name = "settings-change"
    about = "optimizer"
    causes = "A schedule with a wrong milestone or factor, or the settings of another run loaded with a checkpoint."
    remedy = "Look at what sets it at that step: the schedule, or the checkpoint that was loaded."
    rise: float = 2.0

    def check(self, view: View) -> Iterable[Finding]:
        for curve, turn in turned_curves(view):
            step = int(curve.steps[turn.index])
            changed = self._changed(view, step)
            if changed:
                held = [parameter.node for parameter in trainable(view)]
                node = held[0] if held else curve.place.node
                summary = (
                    f"The optimizer's {', '.join(changed)} at step {step}, when {curve.place.node} jumps from "
                    f"{turn.before:.3g} to {turn.after:.3g} for good."
                )
                shown = [evidence(curve.history, "mean", "the loss")]
                yield self.finding(view, node, "warning", summary, shown, step=step, nodes=held[1:], confidence=0.9)

    def _changed(self, view: View, step: int) -> list[str]:
        """What is different from this step on: ``lr changes from 0.001 to 0.1``."""
        # A setting changes the weights first, and the loss at the next step.
        before = [one for one in view.training if one.number < step][:-_DELAY]
        after = [one for one in view.training if one.number >= step]
        if not before or not after:
            return []
        there, here = _settings(before[-1]), _settings(after[0])
        return list(
            dict.fromkeys(
                f"{key[-1]} changes from {there[key]} to {value}"
                for key, value in here.items()
                if key in there and there[key] != value and self._counts(key[-1], there[key], value)
            )
        )

    def _counts(self, name: str, before: Any, after: Any) -> bool:
        return name != "lr" or (isinstance(after, (int, float)) and after > self.rise * before)


def _settings(step: Step) -> dict[tuple[str, int, str], Any]:
    """All settings of a step by optimizer, group and name."""
    optimizers = step.facts.get("optimizers", {})
    if not isinstance(optimizers, Mapping):
        return {}
    return {
        (name, index, key): value
        for name, groups in optimizers.items()
        for index, group in enumerate(groups)
        for key, value in group.items()
        if key not in _IGNORED and not isinstance(value, (list, dict))
    }
