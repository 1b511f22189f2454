"""A process that is killed while it writes loses nothing that was finished."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepscope.store import TrialWriter, open_trial
from support import killed_writer
from support.records import assert_step_is


@pytest.fixture(scope="module")
def writing() -> Iterator[subprocess.Popen[str]]:
    """The process whose children write trials."""
    command = [sys.executable, killed_writer.__file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def _start(writing: subprocess.Popen[str], folder: Path, die_after: int = 0) -> None:
    assert writing.stdin is not None
    writing.stdin.write(f"{folder} {die_after}\n")
    writing.stdin.flush()


def _lines(writing: subprocess.Popen[str]) -> Iterator[str]:
    assert writing.stdout is not None
    while (line := writing.stdout.readline().strip()) != "done":
        yield line


def _check(folder: Path, announced: int) -> None:
    """The steps up to the last announced one are there (and perhaps one more), and none is different."""
    trial = open_trial(folder / "synthetic")
    assert trial.state == "failed"
    assert trial.steps.tolist() == list(range(len(trial.steps)))
    assert announced < len(trial.steps) <= announced + 2
    for number in trial.steps.tolist():
        assert_step_is(trial.step(number), killed_writer.record(number))
    series = trial.series("model", statistic="std") if len(trial.steps) else None
    assert series is None or series.steps.tolist() == trial.steps.tolist()
    # Nothing stands in the way of another recording.
    with TrialWriter(folder, killed_writer.SYNTHETIC.info()) as writer:
        assert writer.name == "synthetic-2"


def _kill_after(writing: subprocess.Popen[str], folder: Path, steps: int, seconds: float) -> None:
    _start(writing, folder)
    announced, child = -1, 0
    for line in _lines(writing):
        if line.startswith("child"):
            child = int(line.split()[1])
        else:
            announced = int(line)
        if child and announced == steps:
            time.sleep(seconds)
            os.kill(child, signal.SIGKILL)
            child = 0
    assert announced < killed_writer.STEPS - 1
    _check(folder, announced)


def _tear_after(writing: subprocess.Popen[str], folder: Path, size: int) -> None:
    _start(writing, folder, size)
    announced = -1
    for line in _lines(writing):
        announced = int(line) if line.isdigit() else announced
    assert announced < killed_writer.STEPS - 1
    if (folder / "synthetic" / "journal.stepscope").exists():
        _check(folder, announced)


@pytest.mark.parametrize("seed", range(10))
def test_killed_at_any_time(tmp_path: Path, writing: subprocess.Popen[str], seed: int) -> None:
    choose = random.Random(seed)
    _kill_after(writing, tmp_path, choose.randrange(10), choose.uniform(0, 0.01))


# A step of this size is some 20,000 bytes long; 16 bytes are a file's header.
@pytest.mark.parametrize("size", [1, 17, 100, 700, 3000, 20_011, 50_000, 99_999, 150_001, 300_000])
def test_killed_between_two_bytes(tmp_path: Path, writing: subprocess.Popen[str], size: int) -> None:
    _tear_after(writing, tmp_path, size)


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(100))
def test_killed_at_many_times_and_bytes(tmp_path: Path, writing: subprocess.Popen[str], seed: int) -> None:
    choose = random.Random(1000 + seed)
    _kill_after(writing, tmp_path / "time", choose.randrange(100), choose.uniform(0, 0.02))
    _tear_after(writing, tmp_path / "byte", choose.randrange(1, 1_500_000))
