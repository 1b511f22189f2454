"""A LightningModule that reads handwritten digits, recorded by giving its Trainer one callback.

    python examples/lightning_fit.py --out runs/lightning

The module knows nothing of the recording. What it logs becomes scalars, its hyper-parameters the trial's config.
"""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples import digits
from stepscope.examples.arguments import parse
from stepscope.integrations.lightning import StepscopeCallback
from stepscope.recorder import Every

STEPS = 300
EPOCH = 20
VALIDATION_BATCHES = -(-digits.TEST_IMAGES // digits.BATCH)
SCHEDULE = {"train": Every(20), "validation": Every(VALIDATION_BATCHES)}

Batch = tuple[torch.Tensor, torch.Tensor]


class DigitsModule(pl.LightningModule):
    """Two hidden layers: images ``(batch, 1, 8, 8)`` to logits ``(batch, 10)``."""

    def __init__(self, width: int = 64, lr: float = 0.003) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.lr = lr
        self.flatten = nn.Flatten()
        self.first = nn.Linear(64, width)
        self.second = nn.Linear(width, width)
        self.classify = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.first(self.flatten(x)))
        x = F.relu(self.second(x))
        x = self.classify(x)
        return x

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        images, labels = batch
        loss = F.cross_entropy(self(images), labels)
        self.log("loss/train", loss)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        images, labels = batch
        logits = self(images)
        loss = F.cross_entropy(logits, labels)
        self.log("loss/validation", loss)
        self.log("accuracy", (logits.argmax(1) == labels).float().mean())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.lr)


def make_loaders(seed: int) -> tuple[DataLoader[tuple[torch.Tensor, ...]], DataLoader[tuple[torch.Tensor, ...]]]:
    """Batches to train on, and batches to validate on."""
    train_set, test_set = digits.load(seed)
    order = torch.Generator().manual_seed(seed)
    return (
        DataLoader(TensorDataset(*train_set), batch_size=digits.BATCH, shuffle=True, generator=order),
        DataLoader(TensorDataset(*test_set), batch_size=digits.BATCH),
    )


def make_trainer(out: Path, steps: int) -> pl.Trainer:
    """A Trainer that records; everything else it would write is switched off."""
    return pl.Trainer(
        max_steps=steps,
        limit_train_batches=min(steps, EPOCH),  # then comes a validation
        callbacks=[StepscopeCallback(out, trial="lightning", schedule=SCHEDULE, if_exists="overwrite")],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=sys.stderr.isatty(),
    )


def run(out: Path, steps: int = STEPS, *, seed: int = 0) -> float:
    """Record the trial ``lightning`` into the group ``out``; returns the accuracy on the test images."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")  # advice on workers: the data is in memory
    torch.manual_seed(seed)
    trainer = make_trainer(out, steps)
    trainer.fit(DigitsModule(), *make_loaders(seed))
    return float(trainer.callback_metrics["accuracy"])


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments, "Train on handwritten digits with Lightning.", out="runs/lightning", steps=STEPS)
    accuracy = run(options.out, options.steps)
    print(f"accuracy on {digits.TEST_IMAGES} test images: {accuracy:.1%}", file=sys.stderr)
    print(f"Recorded the trial. Look at it with: stepscope view {options.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
