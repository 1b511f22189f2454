"""Names at an address: nothing that is there is lost, and there is one writer for each trial."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from stepscope.store import (
    StoreError,
    TrialExistsError,
    TrialInUseError,
    TrialWriter,
    lock,
    open_group,
    open_trial,
    upload,
)
from stepscope.store.records import TrialEnd
from stepscope.store.remote import parts, prepare, uploader
from stepscope.store.remote.claim import claim, trial_identity
from stepscope.store.remote.folder import RemoteFolder
from stepscope.store.remote.manifest import MANIFEST, SILENCE, Manifest, RemoteWriter, parse_manifest, read_manifest
from stepscope.store.remote.places import spool_folder
from support.remote import RECORDS, SYNTHETIC, check, eventually, new_writer, uploaded, write_remote


def _set_writer(address: str, writer: RemoteWriter | None) -> None:
    remote = RemoteFolder(address)
    manifest = read_manifest(remote, "synthetic")
    assert manifest is not None
    remote.write(f"synthetic/{MANIFEST}", manifest.with_writer(writer).to_bytes())


def _elsewhere(age: float) -> RemoteWriter:
    return RemoteWriter("another-machine", None, None, 7, 1234, "token", time.time() - age)


def test_a_name_that_is_taken_is_numbered(address: str) -> None:
    assert [write_remote(address, steps) for steps in (1, 2, 3)] == [
        f"{address}/{name}" for name in ("synthetic", "synthetic-2", "synthetic-3")
    ]
    check(open_trial(f"{address}/synthetic"), 1)
    check(open_trial(f"{address}/synthetic-3"), 3)


def test_fail(memory: str) -> None:
    write_remote(memory, 2, if_exists="fail")
    with pytest.raises(TrialExistsError, match="exists; give another trial name"):
        new_writer(memory, if_exists="fail")
    check(open_trial(f"{memory}/synthetic"), 2)


def test_overwrite(address: str) -> None:
    write_remote(address, 5)
    assert write_remote(address, 2, if_exists="overwrite") == f"{address}/synthetic"
    assert open_group(address).names == ("synthetic",)
    check(open_trial(f"{address}/synthetic"), 2)


def test_what_if_exists_may_be(memory: str) -> None:
    with pytest.raises(StoreError, match="expected 'number', 'fail' or 'overwrite'"):
        new_writer(memory, if_exists="replace")


@pytest.mark.parametrize("name", ["../escape", "", ".hidden", "a/b"])
def test_names_that_lead_elsewhere(memory: str, name: str) -> None:
    from stepscope.store.remote.writer import RemoteTrialWriter

    with pytest.raises(StoreError, match=r"cannot be named|must be a text"):
        RemoteTrialWriter(memory, replace(SYNTHETIC.info(), trial=name))
    assert RemoteFolder(memory).names() == []


@pytest.mark.parametrize("if_exists", ["fail", "overwrite"])
def test_a_trial_that_another_machine_writes(memory: str, if_exists: str) -> None:
    write_remote(memory, 2)
    _set_writer(memory, _elsewhere(age=5))
    with pytest.raises(TrialInUseError, match="process 7 on another-machine"):
        new_writer(memory, if_exists=if_exists)
    assert open_trial(f"{memory}/synthetic").state == "finished"


def test_a_number_is_given_also_while_the_first_is_written(memory: str) -> None:
    write_remote(memory, 2)
    _set_writer(memory, _elsewhere(age=5))
    assert write_remote(memory, 3) == f"{memory}/synthetic-2"


def test_a_process_of_this_machine_is_known_to_be_dead(memory: str) -> None:
    write_remote(memory, 2)
    here = lock.this_process() | {"pid": 2**22 + 1, "started": None}
    _set_writer(memory, RemoteWriter(**here | {"namespace": "another container"}, token="token", beat=time.time()))
    with pytest.raises(TrialInUseError):
        new_writer(memory, if_exists="overwrite")
    _set_writer(memory, RemoteWriter(**here, token="token", beat=time.time()))
    assert write_remote(memory, 3, if_exists="overwrite") == f"{memory}/synthetic"


def test_a_writer_that_was_not_heard_of_counts_as_dead(memory: str) -> None:
    write_remote(memory, 2)
    _set_writer(memory, _elsewhere(age=SILENCE + 5))
    assert write_remote(memory, 3, if_exists="overwrite") == f"{memory}/synthetic"


def test_a_live_trial_that_falls_silent_has_failed(memory: str) -> None:
    writer = new_writer(memory)
    writer.write_step(RECORDS[0])
    uploaded(f"{memory}/synthetic", 1)
    trial = open_trial(f"{memory}/synthetic")
    assert trial.state == "running"
    writer.close(None)
    _set_writer(memory, _elsewhere(age=5))
    assert not trial.refresh() and trial.state == "running"
    _set_writer(memory, _elsewhere(age=SILENCE + 5))
    assert not trial.refresh() and trial.state == "failed"
    assert "without closing" in trial.exception


def test_an_upload_that_was_taken_over_ends(memory: str) -> None:
    writer = new_writer(memory, wait=5.0)
    writer.write_step(RECORDS[0])
    uploaded(f"{memory}/synthetic", 1)
    _set_writer(memory, _elsewhere(age=5))
    writer.write_step(RECORDS[1])
    eventually(lambda: writer.troubles)
    assert "taken over by process 7 on another-machine" in str(writer.troubles[0])
    writer.close(TrialEnd("finished", 1.0))
    assert len(open_trial(f"{memory}/synthetic").steps) == 1
    check(open_trial(writer.path), 2)  # it is still here


def test_a_trial_that_is_removed_while_it_is_written(memory: str) -> None:
    writer = new_writer(memory, wait=5.0)
    writer.write_step(RECORDS[0])
    uploaded(f"{memory}/synthetic", 1)
    RemoteFolder(memory).remove_folder("synthetic")
    writer.write_step(RECORDS[1])
    eventually(lambda: writer.troubles)
    assert "was removed; nothing more is uploaded" in str(writer.troubles[0])
    writer.close(TrialEnd("finished", 1.0))
    assert upload(writer.path, memory) == (f"{memory}/synthetic",)  # it was only here
    check(open_trial(f"{memory}/synthetic"), 2)


def test_the_same_trial_gets_the_same_place(memory: str) -> None:
    folder = spool_folder(memory)
    remote, paths = RemoteFolder(memory), []
    for name in ("a", "b"):
        with TrialWriter(folder / name, replace(SYNTHETIC.info(), started=float(len(paths)))) as writer:
            paths.append(writer.path)
    first, second = paths
    assert trial_identity(first) != trial_identity(second)
    for _ in range(2):
        assert claim(remote, first)[0] == "synthetic"
        assert claim(remote, second)[0] == "synthetic-2"
    remote.write(f"synthetic/{MANIFEST}", Manifest("another trial", 0.0).to_bytes())
    assert claim(remote, first)[0] == "synthetic-3"


def test_resuming(address: str) -> None:
    """What is at the address is fetched, gone on with, and only what is new is uploaded."""
    write_remote(address, 3)
    writer = new_writer(address, resume=True)
    assert (writer.name, writer.next_step) == ("synthetic", 21)
    for record in RECORDS[3:5]:
        writer.write_step(record)
    writer.close(TrialEnd("finished", 1.0))
    assert not writer.troubles
    trial = open_trial(f"{address}/synthetic")
    check(trial, 5)
    assert len(trial.resumptions) == 1
    assert open_group(address).names == ("synthetic",)
    manifest = read_manifest(RemoteFolder(address), "synthetic")
    assert manifest is not None and {file.generation for file in manifest.files.values()} == {1}


def test_resuming_what_does_not_exist_starts_it(memory: str) -> None:
    write_remote(memory, 3, resume=True)
    check(open_trial(f"{memory}/synthetic"), 3)


def test_resuming_what_another_machine_writes(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first sign of life while it is waited for silence ends the waiting."""
    write_remote(memory, 2)
    _set_writer(memory, _elsewhere(age=5))
    monkeypatch.setattr(prepare, "_PAUSE", 0.01)
    beat = threading.Timer(0.1, _set_writer, (memory, _elsewhere(age=0)))
    beat.start()
    with pytest.raises(TrialInUseError, match="another-machine"):
        new_writer(memory, resume=True)
    beat.join()


