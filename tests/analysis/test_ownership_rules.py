"""Rules about who trains which parameter: on runs that have the problem, and on look-alikes that have not."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.analysis import diagnose
from stepscope.recorder import Every, Recorder
from stepscope.store import Trial, open_trial
from support.short_runs import curve_batches, descend, findings, mlp, only, record

RULES = ("untrained-parameters", "trained-twice", "unregistered-parameters", "untied-weights")


def regress(folder: Path, model: nn.Module, **options: Any) -> Trial:
    return record(folder, model, lambda x, y: F.mse_loss(model(x), y), curve_batches, **{"steps": 6, **options})


# ---------------------------------------------------------------------- optimizers


def test_an_optimizer_of_another_model(tmp_path: Path) -> None:
    model = mlp(6, 16, 2)
    optimizer = torch.optim.Adam(copy.deepcopy(model).parameters(), lr=1e-2)

    def train(loss: torch.Tensor, given: torch.optim.Optimizer) -> None:
        model.zero_grad()
        loss.backward()
        given.step()

    roots = diagnose(regress(tmp_path, model, optimizer=optimizer, train=train))
    assert [root.rule for root in roots] == ["untrained-parameters"] and roots[0].level == "error"
    assert "other tensors" in roots[0].summary and roots[0].node == "model.0.weight"
    assert "unchanged-parameters" in [consequence.rule for consequence in roots[0].walk()]


def test_a_layer_that_was_replaced_after_the_optimizer_was_made(tmp_path: Path) -> None:
    model = mlp(6, 16, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    model[2] = nn.Linear(16, 2)
    finding = only(regress(tmp_path, model, optimizer=optimizer), "untrained-parameters")
    assert finding.level == "warning" and finding.node == "model.2.weight" and "no optimizer" in finding.summary


@pytest.mark.parametrize("watched", [True, False])
def test_parameters_that_are_frozen_or_trained_by_somebody_unknown(watched: bool, tmp_path: Path) -> None:
    model = mlp(6, 16, 2)
    model[0].requires_grad_(False)
    optimizer = torch.optim.Adam(model[2].parameters(), lr=1e-2)
    with Recorder(tmp_path, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch(model, optimizer if watched else None)
        for n in range(6):
            inputs, targets = curve_batches(n)
            with recorder.step():
                optimizer.zero_grad()
                F.mse_loss(model(inputs), targets).backward()
                optimizer.step()
    assert findings(open_trial(tmp_path / "trial"), *RULES) == []


@pytest.mark.parametrize("shared", [True, False])
def test_two_optimizers(shared: bool, tmp_path: Path) -> None:
    model = mlp(6, 16, 2)
    first = torch.optim.Adam(model.parameters() if shared else model[0].parameters(), lr=1e-3)
    second = torch.optim.SGD(model[2].parameters(), lr=1e-3)

    def train(loss: torch.Tensor, _: object) -> None:
        model.zero_grad()
        loss.backward()
        first.step()
        second.step()

    found = findings(regress(tmp_path, model, optimizer={"one": first, "two": second}, train=train), *RULES)
    assert [(f.rule, f.node) for f in found] == ([("trained-twice", "model.2.weight")] if shared else [])


# ---------------------------------------------------------------------- modules


class Listed(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        layers = [nn.Linear(6, 6), nn.Linear(6, 6)]
        self.layers: Any = nn.ModuleList(layers) if how == "registered" else layers
        self.weights = [nn.Parameter(torch.randn(6, 6))] if how == "weights" else []
        self.last = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.relu(layer(x))
        for weight in self.weights:
            x = x @ weight
        return self.last(x)


@pytest.mark.parametrize("how", ["plain", "weights", "registered"])
def test_layers_in_a_plain_list(how: str, tmp_path: Path) -> None:
    found = findings(regress(tmp_path, Listed(how)), *RULES)
    if how == "registered":
        assert found == []
        return
    assert [(f.rule, f.level, f.node) for f in found] == [("unregistered-parameters", "error", "model")]
    assert f"uses {4 if how == 'plain' else 5} trainable parameters" in found[0].summary


def test_loose_weights_that_an_optimizer_holds_or_a_loss_uses(tmp_path: Path) -> None:
    model = Listed("plain")
    judge = nn.Linear(2, 2)
    held = [parameter for layer in model.layers for parameter in layer.parameters()]
    optimizer = torch.optim.Adam([*model.parameters(), *held], lr=1e-2)
    trial = record(
        tmp_path, model, lambda x, y: F.mse_loss(judge(model(x)), judge(y)), curve_batches, optimizer=optimizer, steps=6
    )
    assert findings(trial, *RULES) == []


# ---------------------------------------------------------------------- tied weights


class Language(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(7, 8), nn.Linear(8, 7, bias=False)
        if how == "tied":
            self.head.weight = self.words.weight
        elif how == "copied":
            self.head.weight.data = self.words.weight.data.clone()

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.words(tokens)))


@pytest.mark.parametrize("how", ["tied", "copied", "apart", "torn"])
def test_tied_weights(how: str, tmp_path: Path) -> None:
    model = Language("tied" if how == "torn" else how)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    count = iter(range(6))

    def train(loss: torch.Tensor, given: torch.optim.Optimizer) -> None:
        descend(loss, given)
        if how == "torn" and model.head.weight is model.words.weight and next(count) == 2:
            model.head.weight = nn.Parameter(model.words.weight.detach().clone())

    def loss(number: int, _: object) -> torch.Tensor:
        tokens = torch.randint(7, (16, 5), generator=torch.Generator().manual_seed(number))
        return F.cross_entropy(model(tokens).flatten(0, 1), (tokens.flatten() + 1) % 7)

    found = findings(record(tmp_path, model, loss, optimizer=optimizer, steps=6, train=train), "untied-weights")
    expected = {"copied": 1, "torn": 4}
    assert [f.step for f in found] == ([expected[how]] if how in expected else [])
