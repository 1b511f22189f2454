"""The state that an optimizer keeps of each parameter, whichever way it keeps it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

_COUNTERS = frozenset(["step", "eta", "mu", "mu_product"])
"""Single numbers that torch's optimizers keep beside a parameter; they say nothing of its elements."""


def states_of(optimizer: torch.optim.Optimizer) -> Iterator[tuple[torch.Tensor, str, torch.Tensor]]:
    """``(parameter, name, state)`` for each tensor that an optimizer keeps of a parameter.

    Most states have the parameter's shape; Adafactor's ``row_var`` and ``col_var`` have one of their own. LBFGS keeps
    vectors over all its parameters, which are cut into the part of each.
    """
    for parameter, state in optimizer.state.items():
        if not isinstance(parameter, torch.Tensor) or not isinstance(state, Mapping):
            continue
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and name not in _COUNTERS:
                yield from _parts(optimizer, parameter, str(name), value)


def _parts(
    optimizer: torch.optim.Optimizer, parameter: torch.Tensor, name: str, value: torch.Tensor
) -> Iterator[tuple[torch.Tensor, str, torch.Tensor]]:
    if isinstance(optimizer, torch.optim.LBFGS):
        yield from _cut(optimizer.param_groups[0]["params"], name, value)
    elif value.shape == parameter.shape or value.dim() > 0:
        yield parameter, name, value


def _cut(parameters: list[Any], name: str, vector: torch.Tensor) -> Iterator[tuple[torch.Tensor, str, torch.Tensor]]:
    """The part of each parameter in a vector over all; a complex one lies in it as pairs of real numbers."""
    sizes = [parameter.numel() * (2 if parameter.is_complex() else 1) for parameter in parameters]
    if vector.dim() != 1 or len(vector) != sum(sizes):
        return
    for parameter, part in zip(parameters, vector.split(sizes), strict=True):
        if parameter.is_complex():
            yield parameter, name, torch.view_as_complex(part.view(*parameter.shape, 2).clone())
        else:
            yield parameter, name, part.view(parameter.shape)
