"""Points of curves that wait to be written."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch

from stepscope.recorder.errors import RecorderError
from stepscope.store.records import Scalar

Point = tuple[Scalar, torch.Tensor | None]
"""A scalar, and the tensor that its value is still to be read from."""


def make_point(name: str, value: float | torch.Tensor, *, group: str, step: int, kind: str) -> Point:
    """A point; a tensor is copied and read later, so that nothing waits for the device."""
    later = None
    if isinstance(value, torch.Tensor):
        if value.numel() != 1:
            raise RecorderError(f"scalar({name!r}): expected one number, got shape {tuple(value.shape)}")
        later, value = value.detach().clone(), float("nan")
    return Scalar(str(name), str(group), step, _number(name, value), str(kind), time.time()), later


def learning_rates(optimizers: Mapping[str, torch.optim.Optimizer], step: int, kind: str) -> Iterable[Point]:
    """The learning rate of each group of each optimizer."""
    for name, optimizer in optimizers.items():
        for index, group in enumerate(optimizer.param_groups):
            if "lr" not in group:
                continue
            label = "lr" if len(optimizer.param_groups) == 1 else f"lr[{index}]"
            if len(optimizers) > 1:
                label = f"{name} {label}"
            yield make_point(label, group["lr"], group="optimizer", step=step, kind=kind)


def read(point: Point) -> Scalar:
    """The scalar with its value; waits for the device if it has to."""
    scalar, later = point
    return scalar if later is None else replace(scalar, value=float(later.real))


def _number(name: str, value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise RecorderError(f"scalar({name!r}): expected one number, got {value!r}") from error
