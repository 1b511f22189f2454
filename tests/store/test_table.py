"""A trial as one tidy table."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from stepscope.store import StoreError, Trial, UnknownNameError, open_trial, table
from stepscope.store.records import STATISTICS
from support.synthetic import write_trial


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    return open_trial(write_trial(tmp_path_factory.mktemp("group"), steps=10, blocks=1, iterations=2))


def test_all_of_it(trial: Trial) -> None:
    found = trial.table()
    assert tuple(found) == (*table.FACTS, *STATISTICS)
    steps = [trial.step(number) for number in trial.steps.tolist()]
    assert len(found["step"]) == sum(len(step.rows()) for step in steps)
    assert found["step"].dtype == np.int64 and found["mean"].dtype == np.float64
    at = int(np.flatnonzero((found["step"] == 20) & (found["node"] == "loss") & (found["quantity"] == "gradient"))[0])
    assert (found["kind"][at], found["role"][at], found["iteration"][at]) == ("long", "tensor", -1)
    assert found["type"][at] == "loss"
    assert found["norm"][at] == trial.step(20).tensor("loss", quantity="gradient").statistics["norm"]


def test_a_part_of_it_equals_a_series(trial: Trial) -> None:
    weight = "model.head.weight"
    found = trial.table(nodes=[weight], quantities=["update"], statistics=["norm"])
    series = trial.series(weight, statistic="norm", quantity="update")
    assert found["step"].tolist() == series.steps.tolist()
    np.testing.assert_array_equal(found["norm"], series.values)


def test_kinds_and_steps(trial: Trial) -> None:
    assert set(trial.table(kinds=["validation"])["step"].tolist()) == {40, 90}
    assert set(trial.table(steps=[0, 40], kinds=["validation"])["step"].tolist()) == {40}
    empty = trial.table(steps=[40], quantities=["gradient"])
    assert tuple(empty) == (*table.FACTS, *STATISTICS) and len(empty["mean"]) == 0


def test_in_parts(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trial.table()
    monkeypatch.setattr(table, "ROWS_AT_ONCE", 500)
    parts = list(trial.tables())
    assert len(parts) > 2 and all(len(part["step"]) < 1000 for part in parts)
    for name, values in whole.items():
        joined = np.concatenate([part[name] for part in parts])
        assert joined.tolist() == values.tolist() or np.array_equal(joined, values, equal_nan=True)


def test_an_empty_trial(tmp_path) -> None:  # type: ignore[no-untyped-def]
    assert len(open_trial(write_trial(tmp_path, steps=0)).table()["node"]) == 0


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_as_a_frame_of_a_library(trial: Trial, library: Any) -> None:
    pytest.importorskip(library)
    found = trial.table(nodes=["loss"], quantities=["value"], statistics=["mean"], library=library)
    assert found["step"].to_numpy().tolist() == trial.steps.tolist()
    assert found.shape == (10, len(table.FACTS) + 1)
    assert str(found["node"][0]) == "loss"


def test_a_library_that_is_not_installed(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(StoreError, match="library='polars' is not installed: pip install polars; or take 'numpy'"):
        trial.table(nodes=["loss"], library="polars")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"nodes": ["los"]}, "no node 'los'; did you mean 'loss'"),
        ({"quantities": ["grad"]}, "no quantity 'grad'; did you mean 'gradient'"),
        ({"kinds": ["tran"]}, "no kind 'tran'; did you mean 'train'"),
        ({"steps": [5]}, "no step 5; "),
        ({"statistics": ["meen"]}, "no statistic 'meen'; did you mean 'mean'"),
        ({"library": "excel"}, "no library 'excel'; there is 'numpy'"),
    ],
)
def test_unknown_names(trial: Trial, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        trial.table(**asked)


def test_one_text_where_a_list_is_expected(trial: Trial) -> None:
    with pytest.raises(StoreError, match=r"node 'loss' is one text; expected a list of them: \['loss'\]"):
        trial.table(nodes="loss")
