"""The rule ``duplicate-samples``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.neurons import neurons_of, tensor_of
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence
from stepscope.store import Step

_DISTINCT = 8
_PLACES, _MOSTLY = 64, 0.95
"""Of a mask or a drawing: places that it must have, and the share of them that one number may fill."""


@dataclass(frozen=True)
class DuplicateSamples(Rule):
    """Batches that hold the same sample several times.

    Symptom: the loss falls faster than it should and generalises worse; the effective batch is smaller.

    How it is measured: of the kept samples of a batch (five by default), some have exactly the same input, in most of
    twenty training steps over the whole run. Only floating inputs with several different numbers each are judged: words
    and small tables repeat by chance. Copies with noise of their own are worth knowing: the same two positions of the
    batch hold samples that are much nearer to each other than others, in most of the steps. So are samples of steps
    that only evaluate, if they are among those of the training; masks and drawings in two colours count there, too.

    Causes: a loader that repeats samples, indices drawn with replacement from few samples, several workers that start
    from the same random state, the same data set listed twice.

    Remedy: look at the indices that a batch is made of; seed the workers differently.

    Attributes:
        share: of the steps. Source: of ours; accidents do not repeat themselves in most batches.
        near: the distance of two samples, as a part of the median of all pairs, that makes them alike.
    """

    name = "duplicate-samples"
    causes = "A loader or sampler that repeats samples, or workers that start from the same random state."
    remedy = "Look at the indices that a batch is made of; sample without replacement; seed the workers differently."
    share: float = 0.8
    near: float = 0.6

    def check(self, view: View) -> Iterable[Finding]:
        steps = view.training[:: max(1, len(view.training) // 20)]
        used = view.flow.upstream(view.losses)
        for place in {place.node: place for place in view.flow.of_type("input")}.values():
            pairs = [pair for step in steps if place in used for pair in [_equal_pair(step, place)] if pair is not None]
            equal = [pair for pair in pairs if pair[0] != pair[1]]
            if len(pairs) >= 3 and len(equal) >= self.share * len(pairs):
                yield self._finding(view, place, equal[0], len(equal), len(pairs))
            if place in used and not view.history(place.node, training=False, role=place.role).is_constant:
                yield from self._seen_before(view, place)  # all of a graph in each step: its rows were never split
            if place in used and not equal and not view.history(place.node, role=place.role).is_constant:
                yield from self._alike(view, steps, place)

    def _seen_before(self, view: View, place: Place) -> Iterable[Finding]:
        """Samples of evaluating steps that are among those of the training."""
        kinds = view.training_kinds
        others = [row for step in view.steps if step.kind not in kinds for row in _rows(step, place)]
        trained = {row for step in view.training for row in _rows(step, place)} if len(others) >= 10 else set()
        common = sum(row in trained for row in others)
        if common >= 3:
            summary = (
                f"The net is evaluated on samples of the training data: {common} of {len(others)} kept samples of "
                f"{place.node} are also in training batches: a leak, unless meant."
            )
            history = view.history(place.node, role=place.role)
            yield self.finding(
                view, place.node, "info", summary, [evidence(history, "mean", "in training")], confidence=0.7,
                causes="The same data set for both, a split after copies were made, or by row instead of person.",
                remedy="Split the data before anything else, by what must not be in both parts.",
            )  # fmt: skip

    def _alike(self, view: View, steps: list[Step], place: Place) -> Iterable[Finding]:
        """Samples at the same two positions of each batch that are much nearer to each other than all others."""
        nearest = [pair for step in steps for pair in [_nearest_pair(step, place, self.near)] if pair is not None]
        if len(nearest) < 10:
            return
        pair, count = Counter(nearest).most_common(1)[0]
        if pair != (0, 0) and count >= self.share * len(nearest):
            summary = (
                f"Batches seem to hold the same sample several times in {place.node}: samples {pair[0]} and {pair[1]} "
                f"are nearer to each other than others in {count} of {len(nearest)} batches (duplicates, with noise?)."
            )
            history = view.history(place.node, role=place.role)
            shown = [evidence(history, "std", "its spread over all elements")]
            yield self.finding(view, place.node, "info", summary, shown, step=int(history.steps[0]), confidence=0.6)

    def _finding(self, view: View, place: Place, pair: tuple[int, int], count: int, of: int) -> Finding:
        history = view.history(place.node, role=place.role)
        summary = (
            f"Batches hold the same {place.node} several times: samples {pair[0]} and {pair[1]} are equal, and so are "
            f"some in {count} of {of} batches."
        )
        shown = [evidence(history, "std", "its spread over all elements")]
        return self.finding(view, place.node, "warning", summary, shown, step=int(history.steps[0]), confidence=0.8)


def _rows(step: Step, place: Place) -> Iterable[bytes]:
    """The kept samples of an input of numbers, to compare."""
    tensor, kept = tensor_of(step, place), neurons_of(step, place)
    if tensor is None or kept is None or tensor.info.batch_dim is None or "float" not in tensor.info.dtype:
        return ()
    return [row.tobytes() for row in kept.samples if len(np.unique(row)) >= _DISTINCT or _is_drawing(row)]


def _is_drawing(row: np.ndarray) -> bool:
    """Whether a sample has few numbers, but many places, and none of the numbers is nearly everywhere."""
    _, counts = np.unique(row, return_counts=True)
    return len(row) >= _PLACES and len(counts) > 1 and int(counts.max()) <= _MOSTLY * len(row)


def _nearest_pair(step: Step, place: Place, near: float) -> tuple[int, int] | None:
    """The two kept samples that are nearest to each other, if they are near; else (0, 0)."""
    tensor, kept = tensor_of(step, place), neurons_of(step, place)
    if tensor is None or kept is None or tensor.info.batch_dim is None or "float" not in tensor.info.dtype:
        return None
    rows = kept.samples.astype(np.float64)
    if len(rows) < 4 or len(rows) != len(step.samples) or any(len(np.unique(row)) < _DISTINCT for row in rows):
        return None
    distances = {
        (one, two): float(np.linalg.norm(rows[one] - rows[two])) for one, two in combinations(range(len(rows)), 2)
    }
    pair = min(distances, key=distances.__getitem__)
    usual = float(np.median(list(distances.values())))
    return (step.samples[pair[0]], step.samples[pair[1]]) if distances[pair] < near * usual else (0, 0)


def _equal_pair(step: Step, place: Place) -> tuple[int, int] | None:
    """Two kept samples with the same input; (0, 0) if all differ; None if it cannot be judged."""
    tensor, kept = tensor_of(step, place), neurons_of(step, place)
    if tensor is None or kept is None or tensor.info.batch_dim is None or "float" not in tensor.info.dtype:
        return None
    rows = kept.samples
    if len(rows) < 2 or any(len(np.unique(row)) < _DISTINCT for row in rows):
        return None
    for one in range(len(rows)):
        for two in range(one):
            if np.array_equal(rows[one], rows[two]):
                return step.samples[two], step.samples[one]
    return 0, 0
