"""The rule ``weights-reset``."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.neurons import neurons_of
from stepscope.analysis.parameters import is_inside, listed, trainable
from stepscope.analysis.robust import largest
from stepscope.analysis.rule import Rule
from stepscope.analysis.twins import copies
from stepscope.analysis.view import View, evidence

_SUSPICIOUS, _MOST = 1.2, 20
_LASTS = 5
"""Recorded steps for which a frozen weight is the same before it changes, and after."""


@dataclass(frozen=True)
class WeightsReset(Rule):
    """Weights jump by more than their optimizer moved them: something else writes to them.

    Symptom: the loss jumps back to where it started, maybe once an epoch, and falls again.

    How it is measured: between two recorded steps the norm of a weight can change by the updates in between at most.
    Steps count in which it changes by several times as many updates of the size that is seen on both sides, for at
    least half of the trained weights at once, or of a single weight by many times as much; or in which it is, bit for
    bit, what it was before it moved away. Where the norm alone leaves it open, the way of the kept elements is held
    against their updates. Or frozen weights change, once, and are the same for five recorded steps before and after.

    Causes: a model or its weights made anew inside the loop of epochs, an old checkpoint that is loaded again, weights
    that are copied from another net.

    Remedy: look for what runs at that step besides the optimizer: initialisation, loading, copying.

    Attributes:
        factor: times the largest update of both sides and the number of steps between them. Source: the triangle
            inequality gives 1; updates in between may have been larger than those that were recorded.
        share: of the trained weights.
        alone: times what was possible, for weights that are fewer. Source: a norm that is kept by hand (a longest
            length, a unit norm) takes back what the updates since added, which is once.
    """

    name = "weights-reset"
    causes = "The model is made or initialised anew in a loop, a checkpoint is loaded again, or weights are copied."
    remedy = "Look for what runs at that step besides the optimizer: initialisation, loading, copying."
    factor: float = 3.0
    share: float = 0.5
    alone: float = 20.0

    def check(self, view: View) -> Iterable[Finding]:
        weights = [p.node for p in trainable(view) if len(p.shape) > 1 and len(view.history(p.node, "update")) > 2]
        jumps: dict[int, dict[str, float]] = defaultdict(dict)
        for node in weights:
            for step in _returns(view, node):
                jumps[step][node] = self.factor
            for step, times in self._jumps(view, node):
                jumps[step][node] = times
        steps = sorted(step for step, nodes in jumps.items() if self._is_reset(nodes, len(weights)))
        if steps:
            first = jumps[steps[0]]
            yield self._finding(view, steps, sorted(first, key=weights.index))
        else:
            yield from self._overwritten(view)

    def _overwritten(self, view: View) -> Iterable[Finding]:
        """Frozen weights that are others from one step on; what follows a net that learns does so more often."""
        nodes = _frozen(view)
        steps = [_only_change(view, node) for node in nodes]
        first = next((step for step in steps if step is not None), None)
        changed = [node for node, step in zip(nodes, steps, strict=True) if step == first]
        if first is None or len(changed) < max(1, self.share * len(nodes)):
            return
        summary = (
            f"{listed(changed)} changed before step {first} although no optimizer trains them: something reset or "
            f"overwrote the frozen weights."
        )
        shown = [evidence(view.history(changed[0], training=False), "norm", f"its norm jumps at step {first}")]
        yield self.finding(
            view, changed[0], "warning", summary, shown, step=first, nodes=changed[1:], confidence=0.85,
            causes="A checkpoint that holds only what is trained was loaded into a new model, or one of another run.",
            remedy="Save and load all weights, the frozen ones too, and let load_state_dict check it: strict=True.",
        )  # fmt: skip

    def _is_reset(self, times: dict[str, float], weights: int) -> bool:
        return len(times) >= max(min(2, weights), self.share * weights) or max(times.values()) > self.alone

    def _jumps(self, view: View, node: str) -> list[tuple[int, float]]:
        """The steps at whose start a weight is not where its optimizer had left it, and how many times too far."""
        value, update = view.history(node), view.history(node, "update")
        if not np.array_equal(value.steps, update.steps):
            return []
        moved, norms = np.nan_to_num(update.of("norm"), nan=np.inf), value.of("norm")
        possible = np.maximum(moved[:-1], moved[1:]) * np.diff(value.steps)
        times = np.abs(np.diff(norms)) / np.where(possible > 0, possible, np.inf)
        near = np.flatnonzero((times > _SUSPICIOUS) & (times <= self.factor))[:_MOST]
        for at in near.tolist():
            times[at] = max(times[at], _way(view, node, value.steps[at : at + 2].tolist(), float(possible[at])))
        is_farthest = times * possible > largest(update.of("norm"))  # what it does at times, it may do in between
        return [
            (int(value.steps[at + 1]), float(times[at])) for at in np.flatnonzero((times > self.factor) & is_farthest)
        ]

    def _finding(self, view: View, steps: list[int], nodes: list[str]) -> Finding:
        first = steps[0]
        more = f"; so it is at {len(steps)} steps in all" if len(steps) > 1 else ""
        summary = (
            f"{listed(nodes)} changed before step {first} by far more than the optimizer's updates: something reset or "
            f"overwrote them{more}."
        )
        shown = [evidence(view.history(nodes[0]), "norm", f"its norm jumps at step {first}")]
        return self.finding(view, nodes[0], "warning", summary, shown, step=first, nodes=nodes[1:], confidence=0.8)


def _frozen(view: View) -> list[str]:
    """The frozen weights, but those of copies that follow a net."""
    copied = [copy.path for copy in copies(view)]
    return [
        info.names[0]
        for module in view.trial.network
        for info in module.parameters
        if not (info.trainable or info.is_buffer or info.optimizers) and info.recorded and len(info.shape) > 1
        and not any(is_inside(module.path, path) for path in copied)
    ]  # fmt: skip


def _only_change(view: View, node: str) -> int | None:
    """The step before which a weight changed, if it did once and stayed for a while before and after."""
    values = view.history(node, training=False)
    changes = np.flatnonzero(values.is_changed) + 1
    if len(changes) != 1 or not _LASTS <= changes[0] <= len(values) - _LASTS:
        return None
    return int(values.steps[changes[0]])


def _way(view: View, node: str, numbers: list[int], possible: float) -> float:
    """How many times what was possible a weight's kept elements moved between two recorded steps, for their part."""
    steps = {step.number: step for step in view.training}
    place = Place(node, view.nodes[node].roles[-1])
    one, two = (neurons_of(steps[number], place) for number in numbers)
    if one is None or two is None or one.samples.shape != two.samples.shape or not possible > 0:
        return 0.0
    part = math.sqrt(one.samples.size / one.total)
    return float(np.linalg.norm(two.samples - one.samples)) / (part * possible)


def _returns(view: View, node: str) -> list[int]:
    """The steps at whose start a weight is again what it was in an earlier step, and was not in between."""
    history = view.history(node)
    norms = history.of("norm")
    seen: dict[bytes, int] = {}
    found = []
    for index, values in enumerate(history.identity):
        before = seen.get(values.tobytes())
        if before is not None and np.ptp(norms[before : index + 1]) > 1e-4 * norms[index]:
            found.append(int(history.steps[index]))
        seen[values.tobytes()] = index
    return found
