"""A trial goes on after its process died: nothing is lost, and the new steps supersede the old ones."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stepscope.store import NotARecordingError, Trial, TrialInUseError, TrialWriter, open_trial, verify
from stepscope.store.files import FILE_NAMES, file_header, file_path
from stepscope.store.records import Scalar, StepRecord, TrialEnd
from support import flips, golden
from support.everything import everything
from support.records import assert_step_is
from support.synthetic import Synthetic, SyntheticTrial, write_trial

SYNTHETIC = Synthetic(blocks=1, width=6, iterations=2)
OTHER = replace(SYNTHETIC, seed=7)


@pytest.fixture(scope="module")
def died(tmp_path_factory: pytest.TempPathFactory) -> Path:
    live = SyntheticTrial(tmp_path_factory.mktemp("group"), SYNTHETIC)
    live.write(10)
    live.close("died")
    return live.path


@pytest.fixture
def path(died: Path, tmp_path: Path) -> Path:
    """A trial with the steps 0 to 90 whose process died."""
    return flips.copy(died, tmp_path)


def _resume(path: Path, synthetic: Synthetic = OTHER) -> TrialWriter:
    return TrialWriter(path.parent, synthetic.info(), resume=True)


def _check(trial: Trial, expected: dict[int, StepRecord]) -> None:
    assert trial.steps.tolist() == sorted(expected)
    for number, record in expected.items():
        assert_step_is(trial.step(number), record)
    values = [record.statistics[_row(record), 1] for _, record in sorted(expected.items())]
    steps, found = trial.series("model", statistic="std")
    assert steps.tolist() == sorted(expected) and np.array_equal(found, values)
    table = trial.table(nodes=["model"], quantities=["value"], statistics=["std"])
    assert sorted(set(table["step"].tolist())) == sorted(expected)


def _row(record: StepRecord) -> int:
    rows = [i for i, t in enumerate(record.tensors) if (t.node, t.quantity) == ("model", "value")]
    return max(rows, key=lambda row: record.tensors[row].iteration)


def _records(synthetic: Synthetic, indices: range) -> dict[int, StepRecord]:
    return {10 * index: synthetic.record(index) for index in indices}


def test_it_goes_on_after_the_last_step(path: Path) -> None:
    assert open_trial(path).state == "failed"
    with _resume(path, SYNTHETIC) as writer:
        assert (writer.path, writer.next_step) == (path, 91)
        assert open_trial(path).state == "running"
        for index in range(10, 14):
            writer.write_step(SYNTHETIC.record(index))
    trial = open_trial(path)
    assert trial.state == "finished" and trial.messages == ()
    assert [(r.pid, r.step, r.config) for r in trial.resumptions] == [(os.getpid(), 91, None)]
    _check(trial, _records(SYNTHETIC, range(14)))
    assert verify(path) == []


def test_steps_from_the_restart_point_on_supersede(path: Path) -> None:
    before = {name: file_path(path, name).read_bytes() for name in FILE_NAMES}
    with _resume(path) as writer:
        writer.rewind(40)
        assert open_trial(path).steps.tolist() == [0, 10, 20, 30]
        for index in (5, 6):
            writer.write_step(OTHER.record(index))
    _check(open_trial(path), _records(SYNTHETIC, range(4)) | _records(OTHER, range(5, 7)))
    assert verify(path) == []
    for name, data in before.items():  # nothing is deleted
        assert file_path(path, name).read_bytes().startswith(data)


def test_resumed_many_times(path: Path) -> None:
    expected = _records(SYNTHETIC, range(10))
    for seed, restart in enumerate((80, 30, 60, 0), start=1):
        synthetic = replace(SYNTHETIC, seed=seed)
        with _resume(path, synthetic) as writer:
            writer.rewind(restart)
            expected = {number: record for number, record in expected.items() if number < restart}
            for index in range(restart // 10, restart // 10 + 9):
                writer.write_step(synthetic.record(index))
                expected[10 * index] = synthetic.record(index)
        _check(open_trial(path), expected)
    assert len(open_trial(path).resumptions) == 4


def test_a_viewer_that_watches_sees_the_new_history(path: Path) -> None:
    trial = open_trial(path)
    assert trial.step(60).number == 60  # kept in memory
    with _resume(path) as writer:
        assert trial.refresh() and trial.state == "running"
        writer.rewind(50)
        assert trial.refresh() and trial.steps.tolist() == [0, 10, 20, 30, 40]
        writer.write_step(OTHER.record(6))
        trial.refresh()
        _check(trial, _records(SYNTHETIC, range(5)) | _records(OTHER, range(6, 7)))
    assert trial.refresh() and trial.state == "finished"


def test_a_torn_end_that_is_replaced_by_as_many_bytes(path: Path) -> None:
    """Who has looked at it looks again."""
    trial, steps = open_trial(path), file_path(path, "steps")
    data = steps.read_bytes()
    block = data[flips.blocks(path, "steps")[-1].offset :]
    steps.write_bytes(data + b"\xf5SsB" + bytes(len(block) - 4))
    assert not trial.refresh() and "its last" in trial.problems[0]
    steps.write_bytes(data + block)
    os.utime(steps, (2e9, 2e9))  # a tick later
    assert trial.refresh() and trial.repeated_steps == {90} and trial.problems == ()


def test_curves(path: Path) -> None:
    with _resume(path) as writer:
        writer.rewind(55)
        writer.write_scalars([Scalar("loss", "", 60, 1.5, "train", 1.0)])
    assert open_trial(path).scalars("loss").steps.tolist() == [0, 10, 20, 30, 40, 50, 60]
    assert open_trial(path).scalars("loss").values[-1] == 1.5


def test_another_config(path: Path) -> None:
    other = replace(SYNTHETIC, config={"lr": 0.5, "new": True})
    with _resume(path, other) as writer:
        writer.rewind(50)
    trial = open_trial(path)
    assert trial.config == other.config and trial.info.config == SYNTHETIC.config
    assert trial.resumptions[0].config == other.config and trial.resumptions[0].environment is None
    text = "resumed with another config (lr: 0.001, now 0.5; optimizer: {'name': 'AdamW'}, now gone; new: new, True)"
    assert [tuple(message) for message in trial.messages] == [(91, text)]
    with _resume(path, other):
        pass
    assert open_trial(path).resumptions[1].config is None and open_trial(path).config == other.config


@pytest.mark.parametrize("state", ["finished", "failed"])
def test_a_trial_that_had_ended(tmp_path: Path, state) -> None:  # type: ignore[no-untyped-def]
    path = write_trial(tmp_path, steps=2, blocks=1, state=state)
    writer = _resume(path)
    trial = open_trial(path)
    assert (trial.state, trial.end, trial.exception) == ("running", None, "")
    writer.close(TrialEnd("failed", 2.0, "KeyError: 3"))
    assert trial.refresh() and (trial.state, trial.exception) == ("failed", "KeyError: 3")


def test_a_trial_that_does_not_exist_is_started(tmp_path: Path) -> None:
    for folder in (tmp_path / "new", tmp_path / "empty"):
        (folder / "synthetic").mkdir(parents=True) if folder.name == "empty" else None
        with TrialWriter(folder, SYNTHETIC.info(), resume=True) as writer:
            assert (writer.name, writer.next_step, writer.earlier) == ("synthetic", 0, None)
            writer.write_step(SYNTHETIC.record(0))
        assert open_trial(writer.path).info == SYNTHETIC.info()


def test_a_live_trial_is_not_resumed(tmp_path: Path) -> None:
    with SyntheticTrial(tmp_path, SYNTHETIC) as live:
        before = [file.read_bytes() for file in sorted(live.path.iterdir())]
        with pytest.raises(TrialInUseError, match="close that recorder first"):
            _resume(live.path)
        assert before == [file.read_bytes() for file in sorted(live.path.iterdir())]


@pytest.mark.parametrize("name", ["ended", "died"])
def test_a_trial_of_an_earlier_format(tmp_path: Path, name: str) -> None:
    """Old programs must not take what is appended for what they know."""
    path = flips.copy(golden.FOLDER / "v1" / name, tmp_path)
    before = everything(path)
    with TrialWriter(tmp_path, replace(OTHER, trial=name).info(), resume=True) as writer:
        writer.write_step(OTHER.record(50))
    after = everything(path)
    assert [key for key in before if after.get(key) != before[key]] == []
    assert_step_is(open_trial(path).step(500), OTHER.record(50))
    assert all(file.read_bytes().startswith(file_header()) for file in path.glob("*.stepscope"))
    assert verify(path) == []


# ---------------------------------------------------------------------- torn and damaged files


@pytest.mark.parametrize("name", FILE_NAMES)
@pytest.mark.parametrize("left", [0, 7, 16, 17, 40, 1000])
def test_torn_ends(path: Path, name: str, left: int) -> None:
    """Whatever is left of a file when the process dies, what could be read before can be read after."""
    flips.cut(path, name, min(left, file_path(path, name).stat().st_size))
    torn = file_path(path, name).read_bytes()
    readable = open_trial(path).steps.tolist() if name != "catalog" else []
    with _resume(path, SYNTHETIC) as writer:
        for index in range(20, 25):
            writer.write_step(SYNTHETIC.record(index))
    trial = open_trial(path)
    assert set(readable) | {200, 210, 220, 230, 240} <= set(trial.steps.tolist())
    for number in trial.steps.tolist():
        if name != "detail" or number >= 200:
            assert_step_is(trial.step(number), SYNTHETIC.record(number // 10))
    kept = path / "damaged-1" / f"{name}.end"
    ending = kept.read_bytes() if kept.exists() else b""
    assert torn.endswith(ending) and file_path(path, name).read_bytes().startswith(torn[: len(torn) - len(ending)])


def test_a_torn_block_hides_nothing_that_comes_after(path: Path) -> None:
    """Half a block whose header is whole would swallow what is appended to it."""
    place = flips.blocks(path, "steps")[-1]
    flips.cut(path, "steps", place.end - 100)
    with _resume(path, SYNTHETIC) as writer:
        for index in range(9, 12):
            writer.write_step(SYNTHETIC.record(index))
    _check(open_trial(path), _records(SYNTHETIC, range(12)))
    assert verify(path) == []


def test_a_damaged_trial_goes_on(path: Path) -> None:
    flips.flip(path, "steps", flips.blocks(path, "steps")[3].offset + 5)
    with _resume(path, SYNTHETIC) as writer:
        assert writer.earlier is not None and "are damaged and were skipped" in writer.earlier.problems[0]
        writer.write_step(SYNTHETIC.record(10))
    trial = open_trial(path)
    _check(trial, {n: record for n, record in _records(SYNTHETIC, range(11)).items() if n != 30})
    assert trial.messages[0].text.startswith("resumed a damaged trial (steps.stepscope: bytes ")


def test_a_damaged_layout_is_written_once_more(path: Path) -> None:
    """Steps that could not be read can be read again, once one of equal layout is recorded."""
    flips.flip(path, "catalog", flips.blocks(path, "catalog")[0].end - 3)
    assert 10 not in open_trial(path).series("model").steps.tolist()
    with _resume(path, SYNTHETIC) as writer:
        writer.write_step(SYNTHETIC.record(10))
    assert_step_is(open_trial(path).step(10), SYNTHETIC.record(1))


def test_a_lost_journal_is_begun_anew(path: Path) -> None:
    file_path(path, "journal").unlink()
    with _resume(path, SYNTHETIC) as writer:
        assert writer.next_step == 91
    assert open_trial(path).config == SYNTHETIC.config


# ---------------------------------------------------------------------- what is not ours


def _assert_refused(path: Path, match: str) -> None:
    before = {entry: entry.read_bytes() for entry in path.rglob("*") if entry.is_file()}
    with pytest.raises(NotARecordingError, match=match):
        _resume(path)
    assert before == {entry: entry.read_bytes() for entry in path.rglob("*") if entry.is_file()}


@pytest.mark.parametrize("name", FILE_NAMES)
def test_a_newer_format(path: Path, name: str) -> None:
    with open(file_path(path, name), "r+b") as file:
        file.write(file_header(version=7))
    _assert_refused(path, "has format version 7, this program reads up to")


def test_a_journal_of_another_program(path: Path) -> None:
    file_path(path, "journal").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(4000))
    _assert_refused(path, "is not a file of a Stepscope recording")


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "synthetic").mkdir()
    (tmp_path / "synthetic" / "thesis.tex").write_text("years of work")
    _assert_refused(tmp_path / "synthetic", "holds 'thesis.tex', and no recording")


def test_links_are_not_followed(path: Path, tmp_path: Path) -> None:
    moved = file_path(path, "steps").rename(tmp_path / "elsewhere")
    file_path(path, "steps").symlink_to(moved)
    _assert_refused(path, "steps.stepscope is a link")
