"""The tensors inside whatever a module returns or is given, with the role that each has in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from itertools import islice
from typing import Any

import torch

_DEPTH = 4
MOST_TENSORS = 1024
"""So many tensors of one value are recorded."""


def tensors_with_roles(value: Any, role: str) -> list[tuple[str, torch.Tensor]]:
    """``(role, tensor)`` for the first ``MOST_TENSORS`` tensors in a value; a single tensor has the plain role.

    >>> [role for role, _ in tensors_with_roles((torch.ones(1), {"h": torch.ones(1)}), "output")]
    ['output.0', 'output.1.h']
    """
    if isinstance(value, torch.Tensor):
        return [(role, value)]
    return list(islice(_walk(value, role, _DEPTH), MOST_TENSORS))


def _walk(value: Any, role: str, depth: int) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield role, value
    elif depth:
        for key, item in _items(value):
            yield from _walk(item, f"{role}.{key}", depth - 1)


def _items(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        yield from zip(value._fields, value, strict=True)
    elif isinstance(value, (list, tuple)):
        yield from enumerate(value)
    elif is_dataclass(value) and not isinstance(value, type):
        yield from ((entry.name, getattr(value, entry.name)) for entry in fields(value))
