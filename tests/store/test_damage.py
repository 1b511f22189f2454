"""Damage stays local: what is damaged is said, and the rest is read."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest

from stepscope.store import DamagedError, NotARecordingError, Trial, open_trial
from stepscope.store.files import FILE_NAMES, file_header, file_path
from support import flips
from support.records import assert_step_is
from support.synthetic import Synthetic, write_whole

SYNTHETIC = Synthetic(blocks=1, width=6, iterations=2)
STEPS = 7


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_whole(tmp_path_factory.mktemp("group"), SYNTHETIC, STEPS)


@pytest.fixture
def damaged(whole: Path, tmp_path: Path) -> Path:
    """A copy of the trial, not damaged yet."""
    return flips.copy(whole, tmp_path)


def _check_steps(trial: Trial, lost: set[int]) -> None:
    """All steps but the lost ones are as they were written."""
    assert trial.steps.tolist() == [10 * index for index in range(STEPS) if index not in lost]
    for number in trial.steps.tolist():
        assert_step_is(trial.step(number), SYNTHETIC.record(number // 10))


def test_no_damage(damaged: Path) -> None:
    assert open_trial(damaged).problems == ()


@pytest.mark.parametrize("at", [0, 3, 5, 9, 17, 23, 24, 60])
def test_a_flipped_byte_in_a_steps_prefix_or_header(damaged: Path, at: int) -> None:
    place = flips.blocks(damaged, "steps")[2]
    flips.flip(damaged, "steps", place.offset + at)
    trial = open_trial(damaged)
    _check_steps(trial, {2})
    assert trial.problems == (f"steps.stepscope: bytes {place.offset} to {place.end} are damaged and were skipped",)
    # The columns still know it, but it is no step that can be looked at.
    assert trial.series("model").steps.tolist() == trial.steps.tolist()


def test_a_flipped_byte_in_a_steps_numbers(damaged: Path) -> None:
    place = flips.blocks(damaged, "steps")[2]
    flips.flip(damaged, "steps", place.end - 300)
    trial = open_trial(damaged)
    assert len(trial.steps) == STEPS
    step = trial.step(20)
    with pytest.raises(DamagedError, match=r"of step 20 makes no sense|a frame"):
        step.statistics(), step.aggregates(), step.per_sample(), step.rows(), step.facts
    assert step.tensor("model").histogram.counts.sum() == 24
    # Series are read from the columns.
    assert trial.series("model").steps.tolist() == trial.steps.tolist()


def test_a_flipped_byte_in_the_last_step(damaged: Path) -> None:
    flips.flip(damaged, "steps", flips.blocks(damaged, "steps")[-1].offset + 30)
    trial = open_trial(damaged)
    _check_steps(trial, {STEPS - 1})
    assert "steps.stepscope: its last" in trial.problems[0]


def test_a_flipped_byte_in_a_detail(damaged: Path) -> None:
    place = flips.blocks(damaged, "detail")[3]
    flips.flip(damaged, "detail", place.end - 5)
    trial = open_trial(damaged)
    step = trial.step(30)
    assert step.tensor("model").statistics["mean"] == trial.series("model").values[3]
    damaged_rows = []
    for row in step.rows():
        try:
            step.detail.neurons(row.index)
        except DamagedError as error:
            assert "a frame" in str(error)
            damaged_rows.append(row.index)
    assert damaged_rows
    for index in damaged_rows:
        assert step.detail.histogram(index).tolist() == SYNTHETIC.record(3).histograms[index].tolist()
    for index in (0, 1, 2, 4, 5, 6):
        assert_step_is(trial.step(10 * index), SYNTHETIC.record(index))


def test_a_flipped_byte_in_a_details_header(damaged: Path) -> None:
    flips.flip(damaged, "detail", flips.blocks(damaged, "detail")[3].offset + 26)
    step = open_trial(damaged).step(30)
    with pytest.raises(DamagedError, match=r"detail\.stepscope has no readable detail at byte"):
        step.tensor("model").histogram  # noqa: B018
    assert step.tensor("model").statistics["norm"] > 0


def test_a_damaged_layout_costs_its_steps_only(damaged: Path) -> None:
    places = [place for place in flips.blocks(damaged, "catalog") if place.kind == "layout"]
    flips.flip(damaged, "catalog", places[-1].end - 3)  # that of the validation steps
    trial = open_trial(damaged)
    assert {node.name for node in trial.nodes} >= {"model", "loss"}
    assert any(text.startswith("catalog.stepscope: ") for text in trial.problems)
    with pytest.raises(DamagedError):
        trial.step(40)
    assert_step_is(trial.step(30), SYNTHETIC.record(3))
    assert 40 not in trial.series("model").steps.tolist()


def test_a_damaged_graph_costs_that_graph_only(damaged: Path) -> None:
    places = [place for place in flips.blocks(damaged, "catalog") if place.kind == "graph"]
    flips.flip(damaged, "catalog", places[0].end - 3)
    trial = open_trial(damaged)
    assert trial.nodes
    with pytest.raises(DamagedError):
        trial.step(0).graph(0)
    assert trial.step(0).graph(1) == SYNTHETIC.record(0).graphs[1]
    assert trial.step(0).tensor("model").statistics["norm"] > 0


@pytest.mark.parametrize("index", range(4))
def test_a_damaged_journal_block(damaged: Path, index: int) -> None:
    place = flips.blocks(damaged, "journal")[index]
    flips.flip(damaged, "journal", place.offset + 30)
    trial = open_trial(damaged)
    assert trial.state == "finished"
    assert len(trial.problems) == 1 and "journal.stepscope: bytes" in trial.problems[0]
    _check_steps(trial, set())


@pytest.mark.parametrize("name", FILE_NAMES)
@pytest.mark.parametrize("at", [0, 9, 13])
def test_damaged_first_bytes(damaged: Path, name: str, at: int) -> None:
    flips.flip(damaged, name, at)
    trial = open_trial(damaged)
    _check_steps(trial, set())
    assert any("its first 16 bytes are not those of a recording" in text for text in trial.problems)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("name", FILE_NAMES)
def test_a_truncated_file(damaged: Path, name: str, share: float) -> None:
    cut_at = 16 + int(share * (file_path(damaged, name).stat().st_size - 16)) + 1
    flips.cut(damaged, name, cut_at)
    trial = open_trial(damaged)
    if name != "journal":
        assert any(text.startswith(f"{name}.stepscope: ") for text in trial.problems)
    if name in ("journal", "columns"):
        _check_steps(trial, set())
    elif name == "steps":
        kept = sum(place.end <= cut_at for place in flips.blocks(damaged, "steps"))
        _check_steps(trial, set(range(kept, STEPS)))
    else:
        assert len(trial.steps) == STEPS


@pytest.mark.parametrize("name", FILE_NAMES[1:])
def test_a_missing_file(damaged: Path, name: str) -> None:
    file_path(damaged, name).unlink()
    trial = open_trial(damaged)
    if name == "columns":  # derived: nothing is lost
        assert trial.problems == ()
        _check_steps(trial, set())
    else:
        assert f"{name}.stepscope: is missing or empty" in trial.problems
    if name == "detail":
        assert trial.series("model").steps.tolist() == trial.steps.tolist()
        with pytest.raises(DamagedError, match=r"detail\.stepscope"):
            trial.step(0).tensor("model").histogram  # noqa: B018


@pytest.mark.parametrize("name", FILE_NAMES)
def test_a_newer_format(damaged: Path, name: str) -> None:
    with open(file_path(damaged, name), "r+b") as file:
        file.write(file_header(version=7))
    if name == "journal":
        with pytest.raises(NotARecordingError, match="has format version 7, this program reads up to 2"):
            open_trial(damaged)
    elif name == "detail":
        with pytest.raises(NotARecordingError, match="install a newer"):
            open_trial(damaged).step(0).tensor("model").histogram  # noqa: B018
    else:
        assert any("install a newer stepscope" in text for text in open_trial(damaged).problems)


def test_a_file_of_another_program(damaged: Path) -> None:
    file_path(damaged, "journal").write_bytes(b"\x89PNG\r\n\x1a\n" + os.urandom(4000))
    with pytest.raises(NotARecordingError, match=r"journal\.stepscope is not a file of a Stepscope recording"):
        open_trial(damaged)


def test_a_link_is_not_followed(damaged: Path, tmp_path: Path) -> None:
    """A recording from elsewhere cannot make the reader open other files of this machine."""
    secret = tmp_path / "secret"
    file_path(damaged, "steps").rename(secret)
    file_path(damaged, "steps").symlink_to(secret)
    trial = open_trial(damaged)
    assert trial.steps.tolist() == []
    assert any("steps.stepscope is a link" in text for text in trial.problems)


def test_a_kind_of_block_that_is_not_known_is_passed_over(damaged: Path) -> None:
    """Later versions may add kinds."""
    path = file_path(damaged, "journal")
    data = bytearray(path.read_bytes())
    place = flips.blocks(damaged, "journal")[1]
    block = data[place.offset : place.end]
    block[4] = 200
    block[20:24] = zlib.crc32(block[24 : 24 + place.header_length], zlib.crc32(block[:20])).to_bytes(4, "little")
    path.write_bytes(data[: place.offset] + block + data[place.offset :])
    trial = open_trial(damaged)
    assert trial.problems == () and len(trial.network) > 5


def test_a_catalog_without_its_beginning(damaged: Path) -> None:
    """Every step needs it: it is said at once that none can be read."""
    file_path(damaged, "catalog").write_bytes(b"garbage")
    problems = " ".join(open_trial(damaged).problems)
    assert "catalog.stepscope: has only 7 bytes" in problems
    assert f"what {STEPS} of {STEPS} steps consist of is missing" in problems
