"""One writer per trial, and no dead process holds it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

from stepscope.store import TrialInUseError, TrialWriter, claim, lock, open_trial
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


# ---------------------------------------------------------------------- owners that this process cannot see


def _elsewhere(trial: Path, *, silence: float, **owner: object) -> None:
    """A lock of another machine, which was last touched so many seconds ago."""
    _leave_lock(trial, **{"pid": 1, "started": 1, "host": "elsewhere", "beat": 10, **owner})
    then = time.time() - silence
    os.utime(trial / lock.LOCK_NAME, (then, then))


@pytest.mark.parametrize("owner", [{"host": "elsewhere"}, {"host": socket.gethostname(), "namespace": "pid:[1]"}])
def test_a_silent_owner_elsewhere_is_dead(tmp_path: Path, owner: dict[str, object]) -> None:
    """A job that died on another machine, or in another container, does not hold its trial forever."""
    _elsewhere(tmp_path, silence=30, **owner)
    assert lock.is_held(tmp_path) and not lock.take(tmp_path)
    _elsewhere(tmp_path, silence=100, **owner)
    assert not lock.is_held(tmp_path) and lock.take(tmp_path)


def test_silence_is_measured_by_the_clock_of_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _elsewhere(tmp_path, silence=1)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 10_000)  # this machine's clock is wrong
    assert not lock.take(tmp_path)


def test_before_the_last_start_of_the_machine_nobody_lives(tmp_path: Path) -> None:
    _leave_lock(tmp_path, pid=os.getppid(), boot="another")
    assert not lock.is_held(tmp_path)


def test_resuming_waits_for_the_silence_of_an_owner_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "MISSED_BEATS", 3)
    monkeypatch.setattr(claim, "_LOOK_AGAIN", 0.05)
    TrialWriter(tmp_path, INFO).close(None)
    _elsewhere(tmp_path / "trial", silence=0, beat=0.1)
    with TrialWriter(tmp_path, INFO, resume=True) as writer:
        assert writer.earlier is not None
    _elsewhere(tmp_path / "trial", silence=0, beat=0.1)
    beating = threading.Timer(0.1, os.utime, [tmp_path / "trial" / lock.LOCK_NAME])
    beating.start()
    with pytest.raises(TrialInUseError, match=r"on elsewhere; .* \(if that process is dead, delete .*writer.lock\)"):
        TrialWriter(tmp_path, INFO, resume=True)
    beating.join()


def test_a_writer_touches_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.01)
    with TrialWriter(tmp_path, INFO) as writer:
        path = writer.path / lock.LOCK_NAME
        os.utime(path, (1.0, 1.0))
        writer.write_message("alive", 0)
        deadline = time.monotonic() + 30
        while path.stat().st_mtime == 1.0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert path.stat().st_mtime > 1.0


def test_a_writer_whose_trial_was_taken_over_writes_no_more(tmp_path: Path) -> None:
    """It slept for so long, with its whole machine, that it was thought to be dead."""
    sleeper = TrialWriter(tmp_path, INFO)
    (sleeper.path / lock.LOCK_NAME).unlink()
    with TrialWriter(tmp_path, INFO, resume=True) as writer:
        before = [entry.read_bytes() for entry in sorted(writer.path.glob("*.stepscope"))]
        with pytest.raises(TrialInUseError, match=r"was taken over by process .* while this one was silent"):
            sleeper.write_message("too late", 0)
        sleeper.close(TrialEnd("finished", 1.0))
        assert before == [entry.read_bytes() for entry in sorted(writer.path.glob("*.stepscope"))]
        assert lock.is_held(writer.path)
        writer.write_message("goes on", 0)
    assert [message.text for message in open_trial(writer.path).messages] == ["goes on"]


def test_a_forked_process_does_not_write(tmp_path: Path) -> None:
    with TrialWriter(tmp_path, INFO) as writer:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            try:
                writer.write_message("from the child", 0)
            except TrialInUseError:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert open_trial(writer.path).messages == ()


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
