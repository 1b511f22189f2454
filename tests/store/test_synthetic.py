"""The synthetic recordings that other tests build on hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest

from stepscope.store import Trial, open_trial
from support.synthetic import Synthetic, write_trial


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    return open_trial(write_trial(tmp_path_factory.mktemp("group"), steps=10, nan_from=60, dead_from=40))


def test_kinds_go_round_and_differ_in_iterations(trial: Trial) -> None:
    assert trial.kinds == ("train", "long", "validation")
    assert [len(trial.step(number).iterations) for number in (0, 20, 40)] == [3, 6, 3]
    assert {row.info.quantity for row in trial.step(40).rows()} == {"value"}


def test_numbers_measure_the_raw_values(trial: Trial) -> None:
    tensor = trial.step(0).tensor("model.head.weight", quantity="gradient")
    assert tensor.neurons is not None
    raw = tensor.neurons.samples.astype(np.float64)
    assert tensor.statistics["mean"] == pytest.approx(raw.mean())
    assert tensor.statistics["norm"] == pytest.approx(np.sqrt((raw**2).sum()))
    assert tensor.histogram.counts.sum() == raw.size
    sample = trial.step(0).tensor("model")
    assert sample.neurons is not None
    assert sample.per_sample[2, 3] == np.abs(sample.neurons.samples[2]).max()


def test_nan_spreads_downstream_only(trial: Trial) -> None:
    def count(node: str) -> list[float]:
        return trial.series(node, statistic="nan_count").values.tolist()

    assert count("model.blocks.1.attn") == [0] * 6 + [32] * 4
    assert count("model.blocks.0.attn") == [0] * 10
    assert count("loss")[5:7] == [0, 1]


def test_dead_layer_is_all_zeros(trial: Trial) -> None:
    values = trial.series("model.blocks.1.mlp.act", statistic="zero_fraction").values
    assert (values[:4] < 1).all()
    assert (values[4:6] == 1).all()  # NaN from step 60 on


def test_memory_is_carried_over_iterations(trial: Trial) -> None:
    carried = [vertex for vertex in trial.step(0).graph(1).vertices if vertex.lag]
    assert [(vertex.node, vertex.role, vertex.lag) for vertex in carried] == [("memory", "new", 1)]
    assert trial.step(0).graph_digest(1) == trial.step(0).graph_digest(2) != trial.step(0).graph_digest(0)


def test_equal_arguments_give_equal_records() -> None:
    one, two = Synthetic(seed=3).record(4), Synthetic(seed=3).record(4)
    assert one.tensors == two.tensors and one.graphs == two.graphs
    assert np.array_equal(one.statistics, two.statistics, equal_nan=True)
    assert not np.array_equal(one.statistics, Synthetic(seed=4).record(4).statistics, equal_nan=True)


@pytest.mark.parametrize(
    ("state", "read"), [("finished", "finished"), ("failed", "failed"), ("running", "running"), ("died", "failed")]
)
def test_states(tmp_path, state, read) -> None:  # type: ignore[no-untyped-def]
    assert open_trial(write_trial(tmp_path, steps=1, blocks=1, state=state)).state == read
