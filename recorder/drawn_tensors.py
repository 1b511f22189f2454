"""Attributes of modules that are plain tensors of random numbers: made like weights, and no parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import nn

_FEWEST, _MOST = 32, 1 << 16
"""Elements of a tensor that is looked at."""
_FAR = 5.0
"""How many standard deviations a mean, or a correlation, may be from zero by chance."""
_DISTINCT = 0.9


def drawn_tensors(module: nn.Module) -> Iterator[str]:
    """The names and shapes of such attributes: ``keys (12, 16)``."""
    for name, value in module.__dict__.items():
        if name[0] != "_" and value.__class__ is torch.Tensor and looks_drawn(value):
            yield f"{name} {tuple(value.shape)}"


@torch.no_grad()
def looks_drawn(tensor: torch.Tensor) -> bool:
    """Whether a table holds independent numbers around zero: all different, and none like its neighbours.

    Waves, masks, grids and means of data are not like that. Only tensors on the CPU are looked at: it is not waited for
    others.
    """
    if tensor.requires_grad or tensor.dim() < 2 or not _FEWEST <= tensor.numel() <= _MOST:
        return False
    if tensor.device.type != "cpu" or not tensor.is_floating_point() or tensor.layout != torch.strided:
        return False
    x = tensor.double()
    spread, count = float(x.std()), x.numel()
    if not 0 < spread < math.inf or abs(float(x.mean())) > _FAR * spread / math.sqrt(count):
        return False
    x = (x - x.mean()) / spread
    is_alike = any(_along(x, dim) > _FAR / math.sqrt(count) for dim in range(x.dim()) if x.shape[dim] > 1)
    return not is_alike and len(x.unique()) > _DISTINCT * count


def _along(x: torch.Tensor, dim: int) -> float:
    """The size of the correlation of neighbours along a dimension."""
    one, two = x.narrow(dim, 0, x.shape[dim] - 1), x.narrow(dim, 1, x.shape[dim] - 1)
    return abs(float((one * two).mean()))
