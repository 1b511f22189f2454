"""What recording costs, on a clock that the test winds; and the schedule that keeps to a budget."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stepscope.recorder import Budget, Every, Recorder, RecorderError, Thinned
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


def thinned(clock: Clock, steps: int, *, plain: float, extra: float, writing: float = 0.0) -> list[int]:
    """Which steps ``Every(10, at_most="5%")`` records where each recording takes this many seconds."""
    meter = CostMeter(clock)
    schedule = Every(10, at_most="5%")
    assert isinstance(schedule, Thinned)
    schedule.bind(meter)
    recorded = []
    for number in range(steps):
        wanted = schedule.wants(number, "train", number)
        meter.step_begins("train", recorded=wanted)
        clock.now += plain + (extra if wanted else 0.0)
        if wanted:
            recorded.append(number)
            meter.step_finished("train", extra / 2)
            meter.step_written("train", writing)
    return recorded


@pytest.mark.parametrize(
    ("extra", "steps"), [(0.2, [*range(0, 200, 10)]), (0.4, [0, 10, *range(30, 200, 10)])], ids=["0.2", "0.4"]
)
def test_cheap_recordings_are_all_made_once_the_first_are_paid_for(extra: float, steps: list[int]) -> None:
    assert thinned(Clock(), 200, plain=1.0, extra=extra) == steps


@pytest.mark.parametrize(("extra", "writing"), [(1.5, 0.0), (0.5, 1.0)])
def test_dear_recordings_are_thinned_to_a_power_of_two_once_the_first_are_paid_for(
    extra: float, writing: float
) -> None:
    assert thinned(Clock(), 200, plain=1.0, extra=extra, writing=writing) == [0, 10, 120, 160]


@settings(deadline=None)
@given(st.floats(0.01, 30.0), st.floats(0.0, 30.0))
def test_thinned_recordings_keep_to_their_share(extra: float, writing: float) -> None:
    recorded = thinned(clock := Clock(), 1000, plain=1.0, extra=extra, writing=writing)
    assert recorded[:2] == [0, 10]
    spent = len(recorded) * (extra + writing)
    assert spent <= max(2 * (extra + writing), 0.05 * (clock.now - 100)) + 1e-6


def test_what_follows_a_recorded_step_is_part_of_its_cost() -> None:
    """While the writer's thread works, the next steps are slower; far from it they are not."""
    clock = Clock()
    meter = CostMeter(clock)
    for number in range(200):
        meter.step_begins("train", recorded=number % 50 == 0)
        clock.now += {0: 3.0, 1: 1.5, 2: 1.25}.get(number % 50, 1.0)
    assert meter.seconds() == pytest.approx(4 * 2.75)


def test_steps_that_pass_unseen_are_counted_in_what_follows() -> None:
    clock = Clock()
    meter = CostMeter(clock)
    for number in range(41):
        meter.step_begins("train", recorded=number == 30)
        clock.now += 3.0 if number == 30 else 1.0
    clock.now += 15.0
    meter.steps_passed(15)
    meter.step_begins("train", recorded=False)
    assert meter.cost().steps == 57 and meter.seconds() == pytest.approx(2.0)


def test_the_thread_that_writes_is_part_of_the_cost(tmp_path: Path) -> None:
    with Recorder(tmp_path, trial="one", schedule=Every(5)) as recorder:
        recorder.watch(nn.Linear(3, 1))
        for _ in range(10):
            with recorder.step() as step:
                step.record("x", torch.ones(4, 3))
        recorder.flush()
        cost = recorder.cost()
    assert cost.writing > 0 and cost.share > 0


def test_the_default_schedule_records_the_first_steps_that_are_due(tmp_path: Path) -> None:
    with Recorder(tmp_path, trial="one") as recorder:
        for _ in range(150):
            with recorder.step() as step:
                step.record("x", torch.ones(4, 3))
    assert list(open_trial(tmp_path / "one").steps) == [0, 100]


@pytest.mark.parametrize("share", ["2", 0.02, "200%"])
def test_a_bound_that_makes_no_sense(share: object) -> None:
    with pytest.raises(RecorderError, match="share such as '1%'"):
        Every(100, at_most=share)  # type: ignore[arg-type]
