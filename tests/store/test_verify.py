"""``verify`` reads every byte, and says where it does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepscope.store import NotARecordingError, open_trial, verify
from stepscope.store.files import FILE_NAMES, file_path
from support import flips
from support.records import assert_step_is
from support.synthetic import Synthetic, SyntheticTrial, write_trial, write_whole

SYNTHETIC = Synthetic(blocks=1, iterations=1, width=4, nan_from=30, kinds=("train",))
STEPS = 9


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_whole(tmp_path_factory.mktemp("group"), SYNTHETIC, STEPS)


def test_an_undamaged_trial(whole: Path) -> None:
    assert verify(whole) == []


def test_a_group_of_trials(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_trial(tmp_path, steps=2, blocks=1, trial=name)
    assert verify(tmp_path) == []
    flips.flip(tmp_path / "b", "detail", -3)
    file_path(tmp_path / "c", "journal").write_bytes(b"something else" * 99)
    problems = verify(tmp_path)
    assert len(problems) == 2
    assert any(text.startswith("b: step 10: detail of ") for text in problems)
    assert any(text.startswith("c: ") and "is not a file of a Stepscope recording" in text for text in problems)


def test_a_trial_whose_process_died(tmp_path: Path) -> None:
    assert verify(write_trial(tmp_path, steps=3, blocks=1, state="died")) == []


def test_a_running_trial(tmp_path: Path) -> None:
    live = SyntheticTrial(tmp_path, Synthetic(blocks=1))
    live.write(2)
    assert verify(live.path) == []
    live.close()


@pytest.mark.parametrize("name", FILE_NAMES)
def test_no_flipped_byte_is_missed(whole: Path, tmp_path: Path, name: str) -> None:
    """It is found, unless it changes nothing: there are bits in a compressed frame that carry no meaning."""
    original = file_path(whole, name).read_bytes()
    damaged = flips.copy(whole, tmp_path)
    path, missed = file_path(damaged, name), 0
    for at in range(0, len(original), max(len(original) // 25, 1)):
        data = bytearray(original)
        data[at] ^= 0x08
        path.write_bytes(data)
        if not verify(damaged):
            missed += 1
            for index in range(STEPS):
                assert_step_is(open_trial(damaged).step(10 * index), SYNTHETIC.record(index))
    assert missed <= 2


def test_columns_that_say_something_else(tmp_path: Path) -> None:
    """A history that is whole, but of another trial."""
    paths = [
        write_trial(tmp_path, steps=9, blocks=1, iterations=1, kinds=["train"], trial=f"seed {seed}", seed=seed)
        for seed in (1, 2)
    ]
    file_path(paths[0], "columns").write_bytes(file_path(paths[1], "columns").read_bytes())
    problem = "seed 1: columns.stepscope: the history of step {} is not what the step says"
    assert verify(tmp_path) == [problem.format(10 * index) for index in range(9)]


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(NotARecordingError):
        verify(tmp_path / "nothing")
