"""A model that freezes its parts in ``train()``, which is called or not; and that asking about it changes nothing."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from stepscope.analysis import diagnose
from stepscope.recorder import Every, Recorder
from stepscope.recorder.train_overrides import left_trainable
from stepscope.store import open_trial


class Body(nn.Module):
    """Three stages, of which some are frozen by ``train()``."""

    def __init__(self, frozen: int = 2) -> None:
        super().__init__()
        self.frozen, self.calls = frozen, 0
        self.stages = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))
        self.stage_list = list(self.stages)  # a plain list of the same modules

    def train(self, mode: bool = True) -> Body:
        super().train(mode)
        self.calls += 1
        if mode:
            for stage in self.stage_list[: self.frozen]:
                stage.requires_grad_(requires_grad=False)
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for stage in self.stages:
            x = stage(x).tanh()
        return x


def names(model: nn.Module) -> list[str]:
    thawed = left_trainable(model)
    return [name for name, parameter in model.named_parameters() if id(parameter) in thawed]


def test_what_would_be_frozen() -> None:
    model = nn.Sequential(Body(2), nn.Linear(6, 2))
    assert names(model) == [f"0.stages.{stage}.{kind}" for stage in (0, 1) for kind in ("weight", "bias")]


class Drawing(Body):
    """Which stages it freezes is left to chance."""

    def train(self, mode: bool = True) -> Drawing:
        torch.rand(3), np.random.rand(3), random.random()
        super().train(mode)
        return self


def test_what_is_drawn_is_drawn_again() -> None:
    def draws() -> tuple[object, ...]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    model = Drawing(2)
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    expected = draws()
    random.setstate(states[0]), np.random.set_state(states[1]), torch.set_rng_state(states[2])
    assert len(names(model)) == 4
    assert draws() == expected


def test_the_model_itself_is_not_touched() -> None:
    model = nn.Sequential(Body(2), nn.Linear(6, 2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    left_trainable(model)
    assert model[0].calls == 0
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def unlike() -> Iterator[nn.Module]:
    yield nn.Sequential(nn.Linear(6, 2))
    yield Body(0)
    yield Body(2).train()
    yield Body(2).eval()
    held = Body(2)
    held.lock = threading.Lock()  # type: ignore[assignment]  # not to be copied
    yield held
    failing = Body(2)
    failing.frozen = None  # type: ignore[assignment]
    failing.stage_list = None  # type: ignore[assignment]
    yield failing


@pytest.mark.parametrize(
    "model", list(unlike()), ids=["plain", "none", "called", "evaluating", "with a lock", "failing"]
)
def test_nothing_is_left_where_there_is_nothing_to_freeze(model: nn.Module) -> None:
    assert names(model) == []


@pytest.mark.parametrize("called", [True, False])
def test_it_is_told_if_nobody_called_it(called: bool, tmp_path: Path) -> None:
    model = nn.Sequential(Body(2), nn.Linear(6, 2))
    if called:
        model.train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with Recorder(tmp_path, trial="t", schedule=Every(1), strict=True) as recorder:
        recorder.watch(model, optimizer)
        for _ in range(12):
            with recorder.step():
                optimizer.zero_grad()
                model(torch.randn(8, 6)).square().mean().backward()
                optimizer.step()
    found = [one for one in diagnose(open_trial(tmp_path / "t"), rules=["ignored-freezing"])]
    assert [one.level for one in found] == ([] if called else ["warning"])
    for one in found:
        assert one.node == "model.0.stages.0" and len(one.nodes) == 4 and "train()" in one.summary
