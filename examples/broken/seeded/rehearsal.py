"""What happens in one step of a training, found out without changing anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.overrides import TorchFunctionMode

Batch = tuple[torch.Tensor, ...]
REGRESSIONS = {"mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"}


@dataclass
class Rehearsal:
    """One step, as far as its loss.

    Attributes:
        batch: what it was given.
        loss: what came out.
        outputs: what each module that was called returned last, by its node, in the order in which they returned.
        layers: those of these nodes that are modules without modules in them and with a matrix of weights.
        losses: prediction and target of the last call of each function of ``torch.nn.functional`` that compares two.
        functions: the names of all functions of ``torch.nn.functional`` that were called.
    """

    batch: Batch
    loss: torch.Tensor = field(default_factory=lambda: torch.zeros(()))
    outputs: dict[str, Any] = field(default_factory=dict)
    layers: list[str] = field(default_factory=list)
    losses: dict[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    functions: set[str] = field(default_factory=set)

    def hidden(self) -> list[str]:
        """The layers before the last one that return one tensor."""
        return [node for node in self.layers[:-1] if isinstance(self.outputs[node], torch.Tensor)]

    def ends(self) -> tuple[str, ...]:
        """The nodes that make the prediction."""
        names = [*self.layers[-1:], *list(self.outputs)[-1:], self.prediction() or "prediction"]
        return tuple(dict.fromkeys(names))

    def prediction(self) -> str | None:
        """The outermost module that returns what a loss is given; None if it is changed on the way."""
        for node in reversed(self.outputs):
            if any(self.outputs[node] is prediction for prediction, _ in self.losses.values()):
                return node
        return None

    def is_a_regression(self) -> bool:
        """Whether numbers are predicted."""
        return bool(REGRESSIONS & set(self.losses))

    def target(self) -> int | None:
        """Which part of the batch the prediction is compared with; None if unsure, or if it is the first."""
        for _, target in self.losses.values():
            for index in range(len(self.batch) - 1, 0, -1):
                if _same(self.batch[index], target):
                    return index
        return None


def rehearse(
    names: dict[nn.Module, str], model: nn.Module, batch: Callable[[], Batch], loss_of: Callable[..., torch.Tensor]
) -> Rehearsal:
    """Compute the loss of a batch; ``names`` are the nodes of the modules."""
    with _unchanged(model):
        found = Rehearsal(batch())

        def returned(module: nn.Module, _: Any, output: Any) -> None:
            if module in names:
                node = names[module]
                found.outputs.pop(node, None)
                found.outputs[node] = output

        handle = register_module_forward_hook(returned)
        try:
            with _Listening(found):
                found.loss = loss_of(*found.batch)
        finally:
            handle.remove()
    modules = {node: module for module, node in names.items()}
    found.layers = [node for node in found.outputs if _is_layer(modules[node])]
    return found


class _Listening(TorchFunctionMode):
    """Writes down which functions are called."""

    def __init__(self, found: Rehearsal) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if getattr(F, name, None) is not None:
            self.found.functions.add(name)
            if ("loss" in name or "entropy" in name) and all(isinstance(arg, torch.Tensor) for arg in args[:2]):
                self.found.losses[name] = (args[0], args[1])
        return func(*args, **(kwargs or {}))


def _is_layer(module: nn.Module) -> bool:
    own = module.parameters(recurse=False)
    return next(module.children(), None) is None and any(parameter.dim() >= 2 for parameter in own)


def _same(part: torch.Tensor, target: torch.Tensor) -> bool:
    """Whether a target has the values of a part of the batch, in whatever shape."""
    if part.numel() != target.numel() or part.numel() == 0:
        return False
    return torch.equal(part.detach().flatten().double(), target.detach().flatten().double())


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Leaves the model's buffers and the random numbers as they are."""
    random = torch.get_rng_state()
    state = {name: value.clone() for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in model.state_dict().items():
                if name in state:
                    value.copy_(state[name])
        torch.set_rng_state(random)
