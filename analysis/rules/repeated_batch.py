"""The rule ``repeated-batch``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.history import Values
from stepscope.analysis.neurons import neurons_of
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_VARIED = 5
_ROUNDING = 1e-6
"""What sums in another order may differ by, and more."""


@dataclass(frozen=True)
class RepeatedBatch(Rule):
    """Every step gets the same batch.

    Symptom: the loss falls to zero quickly, and the net knows nothing but this batch.

    How it is measured: mean, standard deviation, smallest and largest value and norm of all inputs are the same number
    in all training steps, and at least one input varies over its elements. Training on all data at once, or on a single
    batch to see whether the net can learn it, looks the same; so this is no more than worth knowing.

    Batches that vary at first and are the same from a step on to the end, for at least a quarter of the steps, are a
    warning: nobody means that. Where batches come several times by turns, each is followed by another one; if there are
    but a ``few`` of them, that is worth knowing.

    Causes: ``next(iter(loader))`` in the loop, which starts the loader anew; a generator that is seeded in each step; a
    ``StopIteration`` that is caught and ignored, so that the last batch comes for ever.

    Remedy: iterate over the loader itself: ``for batch in loader``.

    Source: no threshold; equality to the last digit.

    Attributes:
        few, often: so many different batches, and how often each comes. Source: of ours; small data have more batches.
        least: fewer steps are not judged. Source: of ours; batches of a handful of steps may be equal by chance.
    """

    name = "repeated-batch"
    causes = "next(iter(loader)) in the loop starts the loader anew each time; or a seed is set in every step."
    remedy = "If it is not on purpose: iterate over the loader itself, and seed once before the loop."
    few: int = 4
    often: int = 8
    least: int = 10

    def check(self, view: View) -> Iterable[Finding]:
        used = view.flow.upstream(view.losses)
        places = [place for place in view.flow.of_type("input") if place in used]
        if places and all(self._is_same(view, place) for place in places):
            varying = [place for place in places if float(view.history(place.node, role=place.role).of("std")[0]) > 0]
            if varying:
                yield self._finding(view, varying[0])
        elif places and (count := self._few(view, places)):
            yield self._a_few(view, places, count)
        elif places and all(_is_reordered(view, place, self.least) for place in places) and _are_few(view, places):
            yield self._same_samples(view, places)
        elif places and (since := self._since(view, places)) is not None:
            yield self._from_then_on(view, places, since)

    def _few(self, view: View, places: list[Place]) -> int:
        """How many different batches there are, if they are few and come by turns, again and again; 0 if not."""
        values = _identities(view, places)
        if values is None or len(values) < self.often * self.few:
            return 0
        _, counts = np.unique(values, axis=0, return_counts=True)
        is_by_turns = np.count_nonzero((values[1:] != values[:-1]).any(axis=1)) > len(values) / 4
        return len(counts) if is_by_turns and 1 < len(counts) <= self.few and counts.min() >= self.often else 0

    def _a_few(self, view: View, places: list[Place], count: int) -> Finding:
        node, history = places[0].node, view.history(places[0].node, role=places[0].role)
        summary = (
            f"{node} holds one of the same {count} batches in all of {len(history)} training steps: identical data "
            f"are repeated, and the net sees no others."
        )
        return self.finding(
            view, node, "info", summary, [evidence(history, "norm", "the same few numbers again and again")],
            step=int(history.steps[0]), confidence=0.8, nodes=[place.node for place in places[1:]],
            causes="Workers that draw from copies of the same random numbers (numpy's, say) and begin anew each epoch.",
            remedy="Seed each worker by itself (worker_init_fn, torch.initial_seed()), or train with more data.",
        )  # fmt: skip

    def _since(self, view: View, places: list[Place]) -> int | None:
        """The step from which on all inputs are the same, after they have varied."""
        values = _identities(view, places)
        if values is None:
            return None
        changes = np.flatnonzero((values[1:] != values[:-1]).any(axis=1)) + 1
        if not len(changes):
            return None
        still = len(values) - int(changes[-1])
        stretches = np.diff(changes, prepend=0)
        is_odd = still >= max(self.least, len(values) / 4) and still > 4 * stretches.max() and len(changes) >= _VARIED
        steps = view.history(places[0].node, role=places[0].role).steps
        return int(steps[changes[-1]]) if is_odd else None

    def _same_samples(self, view: View, places: list[Place]) -> Finding:
        node = places[0].node
        history = view.history(node, role=places[0].role)
        samples = (view.shape(places[0], view.training[-1]) or (0,))[0]
        summary = (
            f"{node} holds the same {samples} samples in all of {len(history)} training steps, in another order: the "
            f"net sees no others."
        )
        shown = [evidence(history, "norm", "its norm, the same number in every step")]
        return self.finding(
            view, node, "info", summary, shown, step=int(history.steps[0]), confidence=0.8,
            nodes=[place.node for place in places[1:]],
            causes="A subset that was left from a first attempt, or a batch as large as all of the data.",
            remedy="Train with all of the data, in smaller batches, if there is more.",
        )  # fmt: skip

    def _from_then_on(self, view: View, places: list[Place], since: int) -> Finding:
        node = places[0].node
        history = view.history(node, role=places[0].role)
        summary = (
            f"{node} varies at first, and is the same in every step from step {since} on to step {history.steps[-1]}: "
            f"the same batch comes again and again."
        )
        shown = [evidence(history, "norm", f"the same number from step {since} on")]
        targets = [place.node for place in view.flow.of_type("target")]
        return self.finding(
            view, node, "warning", summary, shown, step=since, confidence=0.95,
            nodes=[*(place.node for place in places[1:]), *targets],
            causes="The loader, or stream, is at its end, and what it gave last is used again.",
            remedy="Begin the loader anew at the end of an epoch: for batch in loader.",
        )  # fmt: skip

    def _is_same(self, view: View, place: Place) -> bool:
        history = view.history(place.node, role=place.role)
        return len(history) >= self.least and history.is_constant and bool(np.isfinite(history.identity).all())

    def _finding(self, view: View, place: Place) -> Finding:
        history = view.history(place.node, role=place.role)
        summary = f"{place.node} is the same in all of {len(history)} training steps: they all get the same batch."
        shown = [evidence(history, "norm", "its norm, the same number in every step")]
        return self.finding(view, place.node, "info", summary, shown, step=int(history.steps[0]), confidence=0.9)


def _are_few(view: View, places: list[Place]) -> bool:
    """Whether kept samples are no more different ones than a batch has: the sums of one-hot rows are all the same."""
    for place in places:
        kept = [found.samples for step in view.training if (found := neurons_of(step, place)) is not None]
        different = {row.tobytes() for table in kept for row in table}
        if len(different) > (view.shape(place, view.training[-1]) or (0,))[0]:
            return False
    return True


def _identities(view: View, places: list[Place]) -> Values | None:
    """What tells the batches of all inputs apart, a row a step; None if some are not in all steps, or not finite."""
    histories = [view.history(place.node, role=place.role) for place in places]
    if any(not np.array_equal(history.steps, histories[0].steps) for history in histories):
        return None
    values: Values = np.concatenate([history.identity for history in histories], axis=1)
    return values if np.isfinite(values).all() else None


def _is_reordered(view: View, place: Place, least: int) -> bool:
    """Whether all steps have the same numbers, up to the rounding of sums in another order."""
    history = view.history(place.node, role=place.role)
    if len(history) < least or float(history.of("std")[0]) == 0 or not np.isfinite(history.identity).all():
        return False
    size, norms = float(history.of("abs_max")[0]), history.of("norm")
    exact = all(np.ptp(history.of(name)) == 0 for name in ("min", "max"))
    near = all(np.ptp(history.of(name)) <= _ROUNDING * size for name in ("mean", "std"))
    return exact and near and bool(np.ptp(norms) <= _ROUNDING * norms[0])
