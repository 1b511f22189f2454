"""The table of all modules and parameters of the watched models, for the recording."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import nn

from stepscope.recorder.drawn_tensors import drawn_tensors
from stepscope.recorder.elements import is_spread
from stepscope.recorder.left_out import summary
from stepscope.recorder.module_tree import join, own_tensors, parts
from stepscope.recorder.watched import Names, Watched
from stepscope.store.records import ModuleInfo, ParameterInfo

_FREEZING = ("requires_grad", "require_grad", "requires_grads", "require_grads", "trainable")
"""What people set to False to freeze something; of all these torch knows the first one only, of a tensor."""

Holders = Mapping[int, tuple[str, ...]]
"""The names of the optimizers that hold a tensor, by its ``id``."""


def network(watched: Watched, names: Names) -> tuple[ModuleInfo, ...]:
    """All modules, each with the parameters that it owns itself; also what a selection leaves out.

    Each parameter knows the optimizers that hold it, so that those in none, or in two, can be found.
    """
    holders = _holders(watched)
    found: list[ModuleInfo] = []
    seen: set[int] = set()
    for prefix, model in watched.models.items():
        for path, module in parts(model):
            if id(module) in seen:
                continue
            seen.add(id(module))
            parameters = tuple(
                _parameter(key, tensor, is_buffer, names, holders) for key, tensor, is_buffer in own_tensors(module)
            )
            recorded = id(module) not in names.left_out
            ignored, drawn = tuple(_ignored(module)), tuple(drawn_tensors(module))
            kind, full = type(module).__name__, join(prefix, path)
            found.append(ModuleInfo(full, kind, parameters, module.training, recorded, ignored, drawn))
    return tuple(found)


def omissions(watched: Watched, names: Names) -> list[str]:
    """What of the models and optimizers is not recorded by nature or by choice, in sentences."""
    texts = [
        summary(name, model, watched.selections[name])
        for name, model in watched.models.items()
        if watched.selections[name]
    ]
    if any(is_spread(watched_tensor.tensor) for watched_tensor in names.tensors.values()):
        texts.append("of tensors that are spread over processes, the part of this process is recorded")
    for name, optimizer in watched.optimizers.items():
        held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        strange = sum(id(parameter) not in names.tensors for parameter in held)
        if strange and watched.models:
            texts.append(
                f"{name} holds {strange} of its {len(held)} parameters for no watched model: nothing is recorded of "
                "them; give their model to watch(), too"
            )
    return texts


def _ignored(module: nn.Module) -> Iterator[str]:
    """Attributes that were to freeze a module, or a parameter of it, and do nothing."""
    yield from (name for name in _FREEZING if module.__dict__.get(name) is False)
    for key, tensor, is_buffer in own_tensors(module):
        if not is_buffer:
            yield from (f"{key}.{name}" for name in _FREEZING if tensor.__dict__.get(name) is False)


def _holders(watched: Watched) -> Holders:
    holders: dict[int, tuple[str, ...]] = {}
    for name, optimizer in watched.optimizers.items():
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                holders[id(parameter)] = (*holders.get(id(parameter), ()), name)
    return holders


def _parameter(key: str, tensor: torch.Tensor, is_buffer: bool, names: Names, holders: Holders) -> ParameterInfo:
    return ParameterInfo(
        name=key,
        shape=tuple(tensor.shape),
        dtype=str(tensor.dtype)[6:],
        trainable=tensor.requires_grad,
        names=names.tensors[id(tensor)].names,
        is_buffer=is_buffer,
        recorded=id(tensor) not in names.left_out,
        optimizers=holders.get(id(tensor), ()),
    )
