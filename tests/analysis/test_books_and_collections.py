"""What books and published collections had taught: updates by hand, what freezes nothing, and unmixed data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.analysis.straight import straightness
from stepscope.analysis.view import View
from stepscope.recorder import Every, Recorder
from stepscope.store import open_trial
from support.short_runs import Batch, blob_batches, blobs, curve_batches, descend, findings, mlp, record


class _ByHand(torch.optim.Optimizer):
    """Gradient descent; of biases in another way."""

    def __init__(self, model: nn.Module, how: str) -> None:
        super().__init__(model.parameters(), {"lr": 0.01})
        self.how = how

    @torch.no_grad()
    def step(self, closure: object = None) -> None:  # type: ignore[override]
        for parameter in self.param_groups[0]["params"]:
            gradient = parameter.grad
            if parameter.dim() == 1 and self.how == "blind":
                gradient = torch.ones_like(gradient)
            if parameter.dim() == 1 and self.how == "sum":
                gradient = gradient.sum().expand_as(gradient)
            parameter -= 0.01 * (gradient.sign() if self.how == "sign" else gradient)


@pytest.mark.parametrize(("how", "told"), [("blind", True), ("sum", True), ("sign", False), ("right", False)])
def test_updates_that_do_not_follow_their_gradients(how: str, told: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp(6, 16, 4)
    optimizer = _ByHand(model, how)
    data = curve_batches
    trial = record(
        tmp_path, model, lambda x, y: F.mse_loss(model(x)[:, :2], y), data, optimizer=optimizer, steps=10
    )  # fmt: skip
    found = findings(trial, "blind-updates")
    assert [(one.level, one.node) for one in found] == [("error", "model.0.bias")] * told
    assert all("0.01" in one.summary for one in found if how == "blind")


@pytest.mark.parametrize(
    ("attribute", "node"), [("requires_grad", "model.0"), ("weight.require_grad", "model.0"), ("method", "")]
)
def test_what_freezes_nothing(attribute: str, node: str, tmp_path: Path) -> None:
    model = mlp(8, 16, 4)
    if attribute == "method":
        model[0].requires_grad_(False)
        model[0].trainable = False  # of one's own, and true
    elif attribute == "requires_grad":
        model[0].requires_grad = False
    else:
        model[0].weight.require_grad = False
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, steps=4)
    assert open_trial(trial.path).network == trial.network
    found = findings(trial, "ignored-freezing")
    assert [one.node for one in found] == [node] * bool(node)
    assert all(f"model.0.{attribute} = False" in one.summary and "model.0.weight" in one.nodes for one in found)


@pytest.mark.parametrize(("classes", "told"), [((0, 5), False), ((3, 5), True), ((4, 6), True), ((2, 5), False)])
def test_classes_that_the_training_never_sees(classes: tuple[int, int], told: bool, tmp_path: Path) -> None:
    """The first four classes are trained on; one may have been cut in two."""
    torch.manual_seed(0)
    model = mlp(8, 16, 6)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with Recorder(tmp_path, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch(model, optimizer)
        for number in range(8):
            x, y = blobs(seed=number)
            with recorder.step():
                descend(F.cross_entropy(model(x), y), optimizer)
            with recorder.step(kind="validation"), torch.no_grad():
                F.cross_entropy(model(x), torch.arange(64) % (classes[1] - classes[0]) + classes[0])
    found = findings(open_trial(tmp_path / "trial"), "evaluation-data")
    assert [one.node for one in found] == ["target"] * told
    assert all("never seen" in one.summary for one in found)


@pytest.mark.parametrize(("length", "rate", "told"), [(10_000, 1e-2, True), (10, 1e-2, False), (120, 0.3, False)])
def test_a_warm_up_that_is_longer_than_the_training(length: int, rate: float, told: bool, tmp_path: Path) -> None:
    """The last one is as long as the training, which learns all the same."""
    torch.manual_seed(0)
    model = mlp(8, 32, 4)
    optimizer = torch.optim.Adam(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / length))

    def step(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        descend(loss, optimizer)
        schedule.step()

    trial = record(
        tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, optimizer=optimizer, steps=120,
        train=step,
    )  # fmt: skip
    found = findings(trial, "scheduler-rhythm")
    assert ["longer than the training" in one.summary for one in found] == [True] * told


class _Product(nn.Module):
    def __init__(self, size: float) -> None:
        super().__init__()
        self.one, self.other = (nn.Parameter(size * torch.randn(6, 12)) for _ in range(2))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ((x @ self.one) * (x @ self.other)).sum(1) + self.bias


@pytest.mark.parametrize(("size", "told"), [(0.0, True), (0.3, False)])
def test_matrices_that_stay_at_zero(size: float, told: bool, tmp_path: Path) -> None:
    """That the targets are unrelated to the inputs is not said of a net that never said two things."""
    torch.manual_seed(0)
    model = _Product(size)

    def data(number: int) -> Batch:
        x = torch.randn(64, 6, generator=torch.Generator().manual_seed(number))
        return x, (x[:, 0] * x[:, 1] > 0).float()

    trial = record(tmp_path, model, lambda x, y: F.binary_cross_entropy_with_logits(model(x), y), data, steps=30)
    found = findings(trial, "weight-scale", "unrelated-targets")
    assert [(one.rule, one.node, one.nodes) for one in found] == [
        ("weight-scale", "model.one", ("model.other",))
    ] * told


@pytest.mark.parametrize(("units", "told"), [(2, True), (3, True), (16, False)])
def test_a_net_that_has_settled_with_few_hidden_units(units: int, told: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp(6, units, 6, activation=nn.Tanh)

    def data(number: int) -> Batch:
        x = torch.randn(128, 6, generator=torch.Generator().manual_seed(number))
        return x, x.tanh()

    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), data, steps=120, lr=2e-2)
    assert [(one.level, one.node) for one in findings(trial, "single-unit")] == [("info", "model.0")] * told


@pytest.mark.parametrize(("mixed", "told"), [(False, True), (True, False)])
def test_samples_that_begin_together(mixed: bool, told: bool, tmp_path: Path) -> None:
    """A room for each sample, or one for all."""
    torch.manual_seed(0)
    model = mlp(8, 16, 2)

    def data(number: int) -> Batch:
        generator = torch.Generator().manual_seed(number)
        room = torch.randint(4, (64,), generator=generator) if mixed else torch.full((64,), number // 3 % 4)
        x = torch.cat([torch.randn(64, 4, generator=generator), F.one_hot(room, 4).float()], dim=1)
        return x, x[:, :2] + x[:, 4:5]

    found = findings(record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), data, steps=24), "unmixed-batches")
    assert [(one.level, one.node) for one in found] == [("info", "input")] * told
    assert all("50%" in one.summary for one in found)


@pytest.mark.parametrize(("expanded", "level"), [(True, "info"), (False, "warning")])
def test_a_target_for_a_whole_batch(expanded: bool, level: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp(6, 16, 1)

    def data(number: int) -> Batch:
        x = torch.randn(16, 6, generator=torch.Generator().manual_seed(number)) * (1 + number % 3)
        target = torch.full((1, 1), float(number % 3) - 1)
        return x, target.expand(16, 1) if expanded else target.repeat(16, 1)

    found = findings(record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), data, steps=20), "constant-data")
    assert [(one.level, one.node) for one in found] == [(level, "target")]


@pytest.mark.parametrize(("samples", "told"), [(2, True), (256, False)])
def test_a_policy_of_two_samples(samples: int, told: bool, tmp_path: Path) -> None:
    """Its loss goes below zero, so that how far it has fallen tells nothing."""
    torch.manual_seed(0)
    model = mlp(6, 16, 4)

    def loss_of(number: int, step: object) -> torch.Tensor:
        x = torch.randn(samples, 6)
        policy = torch.distributions.Categorical(logits=model(x))
        action = policy.sample()
        reward = (action == x[:, :4].argmax(1)).float() - 0.4
        return -(policy.log_prob(action) * reward).mean()

    found = findings(record(tmp_path, model, loss_of, steps=120), "tiny-batch")
    assert [one.level for one in found] == ["info"] * told


@pytest.mark.parametrize(("rate", "told"), [(1e-3, True), (3e-2, False)])
def test_small_steps_in_one_direction(rate: float, told: bool, tmp_path: Path) -> None:
    """What a slow training lacks is told besides: its weights are still on the way that they took at first."""
    torch.manual_seed(0)
    model = nn.Linear(6, 2)

    def data(number: int) -> Batch:
        x = torch.randn(512, 6, generator=torch.Generator().manual_seed(number))
        return x, x[:, :2] - x[:, 2:4]

    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), data, lr=rate, steps=200)
    way = straightness(View(trial))
    assert way > 0.9 if told else way < 0.7
    assert ["learning rate is low" in one.summary for one in findings(trial, "short-training")] == [True] * told
