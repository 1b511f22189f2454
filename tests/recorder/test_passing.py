"""Unrecorded steps pass without asking the schedule; what is recorded, and counted, stays the same."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepscope.recorder import Backoff, Every, PerKind, Recorder, RecorderClosedError, Schedule, Steps
from stepscope.recorder.passing import Passing
from stepscope.recorder.schedule import Foreseeing


class OddThirds:
    """A user's own schedule, which cannot foresee anything."""

    def wants(self, number: int, kind: str, seen: int) -> bool:
        return seen % 3 == 1


SCHEDULES: dict[str, Callable[[], Schedule]] = {
    "every": lambda: Every(37),
    "growing gaps": lambda: Backoff(5, factor=1.5),
    "numbers": lambda: Steps({0, 41, 42, 130, 131}),
    "no numbers": lambda: Steps(()),
    "kinds": lambda: PerKind({"train": Every(50), "test": Every(3)}),
    "kinds with a rest": lambda: PerKind({"train": Every(50)}, default=OddThirds()),
    "own": OddThirds,
}
STRETCHES = st.lists(st.tuples(st.sampled_from(["train", "test"]), st.integers(1, 60)), min_size=1, max_size=8)


def asked_each_time(schedule: Schedule, kinds: list[str]) -> list[int]:
    """The steps that a schedule wants when it is asked for each of them."""
    seen: Counter[str] = Counter()
    wanted = []
    for number, kind in enumerate(kinds):
        if schedule.wants(number, kind, seen[kind]):
            wanted.append(number)
        seen[kind] += 1
    return wanted


@pytest.mark.parametrize("name", SCHEDULES)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(stretches=STRETCHES)
def test_the_same_steps_are_recorded(name: str, stretches: list[tuple[str, int]]) -> None:
    kinds = [kind for kind, steps in stretches for _ in range(steps)]
    found = []
    with tempfile.TemporaryDirectory() as folder, Recorder(folder, schedule=SCHEDULES[name](), strict=True) as recorder:
        for number, kind in enumerate(kinds):
            with recorder.step(kind) as step:
                if step.active:
                    found.append(number)
            assert recorder.next_step == number + 1
        assert recorder.cost().steps == len(kinds)
    assert found == asked_each_time(SCHEDULES[name](), kinds)


@pytest.mark.parametrize("name", [name for name, make in SCHEDULES.items() if isinstance(make(), Foreseeing)])
@settings(max_examples=50, deadline=None, derandomize=True)
@given(asked=st.integers(0, 200))
def test_what_is_foreseen_is_not_wanted(name: str, asked: int) -> None:
    schedule = SCHEDULES[name]()
    for number in range(asked):
        schedule.wants(number, "train", number)
    assert isinstance(schedule, Foreseeing)
    foreseen = min(500, schedule.unwanted(asked, "train", asked))
    assert not any(schedule.wants(number, "train", number) for number in range(asked, asked + foreseen))


def test_no_more_pass_than_granted() -> None:
    passing = Passing()
    passing.grant("train", 1000)
    most = passing.left
    assert passing.kind == "train" and 0 < most < 100  # faults of the writer's thread are told soon
    passing.left -= 3
    assert passing.settle() == 3 and passing.left == 0
    assert passing.settle() == 0


def test_most_steps_pass(tmp_path: Path) -> None:
    class Counting(Every):
        asked = 0

        def wants(self, number: int, kind: str, seen: int) -> bool:
            type(self).asked += 1
            return super().wants(number, kind, seen)

    with Recorder(tmp_path, schedule=Counting(1000), strict=True) as recorder:
        for _ in range(1000):
            with recorder.step():
                pass
    assert Counting.asked < 200


def test_a_numbered_step_is_never_passed_over(tmp_path: Path) -> None:
    with Recorder(tmp_path, schedule=Steps({500}), strict=True) as recorder:
        for _ in range(40):
            with recorder.step() as step:
                assert not step.active
        with recorder.step(number=500) as step:
            assert step.active


def test_setting_back_is_noticed_at_once(tmp_path: Path) -> None:
    with Recorder(tmp_path, schedule=Steps({10}), strict=True) as recorder:
        for _ in range(40):
            with recorder.step():
                pass
        recorder.rewind(10)
        with recorder.step() as step:
            assert step.active


def test_a_closed_recorder_lets_nothing_pass(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, schedule=Steps(()), strict=True)
    for _ in range(40):
        with recorder.step():
            pass
    recorder.close()
    with pytest.raises(RecorderClosedError, match="closed"):
        recorder.step()
