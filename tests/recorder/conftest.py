"""Keeps the tests of the recorder quick: git is asked for a revision only where that is what is tested."""

from __future__ import annotations

import pytest

from stepscope.recorder import environment


@pytest.fixture(autouse=True)
def _without_git(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.module.__name__.endswith("test_environment"):
        monkeypatch.setattr(environment, "_git", lambda *_: "")
