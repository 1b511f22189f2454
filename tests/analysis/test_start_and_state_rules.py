"""Rules about how a net starts, and what its optimizer makes of the gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.store import Trial
from support.short_runs import blob_batches, curve_batches, findings, mlp, only, record


def classify(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer | None = None, **options: object
) -> Trial:
    return record(
        folder, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, optimizer=optimizer,
        **{"steps": 12, **options},
    )  # fmt: skip


class Unrolled(nn.Module):
    """A recurrent cell, unrolled or not, over ten times the same input ``(batch, 8)``."""

    def __init__(self, gain: float, *, unrolled: bool) -> None:
        super().__init__()
        kind = nn.RNNCell if unrolled else nn.RNN
        self.read, self.head = kind(8, 16, nonlinearity="relu"), nn.Linear(16, 4)
        self.unrolled = unrolled
        weight = self.read.weight_hh if unrolled else self.read.weight_hh_l0
        with torch.no_grad():
            weight.copy_(gain * torch.eye(16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.unrolled:
            return self.head(self.read(x.expand(10, -1, -1))[0][-1])
        state = torch.zeros(len(x), 16)
        for _ in range(10):
            state = self.read(x, state)
        return self.head(state)


@pytest.mark.parametrize("unrolled", [True, False])
def test_recurrent_weights_that_amplify(unrolled: bool, tmp_path: Path) -> None:
    finding = only(classify(tmp_path, Unrolled(2.0, unrolled=unrolled)), "weight-scale")
    assert finding.node == "model.read" and "times as large as what goes in" in finding.summary


@pytest.mark.parametrize("unrolled", [True, False])
def test_recurrent_weights_that_keep_the_size(unrolled: bool, tmp_path: Path) -> None:
    assert findings(classify(tmp_path, Unrolled(1.0, unrolled=unrolled)), "weight-scale") == []


@pytest.mark.parametrize(("std", "names"), [(0.01, ["model.0.weight"]), (0.25, [])])
def test_a_small_gain_adds_up_over_the_depth(std: float, names: list[str], tmp_path: Path) -> None:
    model = mlp(8, 32, 32, 32, 32, 4)
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=std)
    found = findings(classify(tmp_path, model), "weight-scale")
    assert [f.node for f in found] == names and all("of the difference between samples" in f.summary for f in found)


class Gated(nn.Module):
    """Each layer multiplies what it gets, or adds to it."""

    def __init__(self, *, multiply: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(8, 8) for _ in range(12)])
        self.head, self.multiply = nn.Linear(8, 4), multiply

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = 0.3 * x
        for layer in self.layers:
            x = x * torch.tanh(layer(x)) if self.multiply else x + torch.tanh(layer(x))
        return self.head(x)


@pytest.mark.parametrize("multiply", [True, False])
def test_a_signal_that_vanishes_takes_the_gradients_with_it(multiply: bool, tmp_path: Path) -> None:
    found = findings(classify(tmp_path, Gated(multiply=multiply)))
    rules = {finding.rule for finding in found}
    assert ("vanishing-gradient" in rules) == multiply
    assert not rules & {"unchanged-parameters", "adam-epsilon", "learning-rate"}


class ByHand(nn.Module):
    """Two layers whose weights are parameters of the model itself."""

    def __init__(self, first: torch.Tensor) -> None:
        super().__init__()
        self.first, self.last = nn.Parameter(first), nn.Parameter(torch.randn(16, 4) / 4)
        self.table = nn.Embedding.from_pretrained(torch.ones(4, 16), freeze=False)
        self.gate = nn.Parameter(torch.ones(16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.gate * torch.relu(x @ self.first) + self.table(x[:, 0].long().clamp(0, 3))
        return hidden @ self.last


@pytest.mark.parametrize("equal", [True, False])
def test_weights_by_hand_that_are_all_equal(equal: bool, tmp_path: Path) -> None:
    first = torch.full((8, 16), 0.1) if equal else torch.randn(8, 16) / 3
    names = [finding.node for finding in findings(classify(tmp_path, ByHand(first)), "weight-scale")]
    assert names == (["model.first"] if equal else [])


OPTIMIZERS = {
    "adam": lambda p: torch.optim.Adam(p, 1e-2),
    "momentum": lambda p: torch.optim.SGD(p, 1e-2, momentum=0.9),
    "no memory": lambda p: torch.optim.Adam(p, 1e-2, betas=(0.0, 0.99)),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("cleared", [True, False])
def test_an_optimizer_that_forgets_its_state(kind: str, cleared: bool, tmp_path: Path) -> None:
    model = mlp(8, 16, 4)
    optimizer = OPTIMIZERS[kind](model.parameters())

    def train(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        if cleared:
            optimizer.state.clear()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    found = findings(classify(tmp_path, model, optimizer, train=train, steps=15), "optimizer-reset")
    assert len(found) == (cleared and kind != "no memory")
    assert all(finding.node == "model.0.weight" and len(finding.nodes) == 3 for finding in found)


@pytest.mark.parametrize(("rate", "told"), [(3e-6, True), (3e-3, False)])
def test_steps_that_lead_nowhere_together(rate: float, told: bool, tmp_path: Path) -> None:
    model = mlp(8, 64, 4)
    found = findings(classify(tmp_path, model, lr=rate, steps=60), "learning-rate")
    assert bool(found) == told and all("too low" in finding.summary for finding in found)


def test_a_warm_up_leads_somewhere_soon(tmp_path: Path) -> None:
    model = mlp(8, 64, 4)
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1e-4 + step / 60)

    def train(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    trial = classify(tmp_path, model, optimizer, train=train, steps=55)
    assert findings(trial, "learning-rate", "scheduler-rhythm") == []


@pytest.mark.parametrize(("rate", "steps", "words"), [(1e-4, 110, "too low"), (1e-4, 40, ""), (1e-2, 110, "")])
def test_updates_that_go_the_same_way_for_long(tmp_path: Path, rate: float, steps: int, words: str) -> None:
    """Weights that get somewhere turn their gradients; in the first steps of a run nobody can tell."""
    found = findings(classify(tmp_path, mlp(8, 32, 4), lr=rate, steps=steps), "learning-rate")
    assert [words in finding.summary for finding in found] == [True] * bool(words)


def test_a_first_step_that_replaces_the_weights(tmp_path: Path) -> None:
    model = mlp(8, 64, 64, 4)
    finding = only(classify(tmp_path, model, lr=0.7, steps=12), "learning-rate")
    assert "too high" in finding.summary and "model.0.weight" in (finding.node, *finding.nodes)


@pytest.mark.parametrize(("every", "told"), [(20, True), (1, False)])
def test_a_cycle_that_is_stepped_too_seldom(every: int, told: bool, tmp_path: Path) -> None:
    model = mlp(8, 16, 4)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.2, total_steps=81, div_factor=100, cycle_momentum=False
    )
    calls = iter(range(1000))

    def train(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if next(calls) % every == every - 1:
            schedule.step()

    found = findings(classify(tmp_path, model, optimizer, train=train, steps=80, every=1), "scheduler-rhythm")
    assert bool(found) == told and all("too seldom" in finding.summary for finding in found)


def test_only_one_optimizer_is_never_set_to_zero(tmp_path: Path) -> None:
    model = nn.ModuleDict({"one": mlp(6, 16, 8), "two": mlp(8, 16, 2)})
    first = torch.optim.SGD(model["one"].parameters(), 1e-3)
    second = torch.optim.SGD(model["two"].parameters(), 1e-3)

    def train(loss: torch.Tensor, optimizers: dict[str, torch.optim.Optimizer]) -> None:
        first.zero_grad()
        loss.backward()
        first.step()
        second.step()

    trial = record(
        tmp_path, model, lambda x, y: F.mse_loss(model["two"](model["one"](x)), y), curve_batches,
        optimizer={"first": first, "second": second}, train=train, steps=12,
    )  # fmt: skip
    finding = only(trial, "accumulated-gradients")
    assert {name.split(".")[1] for name in (finding.node, *finding.nodes)} == {"two"}


def test_a_loss_that_bursts_within_a_few_steps(tmp_path: Path) -> None:
    model = mlp(6, 16, 2)

    def ascend(loss: torch.Tensor, _: object) -> None:
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.5 * parameter.grad

    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), curve_batches, train=ascend, steps=12)
    found = findings(trial, "loss-divergence", "non-finite")
    assert [finding.rule for finding in found] == ["loss-divergence", "non-finite"]


def test_weights_that_return_to_what_they_were(tmp_path: Path) -> None:
    model = mlp(8, 16, 4)
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    calls = iter(range(1000))

    def train(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if next(calls) % 10 == 9:
            model.load_state_dict(kept)

    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    found = findings(classify(tmp_path, model, optimizer, train=train, steps=35), "weights-reset")
    assert [finding.step for finding in found] == [10] and "model.0.weight" in found[0].summary


@pytest.mark.parametrize(("period", "told"), [(4, True), (40, False)])
def test_restarts_that_come_every_few_steps(period: int, told: bool, tmp_path: Path) -> None:
    model = mlp(8, 16, 4)
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, period)

    def train(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    found = findings(classify(tmp_path, model, optimizer, train=train, steps=90), "scheduler-rhythm")
    assert bool(found) == told and all("every 4 steps" in finding.summary for finding in found)


@pytest.mark.parametrize(("frozen", "levels"), [(("0",), ["info"]), ((), [])])
def test_most_weights_of_a_model_are_frozen(frozen: tuple[str, ...], levels: list[str], tmp_path: Path) -> None:
    model = mlp(8, 64, 4)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.split(".")[0] not in frozen)
    found = findings(classify(tmp_path, model), "frozen-parameters")
    assert [finding.level for finding in found] == levels


def test_a_bias_whose_gradients_cancel_is_no_standstill(tmp_path: Path) -> None:
    model = mlp(6, 16, 1)
    trial = record(tmp_path, model, lambda x, y: (model(x) - model(-x)).mean(), curve_batches, lr=1e-3)
    assert findings(trial, "unchanged-parameters") == []


@pytest.mark.parametrize(("rate", "told"), [(3.0, True), (2e-2, False)])
def test_the_rate_of_one_group_alone(rate: float, told: bool, tmp_path: Path) -> None:
    model = mlp(8, 16, 16, 4)
    groups = [{"params": model[:4].parameters()}, {"params": model[4].parameters(), "lr": rate}]
    found = findings(classify(tmp_path, model, torch.optim.Adam(groups, 1e-3), steps=20), "learning-rate")
    assert [finding.node for finding in found] == (["model.4.weight"] if told else [])


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("zeroed", [True, False])
def test_the_gradients_of_scores_add_up_to_zero_and_are_told_one_by_one(
    every: int, zeroed: bool, tmp_path: Path
) -> None:
    model = mlp(8, 4)

    def train(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        if zeroed:
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    trial = classify(tmp_path, model, optimizer, train=train, steps=14 * every, every=every)
    assert bool(findings(trial, "accumulated-gradients")) != zeroed


@pytest.mark.parametrize("sign", [1, -1])
def test_a_loss_that_is_turned_round(sign: int, tmp_path: Path) -> None:
    model = mlp(8, 16, 4)
    trial = record(tmp_path, model, lambda x, y: sign * F.cross_entropy(model(x), y), blob_batches, steps=12, lr=1e-3)
    found = findings(trial, "unbounded-loss")
    assert bool(found) == (sign < 0) and all("wrong sign" in finding.summary for finding in found)


def test_a_term_against_another_one_is_meant(tmp_path: Path) -> None:
    model = mlp(8, 16, 4)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        scores = model(x)
        return F.cross_entropy(scores, y) - 0.1 * F.cross_entropy(scores, (y + 1) % 4)

    assert findings(record(tmp_path, model, loss_of, blob_batches, steps=12, lr=1e-3), "unbounded-loss") == []


@pytest.mark.parametrize(("at", "told"), [((12,), [12]), ((), []), ((8, 16), [])])
def test_frozen_weights_that_are_overwritten(at: tuple[int, ...], told: list[int], tmp_path: Path) -> None:
    """Once is an accident; more often, something follows a net on purpose."""
    model = mlp(8, 16, 16, 4)
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 1e-2)
    steps = iter(range(1, 100))

    def train(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if next(steps) in at:
            nn.init.normal_(model[0].weight, 0, 0.5)

    found = findings(classify(tmp_path, model, optimizer, train=train, steps=24), "weights-reset")
    assert [finding.step for finding in found] == told
