"""The facts about process, machine and source that a trial keeps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from stepscope.recorder.environment import environment


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    done = subprocess.run(["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script in a folder of its own, as the one that runs."""
    path = tmp_path / "project" / "train.py"
    path.parent.mkdir()
    path.write_text("print('training')")
    monkeypatch.setattr(sys, "argv", [str(path), "--lr", "0.1"])
    return path


def test_versions_and_process(script: Path) -> None:
    facts = environment()
    assert (facts["torch"], facts["numpy"], facts["pid"]) == (torch.__version__, np.__version__, os.getpid())
    assert facts["command"] == f"{script} --lr 0.1"
    assert facts["folder"] == os.getcwd()
    assert facts["threads"] == torch.get_num_threads()


def test_without_version_control(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(script.parent.parent))
    assert "revision" not in environment()


def test_the_revision_and_whether_the_tree_is_clean(script: Path) -> None:
    git(script.parent, "init", "-q")
    git(script.parent, "add", "train.py")
    git(script.parent, "commit", "-qm", "Train")
    facts = environment()
    assert facts["revision"] == git(script.parent, "rev-parse", "HEAD")
    assert facts["revision_dirty"] is False
    script.write_text("print('training harder')")
    assert environment()["revision_dirty"] is True


def test_without_git(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert "revision" not in environment()
