"""Files that are replaced as a whole, or cut: their bytes are uploaded once more, readers see all or nothing of it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from stepscope.store import DamagedError, Trial, TrialWriter, open_trial, upload, verify
from stepscope.store.append_file import AppendFile
from stepscope.store.files import file_path
from stepscope.store.records import Note, TrialEnd
from stepscope.store.remote import lazy_file
from stepscope.store.remote.folder import RemoteFolder
from stepscope.store.remote.manifest import RemoteFile, read_manifest
from stepscope.store.remote.writer import RemoteTrialWriter
from stepscope.store.room import Limits
from support.records import assert_step_is
from support.remote import RECORDS, SYNTHETIC, check, new_writer, uploaded


def _files(address: str) -> dict[str, RemoteFile]:
    manifest = read_manifest(RemoteFolder(address), "synthetic")
    assert manifest is not None
    return {name.removesuffix(".stepscope"): file for name, file in manifest.files.items()}


def _rewrite(path: Path, data: bytes) -> None:
    """As compaction, thinning and repair do it: beside, then into place."""
    beside = path.with_suffix(".new")
    beside.write_bytes(data)
    beside.replace(path)


@pytest.fixture
def local(tmp_path: Path) -> Path:
    with TrialWriter(tmp_path / "local", SYNTHETIC.info()) as writer:
        for record in RECORDS[:4]:
            writer.write_step(record)
    return writer.path


def test_the_same_bytes_in_another_file_are_not_uploaded_again(memory: str, local: Path) -> None:
    upload(local, memory)
    before = _files(memory)
    _rewrite(file_path(local, "steps"), file_path(local, "steps").read_bytes())
    upload(local, memory)
    assert _files(memory) == before


def test_a_rewritten_file(memory: str, local: Path) -> None:
    """Without its last step, as after a repair."""
    trial = open_trial(upload(local, memory)[0])
    check(trial, 4)
    cut = trial._contents.index[RECORDS[3].number].place.offset
    _rewrite(file_path(local, "steps"), file_path(local, "steps").read_bytes()[:cut])
    upload(local, memory)
    assert {name: file.generation for name, file in _files(memory).items()} == {
        "catalog": 1, "columns": 1, "detail": 1, "journal": 1, "steps": 2,
    }  # fmt: skip
    assert trial.refresh() and len(trial.steps) == 3
    assert_step_is(trial.step(0), RECORDS[0])
    parts = RemoteFolder(memory).names("synthetic/steps.stepscope")
    assert parts and all(part.startswith("0002-") for part in parts)


def test_a_file_that_is_no_more(memory: str, local: Path) -> None:
    trial = open_trial(upload(local, memory)[0])
    file_path(local, "columns").unlink()
    upload(local, memory)
    assert "columns" not in _files(memory)
    assert RemoteFolder(memory).names("synthetic/columns.stepscope") == []
    trial.refresh()
    assert not file_path(trial.path, "columns").exists()
    check(open_trial(f"{memory}/synthetic"), 4)


def test_a_file_that_is_replaced_while_it_is_written(memory: str) -> None:
    writer = new_writer(memory)
    for record in RECORDS[:3]:
        writer.write_step(record)
    trial = uploaded(f"{memory}/synthetic", 3)
    path = file_path(writer.path, "columns")
    _rewrite(path, path.read_bytes()[:16])
    writer.write_step(RECORDS[3])
    writer.close(TrialEnd("finished", 1.0))
    assert trial.refresh()
    check(trial, 4)


def test_what_was_taken_back_after_a_failure(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The detail of a step is whole, and may be uploaded; the step then fails, and other bytes take the place."""
    writer = new_writer(memory)
    writer.write_step(RECORDS[0])
    uploaded(f"{memory}/synthetic", 1)
    append = AppendFile.append

    def fail_on_steps(self: AppendFile, block: bytes) -> int:
        if self.path.name == "steps.stepscope":
            writer.write_note(Note("now", 0, 1.0))
            from support.remote import eventually

            eventually(lambda: _files(memory)["detail"].size == file_path(writer.path, "detail").stat().st_size)
            raise OSError("the disk is full")
        return append(self, block)

    with monkeypatch.context() as patch:
        patch.setattr(AppendFile, "append", fail_on_steps)
        with pytest.raises(OSError, match="the disk is full"):
            writer.write_step(RECORDS[1])
    other = replace(RECORDS[2], number=RECORDS[1].number)
    writer.write_step(other)
    writer.write_step(RECORDS[3])
    writer.close(TrialEnd("finished", 1.0))
    assert not writer.troubles
    trial = open_trial(f"{memory}/synthetic")
    assert trial.problems == ()
    for record in (RECORDS[0], other, RECORDS[3]):
        assert_step_is(trial.step(record.number), record)


