"""The commands: what they print, how they fail."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from stepscope.store import TrialWriter, open_trial
from stepscope.viewer.cli import main
from support import flips
from support.synthetic import write_trial


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


def test_diff_names_the_first_tensor_that_differs(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", str(demo / "bugged"), str(demo / "fixed")]) == 0
    text = capsys.readouterr().out
    assert "activate_last: true -> false" in text
    assert "they part    at step 0: subnet_pre, iteration 0" in text  # the first net whose last layer is activated
    assert main(["diff", str(demo / "fixed"), str(demo / "fixed")]) == 0
    assert "common steps agree" in capsys.readouterr().out


def test_diff_wants_trials(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", str(demo), str(demo / "fixed")]) == 2
    assert "is a group of trials; give one of them" in capsys.readouterr().err


def test_verify_reads_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_trial(tmp_path / "group", trial="one", steps=4)
    assert main(["verify", str(tmp_path / "group")]) == 0
    assert "all of 4 steps of 1 trials can be read" in capsys.readouterr().out
    file = path / "detail.stepscope"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)
    assert main(["verify", str(tmp_path / "group")]) == 1
    assert "one: " in capsys.readouterr().out


def test_info_says_where_a_trial_was_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_trial(tmp_path, steps=2, blocks=1)
    assert main(["info", str(path)]) == 0 and "resumed" not in capsys.readouterr().out
    TrialWriter(tmp_path, open_trial(path).info, resume=True).close(None)
    assert main(["info", str(path)]) == 0
    assert "resumed     at step 11\n" in capsys.readouterr().out


def test_repair_says_what_is_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_trial(tmp_path, trial="one", steps=9, blocks=1, iterations=1, kinds=["train"])
    assert main(["repair", str(path)]) == 0
    assert "nothing is damaged; it has 9 steps." in capsys.readouterr().out
    flips.flip(path, "columns", -9)
    assert main(["repair", str(path)]) == 0
    assert "9 steps can be read, and nothing is lost." in capsys.readouterr().out
    flips.flip(path, "steps", flips.blocks(path, "steps")[2].offset + 30)
    assert main(["repair", str(path), "--out", str(tmp_path / "copy")]) == 1
    out = capsys.readouterr().out
    assert "lost:\n  step 20: its block in the steps' file is damaged\n" in out and "kept in" not in out
    assert main(["repair", str(path)]) == 1
    assert f"The damaged files are kept in {path / 'damaged-2'}." in capsys.readouterr().out
    assert main(["verify", str(path)]) == main(["verify", str(tmp_path / "copy")]) == 0
    assert main(["repair", str(tmp_path)]) == 2
    assert "give the folder of one trial of a group" in capsys.readouterr().err


def test_export_as_csv_and_json_lines(folder: Path, tmp_path: Path) -> None:
    tensor = open_trial(folder / "healthy").step(0).tensor("model.head", iteration=0)
    wanted = ["--node", "model.head", "--quantity", "value"]
    assert main(["export", str(folder), "--out", str(tmp_path / "t.csv"), *wanted]) == 0
    with (tmp_path / "t.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["trial"] for row in rows} == {"healthy", "sick"}
    first = next(row for row in rows if (row["trial"], row["step"], row["iteration"]) == ("healthy", "0", "0"))
    assert float(first["std"]) == tensor.statistics["std"]
    assert main(["export", str(folder), "--out", str(tmp_path / "t.jsonl"), "--format", "jsonl", *wanted]) == 0
    lines = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert len(lines) == len(rows) and lines[0]["node"] == "model.head"
    assert lines[0]["spectral_norm"] is None  # only parameters have one


def test_fifty_trials_in_one_query(tmp_path: Path) -> None:
    """The query of docs/export.md, over fifty exported trials."""
    duckdb = pytest.importorskip("duckdb")
    pytest.importorskip("pyarrow")
    for seed in range(50):
        write_trial(tmp_path / "runs", trial=f"seed {seed}", steps=4, blocks=1, iterations=1, seed=seed,
                    nan_from=20 if seed == 7 else None)  # fmt: skip
    out = tmp_path / "runs.parquet"
    assert main(["export", str(tmp_path / "runs"), "--out", str(out), "--format", "parquet"]) == 0
    text = (Path(__file__).parents[2] / "docs" / "export.md").read_text()
    query = text.split("```sql\n")[1].split("```")[0].replace("runs.parquet", str(out))
    rows = duckdb.sql(query).fetchall()
    assert [row[0] for row in rows] == ["seed 7"]
    assert rows[0][1] == 20


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
                assert b"_dash-config" in urllib.request.urlopen(url, timeout=60).read()
                break
            except OSError:
                time.sleep(0.1)
        else:
            pytest.fail("the page was never served")
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_demo_records_both_trials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--steps", "5", "--out", str(tmp_path / "demo"), "--no-view"]) == 0
    assert "stepscope view" in capsys.readouterr().err.splitlines()[-1]
    assert main(["info", str(tmp_path / "demo"), "--json"]) == 0
    assert [fact["trial"] for fact in json.loads(capsys.readouterr().out)] == ["bugged", "fixed"]
