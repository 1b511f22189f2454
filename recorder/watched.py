"""The models and optimizers that a recorder watches, and the names of everything in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import nn

from stepscope.recorder.errors import RecorderError, SelectionError, UnknownModuleError
from stepscope.recorder.left_out import left_out, places
from stepscope.recorder.module_tree import join, own_tensors, parts, unwrap
from stepscope.recorder.selection import Selection

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

    ``paths`` and ``tensors`` are keyed by the ``id`` of a module, parameter or buffer; ``left_out`` holds the ids of
    those that are not to be recorded.
    """

    paths: dict[int, str]
    classes: dict[int, str]
    roots: dict[int, str]
    tensors: dict[int, WatchedTensor]
    left_out: set[int] = field(default_factory=set)


class Watched:
    """The registry that ``Recorder.watch`` fills."""

    def __init__(self) -> None:
        self.models: dict[str, nn.Module] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.selections: dict[str, Selection] = {}

    def add_models(self, models: object, selection: Selection) -> None:
        """Watch models, or what is selected of them.

        Raises:
            RecorderError: one of them is no module.
            SelectionError: the selection does not fit them.
        """
        added: dict[str, nn.Module] = {}
        for name, model in _named("model", models, nn.Module):
            added[_free(name, {**self.models, **added}, unwrap(model))] = unwrap(model)
        if selection and not added:
            raise SelectionError(f"watch({selection}): there is no model to select from; give one in the same call")
        if selection:
            selection.check([place for name, model in added.items() for _, place in places(name, model)])
        self.models.update(added)
        self.selections.update(dict.fromkeys(added, selection))

    def add_optimizers(self, optimizers: object) -> None:
        for name, optimizer in _named("optimizer", optimizers, torch.optim.Optimizer):
            self.optimizers[_free(name, self.optimizers, optimizer)] = optimizer

    def names(self) -> Names:
        """Walk the models and name everything in them."""
        names = Names({}, {}, {}, {})
        aliases: dict[int, list[str]] = {}
        for prefix, model in self.models.items():
            names.roots[id(model)] = prefix
            for path, module in parts(model, every_path=True):
                full = join(prefix, path)
                names.paths.setdefault(id(module), full)
                names.classes.setdefault(id(module), type(module).__name__)
                _name_tensors(names, aliases, module, full)
        for key, known in aliases.items():
            if len(known) > 1:
                first = names.tensors[key]
                names.tensors[key] = WatchedTensor(
                    first.tensor, first.name, tuple(known), first.module, first.module_class, first.is_buffer
                )
        if any(self.selections.values()):
            names.left_out.update(left_out(self.models, self.selections))
        return names

    def parameters(self) -> Iterator[torch.Tensor]:
        """Every parameter of the watched models, those left out of the steps too."""
        return (parameter for model in self.models.values() for parameter in model.parameters())

    def name_of(self, module: nn.Module) -> str:
        """The path of a module in the watched models."""
        for prefix, model in self.models.items():
            for path, candidate in parts(model):
                if candidate is unwrap(module):
                    return join(prefix, path)
        known = ", ".join(self.models) or "none"
        raise UnknownModuleError(
            f"this {type(module).__name__} is in no watched model (watched: {known}); call recorder.watch(model) first"
        )


def _named(default: str, given: object, expected: type[Thing]) -> Iterable[tuple[str, Thing]]:
    """Pairs of name and object from one object, a sequence of them, or a dict of them by name."""
    if given is None:
        return
    if isinstance(given, expected):
        yield default, given
        return
    if isinstance(given, Mapping):
        pairs = [(str(name), thing) for name, thing in given.items()]
    elif isinstance(given, Sequence) and not isinstance(given, str):
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


def _name_tensors(names: Names, aliases: dict[int, list[str]], module: nn.Module, path: str) -> None:
    for key, tensor, is_buffer in own_tensors(module):
        name = f"{path}.{key}"
        known = aliases.setdefault(id(tensor), [])
        if name in known:
            continue
        known.append(name)
        names.tensors.setdefault(
            id(tensor), WatchedTensor(tensor, name, (name,), path, type(module).__name__, is_buffer)
        )
