"""Points of curves that wait to be written."""

from __future__ import annotations

import time
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


def read(point: Point) -> Scalar:
    """The scalar with its value; waits for the device if it has to."""
    scalar, later = point
    return scalar if later is None else replace(scalar, value=float(later.real))


def _number(name: str, value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise RecorderError(f"scalar({name!r}): expected one number, got {value!r}") from error