def test_half_a_block_is_not_uploaded(memory: str, local: Path) -> None:
    with open(file_path(local, "steps"), "ab") as file:
        file.write(os.urandom(100))
    with open(file_path(local, "journal"), "ab") as file:
        file.write(file_path(local, "journal").read_bytes()[16:60])
    check(open_trial(upload(local, memory)[0]), 4)


def test_who_holds_a_step_of_what_was_replaced_is_told(
    memory: str, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its details are gone; nothing of the new file is taken for them."""
    monkeypatch.setattr(lazy_file, "PAGE", 1024)
    trial = open_trial(upload(local, memory)[0])
    one, two = trial.step(10), trial.step(20)
    with TrialWriter(local.parent / "other", SYNTHETIC.info()) as writer:
        for record in reversed(RECORDS[:4]):
            writer.write_step(replace(record, number=30 - record.number))
    for name in ("steps", "detail", "columns", "catalog"):
        _rewrite(file_path(local, name), file_path(writer.path, name).read_bytes())
    upload(local, memory)
    with pytest.raises(DamagedError, match="was replaced meanwhile; refresh the trial"):
        one.tensor("model").histogram  # noqa: B018
    assert trial.refresh()
    with pytest.raises(DamagedError, match="was replaced meanwhile; refresh the trial"):
        two.tensor("model").histogram  # noqa: B018
    assert_step_is(trial.step(30), replace(RECORDS[0], number=30))
    assert [path.name for path in (trial.path / "detail.pages").iterdir()] == ["0002"]


def _kept(trial: Trial) -> list[int]:
    return [number for number in trial.steps.tolist() if trial.step(number).tensor("model").neurons is not None]


@pytest.mark.slow
def test_details_that_are_thinned_out(memory: str, tmp_path: Path) -> None:
    """To keep a limit of bytes, one file of details after another is rewritten; readers follow."""
    limits, info = Limits(trial=1_700_000), replace(SYNTHETIC.info(), started=0.0)
    remote = RemoteTrialWriter(memory, info, limits=limits, interval=0.02)
    here = TrialWriter(tmp_path / "local", info, limits=limits)
    follower: Trial | None = None
    for number in range(60):
        for writer in (remote, here):
            writer.write_step(replace(RECORDS[number % len(RECORDS)], number=number))
        if number == 10:
            follower = uploaded(f"{memory}/synthetic", 11)
        if number % 10 == 0 and follower is not None:
            follower.refresh()
            assert follower.problems == ()
    for writer in (remote, here):
        writer.close(TrialEnd("finished", 1.0))
    assert not remote.troubles and follower is not None
    for reader in (follower, open_trial(f"{memory}/synthetic")):
        reader.refresh()
        assert (len(reader.steps), reader.problems) == (60, ())
        kept = _kept(reader)
        assert 0 < len(kept) < 60 and kept == _kept(open_trial(here.path))
        for number in kept[:3]:
            assert_step_is(reader.step(number), replace(RECORDS[number % len(RECORDS)], number=number))
        assert reader.bytes <= 1_700_000
    generations = {name: file.generation for name, file in _files(memory).items()}
    assert max(generations.values()) > 1 and len([name for name in generations if name.startswith("detail-")]) > 3
    assert verify(memory) == []
