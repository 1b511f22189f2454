"""The arguments that a model is called with, and other values in their place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
"""By position, and by name."""


def arguments_of(batch: Any) -> Arguments:
    """A tensor, a tuple or list of arguments, or a dict of them by name, as the arguments of a call."""
    if isinstance(batch, Mapping):
        given: Arguments = ((), dict(batch))
    else:
        given = (tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)), {}
    return changed(given, torch.Tensor.detach)


def named_tensors(given: Arguments) -> Iterator[tuple[int | str, torch.Tensor]]:
    """Those that are tensors, each with its position or its name."""
    args, kwargs = given
    yield from ((index, value) for index, value in enumerate(args) if isinstance(value, torch.Tensor))
    yield from ((name, value) for name, value in kwargs.items() if isinstance(value, torch.Tensor))


def changed(given: Arguments, change: Callable[[torch.Tensor], torch.Tensor]) -> Arguments:
    """The same with each tensor changed."""
    args, kwargs = given
    return (
        tuple(change(value) if isinstance(value, torch.Tensor) else value for value in args),
        {name: change(value) if isinstance(value, torch.Tensor) else value for name, value in kwargs.items()},
    )


def other_values(tensor: torch.Tensor, dim: int) -> torch.Tensor:
    """Other values of the same kind: those of the neighbouring samples, and noise on top where numbers may be any."""
    rolled = tensor.roll(1, dim) if tensor.dim() > dim else tensor
    if tensor.is_floating_point():
        spread = float(tensor.double().std(correction=0)) or 1.0
        noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        return (rolled + spread * noise.to(tensor.device)).to(tensor.dtype)
    if tensor.dtype == torch.bool:
        return ~tensor
    same = rolled == tensor  # of whole numbers only those that occur are sure to be allowed
    low, high = int(tensor.min()), int(tensor.max())
    return torch.where(same, (tensor - low + 1) % max(1, high - low + 1) + low, rolled)
