"""What is measured after the step, on the writer's thread, is what the step computed, whatever happens to it since."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from stepscope.recorder import Every, Recorder
from stepscope.recorder.ownership import is_alone
from stepscope.store import open_trial


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[Recorder, threading.Event]]:
    """A recorder whose writer does nothing until the event is set."""
    recorder, event = Recorder(tmp_path, trial="trial", schedule=Every(1), strict=True), threading.Event()
    assert recorder._output is not None
    recorder._output._background.submit(event.wait)
    yield recorder, event
    event.set()
    recorder.close()


def mean_of(recorder: Recorder, event: threading.Event, node: str) -> float:
    event.set()
    recorder.flush()
    assert recorder.path is not None
    return float(open_trial(recorder.path).step(0).tensor(node).statistics["mean"])


def test_memory_of_numpy_is_copied(held: tuple[Recorder, threading.Event]) -> None:
    buffer = np.ones((4, 3), np.float32)
    with held[0].step() as step:
        step.record("x", torch.from_numpy(buffer))
    buffer[:] = 99
    assert mean_of(*held, "x") == 1


def test_a_state_that_is_carried_on_and_changed(held: tuple[Recorder, threading.Event]) -> None:
    with held[0].step() as step:
        state = torch.ones(4, 3) * 2
        step.record("state", state)
    state.mul_(10)
    assert mean_of(*held, "state") == 2


def test_weights_and_gradients_that_training_goes_on_to_change(held: tuple[Recorder, threading.Event]) -> None:
    model = nn.Linear(3, 1, bias=False)
    nn.init.ones_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    held[0].watch(model, optimizer)
    with held[0].step():
        model(torch.ones(2, 3)).sum().backward()
        optimizer.step()
    with torch.no_grad():
        model.weight.fill_(7)
        assert model.weight.grad is not None
        model.weight.grad.fill_(7)
    assert mean_of(*held, "model.weight") == 1
    step = open_trial(held[0].path or "").step(0)
    assert step.tensor("model.weight", quantity="gradient").statistics["mean"] == 2
    assert step.tensor("model.weight", quantity="update").statistics["mean"] == -2


def test_what_nobody_else_holds_is_not_copied() -> None:
    tensor = torch.ones(4)
    alias = tensor.detach()
    assert not is_alone(alias)
    del tensor
    assert is_alone(alias)


def test_what_others_hold_is_copied() -> None:
    whole = torch.ones(4)
    part = whole[:2].detach()
    assert not is_alone(part)
    lent = torch.from_numpy(np.ones(4))
    assert not is_alone(lent)
    shared = torch.ones(4).share_memory_()
    assert not is_alone(shared)


def test_what_is_over_the_budget_is_measured_at_once(
    held: tuple[Recorder, threading.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held[0]._memory, "limit", 100_000)
    with held[0].step() as step:
        step.record("large", torch.ones(100, 300))
        step.record("small", torch.ones(4, 3))
    assert mean_of(*held, "large") == 1
    assert mean_of(*held, "small") == 1


def test_the_memory_is_given_back(tmp_path: Path) -> None:
    with Recorder(tmp_path, schedule=Every(1)) as recorder:
        for number in range(6):
            with recorder.step(kind=None if number % 2 else "train") as step:
                step.record("x", torch.ones(4, 3))
                if number == 1:
                    recorder.drop_step()
            recorder.note("a note")
            recorder.scalar("loss", 0.1)
        recorder.flush()
        assert recorder._memory.held == 0 < recorder._memory.peak


def test_a_small_part_of_a_large_memory_is_copied() -> None:
    part = torch.ones(100_000)[:2].detach()
    assert not is_alone(part)
