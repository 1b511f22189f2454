"""Manifests: what is written is read, and none leads a reader anywhere else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from stepscope.store import DamagedError, NotARecordingError, StoreError, open_group, open_trial
from stepscope.store.remote.folder import RemoteFolder
from stepscope.store.remote.manifest import Manifest, RemoteFile, RemoteWriter, parse_manifest
from support.remote import write_remote

MANIFEST = Manifest(
    "ab12", 1.5, 2.5, {"steps.stepscope": RemoteFile(2, (10, 30), (1, 2))}, RemoteWriter("h", "b", "n", 7, 5, "t", 3.0)
)


def test_what_is_written_is_read() -> None:
    for manifest in (MANIFEST, MANIFEST.with_writer(None), Manifest("x", 0.0)):
        assert parse_manifest(manifest.to_bytes(), "here") == manifest


def _changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    plain = json.loads(MANIFEST.to_bytes())
    change(plain)
    return json.dumps(plain).encode()


BAD_NAMES = [
    "../steps.stepscope",
    "/etc/passwd",
    "..",
    "",
    "a/b.stepscope",
    "C:\\x.stepscope",
    "x.txt",
    "new-detail-1.stepscope",
    "detail-.stepscope",
    "other.stepscope",
    ".stepscope",
    "é.stepscope",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_file_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(DamagedError, match=r"which no trial has"):
        parse_manifest(_changed(lambda plain: plain["files"].update({name: plain["files"]["steps.stepscope"]})), "here")


@pytest.mark.parametrize(
    "file",
    [
        {"generation": 1, "ends": [10, 10], "checks": [1, 2]},
        {"generation": 1, "ends": [-5], "checks": [1]},
        {"generation": 1, "ends": [10], "checks": []},
        {"generation": 0, "ends": [10], "checks": [1]},
        {"generation": "../../x", "ends": [10], "checks": [1]},
        {"ends": [10], "checks": [1]},
        ["x"],
        None,
    ],
)
def test_parts_that_make_no_sense_are_refused(file: object) -> None:
    with pytest.raises(DamagedError, match=r"here/manifest.json makes no sense"):
        parse_manifest(_changed(lambda plain: plain["files"].update({"steps.stepscope": file})), "here")


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_bytes_are_a_manifest_or_refused(data: bytes) -> None:
    with pytest.raises(StoreError):
        parse_manifest(data, "here")


def test_a_newer_version_is_refused() -> None:
    with pytest.raises(NotARecordingError, match="install a newer stepscope"):
        parse_manifest(_changed(lambda plain: plain.update(stepscope=2)), "here")


def test_a_damaged_manifest_is_told_and_hurts_no_other_trial(memory: str) -> None:
    write_remote(memory)
    RemoteFolder(memory).write("hurt/manifest.json", b"{")
    group = open_group(memory)
    assert set(group.names) == {"hurt", "synthetic"}
    assert "makes no sense" in group.problems["hurt"]
    assert len(group["synthetic"].steps) == 3
    with pytest.raises(DamagedError, match="makes no sense"):
        group["hurt"]


def test_a_part_that_is_missing_or_short(memory: str, tmp_path: Path) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    write_remote(memory)
    name, *_ = [name for name in MemoryFileSystem.store if "/steps.stepscope/" in name]
    short = RemoteFolder(memory).read(name.removeprefix("/runs/sums/"))[:-10]
    RemoteFolder(memory).write(name.removeprefix("/runs/sums/"), short)
    with pytest.raises(DamagedError, match="is shorter than its manifest says"):
        open_trial(f"{memory}/synthetic")
    del MemoryFileSystem.store[name]
    with pytest.raises(DamagedError, match="lacks a part that its manifest names"):
        open_trial(f"{memory}/synthetic")


def test_promised_gigabytes_take_no_room(memory: str, tmp_path: Path) -> None:
    """A manifest that promises a huge part gets what is there, and is refused."""
    write_remote(memory)
    plain = json.loads(RemoteFolder(memory).read("synthetic/manifest.json"))
    for file in plain["files"].values():
        file.update(ends=[10**15], checks=[1])
    RemoteFolder(memory).write("synthetic/manifest.json", json.dumps(plain).encode())
    with pytest.raises(DamagedError):
        open_trial(f"{memory}/synthetic")
    assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) < 10_000_000
