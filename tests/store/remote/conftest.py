"""Addresses on each kind of file system."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.addresses import memory, places, s3, s3_endpoint

__all__ = ["address", "memory", "places", "s3", "s3_endpoint"]


@pytest.fixture(params=["memory", "s3", "file"])
def address(request: pytest.FixtureRequest, places: Path) -> str:
    """A group, on each kind of file system."""
    if request.param == "file":
        return f"file://{places}/remote/runs"
    return str(request.getfixturevalue(request.param))
