"""Puts tests/ on the path, so that ``from support import ...`` works; one thread for torch; quick tests first."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
sys.path.insert(0, str(Path(__file__).parent))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What fails should fail soon: the slow tests come after the others, those with a browser last."""
    items.sort(key=lambda item: 2 * ("browser" in item.keywords) + ("slow" in item.keywords))
