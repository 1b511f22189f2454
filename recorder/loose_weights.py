"""Parameters that a watched model uses but that belong to none of its modules: in a plain list, or plain tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import torch

from stepscope.recorder.loose_tensors import holder_of, is_loose, sum_of
from stepscope.recorder.register import Register
from stepscope.recorder.tracer import UNSEEN

_MOST = 20
_TENSORS = (torch.Tensor, torch.nn.Parameter)


class Running(Protocol):
    """Where the computation is: path and class of the innermost watched module, empty outside of all."""

    @property
    def current(self) -> tuple[str, str]: ...


class LooseWeights:
    """Looks for them among the arguments of the torch calls of one step.

    Args:
        known: the ``id`` of every parameter and buffer of the watched models.
        optimizers: what one of these holds is trained, wherever it belongs.
        register: of the step; what has a name, or was made in the step, is no weight.
        models: whose attributes may be such tensors.
    """

    def __init__(
        self,
        known: Iterable[int],
        optimizers: Mapping[str, torch.optim.Optimizer],
        register: Register,
        models: Mapping[str, torch.nn.Module],
    ) -> None:
        self._known = set(known)
        self._optimizers = optimizers
        self._register = register
        self._models = models
        self._found: dict[int, dict[str, Any]] = {}

    def look(self, name: str, args: Iterable[Any], modules: Running) -> None:
        """Look at a call of a torch function."""
        for argument in args:
            if argument.__class__ is torch.nn.Parameter:
                if id(argument) not in self._known:
                    self._note(name, argument, modules.current[0])
            elif is_loose(argument):
                if id(argument) not in self._known and id(argument) not in self._found:
                    self._note_tensor(name, argument)
            elif argument.__class__ is list and argument and argument[0].__class__ in _TENSORS:
                self.look(name, argument, modules)

    def facts(self) -> list[dict[str, Any]]:
        """What was found: the module's path, the parameter's shape, the function that used it first.

        Of a plain tensor also the attribute that keeps it (both are empty if no module does), and what tells whether it
        is the same, and changes, from step to step.
        """
        return list(self._found.values())

    def _note(self, name: str, parameter: torch.nn.Parameter, module: str) -> None:
        is_new = id(parameter) not in self._found and len(self._found) < _MOST
        if module and is_new and parameter.requires_grad and not self._is_optimized(parameter):
            shape = list(parameter.shape)
            self._found[id(parameter)] = {"module": module, "shape": shape, "operation": name.strip("_")}

    def _note_tensor(self, name: str, tensor: torch.Tensor) -> None:
        """A tensor that is no parameter; given as an input, or made in this step, it is none that should be one."""
        node = self._register.trace.known(tensor)
        is_input = node is not None and (node in self._register.trace.named or self._register.trace.operations[node])
        if is_input or len(self._found) >= _MOST or self._is_optimized(tensor):
            return
        module, attribute = holder_of(tensor, self._models)
        if not module and self._register.batch.fits(tensor) and tensor.dim():
            return  # data that gradients are asked for
        with UNSEEN():
            total = sum_of(tensor)
        self._found[id(tensor)] = {
            "module": module, "shape": list(tensor.shape), "operation": name.strip("_"), "attribute": attribute,
            "tensor": id(tensor), "version": tensor._version, "sum": total,
        }  # fmt: skip

    def _is_optimized(self, parameter: torch.Tensor) -> bool:
        groups = (group for optimizer in self._optimizers.values() for group in optimizer.param_groups)
        return any(parameter is held for group in groups for held in group["params"])
