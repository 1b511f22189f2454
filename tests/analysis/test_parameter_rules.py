"""Rules about what learns and what does not: on runs that have the problem, and on look-alikes that have not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.store import Trial
from support.short_runs import alarms, blob_batches, curve_batches, findings, mlp, only, record

RULES = (
    "unchanged-parameters",
    "gradient-cut",
    "no-gradient",
    "module-never-called",
    "missing-nonlinearity",
    "ignored-input",
)


class Parts(nn.Module):
    """Two layers, a spare one, and a way to spoil what goes between them."""

    def __init__(self, how: str = "well") -> None:
        super().__init__()
        self.how = how
        self.first = nn.Linear(6, 16)
        self.spare = nn.Linear(16, 16)
        self.last = nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.first(x))
        if self.how == "cut":
            hidden = hidden.detach()
        if self.how == "rebuilt":
            hidden = torch.tensor(hidden.tolist())
        if self.how == "rounded":
            hidden = torch.round(hidden).detach()
        if self.how != "unused":
            hidden = hidden + torch.tanh(self.spare(hidden))
        if self.how == "loose":
            self.spare(hidden)
        if self.how == "masked":
            hidden = hidden * 0.0
        return self.last(hidden)


def regress(folder: Path, model: nn.Module, **options: Any) -> Trial:
    options = {"steps": 8, **options}
    return record(folder, model, lambda x, y: F.mse_loss(model(x), y), curve_batches, **options)


def test_nothing_is_said_of_a_net_that_learns(tmp_path: Path) -> None:
    assert findings(regress(tmp_path, Parts()), *RULES) == []


@pytest.mark.parametrize("how", ["cut", "rounded"])
def test_a_cut_is_named_where_it_is(tmp_path: Path, how: str) -> None:
    finding = only(regress(tmp_path, Parts(how)), "gradient-cut")
    assert finding.node == "model.first" and finding.level == "warning"
    assert "first.weight" in finding.summary and "model.first.weight" in finding.nodes


def test_a_cut_on_purpose_is_worth_knowing_at_most(tmp_path: Path) -> None:
    """A target network that follows the one that learns."""
    online, target = mlp(6, 16, 2), mlp(6, 16, 2)
    target.load_state_dict(online.state_dict())
    model = nn.ModuleDict({"online": online, "target": target})
    optimizer = torch.optim.Adam(online.parameters(), lr=1e-2)

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            goal = 0.5 * target(x) + 0.5 * y
        return F.mse_loss(online(x), goal)

    assert alarms(record(tmp_path, model, loss, curve_batches, optimizer=optimizer, steps=8)) == []


def test_a_module_that_runs_without_gradients_is_one_finding(tmp_path: Path) -> None:
    model = nn.ModuleDict({"encoder": mlp(6, 16, 16, 8), "head": mlp(8, 16, 2)})

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            code = model["encoder"](x)
        return F.mse_loss(model["head"](code), y)

    finding = only(record(tmp_path, model, loss, curve_batches, steps=6), "gradient-cut")
    assert finding.node.startswith("model.encoder.4") and "6 trainable parameters" in finding.summary


def test_detaching_what_also_has_another_way_is_no_cut(tmp_path: Path) -> None:
    model = Parts()

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        outputs = model(x)
        return F.mse_loss(outputs, y) + F.mse_loss(outputs.detach() + 0 * outputs, y)

    assert findings(record(tmp_path, model, loss, curve_batches, steps=6), "gradient-cut") == []


def test_a_module_that_is_never_called(tmp_path: Path) -> None:
    finding = only(regress(tmp_path, Parts("unused")), "module-never-called")
    assert finding.module == "model.spare" and finding.node == "model.spare.weight"
    assert "so that 2 parameters (model.spare.weight, model.spare.bias) cannot learn" in finding.summary
    assert finding.source is not None and "self.first(" in finding.source.text  # the one that was made before it


def test_a_module_whose_output_nobody_uses(tmp_path: Path) -> None:
    class Loose(Parts):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = torch.tanh(self.first(x))
            self.spare(hidden)
            return self.last(hidden)

    trial = regress(tmp_path, Loose())
    assert only(trial, "no-gradient").module == "model.spare"
    assert findings(trial, "module-never-called", "gradient-cut") == []


def test_weights_that_are_used_without_calling_their_module(tmp_path: Path) -> None:
    model = nn.ModuleDict({"first": nn.Linear(6, 16), "last": nn.Linear(16, 2)})

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(F.linear(x, model["first"].weight, model["first"].bias))
        return F.mse_loss(model["last"](hidden), y)

    assert findings(record(tmp_path, model, loss, curve_batches, steps=6), *RULES) == []


def test_frozen_parameters_are_not_expected_to_learn(tmp_path: Path) -> None:
    model = Parts("cut")
    model.first.requires_grad_(False)
    assert findings(regress(tmp_path, model), *RULES) == []


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_gradients_of_zero(tmp_path: Path, decay: float) -> None:
    model = Parts("masked")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, weight_decay=decay)
    trial = regress(tmp_path, model, optimizer=optimizer)
    (found,) = [finding for finding in findings(trial, "no-gradient") if "first" in finding.module]
    assert "exactly zero" in found.summary
    assert ("weight decay" in found.summary) == (decay > 0)


def test_parameters_outside_the_optimizer(tmp_path: Path) -> None:
    model = Parts()
    optimizer = torch.optim.Adam([*model.first.parameters(), *model.spare.parameters()], lr=1e-2)
    finding = only(regress(tmp_path, model, optimizer=optimizer), "unchanged-parameters")
    assert finding.module == "model.last" and "no optimizer" in finding.summary


@pytest.mark.parametrize("how", ["stale", "no step", "rate of zero", "zero_grad too late"])
def test_nothing_is_trained(tmp_path: Path, how: str) -> None:
    model = Parts()
    rate = 0.0 if how == "rate of zero" else 1e-2
    optimizer = torch.optim.SGD((Parts() if how == "stale" else model).parameters(), lr=rate)

    def train(loss: torch.Tensor, given: torch.optim.Optimizer) -> None:
        model.zero_grad()
        loss.backward()
        if how == "zero_grad too late":
            model.zero_grad()
        if how != "no step":
            given.step()

    finding = only(regress(tmp_path, model, optimizer=optimizer, train=train), "unchanged-parameters")
    assert finding.level == "error" and "Nothing is trained" in finding.summary


class Deep(nn.Module):
    def __init__(self, activation: Any, middle: int = 16) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Linear(6, 16), nn.Linear(16, middle), nn.Linear(middle, 2)
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.three(torch.relu(self.two(self.activation(self.one(x)))))


def test_two_linear_layers_in_a_row(tmp_path: Path) -> None:
    finding = only(regress(tmp_path, Deep(lambda x: x)), "missing-nonlinearity")
    assert finding.node == "model.one" and finding.nodes == ("model.two",)


@pytest.mark.parametrize("activation", [torch.relu, torch.tanh, F.gelu, F.silu, F.leaky_relu, lambda x: x / x.norm()])
def test_an_activation_without_a_name_is_seen_in_the_numbers(tmp_path: Path, activation: Any) -> None:
    assert findings(regress(tmp_path, Deep(activation)), "missing-nonlinearity") == []


def test_a_low_rank_factor_is_on_purpose(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 2, bias=False), nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2))
    assert findings(regress(tmp_path, model), "missing-nonlinearity") == []


def test_an_input_that_the_loss_does_not_depend_on(tmp_path: Path) -> None:
    class Constant(Parts):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(torch.ones(64, 6))

    finding = only(regress(tmp_path, Constant()), "ignored-input")
    assert finding.node == "input" and finding.level == "warning"


def test_labels_and_tokens_count_as_used(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Embedding(4, 8), nn.Linear(8, 4))
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(y), y), blob_batches, steps=6)
    assert findings(trial, *RULES) == []
