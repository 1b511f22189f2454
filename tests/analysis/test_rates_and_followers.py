"""Learning rates that go astray, batches that repeat, and averages that do not follow; and look-alikes."""

from __future__ import annotations

import math
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, CosineAnnealingWarmRestarts, LambdaLR, LRScheduler, OneCycleLR

from stepscope.analysis.rates import begins_anew, passes_warm_up, rises_again
from stepscope.recorder import Recorder
from stepscope.store import Trial, open_trial
from support.short_runs import blobs, findings, mlp, record

_STEPS = 60
RISING = {
    "cosine": [0.05 * (1 + math.cos(math.pi * step / 30)) for step in range(60)],
    "cosine in stairs": [0.05 * (1 + math.cos(math.pi * (step // 5) / 6)) for step in range(60)],
    "square": [0.1 * (1 - step / 30) ** 2 for step in range(60)],
}
NOT_RISING = {
    "whole cosine": [0.05 * (1 + math.cos(math.pi * step / 60)) for step in range(60)],
    "restart": [0.05 * (1 + math.cos(math.pi * (step % 30) / 30)) for step in range(60)],
    "triangles": [0.01 + 0.09 * abs(1 - (step % 40) / 20) for step in range(60)],
    "one cycle": [0.1 * min(step / 20, (59 - step) / 39) for step in range(60)],
    "once more": [0.05 * (1 + math.cos(math.pi * min(step, 40) / 20)) * (1 - step / 59) for step in range(60)],
    "constant": [0.1] * 60,
    "plateaus": [0.1 * 0.1 ** (step // 15) for step in range(60)],
}


@pytest.mark.parametrize("course", RISING)
def test_a_rate_that_rises_past_its_end(course: str) -> None:
    assert rises_again(np.array(RISING[course])) == int(np.argmin(RISING[course]))


@pytest.mark.parametrize("course", NOT_RISING)
def test_rates_that_end_low_or_restart_are_fine(course: str) -> None:
    rates = np.array(NOT_RISING[course])
    assert rises_again(rates) is None
    assert begins_anew(rates) is None


def test_a_warm_up_without_its_end() -> None:
    rates = np.arange(1, 61) / 600
    assert passes_warm_up(rates, 0.05) == 30
    assert passes_warm_up(np.minimum(rates, 0.05), 0.05) is None
    assert passes_warm_up(rates, 0.1) is None  # still under way
    assert passes_warm_up(rates, rates[0]) is None  # a search for the best rate begins with what it is given
    assert passes_warm_up(1e-4 * 1.2 ** np.arange(60), 0.05) is None


@pytest.mark.parametrize("cut", [12, 30, 45])
def test_a_schedule_that_begins_anew(cut: int) -> None:
    line = np.array([0.1 * (1 - step / 50) for step in range(46)])
    rates = np.concatenate([line[:cut], line[: 60 - cut]])
    assert begins_anew(rates) == (cut if line[cut - 1] < 0.05 else None)
    assert begins_anew(line) is None


SCHEDULES = {
    "cosine": lambda o: CosineAnnealingLR(o, 30),
    "right cosine": lambda o: CosineAnnealingLR(o, _STEPS),
    "restarts": lambda o: CosineAnnealingWarmRestarts(o, 30),
    "one cycle": lambda o: OneCycleLR(o, 0.1, _STEPS),
    "warm-up": lambda o: LambdaLR(o, lambda step: (step + 1) / 20),
    "right warm-up": lambda o: LambdaLR(o, lambda step: min(1.0, (step + 1) / 20)),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_schedules_of_torch(name: str, tmp_path: Path) -> None:
    model = mlp(8, 16, 4)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    schedule: LRScheduler = SCHEDULES[name](optimizer)

    def train(loss: torch.Tensor, _: object) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    trial = record(
        tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), lambda n: blobs(seed=n), optimizer=optimizer,
        steps=_STEPS, every=1, train=train,
    )  # fmt: skip
    found = [f for f in findings(trial, "scheduler-rhythm") if f.level != "info"]
    assert len(found) == (name in ("cosine", "warm-up"))


@pytest.mark.parametrize("way", ["last for ever", "two by turns", "several times each", "always", "fresh"])
def test_batches_that_come_again(way: str, tmp_path: Path) -> None:
    model = mlp(8, 16, 4)
    number_of = {
        "last for ever": lambda n: min(n, 20),
        "two by turns": lambda n: n % 2,
        "several times each": lambda n: n // 12,
        "always": lambda n: 0,
        "fresh": lambda n: n,
    }[way]
    trial = record(
        tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), lambda n: blobs(seed=number_of(n)), steps=45
    )
    found = findings(trial, "repeated-batch")
    expected = {"last for ever": [("warning", 20)], "always": [("info", 0)], "two by turns": [("info", 0)]}
    assert [(finding.level, finding.step) for finding in found] == expected.get(way, [])


def averaged(folder: Path, decay: float, *, buffers: bool = True, used: str = "validation") -> Trial:
    """A training whose moving average is evaluated, or is the target of a loss."""
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))
    average = deepcopy(model).requires_grad_(False).eval()
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)
    with Recorder(folder, trial="t", schedule={"*": 1}, strict=True) as recorder:
        recorder.watch({"model": model, "average": average}, optimizer)
        for number in range(40):
            x, y = blobs(seed=number)
            with recorder.step("train"):
                loss = F.cross_entropy(model(3 * x + 2), y)
                if used == "target":
                    loss = loss + F.mse_loss(model(x), average(x))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            with torch.no_grad():
                for own, other in zip(average.parameters(), model.parameters(), strict=True):
                    own.lerp_(other, 1 - decay)
                for own, other in zip(average.buffers(), model.buffers(), strict=True) if buffers else ():
                    own.copy_(other)
            if number % 10 == 9 and used == "validation":
                with torch.no_grad(), recorder.step("validation") as step:
                    step.record("loss", F.cross_entropy(average(3 * x + 2), y), type="loss")
    return open_trial(folder / "t")


@pytest.mark.parametrize(
    ("decay", "buffers", "used", "words"),
    [
        (0.9999, True, "validation", "hardly follows"),
        (0.8, True, "validation", ""),
        (0.8, False, "validation", "running statistics"),
        (0.9999, True, "target", ""),
    ],
)
def test_an_average_that_is_evaluated(decay: float, buffers: bool, used: str, words: str, tmp_path: Path) -> None:
    trial = averaged(tmp_path, decay, buffers=buffers, used=used)
    found = [finding for finding in findings(trial, "stale-copy") if finding.level == "warning"]
    assert [words in finding.summary for finding in found] == [True] * bool(words)


@pytest.mark.parametrize("rate", [0.6, 0.02])
def test_a_first_step_that_sweeps_the_weights_away_is_told_though_the_loss_falls(rate: float, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp(8, 32, 32, 4, activation=nn.Tanh)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = LambdaLR(optimizer, lambda step: max(0.01 / rate, 0.5**step))

    def train(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    trial = record(
        tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), lambda number: blobs(seed=number),
        optimizer=optimizer, train=train, steps=_STEPS,
    )  # fmt: skip
    loss = trial.series("loss").values
    assert loss[-1] < 0.4 * loss[0]
    found = findings(trial, "learning-rate")
    assert ["at first" in one.summary for one in found] == ([True] if rate > 0.1 else [])


@pytest.mark.parametrize(("rate", "momentum", "told"), [(1e-3, 0.0, True), (1e-3, 0.9, False), (0.3, 0.0, False)])
def test_plain_descent_that_moves_no_weight(rate: float, momentum: float, told: bool, tmp_path: Path) -> None:
    """The bias of the last layer moves well, and the layers before it get small gradients: the step is small, too."""
    torch.manual_seed(0)
    model = mlp(8, 32, 32, 32, 32, 1)
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=momentum)

    def data(number: int) -> tuple[torch.Tensor, ...]:
        points, labels = blobs(seed=number)
        return points, labels.float()[:, None] / 2

    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y) / 20, data, optimizer=optimizer, steps=120)
    low = [finding for finding in findings(trial, "learning-rate") if "too low for SGD" in finding.summary]
    assert [finding.level for finding in low] == ["warning"] * told


@pytest.mark.parametrize("plays", [True, False])
def test_the_loss_of_a_policy_need_not_fall(plays: bool, tmp_path: Path) -> None:
    """Steps of a tenth of the weights count if the loss did not fall, which that of a policy need not."""
    torch.manual_seed(0)
    model = mlp(8, 16, 4)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        scores = model(x)
        if not plays:
            return F.cross_entropy(scores, y[torch.randperm(len(y))])
        policy = torch.distributions.Categorical(logits=scores)
        action = policy.sample()
        reward = (action == y).float()
        return -(policy.log_prob(action) * (reward - reward.mean())).mean()

    trial = record(tmp_path, model, loss_of, lambda number: blobs(seed=number), lr=0.06, steps=60)
    assert [finding.level for finding in findings(trial, "learning-rate")] == ([] if plays else ["warning"])
