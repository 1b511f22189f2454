"""Fixtures: addresses with nothing at them; spool and cache are folders of the test. A conftest.py imports them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.remote import S3_SETTINGS, environment, s3_server


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Spool and cache lie in ``tmp_path``."""
    pytest.importorskip("fsspec")
    monkeypatch.setenv("STEPSCOPE_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setenv("STEPSCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def memory(places: Path) -> Iterator[str]:
    """A group on fsspec's file system in memory."""
    from fsspec.implementations.memory import MemoryFileSystem

    yield "memory://runs/sums"
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """An S3 server."""
    pytest.importorskip("s3fs")
    pytest.importorskip("moto.server")
    with s3_server() as endpoint, environment({**S3_SETTINGS, "AWS_ENDPOINT_URL": endpoint}):
        yield endpoint


@pytest.fixture
def s3(s3_endpoint: str, places: Path, request: pytest.FixtureRequest) -> str:
    """A group in a bucket of the S3 server."""
    import fsspec

    bucket = f"test-{abs(hash(request.node.nodeid)):x}"
    fsspec.filesystem("s3").mkdir(bucket)
    return f"s3://{bucket}/runs"
