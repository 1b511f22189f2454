"""What changed between two runs of the same model."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from stepscope.recorder.probe_copy import Seen


def first_change(
    plain: list[Seen],
    after: list[Seen],
    kept: Callable[[torch.Tensor], torch.Tensor | None],
    tolerance: float,
) -> tuple[str, float]:
    """How much the kept part of the model's outputs changes, and the first module in whose output it does."""
    value, module = 0.0, ""
    for one, two in outputs_of(plain, after):
        first, second = kept(one.tensor), kept(two.tensor)
        if first is not None and second is not None:
            value = max(value, change_of(first, second))
    for one, two in zip(plain, after, strict=False):
        first, second = kept(one.tensor), kept(two.tensor)
        if first is not None and second is not None and change_of(first, second) > tolerance:
            module = one.path
            break
    return module, value


def outputs_of(plain: list[Seen], after: list[Seen]) -> Iterator[tuple[Seen, Seen]]:
    """The outputs of the model itself, in both runs."""
    yield from ((one, two) for one, two in zip(plain, after, strict=False) if not one.path)


def differs(one: Seen, two: Seen, tolerance: float) -> bool:
    """Whether something changed by more than rounding."""
    return change_of(one.tensor, two.tensor) > tolerance


def change_of(one: torch.Tensor, two: torch.Tensor) -> float:
    """The largest difference as a part of the size; infinite for other shapes, or where NaN comes or goes."""
    if one.shape != two.shape:
        return float("inf")
    if not one.numel() or torch.equal(one, two):
        return 0.0
    one, two = one.double(), two.double()
    if not torch.equal(one.isnan(), two.isnan()):
        return float("inf")
    size = float(one.nan_to_num().square().mean().sqrt())
    return float((one - two).nan_to_num().abs().max()) / max(size, 1e-30)
