"""What optimizers hold and do: lost states, steps that are hardly made, decay of what nothing trains, blow-ups."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.recorder import Every, Recorder
from stepscope.store import Trial, open_trial
from support.short_runs import blob_batches, blobs, descend, findings, mlp, record


def _resumed(folder: Path, *, loaded: bool) -> Trial:
    """A training whose optimizer is made anew in the midst of it."""
    torch.manual_seed(0)
    model = mlp(8, 16, 4)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with Recorder(folder, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch(model, optimizer)
        for number in range(40):
            if number == 25:
                state = copy.deepcopy(optimizer.state_dict())
                optimizer = torch.optim.Adam(model.parameters(), 1e-2)
                if loaded:
                    optimizer.load_state_dict(state)
                recorder.watch(model, optimizer)
            points, labels = blobs(seed=number)
            with recorder.step():
                descend(F.cross_entropy(model(points), labels), optimizer)
    return open_trial(folder / "trial")


@pytest.mark.parametrize("loaded", [True, False])
def test_a_training_that_is_resumed_without_its_optimizers_state(loaded: bool, tmp_path: Path) -> None:
    trial = _resumed(tmp_path, loaded=loaded)
    assert [one.step for one in findings(trial, "optimizer-reset")] == ([] if loaded else [25])
    assert findings(trial, "trained-twice") == []  # the second optimizer has taken the place of the first


@pytest.mark.parametrize(("every", "told"), [(30, True), (1, False), (4, False)])
def test_a_part_that_is_hardly_ever_trained(every: int, told: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    body, head = mlp(8, 16), nn.Linear(16, 4)
    model = nn.Sequential(body, head)
    optimizers = {"body": torch.optim.SGD(body.parameters(), 0.05), "head": torch.optim.SGD(head.parameters(), 0.05)}
    with Recorder(tmp_path, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch(model, optimizers)
        for number in range(100):
            points, labels = blobs(seed=number)
            with recorder.step():
                model.zero_grad()
                F.cross_entropy(model(points), labels).backward()
                optimizers["head"].step()
                if number % every == every - 1:
                    optimizers["body"].step()
    found = findings(open_trial(tmp_path / "trial"), "rare-updates")
    assert [(one.node, "hardly ever updated" in one.summary) for one in found] == [("model.0.0.weight", True)] * told


class _Descent(torch.optim.Optimizer):
    """Descent with a decay of its own, as one writes it."""

    def __init__(self, model: nn.Module, *, leaves_out: bool) -> None:
        super().__init__(model.parameters(), {"lr": 0.1})
        self.leaves_out = leaves_out

    @torch.no_grad()
    def step(self, closure: object = None) -> None:  # type: ignore[override]
        for weight in self.param_groups[0]["params"]:
            if weight.grad is not None:
                weight.sub_(0.1 * weight.grad)
            if weight.grad is not None or not self.leaves_out:
                weight.mul_(0.99)


@pytest.mark.parametrize("leaves_out", [True, False])
def test_decay_of_what_has_no_gradient(leaves_out: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp(8, 16, 4)
    model[0].requires_grad_(False)
    trial = record(
        tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches,
        optimizer=_Descent(model, leaves_out=leaves_out), steps=30,
    )  # fmt: skip
    found = [one for one in findings(trial, "shrinking-weights") if "without a gradient" in one.summary]
    assert [(one.node, one.nodes) for one in found] == ([] if leaves_out else [("model.0.weight", ("model.0.bias",))])


class _Chain(nn.Module):
    """The same layer, six times over."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.Linear(8, 8), nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(6):
            x = self.layer(x)
        return self.last(x)


@pytest.mark.parametrize("clipped", [True, False])
def test_a_recurrence_that_explodes_in_its_first_steps(clipped: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = _Chain()
    with torch.no_grad():
        model.layer.weight.copy_(torch.eye(8))
    optimizer = torch.optim.SGD(model.parameters(), 0.02)

    def train(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        loss.backward()
        if clipped:
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()

    trial = record(
        tmp_path, model, lambda x, _: F.mse_loss(model(x), x.sum(1, keepdim=True) + 3), blob_batches,
        optimizer=optimizer, train=train, steps=24,
    )  # fmt: skip
    found = [one for one in findings(trial, "exploding-gradient") if "at once" in one.summary]
    assert [(one.node, "6 moments" in one.summary, "nothing clips" in one.summary) for one in found] == (
        [] if clipped else [("model.layer", True, True)]
    )


@pytest.mark.parametrize(("rate", "told"), [(1.0, True), (3e-3, False)])
def test_a_rate_that_rises_until_weights_are_blown_up(rate: float, told: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp(8, 32, 32, 32, 1, activation=nn.LeakyReLU)
    optimizer = torch.optim.Adam(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, 1.0, 30)

    def train(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        descend(loss, optimizer)
        schedule.step()

    trial = record(
        tmp_path, model, lambda x, y: F.mse_loss(model(x)[:, 0], x[:, 0] + x[:, 1]), blob_batches,
        optimizer=optimizer, train=train, steps=56,
    )  # fmt: skip
    assert ["too high" in one.summary for one in findings(trial, "learning-rate")] == [True] * told
