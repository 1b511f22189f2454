"""One writer per trial, and no dead process holds it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

from stepscope.store import TrialInUseError, TrialWriter, lock, open_trial
from stepscope.store.records import TrialEnd
from support.records import INFO


def _dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    return process.pid


def _leave_lock(trial: Path, **owner: object) -> None:
    trial.mkdir(parents=True, exist_ok=True)
    (trial / lock.LOCK_NAME).write_text(json.dumps({"host": socket.gethostname(), **owner}))


@pytest.mark.parametrize("if_exists", ["number", "overwrite"])
def test_a_second_writer_is_refused(tmp_path: Path, if_exists) -> None:  # type: ignore[no-untyped-def]
    with TrialWriter(tmp_path, INFO) as writer:
        with pytest.raises(TrialInUseError, match=f"process {os.getpid()} on .*; close that recorder first"):
            TrialWriter(tmp_path, INFO, if_exists=if_exists)
        assert open_trial(writer.path).state == "running"
    with TrialWriter(tmp_path, INFO) as second:
        assert second.name == "trial-2"


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    _leave_lock(tmp_path / "trial", pid=_dead_pid(), started=1)
    with TrialWriter(tmp_path, INFO, if_exists="overwrite") as writer:
        assert writer.name == "trial"
        owner = lock.owner_of(writer.path)
        assert owner is not None and owner["pid"] == os.getpid()


def test_another_process_with_the_same_number_is_not_the_owner(tmp_path: Path) -> None:
    _leave_lock(tmp_path / "trial", pid=os.getpid(), started=1)
    assert not lock.is_held(tmp_path / "trial")


def test_a_process_on_another_machine_may_be_alive(tmp_path: Path) -> None:
    _leave_lock(tmp_path / "trial", pid=1, started=1, host="elsewhere")
    with pytest.raises(TrialInUseError, match="on elsewhere"):
        TrialWriter(tmp_path, INFO)


@pytest.mark.parametrize("owner", [{}, {"pid": "x"}, {"pid": -1}, {"pid": 10**30}])
def test_a_lock_without_a_process_is_nobodys(tmp_path: Path, owner: dict[str, object]) -> None:
    _leave_lock(tmp_path, **owner)
    assert lock.take(tmp_path)


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "\xff"])
def test_a_damaged_lock_is_nobodys(tmp_path: Path, text: str) -> None:
    (tmp_path / lock.LOCK_NAME).write_text(text, "latin-1")
    assert lock.take(tmp_path)


def test_of_many_that_want_a_dead_ones_lock_one_gets_it(tmp_path: Path) -> None:
    _leave_lock(tmp_path, pid=_dead_pid(), started=1)
    got: list[bool] = []
    start = threading.Barrier(8)

    def want() -> None:
        start.wait()
        got.append(lock.take(tmp_path))

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [False] * 7 + [True]


def test_a_closed_trial_has_no_lock(tmp_path: Path) -> None:
    with TrialWriter(tmp_path, INFO) as writer:
        pass
    assert sorted(entry.suffix for entry in writer.path.iterdir()) == [".stepscope"] * 5


def test_a_forked_process_does_not_end_the_trial(tmp_path: Path) -> None:
    """Data loaders fork, and run exit handlers."""
    writer = TrialWriter(tmp_path, INFO)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads; the child only closes files
        child = os.fork()
    if child == 0:
        writer.close(TrialEnd("finished", 1.0))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    trial = open_trial(writer.path)
    assert trial.state == "running" and trial.end is None
    writer.close(TrialEnd("finished", 2.0))
    assert trial.refresh() and trial.end == TrialEnd("finished", 2.0)
