"""A recording stays within its limit of bytes: old steps lose neurons, statistics never go, and nothing is torn."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stepscope.store import StoreError, Trial, TrialWriter, detail_rewrite, detail_writer, open_trial, verify
from stepscope.store.detail_parts import parts_of
from stepscope.store.records import Note, StepRecord, TrialEnd
from stepscope.store.room import Limits
from support.records import assert_step_is
from support.synthetic import Synthetic

SYNTHETIC = Synthetic(blocks=1, width=40, batch=8, samples=6, iterations=1, neuron_limit=1000, kinds=("train",))
RECORDS = [SYNTHETIC.record(index) for index in range(6)]
LIMIT = 3_000_000


def record(number: int) -> StepRecord:
    return replace(RECORDS[number % len(RECORDS)], number=number)


def writer_with(folder: Path, limits: Limits, **more: Any) -> TrialWriter:
    return TrialWriter(folder, SYNTHETIC.info(), limits=limits, **more)


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def assert_statistics_are(trial: Trial, number: int) -> None:
    """Everything of a step is there but, maybe, neurons."""
    step, written = trial.step(number), record(number)
    assert np.array_equal(step.statistics(), written.statistics, equal_nan=True)
    assert np.array_equal(step.aggregates(), written.aggregates, equal_nan=True)
    assert np.array_equal(step.per_sample(), written.per_sample, equal_nan=True)
    for row, own in enumerate(written.neurons):
        assert np.array_equal(step.detail.histogram(row), written.histograms[row])
        found = step.detail.neurons(row)
        if found is not None and own is not None and found.statistics is not None:
            assert own.statistics is not None
            assert np.array_equal(found.statistics, own.statistics, equal_nan=True)
        if found is not None and own is not None and found.samples.size:
            assert np.array_equal(found.samples, own.samples, equal_nan=True)


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trial that was thinned many times, and never too large."""
    writer = writer_with(tmp_path_factory.mktemp("limited"), Limits(LIMIT))
    for number in range(70):
        writer.write_step(record(number))
        if number == 13:
            writer.write_note(Note("this one", 13, 0.0))
        assert size_of(writer.path) <= LIMIT
    writer.close(TrialEnd("finished", 0.0))
    return writer.path


@pytest.mark.supports("What was recorded is kept", "`max_bytes` leaves out neurons of old steps, never statistics")
def test_statistics_and_histograms_never_go(limited: Path) -> None:
    assert LIMIT * 0.6 < size_of(limited) <= LIMIT
    trial = open_trial(limited)
    assert trial.steps.tolist() == list(range(70))
    assert verify(limited) == [] == list(trial.problems)
    for number in range(70):
        assert_statistics_are(trial, number)
    assert trial.bytes == size_of(limited)


def test_first_last_and_noted_steps_are_full(limited: Path) -> None:
    trial = open_trial(limited)
    full = [number for number in range(70) if trial.step(number).detail_state == "full"]
    assert {0, 13, 69} <= set(full) and len(full) < 40
    for number in (0, 13, 69):
        assert_step_is(trial.step(number), record(number))
    assert len([number for number in full if number >= 50]) > len([number for number in full if number < 20])


def test_thinned_is_not_never_recorded(limited: Path) -> None:
    trial = open_trial(limited)
    thinned = next(number for number in range(1, 70) if trial.step(number).detail_state == "thinned")
    step = trial.step(thinned)
    assert "left out to keep the recording within its limit of bytes" in step.left_out
    tensors = [step.tensor(row.info.node, role=row.info.role, iteration=row.info.iteration, quantity=row.info.quantity)
               for row in step.rows()]  # fmt: skip
    for tensor, own in zip(tensors, record(thinned).neurons, strict=True):
        assert bool(tensor.left_out) == (own is not None)
    assert trial.step(0).left_out == "" == trial.step(0).tensor("model").left_out


def test_raw_values_go_before_statistics_of_neurons(tmp_path: Path) -> None:
    with writer_with(tmp_path, Limits(LIMIT)) as writer:
        for number in range(30):
            writer.write_step(record(number))
    trial = open_trial(writer.path)
    model = [trial.step(number).tensor("model").neurons for number in range(30)]
    only_statistics = [n for n in model if n is not None and not n.samples.size]
    assert only_statistics and all(n.statistics is not None for n in only_statistics)


@pytest.mark.slow
def test_a_reader_that_is_there_all_the_time(tmp_path: Path) -> None:
    writer = writer_with(tmp_path, Limits(LIMIT))
    writer.write_step(record(0))
    reader = open_trial(writer.path)
    held = reader.step(0)
    early = {}
    for number in range(1, 80):
        writer.write_step(record(number))
        if number % 10 == 0:
            assert reader.refresh()
            early[number] = reader.step(number)
            assert_step_is(early[number], record(number))
            for seen in range(0, number, 7):
                assert_statistics_are(reader, seen)
    for number, step in early.items():
        assert_step_is(step, record(number))  # its file, maybe replaced since, is still open
    assert_step_is(held, record(0))
    states = {open_trial(writer.path).step(number).detail_state for number in early}
    assert "thinned" in states
    writer.close(None)


