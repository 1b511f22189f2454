"""Layers that the evaluation goes around; and heads, shortcuts and fused calls, which are as they should be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.recorder import Recorder
from stepscope.store import Trial
from support.short_runs import blobs, findings, only, record

Forward = Callable[["Net", torch.Tensor], torch.Tensor]


class Net(nn.Module):
    """Four layers, which ``way`` puts together."""

    def __init__(self, way: Forward) -> None:
        super().__init__()
        self.first, self.norm, self.middle = nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 16)
        self.last, self.head = nn.Linear(16, 4), nn.Linear(16, 4)
        self.way = way

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.way(self, x)


def norm_in_training(net: Net, x: torch.Tensor) -> torch.Tensor:
    x = net.first(x)
    return net.last((net.norm(x) if net.training else x).relu())


def two_layers_in_training(net: Net, x: torch.Tensor) -> torch.Tensor:
    x = net.first(x)
    return net.last(net.middle(net.norm(x)) if net.training else x)


def head_in_training(net: Net, x: torch.Tensor) -> torch.Tensor:
    x = net.first(x).relu()
    return net.last(x) + net.head(x) if net.training else net.last(x)


def branch_in_training(net: Net, x: torch.Tensor) -> torch.Tensor:
    """As of a random depth: what goes around it is there in training, too."""
    x = net.first(x)
    return net.last((x + net.middle(net.norm(x)) if net.training else x).relu())


def trained(folder: Path, model: nn.Module) -> Trial:
    def evaluate(recorder: Recorder) -> None:
        model.eval()
        for number in range(3):
            with recorder.step(kind="validation"), torch.no_grad():
                inputs, labels = blobs(seed=1000 + number)
                F.cross_entropy(model(inputs), labels)

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x), y)

    return record(folder, model, loss, lambda number: blobs(seed=number), steps=12, after=evaluate)


def test_a_norm_that_single_steps_go_around(tmp_path: Path) -> None:
    finding = only(trained(tmp_path, Net(norm_in_training)), "skipped-module")
    assert finding.node == "model.norm" and finding.step == 12 and finding.level == "warning"
    assert set(finding.nodes) == {"model.first", "model.last"}


def test_two_layers_that_are_left_out_together(tmp_path: Path) -> None:
    finding = only(trained(tmp_path, Net(two_layers_in_training)), "skipped-module")
    assert finding.node == "model.norm" and "model.middle" in finding.nodes


def test_a_module_that_hands_on_what_it_is_given(tmp_path: Path) -> None:
    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(x) if self.training else x

    model = nn.Sequential(nn.Linear(8, 16), Normalised(), nn.ReLU(), nn.Linear(16, 4))
    assert only(trained(tmp_path, model), "skipped-module").node == "model.1.norm"


class Encoder(nn.Module):
    """Layers that torch fuses in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x[:, None])[:, 0])


@pytest.mark.parametrize("model", [Net(head_in_training), Net(branch_in_training), Encoder()])
def test_what_is_asked_for_in_training_only(model: nn.Module, tmp_path: Path) -> None:
    assert findings(trained(tmp_path, model), "skipped-module") == []
