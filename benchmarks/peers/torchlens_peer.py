"""TorchLens: a trace of the forward pass with every operation's output, then of the backward pass with gradients."""

from __future__ import annotations

from pathlib import Path

import torch
from ours import NoProbe
from timing import Contender
from torch import nn
from workloads import Training, Workload


class WholeLoss(nn.Module):
    """The forward pass as one module, which is what TorchLens traces."""

    def __init__(self, training: Training) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({name.replace(".", "_"): module for name, module in training.modules.items()})
        self._training = training
        self.loss = torch.zeros(())

    def forward(self, unused: torch.Tensor) -> torch.Tensor:
        self.loss = self._training.loss(NoProbe())
        return self.loss


def torchlens(workload: Workload, folder: Path, *, is_due: bool = True) -> Contender:
    """Every step traced, or none; nothing is written to disk."""
    import torchlens as lens

    training = workload.make()
    whole, unused = WholeLoss(training), torch.zeros(1)
    options = lens.options.CaptureOptions(save_grads="all", backward_ready=True, verbose=False)

    def run() -> None:
        if not is_due:
            training.step(NoProbe())
            return
        trace = lens.trace(whole, unused, capture=options)
        training.optimizer.zero_grad()
        trace.log_backward(whole.loss)
        training.optimizer.step()
        trace.cleanup()

    return Contender("TorchLens", run)
