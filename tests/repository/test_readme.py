"""What the README says is true: its code runs, its links lead somewhere, its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from stepscope.examples import find_the_bug
from stepscope.store import open_trial

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text("utf-8")
CODE = re.findall(r"```python\n(.*?)```", TEXT, re.S)


def block(word: str) -> str:
    (found,) = [code for code in CODE if word in code]
    return str(found)


def test_the_dozen_lines_record_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    names = {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), 0.1),
        "criterion": nn.MSELoss(),
        "loader": [(torch.ones(2, 3), torch.zeros(2, 1))] * 101,
    }
    exec(block("recorder.watch(model, optimizer)"), names)
    trial = open_trial("runs/mine/first")
    assert trial.steps.tolist() == [0, 100] and trial.kinds == ("train",)
    assert {"input", "model", "model.0.weight", "loss"} <= {node.name for node in trial.nodes}
    assert {"value", "gradient", "update"} <= set(trial.quantities)


def test_the_callback_is_one_line() -> None:
    pytest.importorskip("pytorch_lightning")
    from pytorch_lightning import Callback

    names = {"Trainer": lambda callbacks: callbacks, "Every": __import__("stepscope.recorder").recorder.Every}
    exec(block("StepscopeCallback"), names)
    (callback,) = names["trainer"]  # type: ignore[misc]
    assert isinstance(callback, Callback)


def test_a_recording_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    find_the_bug.run(Path("runs/demo"), 40)
    names: dict[str, object] = {}
    exec(block("open_trial"), names)
    assert len(names["steps"]) == len(names["values"]) > 0  # type: ignore[arg-type]
    assert names["tensor"].shape == (128, 200)  # type: ignore[attr-defined]


def test_links_and_pictures_are_there() -> None:
    targets = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert len(targets) > 8
    for target in targets:
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_modules_and_targets_exist() -> None:
    for module in re.findall(r"python -m (stepscope[\w.]+)", TEXT):
        assert (ROOT / Path(*module.split(".")[1:])).with_suffix(".py").exists(), module
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", TEXT, re.M):
        assert f"\n{target}:" in makefile


def test_the_line_of_the_tutorial_is_the_bug() -> None:
    (line,) = re.findall(r"find_the_bug.py, in forward: +(.*)", TEXT)
    assert line in (ROOT / "examples" / "find_the_bug.py").read_text()
