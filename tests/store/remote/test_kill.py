"""A recorder that is killed at any moment: what it uploaded is whole, and the rest is in its spool."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from stepscope.store import Trial, open_group, open_trial, upload, verify
from stepscope.store.remote.places import spool_folder
from support import killed_uploader
from support.records import assert_step_is
from support.remote import RECORDS, write_remote


def _kill_after(address: str, steps: int, seconds: float) -> int:
    """Let a process write to an address, and kill it; returns the last step that it knows to be written."""
    script = str(Path(killed_uploader.__file__))
    with subprocess.Popen([sys.executable, script, address], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        last = -1
        while last < steps:
            last = int(process.stdout.readline())
        time.sleep(seconds)
        process.kill()
        return int([str(last), *process.stdout.read().split("\n")[:-1]][-1])


def _check(trial: Trial, at_least: int) -> None:
    assert trial.steps.tolist() == list(range(len(trial.steps))) and len(trial.steps) >= at_least
    assert trial.problems == ()
    for number in trial.steps.tolist()[-3:]:
        assert_step_is(trial.step(number), replace(RECORDS[number % len(RECORDS)], number=number))


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.0, 0.03, 0.2])
@pytest.mark.parametrize("address", ["s3", "file"], indirect=True)
def test_killed_at_some_moment(address: str, seconds: float) -> None:
    last = _kill_after(address, 5, seconds)
    if open_group_names(address):
        trial = open_trial(f"{address}/synthetic")
        _check(trial, 0)
        assert trial.state == "failed"  # a process of this machine is known to be dead
    spooled = spool_folder(address) / "synthetic"
    assert upload(spooled, address) == (f"{address}/synthetic",)
    _check(open_trial(f"{address}/synthetic"), last + 1)
    assert verify(address) == [] and not spooled.exists()


def open_group_names(address: str) -> tuple[str, ...]:
    from stepscope.store import NotARecordingError

    try:
        return open_group(address).names
    except NotARecordingError:
        return ()


@pytest.mark.slow
def test_the_next_recorder_uploads_the_rest(s3: str) -> None:
    last = _kill_after(s3, 5, 0.0)
    assert write_remote(s3, 2) == f"{s3}/synthetic-2"
    _check(open_trial(f"{s3}/synthetic"), last + 1)
    assert [entry.name for entry in spool_folder(s3).iterdir()] == ["address.txt"]


@pytest.mark.slow
def test_a_killed_recorder_is_resumed(s3: str) -> None:
    """From its spool, which has more than the address."""
    from stepscope.store.records import TrialEnd
    from support.remote import new_writer

    last = _kill_after(s3, 5, 0.0)
    writer = new_writer(s3, resume=True)
    assert writer.next_step >= last + 1 and writer.name == "synthetic"
    number = writer.next_step
    writer.write_step(replace(RECORDS[number % len(RECORDS)], number=number))
    writer.close(TrialEnd("finished", 1.0))
    trial = open_trial(f"{s3}/synthetic")
    _check(trial, number + 1)
    assert trial.state == "finished" and open_group(s3).names == ("synthetic",)
