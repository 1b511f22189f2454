"""A stretch of a trial, to be looked at as if it were all there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stepscope.store import Series, Step
from stepscope.store.layout import Layout
from stepscope.store.nodes import Node
from stepscope.store.records import ModuleInfo


class Recording(Protocol):
    """What rules ask a trial, or a section of one."""

    @property
    def state(self) -> str: ...
    @property
    def steps(self) -> NDArray[np.int64]: ...
    @property
    def step_kinds(self) -> tuple[str, ...]: ...
    @property
    def kinds(self) -> tuple[str, ...]: ...
    @property
    def nodes(self) -> tuple[Node, ...]: ...
    @property
    def network(self) -> tuple[ModuleInfo, ...]: ...
    @property
    def scalar_names(self) -> tuple[tuple[str, str], ...]: ...
    def scalars(self, name: str, *, group: str = "", kind: str | None = None) -> Series: ...
    def series(self, node: str, *args: Any, **choice: Any) -> Series: ...
    def step(self, number: int) -> Step: ...
    def layouts(self) -> Sequence[Layout]: ...


class Section:
    """The steps of a trial from ``first`` to ``last``; curves end there, too.

    >>> Section(open_trial("runs/sums/bugged"), 0, 500).steps                               # doctest: +SKIP
    """

    def __init__(self, trial: Recording, first: int, last: int) -> None:
        self._trial = trial
        self._first, self._last = first, last

    @property
    def state(self) -> str:
        """That of the trial; ``"running"`` if it has steps behind this section."""
        steps = self._trial.steps
        return "running" if len(steps) and steps[-1] > self._last else self._trial.state

    @property
    def steps(self) -> NDArray[np.int64]:
        steps = self._trial.steps
        return steps[self._inside(steps)]

    @property
    def step_kinds(self) -> tuple[str, ...]:
        inside = self._inside(self._trial.steps).tolist()
        kinds = self._trial.step_kinds  # of a live trial, more steps may have come since
        return tuple(kind for kind, is_inside in zip(kinds, inside, strict=False) if is_inside)

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.step_kinds))

    @property
    def nodes(self) -> tuple[Node, ...]:
        return self._trial.nodes

    @property
    def network(self) -> tuple[ModuleInfo, ...]:
        return self._trial.network

    @property
    def scalar_names(self) -> tuple[tuple[str, str], ...]:
        return self._trial.scalar_names

    def scalars(self, name: str, *, group: str = "", kind: str | None = None) -> Series:
        return self._cut(self._trial.scalars(name, group=group, kind=kind))

    def series(self, node: str, *args: Any, **choice: Any) -> Series:
        return self._cut(self._trial.series(node, *args, **choice))

    def step(self, number: int) -> Step:
        return self._trial.step(number)

    def layouts(self) -> Sequence[Layout]:
        return self._trial.layouts()

    def _cut(self, series: Series) -> Series:
        inside = self._inside(series.steps)
        return Series(series.steps[inside], series.values[inside])

    def _inside(self, steps: NDArray[np.int64]) -> NDArray[np.bool_]:
        inside: NDArray[np.bool_] = (steps >= self._first) & (steps <= self._last)
        return inside


def until_now(trial: Recording) -> Section:
    """All steps that a trial has now: what comes while it is looked at, as training goes on, is left for later."""
    steps = trial.steps
    return Section(trial, 0, int(steps[-1]) if len(steps) else -1)
