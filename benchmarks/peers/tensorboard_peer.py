"""TensorBoard: ``add_histogram`` of every output, its gradient, every parameter and its gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from ours import NoProbe, size_of
from timing import Contender
from torch import nn
from workloads import Workload


def tensorboard(workload: Workload, folder: Path) -> Contender:
    """Every step logged."""
    from torch.utils.tensorboard import SummaryWriter

    training = workload.make()
    writer = SummaryWriter(folder / "tensorboard")
    number = 0

    def log(name: str, tensor: torch.Tensor) -> None:
        writer.add_histogram(name, tensor.detach(), number)

    def hook_of(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            output = output[0] if isinstance(output, tuple) else output
            log(name, output)
            if output.requires_grad:
                output.register_hook(lambda gradient: log(f"{name}/gradient", gradient))

        return hook

    parameters = {}
    for prefix, root in training.modules.items():
        for path, module in root.named_modules():
            module.register_forward_hook(hook_of(f"{prefix}/{path}"))
        parameters.update({f"{prefix}/{path}": parameter for path, parameter in root.named_parameters()})

    def run() -> None:
        nonlocal number
        training.step(NoProbe())
        for name, parameter in parameters.items():
            log(name, parameter)
            if parameter.grad is not None:
                log(f"{name}/gradient", parameter.grad)
        number += 1

    return Contender("TensorBoard", run, writer.flush, lambda: size_of(folder / "tensorboard"), writer.close)
