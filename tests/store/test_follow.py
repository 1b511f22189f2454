"""Following a trial that is still being written: a reader sees whole steps only."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from stepscope.store import Trial, open_trial
from stepscope.store.files import FILE_NAMES, file_path
from support.records import assert_step_is
from support.synthetic import Synthetic, SyntheticTrial

SYNTHETIC = Synthetic(blocks=1, iterations=2)


def test_refresh_tells_what_is_new(tmp_path: Path) -> None:
    live = SyntheticTrial(tmp_path, SYNTHETIC)
    trial = open_trial(live.path)
    assert trial.state == "running" and trial.steps.tolist() == [] and trial.nodes == ()
    assert trial.problems == ()
    assert not trial.refresh()
    live.write(2)
    assert trial.refresh() and trial.steps.tolist() == [0, 10]
    assert trial.scalars("loss").steps.tolist() == [0, 10]
    version = trial.version
    assert not trial.refresh() and trial.version == version
    live.write(3)
    assert trial.refresh() and trial.version > version
    assert trial.steps.tolist() == [0, 10, 20, 30, 40]
    assert trial.kinds == ("train", "long", "validation")
    assert trial.series("model", statistic="std").steps.tolist() == [0, 10, 20, 30, 40]
    live.close()
    assert trial.refresh() and trial.state == "finished"
    assert trial.problems == ()


def test_nodes_that_appear_later_are_seen(tmp_path: Path) -> None:
    with SyntheticTrial(tmp_path, Synthetic(blocks=1, kinds=("validation", "train"))) as live:
        live.write(1)
        trial = open_trial(live.path)
        assert trial.quantities == ("value",)
        live.write(1)
        trial.refresh()
        assert "gradient" in trial.quantities


def test_every_prefix_of_the_files_is_a_valid_recording(tmp_path: Path) -> None:
    """Whatever has reached the disk when a reader looks, it sees the steps that are complete, and these right."""
    live = SyntheticTrial(tmp_path / "whole", SYNTHETIC)
    live.write(3)
    live.close()
    whole = {name: file_path(live.path, name).read_bytes() for name in FILE_NAMES}
    growing = tmp_path / "growing"
    growing.mkdir()
    for name in FILE_NAMES:
        file_path(growing, name).write_bytes(whole[name] if name != "steps" else whole[name][:16])
    trial, seen = open_trial(growing), 0
    size = len(whole["steps"])
    with open(file_path(growing, "steps"), "ab") as file:
        for start in range(16, size, 97):
            file.write(whole["steps"][start : min(start + 97, size)])
            file.flush()
            trial.refresh()
            assert len(trial.steps) >= seen
            seen = len(trial.steps)
    assert seen == 3
    for index in range(3):
        assert_step_is(trial.step(10 * index), SYNTHETIC.record(index))


def test_a_reader_beside_a_writing_thread(tmp_path: Path) -> None:
    live = SyntheticTrial(tmp_path, SYNTHETIC)
    records = [SYNTHETIC.record(index) for index in range(25)]
    writing = threading.Thread(target=lambda: [live.writer.write_step(record) for record in records])
    trial = open_trial(live.path)
    writing.start()
    seen: list[int] = []
    while writing.is_alive() or len(seen) < len(records):
        trial.refresh()
        new = [number for number in trial.steps.tolist() if number not in seen]
        for number in new:
            assert_step_is(trial.step(number), records[number // 10])
        seen += new
    writing.join()
    live.close()
    assert trial.problems == ()


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    with SyntheticTrial(tmp_path, SYNTHETIC) as live:
        live.write(6)
    return open_trial(live.path)


def test_a_trial_can_be_read_from_many_threads(trial: Trial) -> None:
    faults: list[BaseException] = []

    def read() -> None:
        try:
            for number in trial.steps.tolist():
                assert trial.step(number).tensor("model").histogram.counts.sum() == 48
                trial.series("model", statistic="max")
                trial.refresh()
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
