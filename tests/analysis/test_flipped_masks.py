"""The rule ``flipped-masks``: pictures and their masks, flipped together and apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from support.short_runs import Batch, findings, record

Flip = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], Batch]


def disks(number: int, flip: Flip) -> Batch:
    """Noisy pictures ``(16, 1, 12, 12)`` of disks, and the disks; ``flip`` is told which half of them."""
    generator = torch.Generator().manual_seed(number)
    centre, line = 2 + 8 * torch.rand(16, 2, 1, 1, generator=generator), torch.arange(12.0)
    disk = ((line[:, None] - centre[:, 0]).square() + (line - centre[:, 1]).square() < 8).float()[:, None]
    half = (torch.rand(16, generator=generator) < 0.5)[:, None, None, None]
    return flip(disk + 0.4 * torch.randn(disk.shape, generator=generator), disk, half)


def told(folder: Path, flip: Flip) -> list[tuple[str, str]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1))

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(model(x), y)

    trial = record(folder, model, loss_of, lambda number: disks(number, flip), steps=10)
    return [(found.level, found.node) for found in findings(trial, "flipped-masks")]


@pytest.mark.parametrize(
    "flip",
    [
        lambda x, y, half: (x.flip(-1).where(half, x), y),
        lambda x, y, half: (x, y.flip(-2).where(half, y)),
        lambda x, y, half: (x.rot90(2, (2, 3)).where(half, x), y),
        lambda x, y, half: (x, y.flip(-1)),
        lambda x, y, half: (-x.flip(-1).where(half, x), y),
    ],
)
def test_pictures_that_were_flipped_without_their_masks_are_told(flip: Flip, tmp_path: Path) -> None:
    assert told(tmp_path, flip) == [("warning", "target")]


@pytest.mark.parametrize(
    "flip",
    [
        lambda x, y, half: (x, y),
        lambda x, y, half: (x.flip(-1).where(half, x), y.flip(-1).where(half, y)),
        lambda x, y, half: (x + x.flip(-1), torch.maximum(y, y.flip(-1))),
        lambda x, y, half: (x, torch.rand_like(y).round()),
    ],
)
def test_masks_that_fit_or_tell_nothing_are_right(flip: Flip, tmp_path: Path) -> None:
    assert told(tmp_path, flip) == []
