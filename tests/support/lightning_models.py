"""LightningModules that train in a blink, and a Trainer that writes nothing by itself."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

BATCH = 5
Batches = DataLoader[tuple[torch.Tensor, ...]]


def make_batches(count: int, *, seed: int = 0) -> Batches:
    """Batches of 5 samples: four numbers and one of two classes."""
    data = torch.Generator().manual_seed(seed)
    x = torch.randn(count * BATCH, 4, generator=data)
    return DataLoader(TensorDataset(x, (x.sum(1) > 0).long()), batch_size=BATCH)


def make_trainer(*callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    """One epoch on the CPU, unless told otherwise."""
    quiet = {name: False for name in ("logger", "enable_checkpointing", "enable_model_summary", "enable_progress_bar")}
    return pl.Trainer(**{"max_epochs": 1, "accelerator": "cpu", **quiet, "callbacks": list(callbacks), **options})


class Classifier(pl.LightningModule):
    """Automatic optimisation; dropout, so that a random stream is used; logs its losses."""

    def __init__(self, width: int = 8, lr: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.lr = lr
        self.net = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(width, 2)
        self.losses: list[float] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.head(self.net(x))
        return x

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.losses.append(loss.item())
        self.log("train/loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> dict[str, torch.Tensor]:
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("validation/loss", loss)
        return {"loss": loss}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.lr)


class TwoOptimizers(pl.LightningModule):
    """Manual optimisation of two nets against each other, each with an optimizer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Linear(4, 4)
        self.critic = nn.Linear(4, 1)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> None:
        x, _ = batch
        of_generator, of_critic = self.optimizers()
        made = self.generator(x)
        loss = (self.critic(x) - self.critic(made.detach())).mean()
        of_critic.zero_grad()
        self.manual_backward(loss)
        of_critic.step()
        loss = self.critic(made).mean()
        of_generator.zero_grad()
        self.manual_backward(loss)
        of_generator.step()
        of_generator.zero_grad()

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [
            torch.optim.SGD(self.generator.parameters(), lr=0.1),
            torch.optim.Adam(self.critic.parameters(), lr=0.01),
        ]


class ManualAccumulation(Classifier):
    """Manual optimisation that steps after every other batch."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        self.manual_backward(loss / 2)
        if batch_idx % 2:
            optimizer = self.optimizers()
            optimizer.step()
            optimizer.zero_grad()
        return loss


class Crash(Exception):
    """What ends a run in a test."""


class Crashing(Classifier):
    """Fails in its third batch, after the forward pass."""

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        if batch_idx == 2:
            raise Crash("the third batch is too much")
        return loss
