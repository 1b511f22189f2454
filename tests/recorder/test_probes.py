"""Active probes: they find what they are made for, and leave no trace."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.recorder import Probed, RecorderError, probe
from support.training import digest

DATA = torch.Generator()


class Calls(nn.Module):
    """A layer, and a function of what it gives."""

    def __init__(self, function: Callable[..., torch.Tensor] = lambda x: x, *, words: bool = False) -> None:
        super().__init__()
        self.enter: nn.Module = nn.Embedding(11, 6) if words else nn.Linear(6, 6)
        self.dropout, self.norm = nn.Dropout(0.5), nn.BatchNorm1d(6)
        self.leave = nn.Linear(6, 4)
        self.function = function

    def forward(self, x: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        return self.leave(self.function(self.dropout(self.enter(x)), *rest))


def data(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


def only(model: nn.Module, batch: Any, name: str, **options: Any) -> Probed:
    (result,) = probe(model, batch, probes=[name], **options)
    return result


@pytest.mark.parametrize(
    ("function", "leaks"),
    [
        (lambda x: x, False),
        (lambda x: x.softmax(-1), False),
        (lambda x: x.softmax(0), True),
        (lambda x: x.T.reshape(len(x), -1), True),
        (lambda x: x - x.mean(0), True),
        (lambda x: x.cumsum(0), True),
        (lambda x: x.flip(0).cumsum(0).flip(0), True),
    ],
)
def test_samples_that_influence_each_other(function: Any, leaks: bool) -> None:
    result = only(Calls(function), data(8, 6), "batch")
    assert result.found == leaks
    assert result.module == ("leave" if leaks else "") and (result.value > 0.01) == leaks
    assert bool(result.remedy) == leaks


def test_words_are_exchanged_for_others_that_occur() -> None:
    words = torch.randint(11, (8, 5), generator=DATA.manual_seed(1))
    assert not only(Calls(words=True), words, "batch").found
    assert only(Calls(lambda x: x - x.mean(0), words=True), words, "batch").found


def test_batch_norm_is_put_in_evaluation_mode() -> None:
    model = Calls()
    model.function = model.norm
    result = only(model, data(8, 6), "batch")
    assert not result.found and "1 batch normalisations" in result.summary and model.norm.training


@pytest.mark.parametrize("causal", [True, False])
def test_the_future(causal: bool) -> None:
    def attend(x: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(x, x, x, is_causal=causal)

    result = only(Calls(attend), data(3, 9, 6), "time")
    assert result.found != causal and (result.module == "leave") != causal


def test_a_recurrent_net_may_use_the_past() -> None:
    assert not only(nn.GRU(6, 4, batch_first=True), data(3, 9, 6), "time").found
    assert only(nn.GRU(6, 4, batch_first=True, bidirectional=True), data(3, 9, 6), "time").found


def test_inputs_that_change_nothing() -> None:
    used, unused = probe(Calls(lambda x, y: x), (data(8, 6), data(8, 6)), probes=["input"])
    assert not used.found and unused.found and "argument 1" in unused.summary
    assert only(Calls(torch.zeros_like), data(8, 6), "input").module == "leave"
    named = probe(Calls(), {"x": data(8, 6)}, probes=["input"])
    assert [result.found for result in named] == [False] and "depends on x" in named[0].summary


@pytest.mark.supports("Training is not changed", "by `probe`, which runs a copy")
@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_changed(training: bool) -> None:
    model = Calls().train(training)
    model.function = model.norm
    batch = data(8, 6).requires_grad_()
    model(batch).sum().backward()
    calls: list[object] = []
    model.leave.register_forward_hook(lambda *_: calls.append(1))

    def state() -> str:
        gradients = [parameter.grad for parameter in model.parameters()]
        streams = [torch.get_rng_state(), np.random.get_state(), random.getstate()]
        modes = [(module.training, len(module._forward_hooks)) for module in model.modules()]
        return digest([model.state_dict(), gradients, batch, batch.grad, streams, modes, torch.is_grad_enabled()])

    before = state()
    results = probe(model, batch, probes=["batch", "input"])
    assert state() == before and [result.probe for result in results] == ["batch", "input"]


def test_wrong_calls_say_what_is_wrong() -> None:
    with pytest.raises(RecorderError, match="expected some of batch, input, time"):
        probe(Calls(), data(8, 6), probes=["space"])  # type: ignore[list-item]
    with pytest.raises(RecorderError, match="at least two that differ"):
        probe(Calls(), data(1, 6))
    with pytest.raises(RecorderError, match="two or more positions"):
        probe(Calls(), data(4, 1, 6), probes=["time"])
    model = Calls()
    model.kept = (x for x in range(3))  # type: ignore[assignment]
    with pytest.raises(RecorderError, match="cannot be copied"):
        probe(model, data(8, 6))
