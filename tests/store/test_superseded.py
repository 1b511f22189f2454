"""What training went back behind is kept, and costs nothing: history comes from columns, and has no nodes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stepscope.store import Trial, TrialWriter, UnknownNameError, open_trial, verify
from stepscope.store.block_file import BlockFile
from stepscope.store.blocks import encode_block
from stepscope.store.columns import CHUNK_STEPS
from stepscope.store.files import file_header, file_path
from stepscope.store.repair import repair
from stepscope.store.step import Step
from support import flips
from support.synthetic import Synthetic, SyntheticTrial

SYNTHETIC = Synthetic(blocks=1, width=2, batch=2, samples=1, iterations=1, gradients=(), kinds=("train",))
AGAIN = replace(SYNTHETIC, seed=3)
STEPS = 2 * CHUNK_STEPS
BACK_TO = CHUNK_STEPS // 2


def _write(writer: TrialWriter, synthetic: Synthetic, numbers: range) -> None:
    record = synthetic.record(0)
    for number in numbers:
        writer.write_step(replace(record, number=number, statistics=record.statistics + number))


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two chunks of steps; most of them were superseded, by as many and some more."""
    live = SyntheticTrial(tmp_path_factory.mktemp("group"), SYNTHETIC)
    _write(live.writer, SYNTHETIC, range(STEPS))
    live.close("died")
    with TrialWriter(live.path.parent, AGAIN.info(), resume=True) as writer:
        writer.rewind(BACK_TO)
        _write(writer, AGAIN, range(BACK_TO, STEPS + BACK_TO))
    return live.path


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the steps that are read one by one."""
    numbers: list[int] = []
    statistics = Step.statistics

    def noted(step: Step) -> np.ndarray:
        numbers.append(step.number)
        return statistics(step)

    monkeypatch.setattr(Step, "statistics", noted)
    return numbers


def _rewrite_columns(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    file = BlockFile(file_path(path, "columns"))
    blocks = [
        encode_block("columns", change(header), [file.read(place.payload_offset, place.payload_length)])
        for place, header in file.new_blocks()
    ]
    file_path(path, "columns").write_bytes(file_header() + b"".join(blocks))


def _expected(trial: Trial) -> list[float]:
    mean = {number: 0.0 for number in trial.steps.tolist()}
    for synthetic, numbers in ((SYNTHETIC, range(BACK_TO)), (AGAIN, range(BACK_TO, STEPS + BACK_TO))):
        record = synthetic.record(0)
        row = next(i for i, t in enumerate(record.tensors) if (t.node, t.quantity) == ("model", "value"))
        mean |= {number: float(record.statistics[row, 0] + number) for number in numbers}
    return [mean[number] for number in trial.steps.tolist()]


def test_series_come_from_columns(resumed: Path, read: list[int]) -> None:
    trial = open_trial(resumed)
    steps, values = trial.series("model")
    assert steps.tolist() == list(range(STEPS + BACK_TO)) and values.tolist() == _expected(trial)
    assert read == [] and len(trial.repeated_steps) == STEPS - BACK_TO
    assert verify(resumed) == []


def test_new_steps_that_are_in_no_columns_yet(resumed: Path, tmp_path: Path, read: list[int]) -> None:
    """The columns have nothing but the superseded ones; they are not taken for them."""
    path = flips.copy(resumed, tmp_path)
    flips.cut(path, "columns", flips.blocks(path, "columns")[1].end)
    trial = open_trial(path)
    assert trial.series("model").values.tolist() == _expected(trial)
    assert read == list(range(BACK_TO, STEPS + BACK_TO))


def test_columns_that_do_not_say_where_their_steps_are(resumed: Path, tmp_path: Path, read: list[int]) -> None:
    """As earlier programs wrote them: what was superseded is read one by one."""
    path = flips.copy(resumed, tmp_path)
    _rewrite_columns(path, lambda header: {key: value for key, value in header.items() if key != "places"})
    trial = open_trial(path)
    assert trial.series("model").values.tolist() == _expected(trial)
    assert read == list(range(BACK_TO, STEPS)) and verify(path) == []


@pytest.mark.parametrize("lie", [None, [], "x", [1.5], [[1]], {}, [2**63], [0] * CHUNK_STEPS, [-1] * CHUNK_STEPS])
def test_columns_that_lie_about_places(resumed: Path, tmp_path: Path, lie: object) -> None:
    path = flips.copy(resumed, tmp_path)
    _rewrite_columns(path, lambda header: {**header, "places": lie})
    assert open_trial(path).series("model").values.tolist() == _expected(open_trial(path))


def test_a_repair_that_moves_steps(resumed: Path, tmp_path: Path) -> None:
    """The block of a superseded step is damaged; those behind it move to where others were."""
    path = flips.copy(resumed, tmp_path)
    flips.flip(path, "steps", flips.blocks(path, "steps")[BACK_TO + 1].offset + 30)
    repair(path)
    trial = open_trial(path)
    assert trial.series("model").values.tolist() == _expected(trial) and verify(path) == []
    assert all(trial.counting_steps(chunk).all() for chunk in trial.chunks())


def test_nodes_of_superseded_steps_only(tmp_path: Path) -> None:
    larger = replace(SYNTHETIC, blocks=2)
    live = SyntheticTrial(tmp_path, SYNTHETIC)
    _write(live.writer, SYNTHETIC, range(2))
    _write(live.writer, larger, range(2, 4))
    live.close("died")
    watching = open_trial(live.path)
    before = {node.name for node in watching.nodes}
    with TrialWriter(tmp_path, SYNTHETIC.info(), resume=True) as writer:
        writer.rewind(2)
        watching.refresh()
        nodes = {node.name for node in watching.nodes}
        assert {name for name in before - nodes if name.startswith("model.blocks.1")} and nodes < before
        _write(writer, SYNTHETIC, range(2, 5))
    assert {node.name for node in open_trial(live.path).nodes} == nodes
    with pytest.raises(UnknownNameError, match=r"no node in trial 'synthetic': 'model\.blocks\.1'"):
        watching.series("model.blocks.1")
    with TrialWriter(tmp_path, larger.info(), resume=True) as writer:
        _write(writer, larger, range(5, 6))
    watching.refresh()
    assert {node.name for node in watching.nodes} == before
