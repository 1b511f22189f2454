"""The rooms' walls: what each may import, tried in a fresh interpreter. The linter holds them too (``*/ruff.toml``)."""

from __future__ import annotations

import subprocess
import sys

import pytest

_MODULES = """
import importlib, pkgutil, sys
package = importlib.import_module({room!r})
for module in pkgutil.walk_packages(package.__path__, {room!r} + "."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print("\\n".join(sorted(sys.modules)))
"""

FORBIDDEN = {
    "stepscope.store": (
        "torch",
        "dash",
        "plotly",
        "fsspec",
        "stepscope.recorder",
        "stepscope.analysis",
        "stepscope.viewer",
    ),
    "stepscope.analysis": ("torch", "dash", "plotly", "fsspec", "stepscope.recorder", "stepscope.viewer"),
    "stepscope.viewer": ("torch", "fsspec", "stepscope.recorder", "stepscope.integrations"),
    "stepscope.recorder": ("dash", "plotly", "fsspec", "pytorch_lightning", "stepscope.analysis", "stepscope.viewer"),
}


def loaded_by(code: str) -> set[str]:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


@pytest.mark.parametrize("room", FORBIDDEN)
def test_a_room_loads_nothing_from_behind_its_walls(room: str) -> None:
    loaded = loaded_by(_MODULES.format(room=room))
    assert room in loaded
    assert not [name for name in FORBIDDEN[room] if name in loaded]


def test_the_command_line_starts_without_dash_and_torch() -> None:
    loaded = loaded_by("import sys, stepscope.viewer.cli\nprint('\\n'.join(sys.modules))")
    assert "stepscope.viewer.cli" in loaded
    assert not loaded & {"dash", "plotly", "torch"}
