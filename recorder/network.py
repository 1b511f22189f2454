"""The table of all modules and parameters of the watched models, for the recording."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import torch
from torch import nn

from stepscope.recorder.drawn_tensors import drawn_tensors
from stepscope.recorder.elements import is_spread
from stepscope.recorder.left_out import summary
from stepscope.recorder.module_tree import join, own_tensors, parts
from stepscope.recorder.train_overrides import left_trainable
from stepscope.recorder.watched import Names, Watched
from stepscope.store.records import ModuleInfo, ParameterInfo

_FREEZING = ("requires_grad", "require_grad", "requires_grads", "require_grads", "trainable")
"""What people set to False to freeze something; of all these torch knows the first one only, of a tensor."""

_LONGEST = 300
"""Letters of a module's settings."""


class OutdatedNamesError(LookupError):
    """The models hold something else, or elsewhere, than when their names were taken."""


Holders = Mapping[int, tuple[str, ...]]
"""The names of the optimizers that hold a tensor, by its ``id``."""


def network(watched: Watched, names: Names) -> tuple[ModuleInfo, ...]:
    """All modules, each with the parameters that it owns itself; also what a selection leaves out.

    Each parameter knows the optimizers that hold it, so that those in none, or in two, can be found.

    Raises:
        OutdatedNamesError: the names are not those of what the models are now.
    """
    holders = _holders(watched)
    found: list[ModuleInfo] = []
    seen: set[int] = set()
    for prefix, model in watched.models.items():
        thawed = left_trainable(model)
        for path, module in parts(model):
            if id(module) in seen:
                continue
            seen.add(id(module))
            full = join(prefix, path)
            if names.paths.get(id(module)) != full:
                raise OutdatedNamesError(full)
            parameters = tuple(
                _parameter(full, key, tensor, is_buffer, names, holders)
                for key, tensor, is_buffer in own_tensors(module)
            )
            recorded = id(module) not in names.left_out
            ignored, drawn = tuple(_ignored(module, thawed)), tuple(drawn_tensors(module, names.tensors))
            kind, settings = type(module).__name__, _settings(module)
            found.append(ModuleInfo(full, kind, parameters, module.training, recorded, ignored, drawn, settings))
    return tuple(found)


def _settings(module: nn.Module) -> str:
    """What torch prints of one of its own layers, or of one that inherits it; nothing of the user's code is called."""
    told = type(module).extra_repr
    if not str(getattr(told, "__module__", "")).startswith("torch."):
        return ""
    try:
        return str(told(module))[:_LONGEST]
    except Exception:  # of a layer from which the user took what torch wants to print
        return ""


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


def _ignored(module: nn.Module, thawed: Collection[int]) -> Iterator[str]:
    """Attributes that were to freeze a module, or a parameter of it, and do nothing; or a ``train()`` nobody called."""
    yield from (name for name in _FREEZING if module.__dict__.get(name) is False)
    for key, tensor, is_buffer in own_tensors(module):
        if not is_buffer:
            yield from (f"{key}.{name}" for name in _FREEZING if tensor.__dict__.get(name) is False)
            if id(tensor) in thawed and tensor.requires_grad:
                yield f"{key}.train()"


def _holders(watched: Watched) -> Holders:
    holders: dict[int, tuple[str, ...]] = {}
    for name, optimizer in watched.optimizers.items():
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                holders[id(parameter)] = (*holders.get(id(parameter), ()), name)
    return holders


def _parameter(
    module: str, key: str, tensor: torch.Tensor, is_buffer: bool, names: Names, holders: Holders
) -> ParameterInfo:
    known = names.tensors.get(id(tensor))
    if known is None or f"{module}.{key}" not in known.names:
        raise OutdatedNamesError(f"{module}.{key}")
    return ParameterInfo(
        name=key,
        shape=tuple(tensor.shape),
        dtype=str(tensor.dtype)[6:],
        trainable=tensor.requires_grad,
        names=known.names,
        is_buffer=is_buffer,
        recorded=id(tensor) not in names.left_out,
        optimizers=holders.get(id(tensor), ()),
    )
