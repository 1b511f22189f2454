"""The commands of the repository: pinned versions, a sentence when something is missing."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PIN = re.compile(r'^[A-Za-z0-9_.-]+==[A-Za-z0-9_.+!-]+(; python_version (>=|<) "3\.\d+")?$')


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def pinned_names() -> set[str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {line.split("==")[0].lower().replace("_", "-") for line in lines if not line.startswith("#")}


def requirements() -> list[str]:
    extras = project()["project"]["optional-dependencies"]
    every = [*project()["project"]["dependencies"], *project()["build-system"]["requires"]]
    every += [text for extra in extras.values() for text in extra]
    return [re.split(r"[<>=\[;]", text)[0].strip() for text in every if not text.startswith("stepscope")]


def test_every_line_of_the_constraints_is_a_pin() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert len(lines) > 20
    assert [line for line in lines if not PIN.match(line)] == []


@pytest.mark.parametrize("name", requirements())
def test_every_requirement_is_pinned(name: str) -> None:
    assert name.lower() in pinned_names()


def test_the_recorder_needs_little() -> None:
    names = {re.split(r"[<>=]", text)[0] for text in project()["project"]["dependencies"]}
    assert names == {"torch", "numpy", "msgpack", "zstandard"}


def test_setup_says_so_when_there_is_no_python(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("bash", "tee", "sed", "touch"):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    done = subprocess.run(
        [tools / "bash", ROOT / "scripts" / "setup.sh", tmp_path / "venv"],
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode != 0
    assert "no Python 3.10 or newer was found" in done.stderr


def test_make_without_a_target_explains_the_targets() -> None:
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)
    targets = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)[0].split()
    for target in set(targets) - {"help", "setup", "chromium"}:
        assert f"make {target}" in done.stdout
