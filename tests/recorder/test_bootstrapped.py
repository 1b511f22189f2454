"""The line that makes, out of what a net said without a gradient, what a loss compares its predictions with."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.recorder import Recorder
from stepscope.store import open_trial

Net = Callable[[torch.Tensor], torch.Tensor]


def by_a_function(value: Net, target: Net, x: torch.Tensor, reward: torch.Tensor) -> torch.Tensor:
    wanted = reward + 0.9 * target(x)
    return F.smooth_l1_loss(value(x), wanted)


def by_code(value: Net, target: Net, x: torch.Tensor, reward: torch.Tensor) -> torch.Tensor:
    wanted = reward + 0.9 * target(x)
    error = value(x)[:, None] - wanted[:, None]
    return error.square().mean()


def of_itself(value: Net, target: Net, x: torch.Tensor, reward: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        wanted = reward + 0.9 * value(x)
    return F.mse_loss(value(x), wanted)


def with_a_name(value: Net, target: Net, x: torch.Tensor, reward: torch.Tensor) -> torch.Tensor:
    return F.mse_loss(value(x), target(x).detach())


def of_data(value: Net, target: Net, x: torch.Tensor, reward: torch.Tensor) -> torch.Tensor:
    wanted = 0.9 * reward
    return F.mse_loss(value(x), wanted) + 0 * F.mse_loss(value(x), reward + 1)


def with_a_gradient(value: Net, target: Net, x: torch.Tensor, reward: torch.Tensor) -> torch.Tensor:
    return F.mse_loss(value(x), reward + 0.9 * value(2 * x))


@pytest.mark.parametrize(
    ("loss_of", "found"),
    [
        (by_a_function, True), (by_code, True), (of_itself, True),
        (with_a_name, False), (of_data, False), (with_a_gradient, False),
    ],
)  # fmt: skip
def test_what_a_prediction_is_compared_with(
    loss_of: Callable[[Net, Net, torch.Tensor, torch.Tensor], torch.Tensor], found: bool, tmp_path: Path
) -> None:
    value = nn.Linear(4, 1)
    target = deepcopy(value).requires_grad_(False)
    optimizer = torch.optim.SGD(value.parameters(), 0.01)
    with Recorder(tmp_path, trial="t", schedule=1, strict=True) as recorder:
        recorder.watch({"value": value, "followed": target}, optimizer)
        with recorder.step():
            optimizer.zero_grad()
            loss_of(value, target, torch.randn(6, 4), torch.randn(6, 1)).backward()
            optimizer.step()
    graph = open_trial(tmp_path / "t").step(0).graph()
    calls = [call for call in graph.calls if call.kind == "bootstrapped"]
    assert [call.source.text.startswith("wanted = reward +") for call in calls] == [True] * found
    for call in calls:
        nodes = [graph.vertices[index].node for index in call.after]
        assert nodes == ["loss"]
