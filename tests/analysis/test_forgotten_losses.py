"""Losses that are computed and go nowhere: overwritten in a loop, or forgotten in the sum; and look-alikes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from support.short_runs import Batch, findings, mlp, record

RULE = "terms-without-gradient"


def series(number: int) -> Batch:
    """Six moments, and whether each has a positive sum."""
    x = torch.randn(16, 6, 8, generator=torch.Generator().manual_seed(number))
    return x, (x.sum(2) > 0).long()


def squared(scores: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return ((scores - y.float()) ** 2).mean()


Moments = list[tuple[torch.Tensor, torch.Tensor]]


def in_a_loop(moments: Moments) -> torch.Tensor:
    criterion = nn.CrossEntropyLoss()
    for each, wanted in moments:
        loss = criterion(each, wanted)
    return loss


def by_hand(moments: Moments) -> torch.Tensor:
    for each, wanted in moments:
        loss = ((each[:, 0] - wanted.float()) ** 2).mean() / len(moments)
    return loss


def in_a_list(moments: Moments) -> torch.Tensor:
    losses = [F.cross_entropy(each, wanted) for each, wanted in moments]
    return losses[-1]


def looked_at(moments: Moments) -> torch.Tensor:
    seen = []
    for each, wanted in moments:
        loss = F.cross_entropy(each, wanted)
        seen.append(loss.item())
    return loss


def beside_a_metric(moments: Moments) -> torch.Tensor:
    squared(moments[1][0][:, 0], moments[1][1])
    return squared(moments[0][0][:, 0], moments[0][1])


def forgotten(moments: Moments) -> torch.Tensor:
    F.mse_loss(moments[1][0][:, 0], moments[1][1].float())
    return F.cross_entropy(*moments[0])


def added_up(moments: Moments) -> torch.Tensor:
    return torch.stack([F.cross_entropy(each, wanted) for each, wanted in moments]).mean()


def the_least(moments: Moments) -> torch.Tensor:
    return min((F.cross_entropy(each, wanted) for each, wanted in moments), key=lambda one: one.item())


def after_steps_of_its_own(moments: Moments) -> torch.Tensor:
    extra = torch.zeros(2, requires_grad=True)
    for each, wanted in moments:
        loss = F.cross_entropy(each + extra, wanted)
        extra = extra - 0.1 * torch.autograd.grad(loss, extra, create_graph=True)[0]
    return F.cross_entropy(moments[0][0] + extra, moments[0][1])


def one_of_a_call(moments: Moments) -> torch.Tensor:
    return moments[0][0].abs().mean(0).unbind()[1]


def beside_numbers(moments: Moments) -> torch.Tensor:
    with torch.no_grad():
        forgotten(moments)
    return F.cross_entropy(*moments[0])


@pytest.mark.parametrize(
    ("loss_of", "level"),
    [
        (in_a_loop, ["warning"]),
        (by_hand, ["warning"]),
        (in_a_list, ["warning"]),
        (looked_at, ["info"]),
        (beside_a_metric, ["info"]),
        (forgotten, ["info"]),
        (added_up, []),
        (the_least, []),
        (after_steps_of_its_own, []),
        (one_of_a_call, []),
        (beside_numbers, []),
    ],
)
def test_a_loss_that_goes_nowhere(loss_of: Callable[[Moments], torch.Tensor], level: list[str], tmp_path: Path) -> None:
    model = mlp(8, 16, 2)

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return loss_of(list(zip(model(x).unbind(1), y.unbind(1), strict=True)))

    found = findings(record(tmp_path, model, loss, series, steps=6), RULE)
    assert [finding.level for finding in found] == level
    if level == ["warning"]:
        assert found[0].summary.startswith("Only the last of 6 losses")
        assert found[0].source is not None
