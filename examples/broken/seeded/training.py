"""A sound training that is about to begin, into which a fault may be planted."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from random import Random
from typing import Any

import torch
from torch import nn

from stepscope.examples.broken.lab import Batches
from stepscope.examples.broken.seeded.rehearsal import Batch, Rehearsal, rehearse

ROOT = "model"
"""What the recorder calls the whole model."""


@dataclass
class Training:
    """What ``Lab.fit`` is given; a fault replaces or changes parts of it.

    Attributes:
        model, batches, loss_of, optimizer, after: the arguments of ``Lab.fit``.
        random: where a fault may be in one of several places, this chooses.
        patches: patches that are entered here end with the training.
        tried_on: what the trained model is tried on; a fault that would be made there, too, changes this like
            ``batches``.
    """

    model: nn.Module
    batches: Batches
    loss_of: Callable[..., torch.Tensor]
    optimizer: torch.optim.Optimizer
    after: Callable[[int], None] | None
    random: Random
    patches: ExitStack
    tried_on: Batches = field(init=False)

    def __post_init__(self) -> None:
        self.tried_on = self.batches

    def modules(self, *types: type[nn.Module]) -> list[tuple[str, nn.Module]]:
        """The modules of these types (all subclasses) within the model, with the nodes that they are."""
        return [(name, module) for name, module in self._named() if isinstance(module, types)]

    def module(self, node: str) -> nn.Module:
        """The module that is a node, which may be the whole model."""
        return self.model.get_submodule(node.removeprefix(ROOT).removeprefix("."))

    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        """The parameters that learn, with the nodes that they are."""
        found = self.model.named_parameters()
        return [(f"{ROOT}.{path}", parameter) for path, parameter in found if parameter.requires_grad]

    def weights(self) -> list[tuple[str, nn.Parameter]]:
        """Those of them that are matrices or more."""
        return [(node, parameter) for node, parameter in self.parameters() if parameter.dim() >= 2]

    def with_parameters(self, *nodes: str) -> tuple[str, ...]:
        """Modules and the parameters in them."""
        inside = [name for name, _ in self.parameters() if any(name.startswith(f"{node}.") for node in nodes)]
        return (*nodes, *inside)

    def inputs(self) -> tuple[str, ...]:
        """What the recorder may call the inputs of the model."""
        names = list(inspect.signature(self.model.forward).parameters)
        return ("input", *(f"input.{name}" for name in names if len(names) > 1))

    def rehearsal(self) -> Rehearsal:
        """What happens in a step; nothing is changed."""
        names = {self.model: ROOT, **{module: name for name, module in self._named()}}
        return rehearse(names, self.model, lambda: self.batches(0), self.loss_of)

    def replace(self, node: str, module: nn.Module) -> None:
        """Put another module in the place of one."""
        path = node.removeprefix(f"{ROOT}.")
        owner, _, name = path.rpartition(".")
        setattr(self.model.get_submodule(owner), name, module)

    def change_output(self, node: str, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Let a module return something else."""
        module = self.module(node)
        forward = module.forward

        @functools.wraps(forward)
        def changed(*args: Any, **kwargs: Any) -> torch.Tensor:
            return change(forward(*args, **kwargs))

        module.forward = changed

    def change_batches(self, change: Callable[[int, Batch], Batch], *, everywhere: bool = False) -> None:
        """Let the batches be others, by their number; ``everywhere``: also where the trained model is tried."""
        sound = self.batches

        def changed(number: int) -> Batch:
            return change(number, sound(number))

        self.batches = changed
        if everywhere:
            self.tried_on = changed

    def before_each_update(self, act: Callable[[], object]) -> None:
        """Do something each time before the optimizer's step."""

        def hook(*_: object) -> None:
            act()

        self.optimizer.register_step_pre_hook(hook)

    def after_each_step(self, act: Callable[[int], object]) -> None:
        """Do something after each step, and after what is done there anyway."""
        usual = self.after

        def after(number: int) -> None:
            if usual is not None:
                usual(number)
            act(number)

        self.after = after

    def _named(self) -> Iterator[tuple[str, nn.Module]]:
        for path, module in self.model.named_modules():
            if path:
                yield f"{ROOT}.{path}", module
