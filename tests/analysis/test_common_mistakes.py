"""Common mistakes in other manners of coding: told by their cause, and not by something that looks like it."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.analysis import diagnose
from stepscope.recorder import Every, Recorder
from stepscope.store import open_trial
from support.short_runs import Batch, blob_batches, findings, mlp, record


def classes(number: int) -> Batch:
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(24, 6, generator=generator)
    return x, (x[:, 0] + x[:, 1] > 0).long()


def sequences(number: int) -> Batch:
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(8, 5, 3, generator=generator)
    return x, x.sum((1, 2))


def pictures(number: int) -> Batch:
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(6, 1, 6, 6, generator=generator)
    return x, (x > 0.3).float()


def test_a_bias_before_a_normalisation_may_stand_still(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), classes, optimizer=optimizer)
    assert not findings(trial, "unchanged-parameters")


def test_weights_of_half_precision_that_hardly_move_are_not_clamped(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 2)).bfloat16()
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x.bfloat16()), y), classes, lr=1e-5)
    assert not findings(trial, "clamped-weights")


class Rectified(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.first = nn.BatchNorm1d(6), nn.Linear(6, 32)
        self.drop, self.last = nn.Dropout(0.2), nn.Linear(32, 2)
        nn.init.constant_(self.first.weight, 0.1)
        nn.init.constant_(self.first.bias, 2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.first(self.norm(x))
        return self.last(self.drop(torch.relu(hidden)))


def test_zeros_of_a_relu_without_a_name_are_no_dropout(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Rectified()

    def evaluate(recorder: Recorder) -> None:
        model.eval()
        with torch.no_grad(), recorder.step("validation") as step:
            x, y = classes(99)
            step.record("loss", F.cross_entropy(model(3 * x), y), type="loss")

    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), classes, after=evaluate)
    assert not findings(trial, "dropout-mode")


class Reader(nn.Module):
    def __init__(self, cell: str) -> None:
        super().__init__()
        self.reader = getattr(nn, cell)(3, 8, batch_first=True)
        self.answer = nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.answer(self.reader(x)[0][:, -1])[:, 0]


def test_recurrent_weights_of_zero_are_told(tmp_path: Path) -> None:
    for name, cell, zero in (("one", "LSTM", True), ("two", "GRU", True), ("three", "LSTM", False)):
        model = Reader(cell)
        for parameter in model.parameters() if zero else ():
            nn.init.zeros_(parameter)
        trial = record(tmp_path / name, model, lambda x, y, net=model: F.mse_loss(net(x), y), sequences, steps=6)
        assert bool(findings(trial, "weight-scale")) == zero


def test_an_overlap_of_raw_scores_over_the_whole_batch_is_told(tmp_path: Path) -> None:
    def dice(shares: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return 1 - (2 * (shares * y).sum() + 1) / (shares.sum() + y.sum() + 1)

    for name, is_share in (("raw", False), ("shares", True)):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1))

        def loss(x: torch.Tensor, y: torch.Tensor, net: nn.Module = model, share: bool = is_share) -> torch.Tensor:
            return dice(net(x).sigmoid() if share else net(x), y)

        trial = record(tmp_path / name, model, loss, pictures, steps=12)
        assert [f.level for f in findings(trial, "unbounded-loss")] == ([] if is_share else ["warning"])


def test_what_follows_from_an_activation_before_the_loss_stands_under_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp(8, 16, 4, last=[nn.Sigmoid()])
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, lr=0.03, steps=60)
    first = diagnose(trial)[0]
    assert first.rule == "activation-before-loss"
    assert {found.rule for found in first.walk()} >= {"flat-scores"}


def test_bursts_of_a_huge_learning_rate_are_no_reset(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Reader("GRU")
    optimizer = torch.optim.RMSprop(model.parameters(), lr=3.0)
    with Recorder(tmp_path, trial="trial", schedule=Every(2)) as recorder:
        recorder.watch(model, optimizer)
        for number in range(60):
            x, y = sequences(number)
            with recorder.step():
                optimizer.zero_grad()
                F.mse_loss(model(x), y).backward()
                optimizer.step()
    assert not findings(open_trial(tmp_path / "trial"), "weights-reset")


def test_a_critic_that_is_never_cleared_is_told(tmp_path: Path) -> None:
    for name, is_cleared in (("never", False), ("each", True)):
        torch.manual_seed(0)
        maker, critic = mlp(3, 12, 6), mlp(6, 12, 1)
        optimizers = [torch.optim.Adam(net.parameters(), lr=1e-3) for net in (maker, critic)]
        with Recorder(tmp_path / name, trial="trial", schedule=Every(2)) as recorder:
            recorder.watch({"maker": maker, "critic": critic}, optimizers)
            for number in range(40):
                real = 1 + classes(number)[0]
                with recorder.step():
                    fake = maker(torch.randn(24, 3))
                    if is_cleared:
                        optimizers[1].zero_grad()
                    (F.softplus(-critic(real)).mean() + F.softplus(critic(fake.detach())).mean()).backward()
                    optimizers[1].step()
                    optimizers[0].zero_grad()
                    F.softplus(-critic(fake)).mean().backward()
                    optimizers[0].step()
        told = [found.level for found in findings(open_trial(tmp_path / name / "trial"), "accumulated-gradients")]
        assert ("error" in told) == (not is_cleared)
