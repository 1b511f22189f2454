"""What happens when the disk is full, a permission is lost, or the folder is gone: nothing written before suffers."""

from __future__ import annotations

import errno
import os
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stepscope.store import TrialWriter, open_trial, verify
from stepscope.store.append_file import AppendFile
from stepscope.store.records import Note, TrialEnd
from stepscope.store.room import Limits
from support.records import assert_step_is
from support.small_disk import mounted
from support.synthetic import Synthetic, SyntheticTrial

SYNTHETIC = Synthetic(blocks=1, width=6, iterations=2)
_NOBODY = 65534
RECORDS = [SYNTHETIC.record(index) for index in range(40)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk") as folder:
        yield folder


def _check_written(path: Path, numbers: list[int]) -> None:
    trial = open_trial(path)
    assert trial.steps.tolist() == numbers
    assert trial.problems == ()
    for number in numbers:
        assert_step_is(trial.step(number), RECORDS[number // 10])


def test_a_full_disk(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 150_000)
    writer = TrialWriter(small_disk, SYNTHETIC.info())
    written: list[int] = []
    failed: list[int] = []
    for record in RECORDS:
        try:
            writer.write_step(record)
            written.append(record.number)
        except OSError as error:
            assert error.errno == errno.ENOSPC
            failed.append(record.number)
            if len(failed) == 3:
                _check_written(writer.path, written)
                ballast.unlink()  # recording goes on when there is room again
        if len(failed) >= 3 and written[-1] > failed[2] + 20:
            break
    assert len(failed) == 3 and written[0] == 0 and failed[0] < failed[-1] < written[-1]
    writer.close(TrialEnd("finished", 1.0))
    _check_written(writer.path, written)


def test_closing_on_a_full_disk(small_disk: Path) -> None:
    writer = TrialWriter(small_disk, SYNTHETIC.info())
    writer.write_step(RECORDS[0])
    with open(small_disk / "ballast", "wb", buffering=0) as ballast, pytest.raises(OSError, match="No space"):
        while True:
            ballast.write(b"x" * 512)
    with pytest.raises(OSError, match="No space"):
        writer.close(TrialEnd("failed", 1.0, "ValueError: x", "a long traceback\n" * 1000))
    trial = open_trial(writer.path)
    assert (trial.state, trial.steps.tolist()) == ("failed", [0])  # the lock was given back


class _FaultyFile:
    """A file on a disk that fails: it takes part of the data, then reports an error."""

    def __init__(self, file: Any, *, cuts: bool) -> None:
        self._file, self._cuts = file, cuts
        self.left: int | None = None

    def write(self, data: memoryview) -> int:
        if self.left is None:
            return int(self._file.write(data))
        if self.left == 0:
            raise OSError(errno.EIO, "Input/output error")
        written = int(self._file.write(data[: self.left]))
        self.left -= written
        return written

    def truncate(self, size: int) -> None:
        if self.left is not None and not self._cuts:
            raise OSError(errno.EROFS, "Read-only file system")
        self._file.truncate(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@pytest.mark.parametrize("cuts", [True, False], ids=["can be cut", "cannot even be cut"])
@pytest.mark.parametrize("name", ["_catalog", "_detail", "_steps", "_columns"])
@pytest.mark.parametrize("size", [0, 1, 30, 4000])
def test_a_failing_disk(tmp_path: Path, name: str, size: int, cuts: bool) -> None:
    writer = TrialWriter(tmp_path, SYNTHETIC.info())
    writer.write_step(RECORDS[0])
    file: AppendFile = getattr(writer, name)
    faulty = _FaultyFile(file._file, cuts=cuts)
    file._file = faulty
    faulty.left = size
    written = [0]
    for record in RECORDS[2:4]:  # a new layout, so that the catalog grows
        try:
            writer.write_step(record)
            written.append(record.number)
        except OSError as error:
            assert error.errno in (errno.EIO, errno.EROFS)
    faulty.left = None
    writer.write_step(RECORDS[4])
    writer.close(TrialEnd("finished", 1.0))
    _check_written(writer.path, [*written, 40])


def test_a_moved_folder(tmp_path: Path) -> None:
    live = SyntheticTrial(tmp_path, SYNTHETIC)
    live.write(2)
    live.path.rename(tmp_path / "elsewhere")
    for _ in range(2):
        with pytest.raises(FileNotFoundError, match="moved, removed or replaced; put it back to go on"):
            live.writer.write_step(RECORDS[2])
        with pytest.raises(FileNotFoundError):
            live.writer.write_note(Note("lost", 2, 0.0))
    (tmp_path / "elsewhere").rename(live.path)
    live.writer.write_step(RECORDS[3])
    live.close()
    _check_written(live.path, [0, 10, 30])


def test_a_removed_folder(tmp_path: Path) -> None:
    live = SyntheticTrial(tmp_path, SYNTHETIC)
    live.write(2)
    trial = open_trial(live.path)
    assert_step_is(trial.step(0), RECORDS[0])
    for file in live.path.iterdir():
        file.unlink()
    live.path.rmdir()
    with pytest.raises(FileNotFoundError, match="put it back"):
        live.writer.write_step(RECORDS[2])
    with pytest.raises(FileNotFoundError, match="put it back"):
        live.close()
    # Who had it open still sees what was there.
    trial.refresh()
    assert trial.steps.tolist() == [0, 10]
    assert_step_is(trial.step(10), RECORDS[1])
    assert not live.path.exists()


def test_a_file_in_the_folders_place(tmp_path: Path) -> None:
    (tmp_path / "group").write_text("a file")
    with pytest.raises(OSError, match="group"):
        TrialWriter(tmp_path / "group", SYNTHETIC.info())


def _write_without_permission(folder: Path) -> None:
    """With a limit of bytes, files are made all the time; for a while, none may be."""
    writer = TrialWriter(folder, SYNTHETIC.info(), limits=Limits(trial=400_000))
    written: list[int] = []
    refused = 0
    for record in RECORDS:
        if record.number in (100, 300):
            writer.path.chmod(0o500 if record.number == 100 else 0o700)
        try:
            writer.write_step(record)
            written.append(record.number)
        except PermissionError:
            refused += 1
    writer.close(TrialEnd("finished", 1.0))
    trial = open_trial(writer.path)
    assert refused and trial.steps.tolist() == written and {0, 300, 390} <= set(written)
    assert verify(writer.path) == []
    for number in written:
        assert np.array_equal(trial.step(number).statistics(), RECORDS[number // 10].statistics, equal_nan=True)


def _start_without_permission(folder: Path) -> None:
    folder.mkdir(0o500)
    with pytest.raises(PermissionError):
        TrialWriter(folder / "group", SYNTHETIC.info())


@pytest.mark.parametrize("action", [_start_without_permission, _write_without_permission])
def test_a_permission_that_is_missing(action: Callable[[Path], None]) -> None:
    """In a process of another user: root may do anything."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
        if os.geteuid() == 0:
            os.chown(folder, _NOBODY, _NOBODY)
        child = os.fork()
        if child == 0:
            _do_as_nobody(action, Path(folder) / "runs")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _do_as_nobody(action: Callable[[Path], None], folder: Path) -> None:
    try:
        if os.geteuid() == 0:
            os.setegid(_NOBODY)
            os.seteuid(_NOBODY)
        action(folder)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
