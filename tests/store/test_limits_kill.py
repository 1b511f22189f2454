"""A process that is killed while it thins out a recording loses nothing but, at most, what it was to lose."""

from __future__ import annotations

import builtins
import os
import random
import signal
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pytest

from stepscope.store import TrialWriter, append_file, detail_rewrite, open_trial, verify
from stepscope.store.room import Limits
from support.synthetic import Synthetic

SYNTHETIC = Synthetic(blocks=1, width=24, iterations=1, kinds=("train",))
STEPS = 30
LIMITS = Limits(trial=1_500_000)


class _Torn:
    """A file that ends the process between two bytes."""

    left = 0

    def __init__(self, path: Path, mode: str, buffering: int = 0) -> None:
        self._file: Any = builtins.open(path, mode, buffering=0)  # noqa: SIM115 - lives until the kill

    def write(self, data: bytes) -> int:
        if len(data) >= _Torn.left:
            self._file.write(data[: _Torn.left])
            os.kill(os.getpid(), signal.SIGKILL)
        _Torn.left -= len(data)
        return int(self._file.write(data))

    def __enter__(self) -> _Torn:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _write(folder: Path, die_after: int, announce: int) -> None:
    _Torn.left = die_after
    for module in (append_file, detail_rewrite):
        module.open = _Torn  # type: ignore[attr-defined]
    writer = TrialWriter(folder, SYNTHETIC.info(), limits=LIMITS)
    for number in range(STEPS):
        writer.write_step(_record(number))
        os.write(announce, b"x")


def _record(number: int) -> Any:
    return replace(_RECORDS[number % len(_RECORDS)], number=number)


_RECORDS = [SYNTHETIC.record(index) for index in range(4)]


def _killed_after(folder: Path, size: int) -> int:
    """Let a process write until it dies; returns how many steps it had finished."""
    reading, announce = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _write(folder, size, announce)
        finally:
            os._exit(0)
    os.close(announce)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        return len(pipe.read())


def _check(path: Path, finished: int) -> bool:
    """Every finished step is there with all its statistics; says whether the process died while thinning."""
    trial = open_trial(path)
    assert finished <= len(trial.steps) <= finished + 1
    for number in trial.steps.tolist():
        step, written = trial.step(number), _record(number)
        assert np.array_equal(step.statistics(), written.statistics, equal_nan=True)
        for row, own in enumerate(written.neurons):
            assert np.array_equal(step.detail.histogram(row), written.histograms[row])
            found = step.detail.neurons(row)
            if step.detail_state == "full":
                assert (found is None) == (own is None)
            if found is not None and own is not None and found.samples.size:
                assert np.array_equal(found.samples, own.samples, equal_nan=True)
    return any(path.glob("new-*"))


@pytest.mark.supports("What was recorded is kept", "killed while old detail is thinned out: every step is there")
@pytest.mark.slow
def test_killed_while_thinning(tmp_path: Path) -> None:
    choose = random.Random(0)
    while_thinning = 0
    for attempt in range(10):
        folder = tmp_path / str(attempt)
        finished = _killed_after(folder, choose.randrange(1_300_000, 5_000_000))
        path = folder / "synthetic"
        while_thinning += _check(path, finished)
        with TrialWriter(folder, SYNTHETIC.info(), limits=LIMITS, resume=True) as writer:
            for number in range(finished + 1, finished + 8):
                writer.write_step(_record(number))
        assert not any(path.glob("new-*")) and verify(path) == []
    assert while_thinning


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(100))
def test_killed_at_many_bytes(tmp_path: Path, seed: int) -> None:
    choose = random.Random(seed)
    for attempt in range(4):
        finished = _killed_after(tmp_path / str(attempt), choose.randrange(100_000, 8_000_000))
        _check(tmp_path / str(attempt) / "synthetic", finished)
