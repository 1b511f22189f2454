"""The rule ``parted-copies``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from stepscope.analysis.finding import Finding
from stepscope.analysis.parameters import Parameter, has_gradient, is_inside, trainable
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_MOST_PAIRS = 200


@dataclass(frozen=True)
class PartedCopies(Rule):
    """Two parts of a net that work beside each other began as copies, and each learns its own way.

    Symptom: replicas of a model give different answers; what is saved has seen a part of the data only.

    How it is measured: two modules with parameters of the same names and shapes, all of which have the same statistics
    (mean, std, extremes, norm), bit for bit, in the first recorded step, and which differ later. Both have gradients,
    and nothing that the one computes goes into the other: layers that were cloned to follow one another are meant to
    part. Two heads or experts may be, too, so it is worth knowing only.

    Causes: replicas, or parts of a layer that several processes hold, whose gradients nobody averages; an ensemble or
    a pair of critics made by ``copy.deepcopy``, whose members should have begun with weights of their own.

    Remedy: average the gradients of replicas (``DistributedDataParallel``, ``all_reduce``) before each update; build
    members of an ensemble one by one.

    Source: no threshold. Replicas that fall out of step are among the silent errors that TrainCheck (OSDI 2025) lists.
    """

    name = "parted-copies"
    causes = "Replicas whose gradients are not averaged, or members of an ensemble made by copying one of them."
    remedy = "Average the gradients of replicas before each update; build members of an ensemble one by one."

    def check(self, view: View) -> Iterable[Finding]:
        seen: list[tuple[str, str]] = []  # what lies in two modules that follow one another does, too
        for (one, first), (two, second) in _pairs(view):
            if any(is_inside(one, outer) and is_inside(two, other) for outer, other in seen):
                continue
            step = _parted(view, first, second)
            if step is not None:
                seen += [(one, two), (two, one)]
                if not _follow(view, one, first, two) and not _follow(view, two, second, one):
                    yield self._finding(view, one, two, first[0].node, second[0].node, step)

    def _finding(self, view: View, one: str, two: str, first: str, second: str, step: int) -> Finding:
        summary = (
            f"{one} and {two} begin with the same weights and drift apart from step {step} on, each with gradients of "
            f"its own: if they are replicas, nothing keeps them in sync; if not, they should not begin alike."
        )
        shown = [evidence(view.history(first), "norm", first), evidence(view.history(second), "norm", second)]
        return self.finding(view, one, "info", summary, shown, step=step, nodes=[two, first, second], confidence=0.6)


def _pairs(view: View) -> Iterator[tuple[tuple[str, list[Parameter]], tuple[str, list[Parameter]]]]:
    """Modules of one class with the same parameters, the outermost first; none of a pair is inside the other."""
    learning = [parameter for parameter in trainable(view) if has_gradient(view, parameter.node)]
    alike: dict[object, list[tuple[str, list[Parameter]]]] = {}
    for module in view.trial.network:
        own = [parameter for parameter in learning if is_inside(parameter.module, module.path)]
        if any(len(parameter.shape) > 1 for parameter in own):
            names = tuple((parameter.node[len(module.path) :], parameter.shape) for parameter in own)
            alike.setdefault((module.module_class, names), []).append((module.path, own))
    pairs = [pair for group in alike.values() for pair in combinations(group, 2)]
    yield from sorted(pairs, key=lambda pair: pair[0][0].count("."))[:_MOST_PAIRS]


def _parted(view: View, first: list[Parameter], second: list[Parameter]) -> int | None:
    """The first step in which two lists of parameters differ; None if they do not, or not in the first one already."""
    parted: list[int] = []
    varies = False
    for one, two in zip(first, second, strict=True):
        before, after = view.history(one.node), view.history(two.node)
        steps, i, j = np.intersect1d(before.steps, after.steps, return_indices=True)
        if len(steps) < 2 or not np.array_equal(before.identity[i[0]], after.identity[j[0]]):
            return None
        equal = np.all(before.identity[i] == after.identity[j], axis=1)
        varies = varies or float(before.of("std")[i[0]]) > 0
        if not equal.all():
            parted.append(int(steps[np.argmin(equal)]))
    return min(parted) if varies and parted else None


def _follow(view: View, one: str, parameters: list[Parameter], two: str) -> bool:
    """Whether something inside a second module is computed from the weights of a first."""
    start = [place for parameter in parameters for place in view.flow.of_node(parameter.node)]
    behind = view.flow.downstream(start)
    return any(is_inside(place.node, two) and not is_inside(place.node, one) for place in behind)
