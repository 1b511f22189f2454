"""Wrong calls: a clear error when the recorder is strict, else one warning at the user's line, and training goes on."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stepscope.recorder import (
    Backoff,
    BatchDimensionError,
    DuplicateNameError,
    Every,
    Recorder,
    RecorderClosedError,
    RecorderError,
    RecorderWarning,
    Step,
    StepError,
    Steps,
    UnknownModuleError,
)
from stepscope.store import StoreError, TrialExistsError, TrialInUseError, open_trial

Call = Callable[[Recorder, Step], object]


def nested_step(recorder: Recorder, step: Step) -> None:
    with recorder.step():
        pass


def nested_iteration(recorder: Recorder, step: Step) -> None:
    with step.iteration(), step.iteration():
        pass


def nested_loss_group(recorder: Recorder, step: Step) -> None:
    with step.loss_group("a"), step.loss_group("b"):
        pass


def same_name_twice(recorder: Recorder, step: Step) -> None:
    for _ in range(2):
        step.record("x", torch.ones(4, 2))


def same_role_twice_in_an_iteration(recorder: Recorder, step: Step) -> None:
    with step.iteration():
        for _ in range(2):
            step.record("x", torch.ones(4, 2), role="new")


def number_that_does_not_grow(recorder: Recorder, step: Step) -> None:
    recorder.end_step()
    with recorder.step(number=0):
        pass


WRONG_CALLS: list[tuple[type[RecorderError], str, Call]] = [
    (StepError, "do not nest", nested_step),
    (StepError, "iterations do not nest", nested_iteration),
    (StepError, "loss groups do not nest", nested_loss_group),
    (StepError, "numbers of steps must grow", number_that_does_not_grow),
    (StepError, r"recorder\.step\(kind=None\)", lambda recorder, step: step.decide("train")),
    (DuplicateNameError, "already recorded in this step", same_name_twice),
    (DuplicateNameError, "already recorded in iteration 0", same_role_twice_in_an_iteration),
    (
        BatchDimensionError,
        "give a dimension from 0 to 1",
        lambda r, step: step.record("x", torch.ones(4, 2), batch_dim=2),
    ),
    (BatchDimensionError, "no dimensions", lambda r, step: step.record("x", torch.ones(()), batch_dim=0)),
    (BatchDimensionError, "whole number", lambda r, step: step.record("x", torch.ones(4), batch_dim="first")),
    (RecorderError, "expected a tensor, got list", lambda recorder, step: step.record("x", [1.0])),
    (RecorderError, "expected a tensor, got NoneType", lambda recorder, step: step.record("x", None)),
    (RecorderError, "expected one of input", lambda recorder, step: step.record("x", torch.ones(2), type="weight")),
    (RecorderError, "a name", lambda recorder, step: step.record("", torch.ones(2))),
    (RecorderError, "expected two tensors", lambda recorder, step: step.connect(torch.ones(2), 3)),
    (RecorderError, "expected one number", lambda recorder, step: recorder.scalar("loss", torch.ones(2))),
    (RecorderError, "expected one number", lambda recorder, step: recorder.scalar("loss", "high")),
    (UnknownModuleError, "in no watched model", lambda recorder, step: recorder.name_of(nn.Linear(1, 1))),
]
NAMES = [f"{error.__name__}-{number}" for number, (error, _, _) in enumerate(WRONG_CALLS)]


def open_recorder(folder: Path, **options: Any) -> Recorder:
    recorder = Recorder(folder, trial="trial", schedule=Every(1), **options)
    recorder.watch(nn.Linear(2, 1))
    return recorder


@contextmanager
def caught() -> Iterator[list[warnings.WarningMessage]]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield found


@pytest.mark.parametrize(("error", "message", "call"), WRONG_CALLS, ids=NAMES)
def test_strict_recorders_raise(error: type[RecorderError], message: str, call: Call, tmp_path: Path) -> None:
    with open_recorder(tmp_path, strict=True) as recorder, recorder.step() as step, pytest.raises(error, match=message):
        call(recorder, step)


@pytest.mark.parametrize(("error", "message", "call"), WRONG_CALLS, ids=NAMES)
def test_others_warn_once_at_the_users_line(
    error: type[RecorderError], message: str, call: Call, tmp_path: Path
) -> None:
    with caught() as found, open_recorder(tmp_path) as recorder:
        for _ in range(3):
            with recorder.step() as step:
                step.record("before", torch.ones(4, 2))
                call(recorder, step)
                recorder.current.record("after", torch.ones(4, 2))
    assert [warning.category for warning in found] == [RecorderWarning]
    assert error.__name__ in str(found[0].message)
    lines, first = inspect.getsourcelines(call)
    assert Path(found[0].filename) == Path(__file__)
    assert first <= found[0].lineno < first + len(lines)
    trial = open_trial(tmp_path / "trial")
    assert len(trial.messages) == 1
    assert {"before"} <= {node.name for node in trial.nodes}
    assert [int(number) for number in trial.steps][:3] in ([0, 1, 2], [0, 2, 4])


def test_the_outer_step_goes_on_after_a_nested_one(tmp_path: Path) -> None:
    with caught(), open_recorder(tmp_path) as recorder, recorder.step() as step:
        nested_step(recorder, step)
        assert recorder.active
        step.record("after", torch.ones(4, 2))
    assert open_trial(tmp_path / "trial").step(0).tensor("after").shape == (4, 2)


def test_the_outer_loss_group_goes_on_after_a_nested_one(tmp_path: Path) -> None:
    x = torch.ones(4, 2, requires_grad=True)
    with caught(), open_recorder(tmp_path) as recorder, recorder.step() as step:
        step.record("x", x)
        with step.loss_group("outer"):
            with step.loss_group("inner"):
                pass
            x.sum().backward()
    quantities = {row.info.quantity for row in open_trial(tmp_path / "trial").step(0).rows() if row.info.node == "x"}
    assert quantities == {"value", "gradient:outer"}


@pytest.mark.parametrize("strict", [False, True])
def test_a_closed_recorder(tmp_path: Path, strict: bool) -> None:
    recorder = open_recorder(tmp_path, strict=strict)
    recorder.close()
    recorder.close()
    calls: list[Callable[[], object]] = [
        recorder.step,
        lambda: recorder.scalar("x", 1.0),
        lambda: recorder.note("late"),
    ]
    for call in calls:
        if strict:
            with pytest.raises(RecorderClosedError, match="make a new one"):
                call()
        else:
            with pytest.warns(RecorderWarning, match="RecorderClosedError"):
                call()
    recorder.flush()
    assert not recorder.active


def test_a_step_that_is_open_when_the_recorder_closes_is_kept(tmp_path: Path) -> None:
    recorder = open_recorder(tmp_path, strict=True)
    with recorder.step() as step:
        step.record("x", torch.ones(4, 2))
        recorder.close()
    assert open_trial(tmp_path / "trial").step(0).tensor("x").shape == (4, 2)


@pytest.mark.parametrize("make", [
    lambda: Every(0), lambda: Every(1.5), lambda: Every(True), lambda: Backoff(0), lambda: Backoff(3, factor=0.5),
    lambda: Backoff("3"), lambda: Steps(3), lambda: Steps("12"), lambda: Steps([1.5]),
])  # fmt: skip
def test_schedules_refuse_nonsense(make: Callable[[], object]) -> None:
    with pytest.raises(RecorderError, match="expected"):
        make()


@pytest.mark.parametrize("options", [
    {"schedule": "often"}, {"schedule": {"train": "often"}}, {"schedule": True}, {"samples": -1}, {"neurons": -1},
    {"samples": 2.5}, {"if_exists": "append"}, {"config": [1]}, {"trial": "../elsewhere"}, {"trial": ""},
])  # fmt: skip
def test_constructors_refuse_nonsense(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises((RecorderError, StoreError)):
        Recorder(tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("given", [
    (42,), (nn.Linear, None), ([nn.Linear(1, 1), "x"],), ({"a": 3},), (None, nn.Linear(1, 1)), (nn.Linear(1, 1), [3]),
])  # fmt: skip
def test_watch_refuses_what_is_no_model(given: tuple[Any, ...], strict: bool, tmp_path: Path) -> None:
    with Recorder(tmp_path, strict=strict) as recorder, pytest.raises(RecorderError, match=r"watch\(\) got"):
        recorder.watch(*given)


def test_trials_that_exist(tmp_path: Path) -> None:
    with open_recorder(tmp_path):
        for if_exists in ("number", "overwrite", "fail"):
            with pytest.raises(TrialInUseError):
                open_recorder(tmp_path, if_exists=if_exists)
    with open_recorder(tmp_path) as second:
        assert second.name == "trial-2"
    with pytest.raises(TrialExistsError):
        open_recorder(tmp_path, if_exists="fail")
    with open_recorder(tmp_path, if_exists="overwrite") as again:
        assert again.name == "trial"


@pytest.mark.parametrize("strict", [False, True])
def test_a_folder_that_cannot_be_written(tmp_path: Path, strict: bool) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    if strict:
        with pytest.raises(OSError):
            open_recorder(file, strict=True)
        return
    with pytest.warns(RecorderWarning, match="nothing is recorded"):
        recorder = open_recorder(file)
    with recorder.step() as step:
        step.record("x", torch.ones(2))
    recorder.close()
    assert recorder.path is None
    assert file.read_text() == "no folder"
