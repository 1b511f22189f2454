"""Hooks as people write them by hand: mean, standard deviation and norm of each output, gradient and weight."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from ours import NoProbe
from timing import Contender
from torch import nn
from workloads import Workload


class HandWritten:
    """Forward and tensor hooks with ``.item()``; one line of JSON a step."""

    def __init__(self, modules: dict[str, nn.Module], *, is_due: bool) -> None:
        self.found: dict[str, list[float]] = {}
        self.is_due = is_due
        self._modules = modules
        for prefix, root in modules.items():
            for path, module in root.named_modules():
                module.register_forward_hook(self._hook(f"{prefix}.{path}"))

    def look_at_weights(self) -> None:
        for prefix, root in self._modules.items():
            for path, parameter in root.named_parameters():
                self._note(f"{prefix}.{path}", parameter)
                if parameter.grad is not None:
                    self._note(f"{prefix}.{path}.grad", parameter.grad)

    def _hook(self, name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if not self.is_due:
                return
            output = output[0] if isinstance(output, tuple) else output
            self._note(name, output)
            if output.requires_grad:
                output.register_hook(lambda gradient: self._note(f"{name}.grad", gradient))

        return hook

    def _note(self, name: str, tensor: torch.Tensor) -> None:
        tensor = tensor.detach()
        self.found[name] = [tensor.mean().item(), tensor.std().item(), tensor.norm().item()]


def hooks(workload: Workload, folder: Path, *, is_due: bool = True) -> Contender:
    """Three numbers a tensor, every step or none."""
    training = workload.make()
    watch = HandWritten(training.modules, is_due=is_due)
    path = folder / "hooks.jsonl"
    file = path.open("w")

    def run() -> None:
        training.step(NoProbe())
        if is_due:
            watch.look_at_weights()
            file.write(json.dumps(watch.found) + "\n")
            watch.found = {}

    return Contender("hooks with .item()", run, file.flush, lambda: path.stat().st_size, file.close)
