"""FORMAT.md is enough to write a reader: one that shares no code with the package reads the same numbers."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from stepscope.store import TrialWriter, open_trial
from stepscope.store.columns import WORTHWHILE_STEPS
from stepscope.store.records import Note, StepRecord
from stepscope.store.room import Limits
from support import mini_reader
from support.mini_reader import MiniStep, MiniTrial
from support.records import INFO, same, step_records
from support.synthetic import Synthetic, SyntheticTrial

SYNTHETIC = Synthetic(blocks=1, iterations=2, nan_from=40, dead_from=20)


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> MiniTrial:
    live = SyntheticTrial(tmp_path_factory.mktemp("group"), SYNTHETIC)
    live.write(7)
    live.close()
    return MiniTrial(live.path)


def _assert_same(step: MiniStep, record: StepRecord) -> None:
    assert step.header["number"] == record.number and step.header["kind"] == record.kind
    assert (step.header["time"], step.header["seconds"]) == (record.time, record.seconds)
    assert tuple(step.header["samples"]) == record.samples
    assert tuple(step.header["categories"]) == record.categories
    assert step.facts == record.facts
    assert [row[:4] for row in step.rows] == [(t.node, t.role, t.iteration, t.quantity) for t in record.tensors]
    assert [row[4:] for row in step.rows] == [(t.type, t.dtype, t.device, t.batch_dim) for t in record.tensors]
    assert tuple(step.shapes) == record.shapes and tuple(step.strides) == record.strides
    assert same(step.statistics, record.statistics)
    assert same(step.aggregates, record.aggregates)
    assert same(step.per_sample, record.per_sample)
    for graph, written in zip(step.graphs, record.graphs, strict=True):
        assert [tuple(edge) for edge in graph["edges"]] == [(e.source, e.sink, e.differentiable) for e in written.edges]
        assert [tuple(v[:3]) for v in graph["vertices"]] == [(v.node, v.role, v.lag) for v in written.vertices]
    for row, neurons in enumerate(record.neurons):
        assert np.array_equal(step.histogram(row), record.histograms[row])
        found = step.neurons(row)
        assert (found is None) == (neurons is None)
        if found is not None and neurons is not None:
            assert found[0] == neurons.total and same(found[2], neurons.samples)
            assert (found[1] is None) == (neurons.statistics is None)
            assert found[1] is None or same(found[1], neurons.statistics)


def test_a_trial_with_a_limit_of_bytes(tmp_path: Path) -> None:
    synthetic = Synthetic(blocks=1, width=40, iterations=1, kinds=("train",))
    records = [synthetic.record(index) for index in range(3)]
    with TrialWriter(tmp_path, synthetic.info(), limits=Limits(trial=1_000_000)) as writer:
        for number in range(20):
            writer.write_step(replace(records[number % 3], number=number))
    trial, own = MiniTrial(writer.path), open_trial(writer.path)
    thinned = [number for number, step in trial.steps.items() if "thinned" in step.detail.header]
    assert len(trial.steps) == 20 and 0 < len(thinned) < 20
    for number, step in trial.steps.items():
        for row in range(len(step.rows)):
            assert np.array_equal(step.histogram(row), records[number % 3].histograms[row])
            found, neurons = step.neurons(row), own.step(number).detail.neurons(row)
            assert (found is None) == (neurons is None)
            assert found is None or neurons is None or same(found[2], neurons.samples)


def test_raw_values_in_16_bits(tmp_path: Path) -> None:
    with TrialWriter(tmp_path, SYNTHETIC.info(), precision="bf16") as writer:
        writer.write_step(SYNTHETIC.record(0))
    step, own = MiniTrial(writer.path).steps[0], open_trial(writer.path).step(0)
    found = [(step.neurons(row), own.detail.neurons(row)) for row in range(len(step.rows))]
    assert any(neurons is not None and neurons.precision == "bf16" for _, neurons in found)
    for mini, neurons in found:
        assert mini is None or neurons is None or same(mini[2], neurons.samples)


def test_steps(read: MiniTrial) -> None:
    assert list(read.steps) == [0, 10, 20, 30, 40, 50, 60]
    for number, step in read.steps.items():
        _assert_same(step, SYNTHETIC.record(number // 10))


def test_columns(tmp_path: Path) -> None:
    live = SyntheticTrial(tmp_path, replace(SYNTHETIC, kinds=("train", "validation")))
    live.write(2 * WORTHWHILE_STEPS)
    live.close()
    read = MiniTrial(live.path)
    columns = read.columns()
    for number, step in read.steps.items():
        for row in range(len(step.rows)):
            statistics, batch = columns[number, row]
            assert same(statistics, step.statistics[row])
            assert same(batch[:12].reshape(4, 3), step.aggregates[row])
            assert same(batch[12:].reshape(-1, 4), step.per_sample[row])


def test_journal(read: MiniTrial) -> None:
    kinds = [kind for kind, _ in read.journal]
    assert kinds == ["trial", "network", "note", *["scalars"] * 7, "end"]
    headers = dict(read.journal)
    assert headers["trial"]["trial"] == "synthetic" and headers["trial"]["config"] == SYNTHETIC.config
    assert headers["end"]["state"] == "finished"
    assert headers["scalars"]["scalars"][0][:4] == ["loss", "", 60, SYNTHETIC.loss(60)]
    assert [module[0] for module in headers["network"]["modules"]][:2] == ["model", "model.embed"]


def test_damage_is_skipped(read: MiniTrial, tmp_path: Path) -> None:
    data = bytearray((read.folder / "steps.stepscope").read_bytes())
    data[16 + 40] ^= 1
    damaged = tmp_path / "steps.stepscope"
    damaged.write_bytes(data)
    numbers = [block.header["number"] for block in mini_reader.read_file(damaged).values()]
    assert numbers == [10, 20, 30, 40, 50, 60]


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(record=step_records())
def test_any_step(record: StepRecord, tmp_path_factory: pytest.TempPathFactory) -> None:
    with TrialWriter(tmp_path_factory.mktemp("group"), INFO) as writer:
        writer.write_step(record)
        writer.write_note(Note("é", record.number, 1.0))
    trial = MiniTrial(writer.path)
    _assert_same(trial.steps[record.number], record)
    assert trial.journal[1] == ("note", {"text": "é", "step": record.number, "time": 1.0})


def test_wide_raw_values_have_their_own_pages(tmp_path: Path) -> None:
    record = SYNTHETIC.record(0)
    neurons = [
        None if n is None else replace(n, samples=n.samples.astype(np.float64) if index % 3 == 0 else n.samples)
        for index, n in enumerate(record.neurons)
    ]
    record = replace(record, neurons=tuple(neurons))
    with TrialWriter(tmp_path, INFO) as writer:
        writer.write_step(record)
    _assert_same(MiniTrial(writer.path).steps[0], record)


def test_the_mini_reader_is_small_and_independent() -> None:
    source = Path(mini_reader.__file__).read_text("utf-8")
    assert len(source.splitlines()) < 150
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(source))
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [])
        + ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [])
    }
    standard = {"__future__", "hashlib", "itertools", "pathlib", "struct", "typing", "zlib"}
    assert imported == {*standard, "msgpack", "numpy", "zstandard"}
