"""What is written to an address is what is read from it, while it is written and afterwards."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stepscope.store import TrialWriter, download, open_group, open_trial, upload, verify
from stepscope.store.records import Note, TrialEnd
from stepscope.store.remote import parts
from stepscope.store.remote.folder import RemoteFolder
from stepscope.store.remote.places import cache_folder, spool_folder
from stepscope.store.remote.trial import RemoteTrial
from stepscope.store.remote.trial_copy import TrialCopy
from support.records import assert_step_is
from support.remote import RECORDS, SYNTHETIC, check, eventually, new_writer, uploaded, write_remote


def test_a_closed_trial(address: str) -> None:
    trial = open_trial(write_remote(address, 5))
    check(trial, 5)
    assert trial.info.config == SYNTHETIC.info().config
    assert verify(address) == []
    assert open_group(address).names == ("synthetic",)
    assert trial.bytes > 10_000 and trial.last_change > 1e9


def test_numbers_are_those_of_a_local_trial(memory: str, tmp_path: Path) -> None:
    with TrialWriter(tmp_path / "local", SYNTHETIC.info()) as writer:
        for record in RECORDS[:5]:
            writer.write_step(record)
    local, remote = open_trial(writer.path), open_trial(write_remote(memory, 5))
    for statistic in ("mean", "std", "norm"):
        assert np.array_equal(local.series("model", statistic=statistic), remote.series("model", statistic=statistic))
    assert local.table()["mean"].tolist() == remote.table()["mean"].tolist()
    assert local.bytes == remote.bytes


def test_following_a_live_trial(address: str) -> None:
    writer = new_writer(address)
    for record in RECORDS[:2]:
        writer.write_step(record)
    trial = uploaded(f"{address}/synthetic", 2)
    check(trial, 2, "running")
    writer.write_step(RECORDS[2])
    writer.write_note(Note("a note", 20, 1.0))
    eventually(lambda: trial.refresh() and trial.notes)
    check(trial, 3, "running")
    assert not trial.refresh()
    writer.close(TrialEnd("finished", 1.0))
    assert trial.refresh()
    check(trial, 3)


def test_a_reader_never_sees_half_a_step(memory: str) -> None:
    """Readers come at any moment, while parts are merged and superseded ones removed; each sees whole steps only."""
    writer = new_writer(memory, interval=0.001)
    written, seen = threading.Event(), set()
    failed: list[BaseException] = []

    def read() -> None:
        try:
            while not written.is_set():
                trial = open_trial(f"{memory}/synthetic")
                assert trial.problems == ()
                seen.add(len(trial.steps))
                for number in trial.steps.tolist()[-2:]:
                    assert_step_is(trial.step(number), RECORDS[number // 10])
        except BaseException as error:
            failed.append(error)

    writer.write_step(RECORDS[0])
    uploaded(f"{memory}/synthetic", 1)
    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for record in RECORDS[1:]:
        writer.write_step(record)
        written.wait(0.05)
    written.set()
    for reader in readers:
        reader.join()
    writer.close(TrialEnd("finished", 1.0))
    assert not failed and len(seen) > 2
    check(open_trial(f"{memory}/synthetic"), len(RECORDS))


def test_a_file_of_many_parts(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "LARGEST", 5_000)
    address = write_remote(memory, 6)
    from fsspec.implementations.memory import MemoryFileSystem

    names = [name for name in MemoryFileSystem.store if "/steps.stepscope/" in name]
    assert len(names) > 5
    check(open_trial(address), 6)


def test_the_spool_is_empty_afterwards_and_parts_are_few(memory: str) -> None:
    writer = new_writer(memory)
    for record in RECORDS:
        writer.write_step(record)
        uploaded = open_group(memory).refresh()
        assert not uploaded
    writer.close(TrialEnd("finished", 1.0))
    assert [path.name for path in spool_folder(memory).iterdir()] == ["address.txt"]
    assert not writer.path.exists()
    writer.close(None)
    from fsspec.implementations.memory import MemoryFileSystem

    assert len([name for name in MemoryFileSystem.store if "/detail.stepscope/" in name]) < 8


def test_up_and_down_again(address: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        with TrialWriter(tmp_path / "runs", replace(SYNTHETIC.info(), trial=name)) as writer:
            for record in RECORDS[:3]:
                writer.write_step(record)
    assert upload(tmp_path / "runs", address) == (f"{address}/one", f"{address}/two")
    assert upload(tmp_path / "runs", address) == (f"{address}/one", f"{address}/two")  # nothing is doubled
    assert open_group(address).names == ("one", "two")
    assert len(open_group(tmp_path / "runs").names) == 2  # uploading removes nothing here
    one, two = download(address, tmp_path / "back")
    for path in (one, two):
        check(open_trial(path), 3)
        assert sorted(os.listdir(path)) == sorted(
            file.name for file in (tmp_path / "runs" / path.name).iterdir() if file.stat().st_size > 0
        )


def test_a_folder_that_was_copied_there_can_be_read(address: str, tmp_path: Path) -> None:
    """By ``aws s3 sync``, for example: there is no manifest then."""
    from fsspec.core import url_to_fs

    with TrialWriter(tmp_path / "runs", SYNTHETIC.info()) as writer:
        for record in RECORDS[:3]:
            writer.write_step(record)
    system, root = url_to_fs(address)
    system.makedirs(root, exist_ok=True)
    system.put(str(writer.path), f"{root}/synthetic", recursive=True)
    assert open_group(address).names == ("synthetic",)
    check(open_trial(f"{address}/synthetic"), 3)


def test_a_reader_whose_copy_another_one_has_brought_further(memory: str) -> None:
    """Both keep one copy: between a reader's look at the manifest and at its files, the other has fetched a step."""
    writer, address = new_writer(memory), f"{memory}/synthetic"
    writer.write_step(RECORDS[0])
    uploaded(address, 1)
    copy = TrialCopy(RemoteFolder(memory), "synthetic", cache_folder(memory) / "synthetic")
    assert copy.refresh()
    known = copy.manifest
    writer.write_step(RECORDS[1])
    uploaded(address, 2)
    assert len(open_trial(address).steps) == 2
    copy.refresh = lambda: True  # type: ignore[method-assign]  # it has looked already
    trial = RemoteTrial(copy)
    assert len(trial.steps) == 2 and copy.manifest == known
    assert_step_is(trial.step(int(trial.steps[1])), RECORDS[1])
    assert copy.manifest != known
    writer.close(TrialEnd("finished", 1.0))