def test_resuming_what_a_machine_that_died_has_written(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It shows by its silence that it is dead; so long, the new one waits."""
    write_remote(memory, 2)
    _set_writer(memory, _elsewhere(age=SILENCE - 0.3))
    monkeypatch.setattr(prepare, "_PAUSE", 0.05)
    writer = new_writer(memory, resume=True)
    writer.write_step(RECORDS[2])
    writer.close(TrialEnd("finished", 1.0))
    check(open_trial(f"{memory}/synthetic"), 3)


def test_a_copied_folder_is_not_resumed(memory: str, tmp_path: Path) -> None:
    with TrialWriter(tmp_path / "runs", SYNTHETIC.info()) as writer:
        writer.write_step(RECORDS[0])
    for file in writer.path.iterdir():
        RemoteFolder(memory).write(f"synthetic/{file.name}", file.read_bytes())
    with pytest.raises(StoreError, match="was copied there as it is and cannot be gone on with"):
        new_writer(memory, resume=True)
    check(open_trial(f"{memory}/synthetic"), 1)


def test_another_trial_in_the_spool_is_not_resumed(memory: str) -> None:
    """What waits to be uploaded must not be mixed with what is there."""
    write_remote(memory, 2)
    with TrialWriter(spool_folder(memory), SYNTHETIC.info()) as writer:
        writer.write_step(RECORDS[0])
    with pytest.raises(StoreError, match="waits to be uploaded, but"):
        new_writer(memory, resume=True)
    assert upload(writer.path, memory) == (f"{memory}/synthetic-2",)


def test_a_server_without_exclusive_writes(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    write = MemoryFileSystem.pipe_file

    def refuse(self: MemoryFileSystem, path: str, value: bytes, mode: str = "overwrite") -> None:
        if mode == "create":
            raise OSError("A header you provided implies functionality that is not implemented.")
        write(self, path, value)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", refuse)
    assert [write_remote(memory, 1), write_remote(memory, 2)] == [f"{memory}/synthetic", f"{memory}/synthetic-2"]
    assert not RemoteFolder(memory).create("synthetic/manifest.json", b"x")


def test_a_long_upload_shows_that_it_lives(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "LARGEST", 2_000)
    monkeypatch.setattr(uploader, "_BEAT", 0.0)
    with TrialWriter(spool_folder(memory), SYNTHETIC.info()) as writer:
        for record in RECORDS[:3]:
            writer.write_step(record)
    beats, write = set(), RemoteFolder.write

    def watched(self: RemoteFolder, path: str, data: bytes) -> None:
        if path.endswith(MANIFEST):
            manifest = parse_manifest(data, "here")
            beats.add(manifest.writer.beat if manifest.writer else None)
            assert not manifest.files or "journal.stepscope" in manifest.files
        write(self, path, data)

    monkeypatch.setattr(RemoteFolder, "write", watched)
    upload(writer.path, memory)
    assert len(beats) > 5
    check(open_trial(f"{memory}/synthetic"), 3)


def test_a_bucket_that_does_not_exist(s3_endpoint: str, places: Path) -> None:
    writer = new_writer("s3://no-such-bucket/runs", wait=0.5)
    writer.write_step(RECORDS[0])
    eventually(lambda: writer.troubles)
    assert "bucket does not exist" in str(writer.troubles[0])
    writer.close(TrialEnd("finished", 1.0))
    check(open_trial(writer.path), 1)
