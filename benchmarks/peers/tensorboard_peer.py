"""TensorBoard: ``add_histogram`` of every output, its gradient, every parameter and its gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from ours import NoProbe, size_of
from timing import Contender
from torch import nn
from workloads import Training, Workload


class Logged:
    """Forward and tensor hooks that add a histogram each."""

    def __init__(self, writer: Any, training: Training, *, is_due: bool) -> None:
        self.number = 0
        self._writer = writer
        self._is_due = is_due
        self._parameters: dict[str, nn.Parameter] = {}
        for prefix, root in training.modules.items():
            for path, module in root.named_modules():
                module.register_forward_hook(self._hook(f"{prefix}/{path}"))
            self._parameters.update({f"{prefix}/{path}": parameter for path, parameter in root.named_parameters()})

    def finish_step(self) -> None:
        for name, parameter in self._parameters.items() if self._is_due else ():
            self._log(name, parameter)
            if parameter.grad is not None:
                self._log(f"{name}/gradient", parameter.grad)
        self.number += 1

    def _hook(self, name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if not self._is_due:
                return
            output = output[0] if isinstance(output, tuple) else output
            self._log(name, output)
            if output.requires_grad:
                output.register_hook(lambda gradient: self._log(f"{name}/gradient", gradient))

        return hook

    def _log(self, name: str, tensor: torch.Tensor) -> None:
        self._writer.add_histogram(name, tensor.detach(), self.number)


def tensorboard(workload: Workload, folder: Path, *, is_due: bool = True) -> Contender:
    """Every step logged, or none."""
    from torch.utils.tensorboard import SummaryWriter

    training = workload.make()
    writer = SummaryWriter(folder / "tensorboard")
    logged = Logged(writer, training, is_due=is_due)

    def run() -> None:
        training.step(NoProbe())
        logged.finish_step()

    return Contender("TensorBoard", run, writer.flush, lambda: size_of(folder / "tensorboard"), writer.close)
