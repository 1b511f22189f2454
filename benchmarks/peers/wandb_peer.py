"""Weights & Biases: ``watch(log="all", log_freq=1)``, offline. Histograms of parameters and their gradients only."""

from __future__ import annotations

import os
from pathlib import Path

from ours import NoProbe, size_of
from timing import Contender
from workloads import NEVER, Workload


def wandb_watch(workload: Workload, folder: Path, *, is_due: bool = True) -> Contender:
    """Every step logged, or none."""
    os.environ["WANDB_SILENT"] = "true"
    os.environ["WANDB_ERROR_REPORTING"] = "false"
    import wandb

    training = workload.make()
    run_of_wandb = wandb.init(project="bench", dir=str(folder), mode="offline", settings=wandb.Settings(console="off"))
    for index, module in enumerate(training.modules.values()):
        run_of_wandb.watch(module, log="all", log_freq=1 if is_due else NEVER, idx=index)

    def run() -> None:
        training.step(NoProbe())
        if is_due:
            run_of_wandb.log({"step": 1})

    return Contender("wandb.watch", run, bytes_on_disk=lambda: size_of(folder / "wandb"), close=run_of_wandb.finish)
