"""What a model's own ``train()`` would freeze, where nobody has called it."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from types import BuiltinFunctionType, FunctionType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from stepscope.recorder.random_state import same_random_numbers

_PLAIN = nn.Module.train
_DEPTH = 4
_VALUES = (
    int,
    float,
    complex,
    str,
    bytes,
    type(None),
    type,
    torch.dtype,
    torch.device,
    FunctionType,
    BuiltinFunctionType,
)
_found: WeakKeyDictionary[nn.Module, frozenset[int]] = WeakKeyDictionary()


def left_trainable(model: nn.Module) -> frozenset[int]:
    """The ``id`` of each parameter that learns now, and that ``model.train()`` would freeze.

    Some libraries freeze the first stages of a backbone in the ``train()`` of a class of theirs. A module is in the
    mode of training from the start: who does not call ``train()`` freezes nothing. It is called here of a copy
    without any tensors, once a model; of one that holds anything that is not to be copied lightly, it is not.
    """
    if not model.training or all(module.__class__.train is _PLAIN for module in model.modules()):
        return frozenset()
    if model not in _found:
        _found[model] = _frozen_by_a_copy(model)
    return _found[model]


def _frozen_by_a_copy(model: nn.Module) -> frozenset[int]:
    memo: dict[int, Any] = {}
    for module in model.modules():
        if not all(_is_light(value, memo, _DEPTH) for value in module.__dict__.values()):
            return frozenset()
    learning = [tensor for tensor in model.parameters() if tensor.requires_grad]
    try:
        with same_random_numbers():
            copy.deepcopy(model, memo).train()
    except Exception:  # the user's own code, of which nothing depends
        return frozenset()
    return frozenset(id(tensor) for tensor in learning if not memo[id(tensor)].requires_grad)


def _is_light(value: Any, memo: dict[int, Any], depth: int) -> bool:
    """Whether a value is cheap and safe to copy; for each tensor an empty one is put down as its copy."""
    if isinstance(value, torch.Tensor):
        if id(value) not in memo:
            memo[id(value)] = _empty(value)
        return True
    if isinstance(value, (nn.Module, *_VALUES)):  # modules inside are looked at themselves
        return True
    items: Iterable[Any]
    if isinstance(value, dict):
        items = [*value.keys(), *value.values()]
    elif isinstance(value, (list, tuple, set, frozenset)):
        items = value
    else:
        return False
    return depth > 0 and all(_is_light(item, memo, depth - 1) for item in items)


def _empty(tensor: torch.Tensor) -> torch.Tensor:
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(torch.empty(0), requires_grad=tensor.requires_grad)
    return torch.empty(0)