def test_a_limit_for_each_step(tmp_path: Path) -> None:
    sizes = {}
    for limit in (None, 120_000, 30_000, 1):
        with writer_with(tmp_path, Limits(step=limit)) as writer:
            writer.write_step(record(0))  # the layout and the graphs
            sizes[limit] = writer.write_step(record(1))
        step = open_trial(writer.path).step(1)
        assert (step.detail_state == "full") == (limit is None), (limit, sizes)
        assert_statistics_are(open_trial(writer.path), 1)
    assert sizes[None] > 120_000 > sizes[120_000] > 30_000 > sizes[30_000] == sizes[1]


def test_room_for_steps_without_neurons(tmp_path: Path) -> None:
    with writer_with(tmp_path, Limits(300_000)) as writer:
        assert writer.steps_left() is None
        left = []
        for number in range(12):
            writer.write_step(record(number))
            left.append(writer.steps_left())
    assert all(before > after for before, after in pairwise(left) if before)  # type: ignore[operator]
    with writer_with(tmp_path, Limits()) as writer:
        writer.write_step(record(0))
        assert writer.steps_left() is None


@pytest.mark.slow
def test_statistics_go_on_where_there_is_no_room_at_all(tmp_path: Path) -> None:
    with writer_with(tmp_path, Limits(1 << 17)) as writer:
        for number in range(20):
            writer.write_step(record(number))
    trial = open_trial(writer.path)
    for number in range(20):
        assert_statistics_are(trial, number)


@pytest.mark.slow
def test_going_on_with_a_limited_trial(tmp_path: Path) -> None:
    writer = writer_with(tmp_path, Limits(LIMIT))
    for number in range(40):
        writer.write_step(record(number))
    writer.close(None)
    (writer.path / "new-detail-1.stepscope").write_bytes(b"half of it")
    again = writer_with(tmp_path, Limits(LIMIT), resume=True)
    for number in range(40, 80):
        again.write_step(record(number))
        assert size_of(again.path) <= LIMIT
    again.close(None)
    trial = open_trial(again.path)
    assert trial.steps.tolist() == list(range(80)) and verify(again.path) == []
    for number in range(80):
        assert_statistics_are(trial, number)
    assert not (again.path / "new-detail-1.stepscope").exists()


@pytest.mark.slow
@pytest.mark.parametrize("where", ["_write", "fsync", "replace"])
def test_a_full_disk_while_thinning(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = writer_with(tmp_path, Limits(LIMIT))
    number = 0
    while len(parts_of(writer.path)) < 10:
        writer.write_step(record(number))
        number += 1

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(detail_rewrite if where == "_write" else detail_rewrite.os, where, fail)
        with pytest.raises(OSError, match="No space"):
            for _ in range(60):
                writer.write_step(record(number))
                number += 1
    for _ in range(20):
        writer.write_step(record(number))
        number += 1
    writer.close(None)
    trial = open_trial(writer.path)
    assert verify(writer.path) == [] and not list(writer.path.glob("new-*"))
    for index in trial.steps.tolist():
        assert_statistics_are(trial, index)


@pytest.mark.slow
def test_a_damaged_file_is_not_rewritten(tmp_path: Path) -> None:
    writer = writer_with(tmp_path, Limits(LIMIT))
    number = 0
    while len(parts_of(writer.path)) < 5:
        writer.write_step(record(number))
        number += 1
    first = writer.path / "detail-1.stepscope"
    damaged = bytearray(first.read_bytes())
    damaged[20] ^= 255  # the length of the first block
    first.write_bytes(damaged)
    for _ in range(80):
        writer.write_step(record(number))
        number += 1
    writer.close(None)
    assert first.read_bytes() == bytes(damaged)
    assert [problem for problem in verify(writer.path) if "step 0:" in problem]


@pytest.mark.parametrize("limits", [{"trial": 0}, {"trial": 1000}, {"step": 0}])
def test_limits_that_make_no_sense(limits: dict[str, int]) -> None:
    with pytest.raises(StoreError, match="expected"):
        Limits(**limits)


@pytest.mark.slow
def test_the_room_for_rewriting_is_within_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    largest = []

    def watched(trial: Path, part: int, plan: Any) -> int:
        monkeypatch.setattr(detail_rewrite.os, "replace", measured)
        return detail_rewrite.rewrite_part(trial, part, plan)

    def measured(new: Path, old: Path) -> None:
        largest.append(size_of(old.parent))
        new.rename(old)

    monkeypatch.setattr(detail_writer, "rewrite_part", watched)
    with writer_with(tmp_path, Limits(LIMIT)) as writer:
        for number in range(60):
            writer.write_step(record(number))
    assert largest and max(largest) <= LIMIT
