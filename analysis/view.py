"""A trial as the rules look at it: histories of tensors, the flow of data, its losses; each is read once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np

from stepscope.analysis.finding import Evidence
from stepscope.analysis.flow import Flow, Place
from stepscope.analysis.history import History
from stepscope.analysis.readings import Readings, choose_steps, read_steps
from stepscope.analysis.section import Recording
from stepscope.store import Step
from stepscope.store.nodes import Node
from stepscope.store.records import BATCH_AGGREGATES, SAMPLE_STATISTICS, STATISTICS, Graph, ModuleInfo

YOUNG = 50
"""The steps before which nobody judges what a run has learned. Source: of ours; most losses fall within as many."""
_Key = tuple[str, str, str | None, int | None, bool]


class View:
    """What all rules share while one trial is diagnosed.

    Attributes:
        trial: the recording, or a section of one.
        nodes: all nodes by name, in data-flow order.
        readings: the statistics of the steps that are looked at.
    """

    def __init__(self, trial: Recording) -> None:
        self.trial = trial
        self.nodes: dict[str, Node] = {node.name: node for node in trial.nodes}
        self.position = {name: index for index, name in enumerate(self.nodes)}
        self.readings: list[Readings] = read_steps(trial, choose_steps(trial))
        self._histories: dict[_Key, History] = {}

    @cached_property
    def steps(self) -> list[Step]:
        """The steps that are looked at, in order."""
        return sorted((step for part in self.readings for step in part.steps), key=lambda step: step.number)

    @cached_property
    def training(self) -> list[Step]:
        """Those of them in which gradients were computed or parameters updated, in order.

        Without those whose loss or weights are not finite: nothing more can be learned from their numbers.
        """
        steps = (step for part in self.readings if part.trains for step in part.steps)
        return sorted((step for step in steps if step.number not in self.broken), key=lambda step: step.number)

    @cached_property
    def began(self) -> int:
        """The number of the first training step; of the first one that is looked at if none is whole and trains."""
        return next((step.number for step in (*self.training, *self.steps)), 0)

    @cached_property
    def broken(self) -> frozenset[int]:
        """The numbers of the steps whose loss or weights are not finite."""
        return frozenset(number for part in self.readings for number in part.broken.tolist())

    @cached_property
    def training_kinds(self) -> frozenset[str]:
        """The kinds of the steps that train."""
        return frozenset(step.kind for step in self.training)

    @cached_property
    def is_young(self) -> bool:
        """Whether the training has hardly begun: what it has not learned yet says nothing."""
        return not self.training or self.training[-1].number - self.training[0].number < YOUNG - 1

    @cached_property
    def flow(self) -> Flow:
        """The joined graph of the training steps; of all steps if none trains."""
        return Flow(different_graphs(self.training or self.steps))

    @cached_property
    def all_flow(self) -> Flow:
        """The joined graph of all steps, those that only evaluate included."""
        return Flow(different_graphs(self.steps))

    @cached_property
    def modules(self) -> dict[str, ModuleInfo]:
        """The modules of the watched models by their paths."""
        return {module.path: module for module in self.trial.network}

    @cached_property
    def losses(self) -> list[Place]:
        """The losses of the training steps, and the terms they consist of."""
        return self.flow.of_type("loss")

    @cached_property
    def objectives(self) -> list[Place]:
        """The losses that are no terms of others."""
        ends = [place for place in self.losses if self.flow.downstream([place]).isdisjoint(set(self.losses) - {place})]
        return ends or self.losses

    def history(
        self,
        node: str,
        quantity: str = "value",
        *,
        role: str | None = None,
        iteration: int | None = None,
        training: bool = True,
    ) -> History:
        """A tensor over the steps that train (or over all); of its last role and iteration unless given."""
        key = (node, quantity, role, iteration, training)
        if key not in self._histories:
            self._histories[key] = self._read(*key)
        return self._histories[key]

    def shape(self, place: Place, step: Step) -> tuple[int, ...] | None:
        """The shape of a place's value in a step; None if it is not there."""
        index = step.layout.row(place.node, "value", place.role, None)
        if index is None:
            return None
        return step.find(place.node, role=place.role).shape

    def _read(self, node: str, quantity: str, role: str | None, iteration: int | None, training: bool) -> History:
        numbers, statistics, aggregates = [], [], []
        left_out = self.broken if training else frozenset()
        for part in self.readings:
            row = part.layout.row(node, quantity, role, iteration) if part.trains or not training else None
            if row is not None:
                kept = ~np.isin(part.numbers, sorted(left_out))
                numbers.append(part.numbers[kept])
                statistics.append(part.statistics[kept, row])
                aggregates.append(part.aggregates[kept, row])
        if not numbers:
            none = np.empty((0, len(STATISTICS)))
            batch = np.empty((0, len(SAMPLE_STATISTICS), len(BATCH_AGGREGATES)), np.float32)
            return History(node, role, iteration, quantity, np.empty(0, np.int64), none, batch)
        steps = np.concatenate(numbers)
        order = np.argsort(steps, kind="stable")
        return History(
            node, role, iteration, quantity, steps[order],
            np.concatenate(statistics)[order], np.concatenate(aggregates)[order],
        )  # fmt: skip


def different_graphs(steps: Sequence[Step]) -> Iterable[Graph]:
    """The different graphs of some steps."""
    seen: dict[bytes, Graph] = {}
    for step in steps:
        for iteration in step.iterations:
            digest = step.graph_digest(iteration)
            if digest not in seen:
                seen[digest] = step.graph(iteration)
    return seen.values()


def evidence(history: History, statistic: str, text: str, kind: str = "") -> Evidence:
    """A curve of a history as evidence."""
    first, last = (int(history.steps[0]), int(history.steps[-1])) if len(history) else (0, 0)
    return Evidence(
        history.node, history.role, history.quantity, statistic, history.iteration, first, last, text, kind
    )  # fmt: skip
