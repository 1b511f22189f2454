"""Common mistakes of settings: rates that kill or do nothing, targets in dollars, losses of another task."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.recorder import Every, Recorder
from stepscope.store import open_trial
from support.short_runs import blob_batches, curve_batches, findings, mlp, only, record


@pytest.mark.parametrize(("biased", "words"), [(False, "alive before step"), (True, "")])
def test_units_that_a_step_has_killed(tmp_path: Path, biased: bool, words: str) -> None:
    """Born dead they are not the learning rate's doing."""
    torch.manual_seed(0)
    model = mlp(8, 32, 4)
    if biased:
        nn.init.constant_(model[0].bias, -50)

    def loss_of(number: int, _: object) -> torch.Tensor:
        if number == 10 and not biased:
            with torch.no_grad():
                model[0].bias.sub_(50)
        x, y = blob_batches(number)
        return F.cross_entropy(model(x), y)

    finding = only(record(tmp_path, model, loss_of, steps=30), "dead-units")
    assert words in finding.summary and ("learning rate" in finding.summary) == bool(words)


@pytest.mark.parametrize(("rate", "told"), [(1e-7, True), (1e-1, False)])
def test_tables_that_stand_still(tmp_path: Path, rate: float, told: bool) -> None:
    person, film = nn.Embedding(20, 8), nn.Embedding(30, 8)
    model = nn.ModuleDict({"person": person, "film": film})
    wanted = torch.randn(20, 30, generator=torch.Generator().manual_seed(0))

    def loss_of(number: int, _: object) -> torch.Tensor:
        draw = torch.Generator().manual_seed(number)
        who, what = torch.randint(20, (64,), generator=draw), torch.randint(30, (64,), generator=draw)
        return F.mse_loss((person(who) * film(what)).sum(1), wanted[who, what])

    found = findings(record(tmp_path, model, loss_of, lr=rate, steps=20), "learning-rate")
    assert ["too low" in finding.summary for finding in found] == [True] * told


@pytest.mark.parametrize(("rates", "told"), [((1e-2, 1e-8), True), ((1e-2, 1e-4), False)])
def test_rates_of_groups_that_lie_far_apart(tmp_path: Path, rates: tuple[float, float], told: bool) -> None:
    model = mlp(8, 16, 4)
    groups = [{"params": model[index].parameters(), "lr": rate} for index, rate in zip((2, 0), rates, strict=True)]
    optimizer = torch.optim.Adam(groups)
    trial = record(
        tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, optimizer=optimizer, steps=5
    )
    found = findings(trial, "optimizer-settings")
    assert ["lie between 1e-08 and 0.01" in finding.summary for finding in found] == [True] * told


@pytest.mark.parametrize(("scale", "told"), [(1e6, True), (1.0, False)])
def test_targets_that_throw_the_net_into_infinity(tmp_path: Path, scale: float, told: bool) -> None:
    model = mlp(6, 16, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    trial = record(
        tmp_path, model, lambda x, y: F.mse_loss(model(x), scale * y), curve_batches, optimizer=optimizer, steps=30
    )
    found = findings(trial, "target-scale")
    assert [finding.node for finding in found] == ["target"] * told


@pytest.mark.parametrize(
    ("end", "loss_of", "told"),
    [
        (nn.Softmax(1), F.mse_loss, True), (nn.Softmax(1), F.l1_loss, True),
        (nn.Identity(), F.mse_loss, False), (nn.Softmax(1), F.binary_cross_entropy, False),
    ],
)  # fmt: skip
def test_a_squared_error_of_classes(tmp_path: Path, end: nn.Module, loss_of: object, told: bool) -> None:
    model = mlp(8, 16, 4, last=(end,))
    assert callable(loss_of)
    trial = record(tmp_path, model, lambda x, y: loss_of(model(x), F.one_hot(y, 4).float()), blob_batches, steps=5)
    assert bool(findings(trial, "squared-chances")) == told


def test_a_loss_that_takes_the_logarithms_itself(tmp_path: Path) -> None:
    class OfChances(nn.Module):
        def forward(self, chances: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return F.nll_loss(chances.clamp(min=1e-7).log(), y)

    model, criterion = mlp(8, 16, 4, last=(nn.Softmax(1),)), OfChances()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with Recorder(tmp_path, trial="trial", schedule=Every(1)) as recorder:
        recorder.watch({"model": model, "criterion": criterion}, optimizer)
        for number in range(5):
            x, y = blob_batches(number)
            with recorder.step():
                loss = criterion(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    assert findings(open_trial(tmp_path / "trial"), "activation-before-loss") == []


@pytest.mark.parametrize(("share", "told"), [(0.2, True), (0.0, False)])
def test_a_fused_attention_that_drops_in_evaluation(tmp_path: Path, share: float, told: bool) -> None:
    class Look(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.head = nn.Linear(8, 12), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = self.enter(x[:, None] * torch.ones(5, 1)).chunk(3, -1)
            drop = share if not self.training else 0.2
            return self.head(F.scaled_dot_product_attention(q, k, v, dropout_p=drop).mean(1))

    model = Look()

    def evaluate(recorder: Recorder) -> None:
        model.eval()
        for number in range(5):
            x, y = blob_batches(100 + number)
            with recorder.step("validation"), torch.no_grad():
                F.cross_entropy(model(x), y)

    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, steps=8, after=evaluate)
    assert bool(findings(trial, "dropout-mode")) == told


@pytest.mark.parametrize(("samples", "told"), [(2, True), (32, False)])
def test_a_batch_of_two(tmp_path: Path, samples: int, told: bool) -> None:
    """At a rate that thirty-two samples a step still bear."""
    model = mlp(8, 16, 4)

    def some(number: int) -> tuple[torch.Tensor, ...]:
        x, _ = blob_batches(number)
        return x[:samples], torch.randint(4, (samples,), generator=torch.Generator().manual_seed(number))

    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), some, optimizer=optimizer, steps=60)
    found = findings(trial, "tiny-batch")
    assert [(finding.level, finding.node) for finding in found] == [("info", "input")] * told
