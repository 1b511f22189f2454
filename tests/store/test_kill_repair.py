"""A process that is killed while it repairs or resumes a trial, at any of its steps, loses nothing."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from stepscope.store import TrialWriter, open_trial, repair, verify
from stepscope.store.files import FILE_NAMES, file_path
from support import flips
from support.everything import Pieces, everything
from support.killed import run_killed
from support.records import assert_step_is
from support.synthetic import Synthetic, SyntheticTrial

SYNTHETIC = Synthetic(blocks=1, width=2, batch=2, iterations=1, samples=1, gradients=(), kinds=("train",))
AGAIN = replace(SYNTHETIC, seed=3)
STEPS = 9
NEVER = 1_000_000


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trial with damage in every file."""
    live = SyntheticTrial(tmp_path_factory.mktemp("group"), SYNTHETIC)
    live.write(STEPS)
    live.close()
    blocks = {name: flips.blocks(live.path, name) for name in FILE_NAMES}
    for name, index in (("journal", 2), ("catalog", 1), ("steps", 3), ("detail", 5), ("columns", 0)):
        place = blocks[name][index]
        flips.flip(live.path, name, place.end - 3 if name in ("catalog", "columns") else place.offset + 26)
    return live.path


@pytest.fixture(scope="module")
def torn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trial whose process was killed in the middle of a step."""
    live = SyntheticTrial(tmp_path_factory.mktemp("group"), SYNTHETIC)
    live.write(STEPS + 1)
    live.close("died")
    for name in ("steps", "journal", "detail"):
        flips.cut(live.path, name, flips.blocks(live.path, name)[-1].end - 20)
    return live.path


def _moments(source: Path, folder: Path, action: Callable[[Path], object], count: int) -> list[int]:
    """Some of the steps of an action, the first and the last ones among them."""
    path = Path(shutil.copytree(source, folder / "whole" / source.name))
    steps = run_killed(partial(action, path), NEVER)
    assert steps > 20
    chosen = {1, 2, steps - 1, steps, *random.Random(count).sample(range(1, steps + 1), min(count, steps))}
    return sorted(chosen)


def _has_all(path: Path, before: Pieces) -> None:
    after = everything(path)
    assert [key for key in before if after.get(key) != before[key]] == []


def _check_killed_repair(source: Path, folder: Path, at: int) -> None:
    path = Path(shutil.copytree(source, folder / str(at) / source.name))
    before = everything(path)
    originals = {name: file_path(path, name).read_bytes() for name in FILE_NAMES}
    assert run_killed(partial(repair, path), at) == 0
    _has_all(path, before)  # whoever looks meanwhile
    if at % 3 == 0:
        TrialWriter(path.parent, SYNTHETIC.info(), resume=True).close(None)
        _has_all(path, before)
    repair(path)
    _has_all(path, before)
    assert verify(path) == [] and not (path / "repairing").exists()
    for name, data in originals.items():
        kept = [file_path(path, name), *(file_path(entry, name) for entry in path.glob("damaged-*"))]
        assert at % 3 == 0 or data in [file.read_bytes() for file in kept if file.exists()]


def _resume(path: Path) -> None:
    """Go back to step 50, and record the steps 50 to 70."""
    with TrialWriter(path.parent, AGAIN.info(), resume=True) as writer:
        writer.rewind(50)
        for index in range(5, 8):
            writer.write_step(AGAIN.record(index))


def _check_killed_resume(source: Path, folder: Path, at: int) -> None:
    path = Path(shutil.copytree(source, folder / str(at) / source.name))
    before = {name: file_path(path, name).read_bytes() for name in FILE_NAMES}
    assert run_killed(partial(_resume, path), at) == 0
    trial = open_trial(path)
    assert trial.steps.tolist()[:5] == [0, 10, 20, 30, 40]
    for number in trial.steps.tolist():
        superseding = number >= 50 and 80 not in trial.steps
        assert_step_is(trial.step(number), (AGAIN if superseding else SYNTHETIC).record(number // 10))
    _resume(path)
    trial = open_trial(path)
    assert trial.state == "finished" and trial.steps.tolist() == list(range(0, 80, 10))
    for number in trial.steps.tolist():
        assert_step_is(trial.step(number), (SYNTHETIC if number < 50 else AGAIN).record(number // 10))
    assert verify(path) == []
    for name, data in before.items():  # not even what was torn is gone
        ends = [b"", *(entry.read_bytes() for entry in path.glob(f"damaged-*/{name}.end"))]
        now = file_path(path, name).read_bytes()
        assert any(data.endswith(end) and now.startswith(data[: len(data) - len(end)]) for end in ends)


@pytest.mark.slow
@pytest.mark.supports("What was recorded is kept", "killed while a trial is repaired, or resumed: nothing is lost")
def test_killed_while_repairing(damaged: Path, tmp_path: Path) -> None:
    for at in _moments(damaged, tmp_path, repair, 6):
        _check_killed_repair(damaged, tmp_path, at)


@pytest.mark.slow
def test_killed_while_resuming(torn: Path, tmp_path: Path) -> None:
    for at in _moments(torn, tmp_path, _resume, 6):
        _check_killed_resume(torn, tmp_path, at)


@pytest.mark.exhaustive
def test_killed_at_every_step_of_a_repair(damaged: Path, tmp_path: Path) -> None:
    for at in _moments(damaged, tmp_path, repair, 1000):
        _check_killed_repair(damaged, tmp_path, at)


@pytest.mark.exhaustive
def test_killed_at_every_step_of_a_resumption(torn: Path, tmp_path: Path) -> None:
    for at in _moments(torn, tmp_path, _resume, 1000):
        _check_killed_resume(torn, tmp_path, at)
