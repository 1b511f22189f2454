"""Addresses: what is one, what is shown of it, and what a person reads who gave a wrong one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from stepscope.store import StoreError, open_group, open_trial, upload
from stepscope.store.address import folder_name, is_address, place, shown, split
from stepscope.store.remote.folder import RemoteFolder
from stepscope.store.remote.places import cache_folder, spool_folder

pytestmark = pytest.mark.usefixtures("places")


@pytest.mark.parametrize("text", ["s3://bucket/runs", "gs://b", "memory://x", "file:///tmp/x", "simplecache::s3://b/x"])
def test_addresses(text: str) -> None:
    assert is_address(text) and place(text) == text


@pytest.mark.parametrize("given", ["runs/sums", "/tmp/s3:/x", "C:\\runs", Path("runs"), Path("C:/runs"), None, 3])
def test_what_is_no_address(given: object) -> None:
    assert not is_address(given)
    if isinstance(given, str):
        assert place(given) == Path(given)


def test_a_path_that_was_an_address() -> None:
    with pytest.raises(StoreError, match="give addresses as text"):
        open_group(Path("s3://bucket/runs"))


def test_passwords_are_not_shown() -> None:
    assert shown("ftp://me:secret@host/runs/") == "ftp://host/runs"
    folder = cache_folder("ftp://me:secret@host/runs")
    assert "secret" not in str(folder) and "secret" not in (folder / "address.txt").read_text()


def test_each_address_has_a_folder_of_its_own() -> None:
    names = {folder_name(address) for address in ("s3://a/b", "s3://a-b", "s3://a/b/c", "gs://a/b")}
    assert len(names) == 4
    assert folder_name("s3://a/b/") == folder_name("s3://a/b")
    assert not [name for name in map(folder_name, ("s3://..", "s3://../../x", "s3://a/" + "é" * 300)) if "/" in name]
    assert len(folder_name("s3://a/" + "x" * 300)) < 100


def test_a_trials_address_is_that_of_its_group_and_its_name() -> None:
    assert split("s3://bucket/runs/bugged/") == ("s3://bucket/runs", "bugged")


@pytest.mark.parametrize(
    ("own", "common"), [("STEPSCOPE_CACHE", "XDG_CACHE_HOME"), ("STEPSCOPE_SPOOL", "XDG_STATE_HOME")]
)
def test_where_cache_and_spool_are(own: str, common: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of = cache_folder if own == "STEPSCOPE_CACHE" else spool_folder
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv(own, str(tmp_path / "own"))
    assert folder_of("s3://a").parent == tmp_path / "own"
    monkeypatch.delenv(own)
    monkeypatch.setenv(common, str(tmp_path / "common"))
    assert folder_of("s3://a").is_relative_to(tmp_path / "common" / "stepscope")
    monkeypatch.delenv(common)
    assert folder_of("s3://a").is_relative_to(tmp_path / "home")
    assert (folder_of("s3://a") / "address.txt").read_text() == "s3://a\n"
    assert folder_of("s3://a").stat().st_mode & 0o077 == 0


def test_without_fsspec_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    monkeypatch.setitem(sys.modules, "fsspec", None)
    for use in (open_group, open_trial, RemoteFolder):
        with pytest.raises(StoreError, match=r'pip install "stepscope\[remote\]"'):
            use("s3://bucket/runs")


def test_without_what_the_protocol_needs_a_sentence_says_what_to_install() -> None:
    with pytest.raises(StoreError, match=r"(?i)install gcsfs"):
        open_group("gs://bucket/runs")


def test_an_unknown_protocol() -> None:
    with pytest.raises(StoreError, match=r"Protocol not known: foo; give a folder, or an address like s3://"):
        open_group("foo://bucket/runs")


def test_uploading_to_a_folder(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is no address"):
        upload(tmp_path, str(tmp_path / "there"))
