"""Rules about what moves the weights: a decay of another optimizer, averages that are never swapped back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from support.short_runs import blob_batches, descend, findings, mlp, only, record

DECAYS = {
    "Adam, of AdamW": (torch.optim.Adam, {"lr": 3e-3, "weight_decay": 0.1}),
    "RMSprop, of AdamW": (torch.optim.RMSprop, {"lr": 1e-3, "weight_decay": 0.1}),
    "AdamW": (torch.optim.AdamW, {"lr": 3e-3, "weight_decay": 0.1}),
    "NAdam, kept apart": (torch.optim.NAdam, {"lr": 3e-3, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    "Adam, an L2 term": (torch.optim.Adam, {"lr": 3e-3, "weight_decay": 1e-4}),
}


@pytest.mark.parametrize("how", DECAYS)
def test_a_decay_that_is_added_to_the_gradient(how: str, tmp_path: Path) -> None:
    model = mlp(8, 32, 4)
    make, settings = DECAYS[how]
    optimizer = make(model.parameters(), **settings)
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, optimizer=optimizer)
    found = findings(trial, "shrinking-weights")
    assert bool(found) == how.endswith("of AdamW")
    assert all("Weight decay" in finding.summary for finding in found)


@pytest.mark.parametrize(("rate", "decay", "level"), [(3e-2, 0.02, "info"), (1e-3, 0.1, "warning")])
def test_such_a_decay_is_worth_knowing_where_the_net_learns_all_the_same(
    rate: float, decay: float, level: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = mlp(8, 32, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, weight_decay=decay)
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, optimizer=optimizer)
    assert [finding.level for finding in findings(trial, "shrinking-weights")] == [level]


def test_an_average_of_the_weights_that_is_not_swapped_back(tmp_path: Path) -> None:
    model = mlp(8, 32, 4)
    average = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    done = 0

    def train(loss: torch.Tensor, optimizer: Any) -> None:
        nonlocal done
        descend(loss, optimizer)
        done += 1
        for name, tensor in model.state_dict().items():
            average[name].lerp_(tensor, 0.01)
        if done == 30:
            model.load_state_dict(average)

    optimizer = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9)
    loss_of = lambda x, y: F.cross_entropy(model(x), y)  # noqa: E731
    trial = record(tmp_path, model, loss_of, blob_batches, optimizer=optimizer, train=train, every=2, steps=44)
    assert only(trial, "weights-reset").step == 30


@pytest.mark.parametrize(("how", "level"), [("Adam", "warning"), ("SGD", "info"), ("watched", ""), ("seldom", "")])
def test_an_optimizer_that_is_made_in_the_loop(how: str, level: str, tmp_path: Path) -> None:
    model = mlp(8, 32, 4)
    done = 0

    def train(loss: torch.Tensor, optimizer: Any) -> None:
        nonlocal done
        done += 1
        if how == "Adam":
            optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        if how == "SGD":
            optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        loss.backward()
        if how != "seldom" or done % 4 == 0:
            optimizer.step()
            optimizer.zero_grad()

    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, train=train)
    found = findings(trial, "optimizer-reset")
    assert [finding.level for finding in found] == ([level] if level else [])
    assert all("never makes a step" in finding.summary for finding in found)
    if how == "Adam":
        assert found[0].source is not None
        assert found[0].source.text == "optimizer.step()"
