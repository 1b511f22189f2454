"""The rule ``data-shift``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.curves import Curve, loss_curves
from stepscope.analysis.finding import Finding
from stepscope.analysis.history import History, Values
from stepscope.analysis.robust import NORMAL, deviation
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_WINDOW, _HARDLY = 8, 0.02
_FEWEST, _BEYOND = 4, 5


@dataclass(frozen=True)
class DataShift(Rule):
    """Inputs or targets have another scale from one step on, and the loss suffers.

    Symptom: the loss jumps in the midst of the training, and may take long to come back.

    How it is measured: mean and standard deviation of each input and target over the training steps; the medians of
    eight steps before and after a point. The standard deviation must become ``scale`` times as large or small, or the
    mean move by so many standard deviations, far beyond what both vary by; and the loss of the next steps be above all
    of the eight before, by as much. What becomes ``alone`` times as large or small for good is told whatever the loss
    does: a normalisation may hide it.

    Or the means of the last four to eight steps all lie far beyond those of every step before (by five deviations), and
    the loss suffers: outliers that come together at the end of a file that is not shuffled.

    Or the share of numbers that are exactly zero goes up by ``holes`` from one step on, where hardly any was before,
    and the loss suffers: gaps that were filled with zeros.

    Causes: a file in the order of its rows, not shuffled; another file, another normalisation (raw bytes instead of
    parts of one), another transformation from that epoch on.

    Remedy: look at the batch of that step, and at what the loader does differently from there on.

    Attributes:
        scale: times the usual. Source: standardised data of healthy runs stay within a factor of two.
        deviations: times the median absolute deviation (1.4826 MAD) of the eight steps on both sides.
        alone: as ``scale``, between the medians of all steps before and after. Source: of ours; bytes instead of parts
            of one are 255 times as large.
        holes: the share of numbers that become zero. Source: of ours; continuous data hit zero by chance never.
    """

    name = "data-shift"
    causes = "A file that is not shuffled; another file, normalisation or transformation of the data from that step on."
    remedy = "Look at the batch of that step, and at what the loader does differently from there on."
    scale: float = 3.0
    deviations: float = 10.0
    alone: float = 10.0
    holes: float = 0.15

    def check(self, view: View) -> Iterable[Finding]:
        curves = list(loss_curves(view))
        for name, node in view.nodes.items():
            if node.type not in ("input", "target") or len(curves) != 1:
                continue
            history = view.history(name)
            place = self._shift(history)
            hole = self._hole(history)
            if hole is not None and self._suffers(curves[0], int(history.steps[hole])):
                yield self._filled(view, history, hole)
                continue
            if place is None:
                last = self._at_the_end(history)
                if last is not None and self._suffers(curves[0], int(history.steps[last])):
                    yield self._finding(view, history, last, "the loss jumps")
                continue
            if self._suffers(curves[0], int(history.steps[place])):
                yield self._finding(view, history, place, "the loss jumps")
            elif self._stays(history, place):
                yield self._finding(view, history, place, "so it stays")

    def _hole(self, history: History) -> int | None:
        """The position of the first step with zeros where there were none."""
        zero = history.of("zero_fraction")
        if len(history) < 3 * _WINDOW:
            return None
        before, after, _ = _levels(zero)
        found = np.flatnonzero((before < _HARDLY) & (after > self.holes))
        if not len(found):
            return None
        some = np.flatnonzero(zero[found[0] :] > self.holes / 2)
        return int(found[0] + some[0])

    def _filled(self, view: View, history: History, place: int) -> Finding:
        step, zero = int(history.steps[place]), float(np.median(history.of("zero_fraction")[place : place + _WINDOW]))
        what = "inputs" if view.nodes[history.node].type == "input" else "targets"
        summary = (
            f"The {what} change at step {step}: {zero:.0%} of {history.node} are exactly zero from there on, hardly "
            f"any before, and the loss jumps: are these gaps that were filled with zeros?"
        )
        shown = [evidence(history, "zero_fraction", f"zeros in {history.node} from step {step} on")]
        return self.finding(
            view, history.node, "warning", summary, shown, step=step, confidence=0.85,
            causes="Missing numbers that were filled with zeros.", remedy="Leave out, or mask, what is missing.",
        )  # fmt: skip

    def _shift(self, history: History) -> int | None:
        """The position of the first step that is as different as that from those before it."""
        mean, std = history.of("mean"), history.of("std")
        if len(history) < 3 * _WINDOW or not (np.isfinite(mean).all() and np.isfinite(std).all()):
            return None
        before, after, spread = _levels(std)
        ratio = np.maximum(after, 1e-12) / np.maximum(before, 1e-12)
        scaled = ((ratio > self.scale) | (ratio < 1 / self.scale)) & (np.abs(after - before) > self.deviations * spread)
        usual = np.maximum(before, 1e-12)
        before, after, spread = _levels(mean)
        moved = (np.abs(after - before) > self.scale * usual) & (np.abs(after - before) > self.deviations * spread)
        found = np.flatnonzero(scaled | moved)
        if not len(found):
            return None
        first = int(found[0])  # windows may reach over the edge by up to a half
        inside = slice(first, first + 2 * _WINDOW)
        jumps = np.abs(np.diff(std[inside])) + np.abs(np.diff(mean[inside]))
        return first + 1 + int(np.argmax(jumps))

    def _at_the_end(self, history: History) -> int | None:
        """The position from which on the last few means all lie far beyond every one before: a burst of outliers."""
        mean = history.of("mean")
        if len(mean) < 3 * _WINDOW or not np.isfinite(mean).all():
            return None
        for count in range(_WINDOW, _FEWEST - 1, -1):
            before, after = mean[:-count], mean[-count:]
            room = _BEYOND * deviation(before)
            if room > 0 and (after.min() > before.max() + room or after.max() < before.min() - room):
                return len(mean) - count
        return None

    def _stays(self, history: History, place: int) -> bool:
        """Whether it is far from what it was up to the end."""
        mean, std = history.of("mean"), history.of("std")
        (mean_before, mean_after), (before, after) = (
            (float(np.median(values[:place])), float(np.median(values[place:]))) for values in (mean, std)
        )
        if not before > 0:
            return False  # a mask of which nothing was needed so far, say
        ratio = max(after, 1e-12) / before
        return not 1 / self.alone < ratio < self.alone or abs(mean_after - mean_before) > self.alone * before

    def _suffers(self, curve: Curve, step: int) -> bool:
        place = int(np.searchsorted(curve.steps, step))
        before, after = curve.values[max(0, place - _WINDOW) : place], curve.values[place : place + _WINDOW // 2]
        if len(before) < _WINDOW or not len(after):
            return False
        limit = max(float(before.max()), float(np.median(before)) + self.deviations * deviation(before))
        return float(np.median(after)) > limit

    def _finding(self, view: View, history: History, place: int, then: str) -> Finding:
        step = int(history.steps[place])
        what = "inputs" if view.nodes[history.node].type == "input" else "targets"
        mean, std = history.of("mean"), history.of("std")
        sides = (slice(max(0, place - _WINDOW), place), slice(place, place + _WINDOW))
        (mean_before, std_before), (mean_after, std_after) = (
            (float(np.median(mean[side])), float(np.median(std[side]))) for side in sides
        )
        summary = (
            f"The {what} change at step {step}: {history.node} has a mean of {mean_after:.3g} and a standard deviation "
            f"of {std_after:.3g} from there on, {mean_before:.3g} and {std_before:.3g} before; {then}."
        )
        shown = [evidence(history, "std", f"{std_before:.3g} to {std_after:.3g}")]
        return self.finding(view, history.node, "warning", summary, shown, step=step, confidence=0.85)


def _levels(values: Values) -> tuple[Values, Values, Values]:
    """For each point that has enough neighbours: the medians before and after it, and how far both sides spread."""
    windows = np.lib.stride_tricks.sliding_window_view(values, _WINDOW)
    level = np.median(windows, axis=1)
    spread = NORMAL * np.median(np.abs(windows - level[:, None]), axis=1)
    return level[:-_WINDOW], level[_WINDOW:], np.maximum(spread[:-_WINDOW], spread[_WINDOW:])
