"""Following a trial that is still being written: a reader sees whole steps only."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stepscope.store import Trial, open_trial
from stepscope.store.block_file import BlockFile
from stepscope.store.blocks import BlockPlace
from stepscope.store.files import FILE_NAMES, file_path
from stepscope.store.records import StepRecord
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


@pytest.mark.parametrize("name", [name for name in FILE_NAMES if name != "detail"])
def test_a_step_that_is_written_while_a_reader_looks(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Just before the reader comes to each of the files, the first step is written, with all that it refers to."""
    read, record = BlockFile.new_blocks, SYNTHETIC.record(0)
    with SyntheticTrial(tmp_path, SYNTHETIC) as live, monkeypatch.context() as patch:
        trial = open_trial(live.path)
        written: list[StepRecord] = []

        def write_then_read(file: BlockFile) -> Iterator[tuple[BlockPlace, dict[str, Any]]]:
            if file.path == file_path(live.path, name) and not written:
                written.append(record)
                live.writer.write_step(record)
            return read(file)

        patch.setattr(BlockFile, "new_blocks", write_then_read)
        trial.refresh()
        assert written
        for number in trial.steps.tolist():
            assert_step_is(trial.step(number), record)
        trial.refresh()
        assert trial.steps.tolist() == [record.number]


def test_a_reader_beside_a_writing_thread(tmp_path: Path) -> None:
    records = [SYNTHETIC.record(index) for index in range(25)]
    seen: list[int] = []
    with SyntheticTrial(tmp_path, SYNTHETIC) as live:
        writing = threading.Thread(target=lambda: [live.writer.write_step(record) for record in records])
        trial = open_trial(live.path)
        writing.start()
        try:
            while writing.is_alive() or len(seen) < len(records):
                trial.refresh()
                new = [number for number in trial.steps.tolist() if number not in seen]
                for number in new:
                    assert_step_is(trial.step(number), records[number // 10])
                seen += new
        finally:
            writing.join()
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
