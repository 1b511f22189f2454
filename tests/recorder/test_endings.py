"""How a run ends is known afterwards, and what was recorded is there: real processes, ended in many ways."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stepscope.store import Trial, open_trial

BEGINNING = """
import os, signal, sys, time
import torch
from torch import nn
from stepscope.recorder import Recorder
recorder = Recorder(sys.argv[1], trial="trial", schedule=1, strict=True)
model = nn.Linear(2, 1)
recorder.watch(model, torch.optim.SGD(model.parameters(), lr=0.1))
for _ in range(3):
    with recorder.step():
        model(torch.randn(4, 2)).sum().backward()
"""


RUNNER = """
import json, os, sys
import torch
import stepscope.recorder, torch._dynamo
for line in sys.stdin:
    script, folder = json.loads(line)
    child = os.fork()
    if child == 0:
        break  # the child goes on below, as the main program
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()
os.dup2(os.open(folder + "/stderr", os.O_WRONLY | os.O_CREAT), 2)
sys.argv = ["script.py", folder]
exec(compile(script, "script.py", "exec"))
"""
"""Imports torch once; each script is then a process of its own, which ends by its own means."""


@pytest.fixture(scope="module")
def runner() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-W", "error", "-c", RUNNER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


Run = Callable[[str], int]


@pytest.fixture
def run(runner: subprocess.Popen[str], tmp_path: Path) -> Run:
    """Runs a script that records three steps and then ends in some way; gives its exit code."""

    def call(ending: str) -> int:
        assert runner.stdin is not None and runner.stdout is not None
        runner.stdin.write(json.dumps([BEGINNING + textwrap.dedent(ending), str(tmp_path)]) + "\n")
        runner.stdin.flush()
        return int(runner.stdout.readline())

    return call


Ended = Callable[..., Trial]


@pytest.fixture
def trial_after(run: Run, tmp_path: Path) -> Ended:
    """Runs a script and opens the trial that it left."""

    def call(ending: str, *, code: int = 0) -> Trial:
        assert run(ending) == code, (tmp_path / "stderr").read_text()
        trial = open_trial(tmp_path / "trial")
        assert trial.steps.tolist()[:3] == [0, 1, 2]
        assert trial.problems == ()
        return trial

    return call


@pytest.mark.parametrize("ending", ["recorder.close()", "pass", "del recorder", "with recorder: pass"])
def test_a_run_that_ends_by_itself_is_finished(ending: str, trial_after: Ended) -> None:
    assert trial_after(ending).state == "finished"


@pytest.mark.supports(
    "Training is not stopped", "exceptions of your own: the trial is marked as failed, with the traceback"
)
def test_an_exception_that_nobody_catches(trial_after: Ended) -> None:
    trial = trial_after("raise ValueError('loss is nan')", code=1)
    assert trial.state == "failed"
    assert trial.end is not None
    assert trial.end.exception == "ValueError: loss is nan"
    assert "raise ValueError" in trial.end.traceback or "line" in trial.end.traceback


def test_an_exception_inside_the_context(trial_after: Ended) -> None:
    trial = trial_after("with recorder: [][0]", code=1)
    assert trial.state == "failed"
    assert trial.end is not None
    assert trial.end.exception.startswith("IndexError")


def test_an_exception_that_was_caught_is_no_failure(trial_after: Ended) -> None:
    ending = """
    try:
        1 / 0
    except ZeroDivisionError:
        pass
    """
    assert trial_after(ending).state == "finished"


@pytest.mark.parametrize(("ending", "code"), [("sys.exit()", 0), ("sys.exit(0)", 0)])
def test_sys_exit_without_an_error_is_an_ending(ending: str, code: int, trial_after: Ended) -> None:
    assert trial_after(ending, code=code).state == "finished"


def test_sys_exit_with_an_error_inside_the_context(trial_after: Ended) -> None:
    trial = trial_after("with recorder: sys.exit(3)", code=3)
    assert trial.state == "failed"
    assert trial.end is not None
    assert trial.end.exception == "SystemExit: 3"


def test_sys_exit_without_an_error_inside_the_context(trial_after: Ended) -> None:
    assert trial_after("with recorder: sys.exit(0)").state == "finished"


def test_a_keyboard_interrupt(trial_after: Ended) -> None:
    trial = trial_after(
        "signal.signal(signal.SIGINT, signal.default_int_handler); os.kill(os.getpid(), signal.SIGINT); time.sleep(30)",
        code=-signal.SIGINT,
    )
    assert trial.state == "failed"
    assert trial.end is not None
    assert trial.end.exception.startswith("KeyboardInterrupt")


def test_a_kill_leaves_what_was_written(trial_after: Ended) -> None:
    trial = trial_after("recorder.flush(); os.kill(os.getpid(), signal.SIGKILL)", code=-signal.SIGKILL)
    assert trial.state == "running" or trial.end is None
    assert trial.step(2).tensor("model", quantity="gradient").statistics["norm"] > 0


@pytest.mark.parametrize("delay", [0.05, 0.2, 0.4])
@pytest.mark.supports("Training is not stopped", "a kill at any moment: finished steps are kept")
def test_a_kill_at_any_moment(delay: float, trial_after: Ended) -> None:
    ending = f"""
    import threading
    recorder.flush()
    threading.Timer({delay}, os.kill, (os.getpid(), signal.SIGKILL)).start()
    while True:
        with recorder.step():
            model(torch.randn(4, 2)).sum().backward()
    """
    trial = trial_after(ending, code=-signal.SIGKILL)
    numbers = trial.steps.tolist()
    assert numbers == list(range(len(numbers)))
    assert trial.step(numbers[-1]).tensor("model.weight").shape == (1, 2)


@pytest.mark.supports("Training is not stopped", "forked processes (data loaders) leave the recording alone")
def test_a_forked_child_leaves_the_recording_alone(trial_after: Ended) -> None:
    ending = """
    recorder.flush()
    child = os.fork()
    with recorder.step():
        model(torch.randn(4, 2)).sum().backward()
    recorder.scalar("x", 1.0)
    if child == 0:
        recorder.close()
        os._exit(0)
    os.waitpid(child, 0)
    """
    trial = trial_after(ending)
    assert (trial.state, trial.steps.tolist()) == ("finished", [0, 1, 2, 3])
    assert trial.scalars("x").values.tolist() == [1.0]
