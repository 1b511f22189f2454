"""Attributes of modules that are like weights, and no parameters: plain tensors of random numbers, or made of one."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import nn

_FEWEST, _MOST = 32, 1 << 16
"""Elements of a tensor that is looked at."""
_FAR = 5.0
"""How many standard deviations a mean, or a correlation, may be from zero by chance."""
_DISTINCT = 0.9
_WAY = 8
"""Calls of torch between a parameter and what was made of it as a module was made."""


def drawn_tensors(module: nn.Module, known: Collection[int]) -> Iterator[str]:
    """The names and shapes of such attributes: ``keys (12, 16)``, or ``a (32,) by squeeze`` if made of a parameter.

    Args:
        known: the ids of all parameters that are registered. What is computed from these may be kept to be looked at.
    """
    for name, value in module.__dict__.items():
        if name[0] == "_" or value.__class__ is not torch.Tensor:
            continue
        leaves = _leaves(value)
        if len(leaves) == 1 and isinstance(leaves[0], nn.Parameter) and id(leaves[0]) not in known:
            yield f"{name} {tuple(value.shape)} by {type(value.grad_fn).__name__.partition('Backward')[0].lower()}"
        elif looks_drawn(value):
            yield f"{name} {tuple(value.shape)}"


def _leaves(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The tensors that something was computed from with a gradient; none if that is a long way off."""
    try:
        waiting: list[Any] = [] if tensor.grad_fn is None else [tensor.grad_fn]
    except RuntimeError:  # a view of what was changed since, as FSDP's flat parameters have them
        return []
    found: list[torch.Tensor] = []
    for _ in range(_WAY):
        if not waiting:
            return found
        function = waiting.pop()
        if hasattr(function, "variable"):
            found.append(function.variable)
        waiting += [behind for behind, _ in function.next_functions if behind is not None]
    return []


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
