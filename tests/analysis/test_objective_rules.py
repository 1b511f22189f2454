"""Rules about losses of one's own that have no minimum, or nothing that holds against them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from support.short_runs import Batch, blobs, curve, findings, mlp, only, record


def _curves(number: int) -> Batch:
    return curve(outputs=1, seed=number)


@pytest.mark.parametrize("how", ["free variance", "free confidence", "variance", "far targets", "counts"])
def test_what_makes_a_loss_small_and_costs_nothing(how: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp(6, 32, 2, activation=nn.Tanh)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        mean, other = model(x).chunk(2, dim=1)
        if how == "free confidence":
            return (other.sigmoid() * (mean - y).abs()).mean()
        if how == "far targets":
            return (mean - y).square().mean() + (other - y).square().mean()
        if how == "counts":
            return (mean.exp() - y.round().clamp(min=0) * mean).mean() + other.square().mean()
        return ((mean - y).square() * (-other).exp() + (other if how == "variance" else 0)).mean()

    def batches(number: int) -> Batch:
        points, values = _curves(number)
        return points, values + 20 * (how == "far targets")

    found = findings(record(tmp_path, model, loss_of, batches, steps=76, every=1), "unbounded-loss")
    assert ["no minimum in feature 1 of model.2" in finding.summary for finding in found] == [True] * how.startswith(
        "free"
    )


def _scenes(number: int) -> Batch:
    masks = torch.zeros(8, 1, 10, 10)
    generator = torch.Generator().manual_seed(number)
    for index, (top, left) in enumerate(torch.randint(0, 6, (8, 2), generator=generator).tolist()):
        masks[index, 0, top : top + 4, left : left + 4] = 1
    return masks + 0.5 * torch.randn(masks.shape, generator=generator), masks


@pytest.mark.parametrize("how", ["raw overlap", "overlap", "absolute error", "quantile"])
def test_scores_that_are_taken_for_shares(how: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1))

    def loss_of(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        share = model(x).sigmoid() if how == "overlap" else model(x)
        if how == "absolute error":
            return (share - mask).abs().mean()
        if how == "quantile":
            return torch.maximum(0.3 * (mask - share), 0.7 * (share - mask)).mean()
        common = (share * mask).sum((1, 2, 3))
        return (1 - (2 * common + 1) / (share.sum((1, 2, 3)) + mask.sum((1, 2, 3)) + 1)).mean()

    trial = record(tmp_path, model, loss_of, _scenes, lr=3e-3, steps=20)
    if how == "raw overlap":
        assert "sigmoid" in only(trial, "unbounded-loss").summary
    else:
        assert not findings(trial, "unbounded-loss")


@pytest.mark.parametrize("how", ["chunks", "two heads", "in use", "noise that is added"])
def test_a_code_that_says_nothing_without_names(how: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    width = 4 if how == "two heads" else 8
    model = nn.ModuleDict({"encode": mlp(16, 32, width), "other": mlp(16, 32, 4), "decode": mlp(4, 32, 16)})
    price = 2.0 if how in ("chunks", "two heads") else 0.01

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        given = model["encode"](x)
        mean, spread = (given, model["other"](x)) if how == "two heads" else given.chunk(2, dim=1)
        if how == "noise that is added":
            return (model["decode"](mean + 0.5 * torch.randn_like(mean)) - x).square().mean() + 0 * spread.sum()
        made = model["decode"](mean + (spread / 2).exp() * torch.randn_like(mean))
        return (made - x).square().mean() + price * (mean.square() + spread.exp() - 1 - spread).sum(1).mean()

    found = findings(
        record(tmp_path, model, loss_of, lambda n: blobs(features=16, seed=n), steps=60), "posterior-collapse"
    )
    assert bool(found) == (how in ("chunks", "two heads"))
    assert all(finding.node == "model.encode" for finding in found)


@pytest.mark.parametrize("how", ["without the volume", "with the volume", "rebuilt"])
def test_what_shrinks_towards_one_point(how: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Linear(8, 8)

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        if how == "rebuilt":
            return (model(x) - x).square().mean()
        volume = torch.linalg.slogdet(model.weight)[1] if how == "with the volume" else 0
        return (model(x).square().sum(1) / 2).mean() - volume

    found = findings(record(tmp_path, model, loss_of, lambda n: blobs(seed=n), steps=50), "representation-collapse")
    assert [finding.node for finding in found] == (["model"] if how == "without the volume" else [])
    assert all("shrinks towards one point" in finding.summary for finding in found)
