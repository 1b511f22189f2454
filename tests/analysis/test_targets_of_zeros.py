"""The rule ``constant-data`` where a net's own output is compared with zeros; and where zeros are meant."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.analysis import Finding
from stepscope.recorder import Recorder
from stepscope.store import open_trial
from support.short_runs import Batch, descend, findings, mlp, record


def adversaries(folder: Path, way: str) -> list[Finding]:
    """A generator of eight numbers and its critic, trained in turn; what is said of their data."""
    makes, judges = mlp(4, 8, 8), mlp(8, 8, 8 if "patches" in way else 1)
    make, judge = (torch.optim.Adam(net.parameters(), 1e-3) for net in (makes, judges))
    loss_of = F.mse_loss if "squares" in way else F.binary_cross_entropy_with_logits
    with Recorder(folder, trial="trial", schedule=1, strict=True) as recorder:
        recorder.watch({"makes": makes, "judges": judges}, {"make": make, "judge": judge})
        for _ in range(6):
            with recorder.step() as step:
                real, fake = torch.randn(16, 8) + 1, makes(torch.randn(16, 4))
                shown = judges(torch.cat([real, fake.detach()]))
                with step.loss_group("judge"):
                    labels = torch.cat([torch.ones_like(shown[:16]), torch.zeros_like(shown[:16])])
                    descend(loss_of(shown, labels), judge)
                answer = fake if "itself" in way else judges(fake)
                if "sigmoid" in way:
                    answer = answer.sigmoid()
                with step.loss_group("make"):
                    descend(loss_of(answer, torch.zeros_like(answer)), make)
    return findings(open_trial(folder / "trial"), "constant-data")


@pytest.mark.parametrize("way", ["itself", "itself, squares", "itself, squares, sigmoid"])
def test_a_generator_that_is_held_against_zeros(way: str, tmp_path: Path) -> None:
    (found,) = adversaries(tmp_path, way)
    assert (found.level, found.node, found.nodes[0]) == ("warning", "loss", "makes")
    assert "are zeros in every step" in found.summary


@pytest.mark.parametrize("way", ["", "patches", "patches, squares"])
def test_labels_of_zero_are_meant(way: str, tmp_path: Path) -> None:
    assert adversaries(tmp_path, way) == []


def curves(number: int) -> Batch:
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(number))
    return x, torch.stack([x.sum(1), x.prod(1)], dim=1)


@pytest.mark.parametrize("way", ["a penalty", "the rest of an equation", "what is left"])
def test_zeros_beside_what_is_learned_are_meant(way: str, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x = x.requires_grad_()
        out = model(x)
        if way == "a penalty":
            return F.mse_loss(out, y) + 0.1 * F.mse_loss(out, torch.zeros_like(out))
        if way == "what is left":
            return F.mse_loss(out - y, torch.zeros_like(out))
        (slope,) = torch.autograd.grad(out.sum(), x, create_graph=True)
        return F.mse_loss(slope + out.sum(1, keepdim=True), torch.zeros_like(slope))

    assert findings(record(tmp_path, model, loss_of, curves, steps=4), "constant-data") == []
