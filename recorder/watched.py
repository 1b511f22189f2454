"""The models and optimizers that a recorder watches, and the names of everything in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from stepscope.recorder.errors import RecorderError, UnknownModuleError
from stepscope.store.records import ModuleInfo, ParameterInfo

Thing = TypeVar("Thing", bound=object)


@dataclass(frozen=True)
class WatchedTensor:
    """A parameter or a buffer: its tensor, its first name, all its names, and the module that owns it."""

    tensor: torch.Tensor
    name: str
    names: tuple[str, ...]
    module: str
    module_class: str
    is_buffer: bool


@dataclass(frozen=True)
class Names:
    """What the watched models hold at one moment; models change, so this is taken anew at each recorded step.

    ``paths`` and ``tensors`` are keyed by the ``id`` of a module, parameter or buffer.
    """

    paths: dict[int, str]
    classes: dict[int, str]
    roots: dict[int, str]
    tensors: dict[int, WatchedTensor]


class Watched:
    """The registry that ``Recorder.watch`` fills."""

    def __init__(self) -> None:
        self.models: dict[str, nn.Module] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}

    def add_models(self, models: object) -> None:
        for name, model in _named("model", models, nn.Module):
            self.models[_free(name, self.models, model)] = unwrap(model)

    def add_optimizers(self, optimizers: object) -> None:
        for name, optimizer in _named("optimizer", optimizers, torch.optim.Optimizer):
            self.optimizers[_free(name, self.optimizers, optimizer)] = optimizer

    def names(self) -> Names:
        """Walk the models and name everything in them."""
        names = Names({}, {}, {}, {})
        aliases: dict[int, list[str]] = {}
        for prefix, model in self.models.items():
            names.roots[id(model)] = prefix
            for path, module in _parts(model):
                full = _join(prefix, path)
                names.paths.setdefault(id(module), full)
                names.classes.setdefault(id(module), type(module).__name__)
                _name_tensors(names, aliases, module, full)
        for key, known in aliases.items():
            if len(known) > 1:
                first = names.tensors[key]
                names.tensors[key] = WatchedTensor(
                    first.tensor, first.name, tuple(known), first.module, first.module_class, first.is_buffer
                )
        return names

    def name_of(self, module: nn.Module) -> str:
        """The path of a module in the watched models."""
        for prefix, model in self.models.items():
            for path, candidate in _parts(model):
                if candidate is unwrap(module):
                    return _join(prefix, path)
        known = ", ".join(self.models) or "none"
        raise UnknownModuleError(
            f"this {type(module).__name__} is in no watched model (watched: {known}); call recorder.watch(model) first"
        )

    def network(self) -> tuple[ModuleInfo, ...]:
        """The module tree with the parameters that each module owns itself."""
        names = self.names()
        found: list[ModuleInfo] = []
        seen: set[int] = set()
        for prefix, model in self.models.items():
            for path, module in _parts(model):
                if id(module) in seen:
                    continue
                seen.add(id(module))
                parameters = tuple(
                    _parameter_info(key, names.tensors[id(tensor)], is_buffer)
                    for key, tensor, is_buffer in _own_tensors(module)
                )
                found.append(ModuleInfo(_join(prefix, path), type(module).__name__, parameters, module.training))
        return tuple(found)


def _parts(model: nn.Module) -> Iterable[tuple[str, nn.Module]]:
    """All modules of a model with their paths; compiled ones as if they were not compiled."""
    for path, module in model.named_modules():
        if not isinstance(getattr(module, "_orig_mod", None), nn.Module):
            yield ".".join(part for part in path.split(".") if part != "_orig_mod"), module


def unwrap(module: nn.Module) -> nn.Module:
    """The user's own module inside the wrappers of ``torch.compile`` and of data parallelism."""
    while True:
        inner = getattr(module, "_orig_mod", None)
        if inner is None and type(module).__name__ in ("DistributedDataParallel", "DataParallel"):
            inner = getattr(module, "module", None)
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def _named(default: str, given: object, expected: type[Thing]) -> Iterable[tuple[str, Thing]]:
    """Pairs of name and object from one object, a sequence of them, or a dict of them by name."""
    if given is None:
        return
    if isinstance(given, expected):
        yield default, given
        return
    if isinstance(given, Mapping):
        pairs = [(str(name), thing) for name, thing in given.items()]
    elif isinstance(given, (list, tuple)):
        pairs = [(type(thing).__name__.lower(), thing) for thing in given]
        if default == "optimizer":
            pairs = [(f"{default}.{i}" if len(given) > 1 else default, t) for i, t in enumerate(given)]
    else:
        raise RecorderError(
            f"watch() got a {type(given).__name__} where it expected a {expected.__name__}, "
            f"a list of them, or a dict of them by name"
        )
    for name, thing in pairs:
        if not isinstance(thing, expected):
            raise RecorderError(f"watch() got {name}={type(thing).__name__}, expected a {expected.__name__}")
        yield name, thing


def _free(name: str, taken: Mapping[str, object], thing: object) -> str:
    if name not in taken or taken[name] is thing:
        return name
    number = 1
    while f"{name}{number}" in taken:
        number += 1
    return f"{name}{number}"


def _join(prefix: str, path: str) -> str:
    return f"{prefix}.{path}" if path else prefix


def _own_tensors(module: nn.Module) -> Iterable[tuple[str, torch.Tensor, bool]]:
    for key, parameter in module._parameters.items():
        if parameter is not None:
            yield key, parameter, False
    for key, buffer in module._buffers.items():
        if buffer is not None:
            yield key, buffer, True


def _name_tensors(names: Names, aliases: dict[int, list[str]], module: nn.Module, path: str) -> None:
    for key, tensor, is_buffer in _own_tensors(module):
        name = f"{path}.{key}"
        known = aliases.setdefault(id(tensor), [])
        if name in known:
            continue
        known.append(name)
        names.tensors.setdefault(
            id(tensor), WatchedTensor(tensor, name, (name,), path, type(module).__name__, is_buffer)
        )


def _parameter_info(key: str, watched: WatchedTensor, is_buffer: bool) -> ParameterInfo:
    return ParameterInfo(
        name=key,
        shape=tuple(watched.tensor.shape),
        dtype=str(watched.tensor.dtype)[6:],
        trainable=watched.tensor.requires_grad,
        names=watched.names,
        is_buffer=is_buffer,
    )
