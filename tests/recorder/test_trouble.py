"""The disk is full, or the folder is gone: training goes on as it would have, with one warning, and so does recording
when the cause has gone away."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from stepscope.recorder import Recorder, RecorderWarning
from stepscope.store import open_trial, verify
from support.small_disk import mounted

STEPS = 30


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk") as folder:
        yield folder


def _train(recorder: Recorder | None, trouble: Callable[[int], object] = lambda step: None) -> torch.Tensor:
    """Train for some steps; ``trouble`` may happen before each. Returns a weight."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    if recorder is not None:
        recorder.watch(model, optimizer)
    for step in range(STEPS):
        trouble(step)
        batch = torch.randn(8, 16)
        optimizer.zero_grad()
        if recorder is None:
            model(batch).square().mean().backward()
            optimizer.step()
            continue
        with recorder.step():
            model(batch).square().mean().backward()
            optimizer.step()
        recorder.scalar("step", step)
        recorder.flush()
    return model[0].weight.detach().clone()


def _record(folder: Path, trouble: Callable[[int], object]) -> tuple[Path, list[str]]:
    """Record a training in trouble, which is compared with one that is not recorded; returns its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        recorder = Recorder(folder, trial="trial", schedule=1)
        weight = _train(recorder, trouble)
        recorder.close()
    assert torch.equal(weight, _train(None))
    path = recorder.path
    assert path is not None
    return path, [str(warning.message) for warning in caught if issubclass(warning.category, RecorderWarning)]


@pytest.mark.supports("Training is not stopped", "a full disk: one warning; recording goes on when there is room again")
def test_a_full_disk(small_disk: Path) -> None:
    ballast = small_disk / "ballast"

    def trouble(step: int) -> None:
        if step == 5:
            with open(ballast, "wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
                while True:
                    file.write(bytes(4096))
        if step == 20:
            ballast.unlink()

    path, told = _record(small_disk, trouble)
    trial = open_trial(path)
    numbers = trial.steps.tolist()
    assert len(told) == 1 and "No space left on device" in told[0] and "training goes on" in told[0]
    assert set(range(5)) <= set(numbers) and set(range(20, STEPS)) <= set(numbers) and len(numbers) < STEPS
    assert trial.state == "finished" and verify(path) == []
    assert any("No space left on device" in message.text for message in trial.messages)


@pytest.mark.supports("Training is not stopped", "a folder that is moved away, or removed")
def test_a_folder_that_is_gone_for_a_while(tmp_path: Path) -> None:
    def trouble(step: int) -> None:
        if step == 5:
            (tmp_path / "runs" / "trial").rename(tmp_path / "elsewhere")
        if step == 20:
            (tmp_path / "elsewhere").rename(tmp_path / "runs" / "trial")

    path, told = _record(tmp_path / "runs", trouble)
    trial = open_trial(path)
    assert len(told) == 1 and "put it back to go on" in told[0]
    assert trial.steps.tolist() == [*range(5), *range(20, STEPS)]
    assert trial.state == "finished" and verify(path) == []


def test_a_folder_that_is_gone_for_good(tmp_path: Path) -> None:
    def trouble(step: int) -> None:
        if step == 5:
            for file in (tmp_path / "runs" / "trial").iterdir():
                file.unlink()
            (tmp_path / "runs" / "trial").rmdir()

    path, told = _record(tmp_path / "runs", trouble)
    assert len(told) == 1 and "moved, removed or replaced" in told[0]
    assert not path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_a_folder_that_may_not_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir(mode=0o755)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
        child = os.fork()
    if child == 0:
        os.seteuid(65534)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            recorder = Recorder(tmp_path / "runs", trial="trial")
            with recorder.step() as step:
                step.record("x", torch.ones(2))
        os._exit(7 if len(caught) == 1 and "nothing is recorded" in str(caught[0].message) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert list((tmp_path / "runs").iterdir()) == []
