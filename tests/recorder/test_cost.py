"""What recording costs, on a clock that the test winds; and the schedule that keeps to a budget."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from stepscope.recorder import Budget, Every, Recorder, RecorderError
from stepscope.recorder.cost import CostMeter
from stepscope.store import open_trial


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def train(meter: CostMeter, clock: Clock, steps: int, *, every: int, plain: float, extra: float) -> None:
    for number in range(steps):
        recorded = number % every == 0
        meter.step_begins("train", recorded=recorded)
        clock.now += plain
        if recorded:
            clock.now += extra
            meter.step_finished("train", extra / 2)


def test_recorded_steps_are_compared_with_plain_ones() -> None:
    clock = Clock()
    meter = CostMeter(clock)
    train(meter, clock, 100, every=10, plain=1.0, extra=0.5)
    cost = meter.cost(written=1234, waiting=0.25)
    assert cost.steps == 100 and cost.recorded == 10
    assert cost.seconds == pytest.approx(10 * 0.5)
    assert cost.share == pytest.approx(5 / 105)
    assert (cost.bytes, cost.waiting, cost.is_lower_bound) == (1234, 0.25, False)


def test_without_plain_steps_only_the_ends_are_known() -> None:
    clock = Clock()
    meter = CostMeter(clock)
    train(meter, clock, 10, every=1, plain=1.0, extra=0.5)
    cost = meter.cost()
    assert cost.is_lower_bound and cost.seconds == pytest.approx(10 * 0.25)


def test_kinds_are_compared_with_themselves() -> None:
    clock = Clock()
    meter = CostMeter(clock)
    for number in range(60):
        kind, plain = ("short", 1.0) if number % 2 else ("long", 20.0)
        meter.step_begins(kind, recorded=number % 10 < 2)
        clock.now += plain + (0.1 if number % 10 < 2 else 0.0)
    assert meter.seconds() == pytest.approx(12 * 0.1)


def test_nothing_yet() -> None:
    assert CostMeter().cost().seconds == 0 and CostMeter().cost().share == 0


@given(st.floats(0.005, 0.5), st.floats(0.01, 3.0), st.integers(200, 600))
def test_a_budget_is_kept(share: float, extra: float, steps: int) -> None:
    clock = Clock()
    meter = CostMeter(clock)
    schedule = Budget(share)
    schedule.bind(meter)
    recorded = 0
    for number in range(steps):
        wanted = schedule.wants(number, "train", number)
        recorded += wanted
        meter.step_begins("train", recorded=wanted)
        clock.now += 1.0 + (extra if wanted else 0.0)
        if wanted:
            meter.step_finished("train", extra)
    spent = recorded * extra
    assert spent <= max(extra, share * (clock.now - 100.0) + 1e-6)  # the first recording comes before all measuring
    possible = share * steps / (extra * (1 - share) if share < 1 else extra)
    assert recorded >= min(steps - 5, possible) * 0.5 - 2  # and it is used


@pytest.mark.parametrize("text", ["0%", "-1%", "1", "many", "101%", "%"])
def test_shares_that_make_no_sense(text: str) -> None:
    with pytest.raises(RecorderError, match="share such as '1%'"):
        Every(text)


def test_every_with_a_share_is_a_budget(tmp_path: Path) -> None:
    assert Every("2.5%") == Budget(0.025)
    model = nn.Linear(3, 1)
    with Recorder(tmp_path, trial="one", schedule={"train": Every("50%"), "*": Every(1)}) as recorder:
        recorder.watch(model)
        for _ in range(40):
            with recorder.step():
                model(torch.ones(2, 3)).sum().backward()
        cost = recorder.cost()
    assert cost.steps == 40 and 1 <= cost.recorded < 40 and cost.seconds > 0


def test_the_cost_is_in_the_recording(tmp_path: Path) -> None:
    model = nn.Linear(3, 1)
    with Recorder(tmp_path, trial="one", schedule=Every(5)) as recorder:
        recorder.watch(model)
        for _ in range(20):
            with recorder.step():
                model(torch.ones(2, 3)).sum().backward()
    trial = open_trial(tmp_path / "one")
    facts = trial.step(15).facts["cost"]
    assert facts["steps"] == 16 and facts["recorded"] == 4 and facts["seconds"] > 0


def test_a_disabled_recorder_costs_nothing(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, enabled=False)
    with recorder.step():
        pass
    assert recorder.cost().recorded == 0 and recorder.cost().bytes == 0
