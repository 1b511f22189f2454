"""A training that goes on from a checkpoint goes on in its recording, too."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stepscope.recorder import Recorder, RecorderError, RecorderWarning
from stepscope.store import NotARecordingError, TrialInUseError, open_trial, verify
from support import flips

SCRIPT = """
import os, signal, sys
import torch
from torch import nn
from stepscope.recorder import Recorder

torch.manual_seed(0)
model = nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
start = 0
if os.path.exists("checkpoint.pt"):
    checkpoint = torch.load("checkpoint.pt")
    model.load_state_dict(checkpoint["model"])
    start = checkpoint["step"]
recorder = Recorder(".", trial="run", schedule=2, resume=True, start_step=start, strict=True)
recorder.watch(model, optimizer)
for step in range(start, 20):
    if step % 6 == 0:
        torch.save({"model": model.state_dict(), "step": recorder.next_step}, "checkpoint.pt")
    with recorder.step():
        loss = model(torch.ones(4, 3) * step).sum()
        optimizer.zero_grad(); loss.backward(); optimizer.step()
    recorder.scalar("weight", model.weight[0, 0])
    if step == 15 and not start:
        recorder.flush()
        os.kill(os.getpid(), signal.SIGKILL)
recorder.close()
"""


def _recorder(folder: Path, **options: Any) -> Recorder:
    return Recorder(folder, trial="run", schedule=1, strict=True, **options)


def _train(recorder: Recorder, steps: int, **number: int) -> None:
    model = nn.Linear(2, 1)
    recorder.watch(model)
    for _ in range(steps):
        with recorder.step(**number):
            model(torch.ones(4, 2)).sum().backward()
        number = {}


def _steps(folder: Path) -> list[int]:
    return [int(number) for number in open_trial(folder / "run").steps]


@pytest.mark.supports(
    "What was recorded is kept",
    "a killed training that goes on from a checkpoint goes on in its recording (`resume=True`)",
)
def test_a_killed_training_that_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    def run(folder: Path) -> int:
        folder.mkdir(exist_ok=True)
        command = [sys.executable, "-c", textwrap.dedent(SCRIPT)]
        return subprocess.run(command, cwd=folder, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode

    assert run(tmp_path) == -9
    assert _steps(tmp_path) == list(range(0, 16, 2))
    assert run(tmp_path) == 0
    trial = open_trial(tmp_path / "run")
    assert trial.state == "finished" and trial.steps.tolist() == list(range(0, 20, 2))
    assert trial.scalars("weight").steps.tolist() == list(range(20))  # each once
    # The weights go down by 0.04 times the step in every step, as if nothing had happened.
    weights = trial.scalars("weight").values
    assert abs(float(weights[19] - weights[0]) + 0.04 * sum(range(1, 20))) < 1e-4
    series = trial.series("model.weight", statistic="mean")
    assert (series.values[1:] < series.values[:-1]).all()
    assert verify(tmp_path) == []


def test_without_a_start_step_numbers_go_on(tmp_path: Path) -> None:
    with _recorder(tmp_path, resume=True) as recorder:
        _train(recorder, 3)
    with _recorder(tmp_path, resume=True) as recorder:
        assert recorder.next_step == 3 and recorder.name == "run"
        _train(recorder, 2)
    assert _steps(tmp_path) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("how", ["start_step", "number", "rewind"])
def test_an_earlier_step_supersedes(tmp_path: Path, how: str) -> None:
    with _recorder(tmp_path) as recorder:
        _train(recorder, 6)
        recorder.scalar("x", 1.0, step=5)
    options = {"start_step": 2} if how == "start_step" else {}
    with _recorder(tmp_path, resume=True, **options) as recorder:
        if how == "rewind":
            recorder.rewind(2)
        _train(recorder, 1, **({"number": 2} if how == "number" else {}))
        recorder.scalar("y", 1.0)
    assert _steps(tmp_path) == [0, 1, 2]
    trial = open_trial(tmp_path / "run")
    assert trial.scalars("x").steps.tolist() == [] and trial.scalars("y").steps.tolist() == [2]


@pytest.mark.supports(
    "What was recorded is kept", "training that goes back to an earlier step (`rewind`): nothing is deleted"
)
def test_going_back_while_recording(tmp_path: Path) -> None:
    """A loss that explodes: the script loads a checkpoint and goes on."""
    with _recorder(tmp_path) as recorder:
        _train(recorder, 6)
        recorder.rewind(3)
        assert recorder.next_step == 3
        _train(recorder, 1)
        with pytest.raises(RecorderError, match=r"numbers of steps must grow, unless rewind\(...\) says"):
            recorder.step(number=1)
    assert _steps(tmp_path) == [0, 1, 2, 3]


def test_going_back_with_steps_that_begin_by_themselves(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with _recorder(tmp_path) as recorder:
        recorder.watch(model, optimizer, auto_step=True)
        for step in range(5):
            if step == 4:
                recorder.rewind(1)
            model(torch.ones(4, 2)).sum().backward()
            optimizer.step()
    assert _steps(tmp_path) == [0, 1]


def test_a_new_trial_may_start_at_any_step(tmp_path: Path) -> None:
    with _recorder(tmp_path, start_step=1000) as recorder:
        _train(recorder, 2)
    assert _steps(tmp_path) == [1000, 1001]


def test_a_damaged_trial_is_resumed_with_a_warning(tmp_path: Path) -> None:
    with _recorder(tmp_path) as recorder:
        _train(recorder, 4)
    flips.flip(tmp_path / "run", "steps", flips.blocks(tmp_path / "run", "steps")[1].offset + 5)
    with pytest.warns(RecorderWarning, match=r"'run' that is resumed is damaged \(steps.stepscope: bytes .* is kept"):
        recorder = _recorder(tmp_path, resume=True)
    _train(recorder, 1)
    recorder.close()
    assert _steps(tmp_path) == [0, 2, 3, 4]


def test_two_recorders_do_not_share_a_trial(tmp_path: Path) -> None:
    with _recorder(tmp_path), pytest.raises(TrialInUseError):
        _recorder(tmp_path, resume=True)


def test_what_is_no_trial_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    with pytest.raises(NotARecordingError, match="no recording"):
        _recorder(tmp_path, resume=True)


def test_a_disabled_recorder_resumes_nothing(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recorder = Recorder(tmp_path, trial="run", resume=True, start_step=3, enabled=False)
        recorder.rewind(2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resume": True, "trial": None}, "resume=True: expected the name of the trial"),
        ({"resume": 1000}, "resume=1000: expected True or False; start_step="),
        ({"start_step": -1}, "start_step=-1: expected the number of a step"),
        ({"start_step": 1.5}, "start_step=1.5"),
    ],
)
def test_arguments_that_do_not_say_where(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecorderError, match=message):
        Recorder(tmp_path, **{"trial": "run", **options})


def test_rewinding_to_no_step(tmp_path: Path) -> None:
    with _recorder(tmp_path) as recorder, pytest.raises(RecorderError, match=r"rewind\(-1\): expected the number"):
        recorder.rewind(-1)
