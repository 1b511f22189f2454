"""Tensors that require a gradient as parameters do, and are none: where they are kept, and whether they change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

_LARGEST = 1 << 20
"""Elements beyond which a tensor's sum is not asked for."""


def is_loose(argument: Any) -> bool:
    """Whether this is a plain tensor that nothing was computed for, and that requires a gradient."""
    if argument.__class__ is not torch.Tensor or not argument.requires_grad:
        return False
    return not argument._is_view() and argument.grad_fn is None  # of views, to ask for it may be an error


def holder_of(tensor: torch.Tensor, models: Mapping[str, nn.Module]) -> tuple[str, str]:
    """The path of the module that keeps a tensor, and the attribute in which it does; empty if none does."""
    for name, model in models.items():
        for path, module in model.named_modules(prefix=name):
            for key, value in vars(module).items():
                if key[0] != "_" and any(held is tensor for held in _tensors(value)):
                    return path, key
    return "", ""


def sum_of(tensor: torch.Tensor) -> float | None:
    """A number that tells whether a tensor has changed; None where it would be waited for."""
    if tensor.device.type != "cpu" or tensor.numel() > _LARGEST:
        return None
    return float(tensor.detach().double().sum())


def _tensors(value: Any) -> Iterator[Any]:
    """A value, and what is in it, one level deep."""
    yield value
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, (list, tuple)):
        yield from value
