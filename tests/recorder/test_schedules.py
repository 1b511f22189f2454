"""Which steps are recorded."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepscope.recorder import Backoff, Every, PerKind, Recorder, Schedule, Steps
from stepscope.store import open_trial


def recorded(schedule: object, kinds: list[str], folder: Path) -> list[tuple[int, str]]:
    """Number and kind of the steps that a recorder keeps."""
    with Recorder(folder, trial="trial", schedule=schedule, strict=True) as recorder:  # type: ignore[arg-type]
        for kind in kinds:
            with recorder.step(kind):
                pass
    trial = open_trial(folder / "trial")
    return list(zip(map(int, trial.steps), trial.step_kinds, strict=True))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(1, 9), st.integers(0, 40))
def test_every(interval: int, steps: int) -> None:
    wanted = [n for n in range(steps) if Every(interval).wants(n, "train", n)]
    assert wanted == list(range(0, steps, interval))


def test_backoff_grows_its_gaps() -> None:
    schedule = Backoff(10, factor=2.0)
    assert [n for n in range(200) if schedule.wants(n, "train", n)] == [0, 10, 30, 70, 150]


def test_backoff_counts_each_kind_alone() -> None:
    schedule = Backoff(2, factor=1.0)
    assert [kind for kind in "aaab" * 2 if schedule.wants(0, kind, "aaab".count(kind))] != []
    schedule = Backoff(5, factor=1.5)
    assert schedule.wants(0, "common", 0)
    assert not schedule.wants(1, "common", 1)
    assert schedule.wants(2, "rare", 0)


def test_steps_count_over_all_kinds(tmp_path: Path) -> None:
    assert recorded(Steps({1, 2}), ["a", "a", "b", "b"], tmp_path) == [(1, "a"), (2, "b")]


def test_every_counts_each_kind_alone(tmp_path: Path) -> None:
    assert recorded(Every(2), ["a", "a", "b", "a", "b", "b"], tmp_path) == [(0, "a"), (2, "b"), (3, "a"), (5, "b")]


def test_a_dict_of_schedules(tmp_path: Path) -> None:
    schedule = {"train": Every(2), "test": Every(1)}
    kinds = ["train", "train", "test", "test", "train", "other"]
    assert recorded(schedule, kinds, tmp_path) == [(0, "train"), (2, "test"), (3, "test"), (4, "train")]


def test_a_dict_with_a_default(tmp_path: Path) -> None:
    schedule = {"train": Steps(()), "*": 2}
    kinds = ["train", "x", "x", "x", "y"]
    assert recorded(schedule, kinds, tmp_path) == [(1, "x"), (3, "x"), (4, "y")]


def test_a_number_is_an_interval(tmp_path: Path) -> None:
    assert recorded(3, ["a"] * 5, tmp_path) == [(0, "a"), (3, "a")]


def test_the_default_is_every_hundredth(tmp_path: Path) -> None:
    assert recorded(None, ["a"] * 102, tmp_path) == [(0, "a"), (100, "a")]


class OddSteps:
    def wants(self, number: int, kind: str, seen: int) -> bool:
        return number % 2 == 1


def test_a_schedule_of_the_users(tmp_path: Path) -> None:
    assert isinstance(OddSteps(), Schedule)
    assert recorded(OddSteps(), ["a"] * 4, tmp_path) == [(1, "a"), (3, "a")]


@pytest.mark.parametrize("schedule", [Every(2), Backoff(3), Steps({4}), PerKind({"a": Every(1)})])
def test_schedules_read_well(schedule: Schedule) -> None:
    assert repr(schedule).startswith(type(schedule).__name__ + "(")
