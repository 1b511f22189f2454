"""Curves of what the optimizers are set to: learning rates always, anything else once it changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from stepscope.recorder.scalars import Point, make_point


class OptimizerCurves:
    """Turns the settings of all parameter groups into points of curves at each recorded step.

    The learning rate is a curve from the start. A momentum, weight decay or beta that never changes is none (the
    facts of every step hold all settings); when one first changes, its curve begins where it was first seen.
    """

    def __init__(self) -> None:
        self._first: dict[str, Point] = {}
        self._changed: set[str] = set()

    def points(self, optimizers: Mapping[str, torch.optim.Optimizer], step: int, kind: str) -> Iterator[Point]:
        """The points of a step, in the group ``optimizer``: ``lr``, or ``lr[1]`` where there are several groups."""
        for name, optimizer in optimizers.items():
            prefix = f"{name} " if len(optimizers) > 1 else ""
            groups = optimizer.param_groups
            for index, group in enumerate(groups):
                suffix = f"[{index}]" if len(groups) > 1 else ""
                for setting, value in _numbers(group):
                    point = make_point(f"{prefix}{setting}{suffix}", value, group="optimizer", step=step, kind=kind)
                    yield from [point] if setting == "lr" else self._if_it_changes(point)

    def _if_it_changes(self, point: Point) -> Iterator[Point]:
        name, value = point[0].name, point[0].value
        first = self._first.setdefault(name, point)
        if name in self._changed:
            yield point
        elif value != first[0].value:
            self._changed.add(name)
            yield first
            yield point


def _numbers(group: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """The settings of a group that are numbers; pairs such as ``betas`` count from 1: ``beta1``, ``beta2``."""
    for setting, value in group.items():
        if setting == "params":
            continue
        if isinstance(value, (tuple, list)):
            yield from (
                (f"{setting.removesuffix('s')}{n}", item) for n, item in enumerate(value, 1) if _is_number(item)
            )
        elif _is_number(value) or (setting == "lr" and isinstance(value, torch.Tensor)):
            yield setting, value


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
