"""Series equal what is read step by step, whichever way they are found."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stepscope.store import Series, Trial, UnknownNameError, open_trial
from stepscope.store.columns import CHUNK_STEPS
from stepscope.store.records import BATCH_AGGREGATES, SAMPLE_STATISTICS, STATISTICS
from support.synthetic import Synthetic, SyntheticTrial

STEPS = CHUNK_STEPS * 5 // 2
SYNTHETIC = Synthetic(blocks=1, width=4, batch=3, iterations=2, nan_from=500)


@pytest.fixture(scope="module", params=["whole", "no columns", "still open", "damaged columns"])
def trial(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    live = SyntheticTrial(tmp_path_factory.mktemp("group"), SYNTHETIC)
    live.write(STEPS)
    if request.param != "still open":
        live.close()
    columns = live.path / "columns.stepscope"
    if request.param == "no columns":
        columns.unlink()
    elif request.param == "damaged columns":
        data = bytearray(columns.read_bytes())
        data[5000:-1:1500] = [byte ^ 0x40 for byte in data[5000:-1:1500]]
        columns.write_bytes(data)
    yield open_trial(live.path)
    live.close()


def _check(trial: Trial, series: Series, expected: list[tuple[int, float]]) -> None:
    assert series.steps.dtype == np.int64 and series.values.dtype == np.float64
    assert series.steps.tolist() == [number for number, _ in expected]
    np.testing.assert_array_equal(series.values, [value for _, value in expected])


@pytest.mark.parametrize("statistic", STATISTICS)
def test_of_all_elements(trial: Trial, statistic: str) -> None:
    for node, quantity in (("model.blocks.0.attn", "value"), ("model.head.weight", "gradient")):
        expected = [
            (number, trial.step(number).tensor(node, quantity=quantity).statistics[statistic])
            for number, kind in zip(trial.steps.tolist(), trial.step_kinds, strict=True)
            if quantity == "value" or kind != "validation"
        ]
        _check(trial, trial.series(node, statistic=statistic, quantity=quantity), expected)


@pytest.mark.parametrize("aggregate", BATCH_AGGREGATES)
def test_over_the_batch(trial: Trial, aggregate: str) -> None:
    for statistic in SAMPLE_STATISTICS:
        expected = [
            (number, trial.step(number).tensor("model").aggregates[statistic][aggregate])
            for number in trial.steps.tolist()
        ]
        _check(trial, trial.series("model", statistic=statistic, aggregate=aggregate), expected)


def test_of_a_sample(trial: Trial) -> None:
    for sample in range(3):
        expected = [
            (number, float(trial.step(number).tensor("model").per_sample[sample, 1])) for number in trial.steps.tolist()
        ]
        _check(trial, trial.series("model", statistic="std", sample=sample), expected)
    assert np.isnan(trial.series("model", sample=99).values).all()


def test_of_a_role_and_an_iteration(trial: Trial) -> None:
    steps = trial.steps.tolist()
    for role, iteration in (("initial", None), ("new", 0), ("new", None)):
        expected = [
            (number, trial.step(number).tensor("memory", role=role, iteration=iteration).statistics["max"])
            for number in steps
        ]
        _check(trial, trial.series("memory", statistic="max", role=role, iteration=iteration), expected)
    # Only the long steps have a fourth iteration.
    assert trial.series("memory", iteration=3).steps.tolist() == steps[2::5]
    assert trial.series("memory", iteration=99).steps.tolist() == []


def test_of_a_kind(trial: Trial) -> None:
    series = trial.series("model", kind="validation")
    assert series.steps.tolist() == trial.steps.tolist()[4::5]
    assert trial.series("model", kind="no such kind").steps.tolist() == []


def test_ratio_of_the_update_to_the_weights(trial: Trial) -> None:
    expected = []
    for number, kind in zip(trial.steps.tolist(), trial.step_kinds, strict=True):
        if kind != "validation":
            step = trial.step(number)
            update, value = (step.tensor("model.head.bias", quantity=name) for name in ("update", "value"))
            expected.append((number, update.statistics["norm"] / value.statistics["norm"]))
    _check(trial, trial.series("model.head.bias", statistic="ratio", quantity="update"), expected)


def test_nearest_step(trial: Trial) -> None:
    assert trial.nearest_step(-5) == 0
    assert trial.nearest_step(24) == 20
    assert trial.nearest_step(26) == 30
    assert trial.nearest_step(10**9) == trial.steps[-1]
    assert trial.nearest_step(24, kind="validation") == 40
    assert trial.nearest_step(24, kind="no such kind") is None


def test_a_step_that_is_written_again_counts_once(tmp_path: Path) -> None:
    live = SyntheticTrial(tmp_path, Synthetic(blocks=1, kinds=("train",)))
    live.write(CHUNK_STEPS)
    again = Synthetic(blocks=1, kinds=("train",), seed=7)
    live.writer.write_step(again.record(3))
    trial = open_trial(live.path)
    assert len(trial.steps) == CHUNK_STEPS
    value = trial.step(30).tensor("model").statistics["mean"]
    assert value == again.record(3).statistics[list(trial.step(30).rows()).index(trial.step(30).find("model")), 0]
    assert trial.series("model").values[3] == value
    live.close()
    trial.refresh()
    assert trial.series("model").values[3] == value


def test_series_of_an_empty_trial(tmp_path: Path) -> None:
    live = SyntheticTrial(tmp_path, SYNTHETIC)
    live.close()
    with pytest.raises(UnknownNameError, match="there is none"):
        open_trial(live.path).series("model")


def _bytes_of_a_series(folder: Path, blocks: int, steps: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """What is read for one statistic of one node, by a reader that has asked for another one before."""
    synthetic = Synthetic(blocks=blocks, width=2, batch=2, iterations=1, samples=1, kinds=("train",))
    live = SyntheticTrial(folder, synthetic)
    record = synthetic.record(0)
    for number in range(steps):
        live.writer.write_step(replace(record, number=number, statistics=record.statistics * (number + 1) ** 0.5))
    live.close()
    trial, read, total = open_trial(live.path), os.pread, 0
    trial.series("model.blocks.0.mlp", statistic="std")

    def counted(descriptor: int, length: int, offset: int) -> bytes:
        nonlocal total
        total += length
        return read(descriptor, length, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", counted)
        assert len(trial.series("model.blocks.0.attn", statistic="std").steps) == steps
    return total


@pytest.mark.slow
def test_a_series_costs_what_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It grows with the steps, and not with the nodes."""
    few, many, long = (
        _bytes_of_a_series(tmp_path / f"{blocks} {steps}", blocks, steps, monkeypatch)
        for blocks, steps in ((1, CHUNK_STEPS), (4, CHUNK_STEPS), (1, 3 * CHUNK_STEPS))
    )
    assert 0 < few < 8 * 11 * CHUNK_STEPS  # less than the numbers take uncompressed
    assert many < 1.2 * few and 2 * few < long < 4 * few
