"""The commands: what they print, how they fail."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from stepscope.viewer.cli import main


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], ["view", "--help"], ["doctor", "--help"], ["info", "--help"], ["demo", "--help"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 0
    assert "stepscope view runs/sums" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.startswith("stepscope 0.")


def test_info_of_a_trial_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(folder / "sick"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["trial"] == "sick" and facts["state"] == "failed"
    assert facts["steps"] == {"count": 30, "first": 0, "last": 290}
    assert facts["kinds"] == {"train": 18, "long": 6, "validation": 6}
    assert "model.head.weight" in facts["nodes"]
    assert {"value", "gradient", "update"} <= set(facts["quantities"])
    assert "zero_fraction" in facts["statistics"] and facts["bytes"] > 1000


def test_info_of_a_group(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(folder)]) == 0
    text = capsys.readouterr().out
    assert "healthy" in text and "sick" in text and "30 recorded, 0 to 290" in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["info", "nowhere"], "no folder"),
        (["view", "nowhere"], "there is no folder nowhere"),
        (["view", "--visualization", "nowhere.py", "."], "there is no file nowhere.py"),
        (["demo", "--steps", "0", "--no-view"], "give at least 1"),
    ],
)
def test_mistakes_become_one_sentence(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1


def test_doctor_names_the_bug_of_the_demo(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(demo / "bugged")]) == 1
    text = capsys.readouterr().out
    assert text.startswith("bugged: 1 error")
    assert "x = F.leaky_relu(x)" in text and "find_the_bug.py:" in text
    assert main(["doctor", str(demo / "fixed")]) == 0
    assert "nothing suspicious" in capsys.readouterr().out


def test_doctor_as_json(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(demo / "bugged"), "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert facts["findings"][0]["node"] == "subnet_out" and facts["findings"][0]["level"] == "error"


def test_info_of_a_folder_without_recordings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(tmp_path)]) == 2
    assert "there is no recording in" in capsys.readouterr().err


def test_view_serves_until_it_is_interrupted(folder: Path) -> None:
    command = [sys.executable, "-m", "stepscope.viewer", "view", str(folder), "--no-browser", "--port", "8751"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        url = line.split(" is at ")[1].split()[0]
        for _ in range(50):
            try:
                assert b"_dash-config" in urllib.request.urlopen(url, timeout=5).read()
                break
            except OSError:
                time.sleep(0.1)
        else:
            pytest.fail("the page was never served")
    finally:
        process.terminate()
        process.communicate(timeout=10)


def test_demo_records_both_trials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--steps", "5", "--out", str(tmp_path / "demo"), "--no-view"]) == 0
    assert "stepscope view" in capsys.readouterr().err.splitlines()[-1]
    assert main(["info", str(tmp_path / "demo"), "--json"]) == 0
    assert [fact["trial"] for fact in json.loads(capsys.readouterr().out)] == ["bugged", "fixed"]
