"""``stepscope doctor`` in scripts: what it prints, and its exit code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from stepscope.store.files import file_path
from stepscope.viewer.cli import main
from support.short_runs import blob_batches, mlp, record
from support.synthetic import write_trial


def batches(number: int) -> tuple[torch.Tensor, ...]:
    """Batches that are not each normalised by itself, which would be worth knowing."""
    x, y = blob_batches(number)
    return x * (1 + 0.02 * (number % 5)), y


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A group of a healthy trial, one with a warning at most, and one with an error."""
    folder = tmp_path_factory.mktemp("doctor")
    scales = {"healthy": 1.0, "warned": 300.0, "sick": float("nan")}
    for name, scale in scales.items():
        torch.manual_seed(0)
        model = mlp(8, 32, 4)

        def loss_of(
            x: torch.Tensor, y: torch.Tensor, scale: float = scale, model: torch.nn.Module = model
        ) -> torch.Tensor:
            return F.cross_entropy(model(x * scale), y)

        made = record(folder / name, model, loss_of, batches, lr=1e-3, steps=20)
        shutil.move(made.path, folder / "group" / name)
    return folder / "group"


@pytest.mark.parametrize(
    ("name", "level", "code"),
    [
        ("healthy", "info", 0), ("healthy", "warning", 0),
        ("warned", "warning", 1), ("warned", "error", 0),
        ("sick", "warning", 1), ("sick", "error", 1),
    ],
)  # fmt: skip
def test_the_exit_code_says_how_bad_it_is(trials: Path, name: str, level: str, code: int) -> None:
    assert main(["doctor", str(trials / name), "--fail-on", level]) == code


def test_warnings_fail_unless_told_otherwise(trials: Path) -> None:
    assert main(["doctor", str(trials / "warned")]) == 1


def test_all_trials_of_a_group_count(trials: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(trials), "--fail-on", "error"]) == 1
    text = capsys.readouterr().out
    assert "healthy: nothing suspicious" in text and "ERROR non-finite" in text and "WARNING input-scale" in text
    shutil.copytree(trials, tmp_path / "group", ignore=shutil.ignore_patterns("sick"))
    assert main(["doctor", str(tmp_path / "group"), "--fail-on", "error"]) == 0
    assert main(["doctor", str(tmp_path / "group"), "--fail-on", "warning"]) == 1


def test_json_of_a_group_is_one_document(trials: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(trials), "--json", "--fail-on", "error"]) == 1
    facts = {fact["trial"]: fact["findings"] for fact in json.loads(capsys.readouterr().out)}
    assert facts["healthy"] == [] and facts["warned"][0]["level"] == "warning"
    assert facts["sick"][0]["rule"] == "non-finite" and facts["sick"][0]["node"] == "input"


def test_json_of_a_trial_is_an_object(trials: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(trials / "healthy"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"trial": "healthy", "damage": [], "findings": []}


def test_a_trial_that_cannot_be_read(trials: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    group = tmp_path / "group"
    shutil.copytree(trials / "healthy", group / "healthy")
    shutil.copytree(trials / "healthy", group / "broken")
    for file in (group / "broken").glob("*.stepscope"):
        file.write_bytes(b"these are not bytes of a recording")
    assert main(["doctor", str(group)]) == 2
    out, error = capsys.readouterr()
    assert "healthy: nothing suspicious" in out and "broken cannot be read" in error
    shutil.copytree(trials / "sick", group / "sick")
    assert main(["doctor", str(group), "--json"]) == 1  # what is sick comes first
    facts = {fact["trial"]: fact for fact in json.loads(capsys.readouterr().out)}
    assert facts["broken"]["unreadable"] and facts["sick"]["findings"]


def test_mistakes_in_what_was_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(tmp_path / "nowhere"), "--fail-on", "error"]) == 2
    assert "no folder" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main(["doctor", str(tmp_path), "--fail-on", "sometimes"])
    assert stopped.value.code == 2


def test_a_trial_whose_steps_are_lost_is_unreadable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_trial(tmp_path, trial="lost", steps=3)
    file_path(path, "catalog").write_bytes(b"garbage")
    assert main(["doctor", str(path)]) == 2
    said = capsys.readouterr()
    assert "lost: nothing suspicious in what can be read of 3 recorded steps" in said.out
    assert "lost is damaged: catalog.stepscope: what 3 of 3 steps consist of is missing" in said.err
    main(["doctor", str(path), "--json"])
    assert len(json.loads(capsys.readouterr().out)["damage"]) == 2
