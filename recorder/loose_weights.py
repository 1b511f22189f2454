"""Parameters that a watched model uses but that belong to none of its modules: in a plain list, say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import torch

_MOST = 20


class Running(Protocol):
    """Where the computation is: path and class of the innermost watched module, empty outside of all."""

    @property
    def current(self) -> tuple[str, str]: ...


class LooseWeights:
    """Looks for them among the arguments of the torch calls of one step.

    Args:
        known: the ``id`` of every parameter and buffer of the watched models.
        optimizers: what one of these holds is trained, wherever it belongs.
    """

    def __init__(self, known: Iterable[int], optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
        self._known = set(known)
        self._optimizers = optimizers
        self._found: dict[int, dict[str, Any]] = {}

    def look(self, name: str, args: Iterable[Any], modules: Running) -> None:
        """Look at a call of a torch function."""
        for argument in args:
            if argument.__class__ is torch.nn.Parameter:
                if id(argument) not in self._known:
                    self._note(name, argument, modules.current[0])
            elif argument.__class__ is list and argument and argument[0].__class__ is torch.nn.Parameter:
                self.look(name, argument, modules)

    def facts(self) -> list[dict[str, Any]]:
        """What was found: the module's path, the parameter's shape, the function that used it first."""
        return list(self._found.values())

    def _note(self, name: str, parameter: torch.nn.Parameter, module: str) -> None:
        is_new = id(parameter) not in self._found and len(self._found) < _MOST
        if module and is_new and parameter.requires_grad and not self._is_optimized(parameter):
            shape = list(parameter.shape)
            self._found[id(parameter)] = {"module": module, "shape": shape, "operation": name.strip("_")}

    def _is_optimized(self, parameter: torch.nn.Parameter) -> bool:
        groups = (group for optimizer in self._optimizers.values() for group in optimizer.param_groups)
        return any(parameter is held for group in groups for held in group["params"])
