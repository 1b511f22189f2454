"""Groups at an address: what is in them, what leaves them, and names that lead elsewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from stepscope.store import NotARecordingError, UnknownNameError, open_group, open_trial
from stepscope.store.remote.folder import RemoteFolder
from stepscope.store.remote.places import cache_folder
from stepscope.store.remote.writer import RemoteTrialWriter
from support.remote import RECORDS, SYNTHETIC, check, new_writer, uploaded, write_remote


def _write(address: str, name: str, started: float = 1.0, steps: int = 1) -> None:
    info = replace(SYNTHETIC.info(), trial=name, started=started)
    with RemoteTrialWriter(address, info, interval=0.02) as writer:
        for record in RECORDS[:steps]:
            writer.write_step(record)


def test_trials_are_in_the_order_in_which_they_started(memory: str) -> None:
    for name, started in (("c", 10.0), ("a", 30.0), ("b", 20.0)):
        _write(memory, name, started)
    group = open_group(memory)
    assert group.names == ("c", "b", "a") and group.opened == ()
    assert not group.refresh()
    assert group["b"].steps.tolist() == [0]
    assert [trial.name for trial in group.opened] == ["b"]
    _write(memory, "d", 40.0)
    assert group.refresh() and group.names == ("c", "b", "a", "d")
    with pytest.raises(UnknownNameError, match="did you mean"):
        group["dd"]


def test_only_what_is_asked_for_is_fetched(memory: str) -> None:
    _write(memory, "one")
    _write(memory, "two")
    group = open_group(memory)
    assert not (group.path / "one").exists() and not group.is_live("one")
    assert len(group["one"].steps) == 1
    assert (group.path / "one").exists() and not (group.path / "two").exists()


def test_the_address_of_a_trial_is_a_group_of_one(address: str) -> None:
    _write(address, "one")
    _write(address, "two")
    group = open_group(f"{address}/one")
    assert group.names == ("one",) and len(group["one"].steps) == 1
    assert len(open_group(f"{address}/")) == 2


def test_a_trial_that_is_removed_there(address: str) -> None:
    _write(address, "one")
    _write(address, "two", steps=2)
    group = open_group(address)
    trial = group["two"]
    check(trial, 2)
    RemoteFolder(address).remove_folder("two")
    assert not trial.refresh() and len(trial.steps) == 2  # what was read stays
    assert trial.series("model").steps.tolist() == [0, 10]
    assert group.refresh() and group.names == ("one",)
    assert not (cache_folder(address) / "two").exists()
    with pytest.raises(NotARecordingError, match="there is no trial at"):
        open_trial(f"{address}/two")


def test_another_trial_of_the_same_name(memory: str) -> None:
    write_remote(memory, 5)
    trial = open_trial(f"{memory}/synthetic")
    check(trial, 5)
    RemoteFolder(memory).remove_folder("synthetic")
    with RemoteTrialWriter(memory, replace(SYNTHETIC.info(), started=2.0), interval=0.02) as writer:
        for record in RECORDS[:2]:
            writer.write_step(record)
    assert trial.refresh()
    check(trial, 2)


def test_nothing_there(address: str) -> None:
    with pytest.raises(NotARecordingError, match="there is nothing at"):
        open_group(address)
    with pytest.raises(NotARecordingError, match="there is no trial at"):
        open_trial(f"{address}/bugged")
    _write(address, "fixed")
    with pytest.raises(NotARecordingError, match="but there is a group with 'fixed'"):
        open_trial(address)


def test_names_that_lead_out_of_the_cache(memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system may list anything; only what can be a folder's name is taken for a trial."""
    write_remote(memory)
    names = ["..", ".hidden", "../../escape", "a/b", "a\\b", "x\0y", "n" * 300, "synthetic"]
    monkeypatch.setattr(RemoteFolder, "names", lambda self, path="": list(names))
    assert open_group(memory).names == ("synthetic",)
    for bad in ("..", ".hidden"):
        with pytest.raises(Exception, match="cannot be named"):
            open_trial(f"{memory}/{bad}")


def test_what_is_no_trial_is_passed_over(memory: str) -> None:
    write_remote(memory)
    RemoteFolder(memory).write("readme.txt", b"hello")
    RemoteFolder(memory).write("other/data.bin", b"hello")
    assert open_group(memory).names == ("synthetic",)


def test_a_live_trial_is_known_without_fetching_it(memory: str) -> None:
    writer = new_writer(memory)
    writer.write_step(RECORDS[0])
    uploaded(f"{memory}/synthetic", 1)
    group = open_group(memory)
    assert group.is_live("synthetic") and group.opened == ()
    writer.close(None)
    assert not group.is_live("synthetic")
