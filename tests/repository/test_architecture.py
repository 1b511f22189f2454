"""ARCHITECTURE.md says of every file of the store and the recorder where it belongs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("room", ["store", "recorder"])
def test_every_file_has_its_place(room: str) -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    part = text.partition("## What is where")[2].partition("\n## ")[0]
    listed = re.findall(r"`(\w+/?)`", part.partition(f"`{room}/`")[2].partition("\n\n`")[0])
    files = [path.stem for path in (ROOT / room).glob("*.py") if path.stem != "__init__"]
    folders = [f"{path.parent.name}/" for path in (ROOT / room).glob("*/__init__.py")]
    assert sorted(listed) == sorted([*files, *folders])
