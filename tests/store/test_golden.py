"""Recordings that earlier versions wrote stay readable, number for number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stepscope.store import open_group, open_trial, verify
from stepscope.store.files import FORMAT_VERSION
from support import golden
from support.mini_reader import MiniTrial

RECORDINGS = sorted(golden.FOLDER.glob("v*/*/journal.stepscope"))
IDS = [f"{journal.parts[-3]} {journal.parts[-2]}" for journal in RECORDINGS]


@pytest.fixture(params=RECORDINGS, ids=IDS)
def folder(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param.parent
    return path


def test_every_version_has_its_golden_recordings() -> None:
    versions = range(1, FORMAT_VERSION + 1)
    expected = [f"v{version} {name}" for version in versions for name in sorted(golden.TRIALS[version])]
    assert expected == IDS


def test_all_that_is_in_it(folder: Path) -> None:
    expected = json.loads(folder.with_suffix(".json").read_text("utf-8"))
    modules = [
        {"ignored": [], "drawn": [], "settings": "", **module} for module in expected["network"]
    ]  # what they did not have yet
    assert golden.plain(golden.describe(open_trial(folder))) == {"resumptions": [], **expected, "network": modules}


def test_problems(folder: Path) -> None:
    problems = verify(folder)
    if folder.name == "died":
        assert len(problems) == 1 and "steps.stepscope: its last" in problems[0]
    else:
        assert problems == []


def test_the_mini_reader_reads_it(folder: Path) -> None:
    trial, mini = open_trial(folder), MiniTrial(folder)
    assert list(mini.steps) == trial.steps.tolist()
    for number, step in mini.steps.items():
        assert step.statistics.tobytes() == trial.step(number).statistics().tobytes()
        for row in range(len(step.rows)):
            assert step.histogram(row).tolist() == trial.step(number).detail.histogram(row).tolist()
            own, found = trial.step(number).detail.neurons(row), step.neurons(row)
            assert (own is None) == (found is None)
            if own is not None and found is not None:
                assert found[0] == own.total and found[2].tobytes() == own.samples.tobytes()
                assert (b"" if found[1] is None else found[1].tobytes()) == (
                    b"" if own.statistics is None else own.statistics.tobytes()
                )


def test_they_are_a_group() -> None:
    for version in golden.FOLDER.iterdir():
        assert set(open_group(version).names) == set(golden.TRIALS[int(version.name[1:])])
