"""The writer: names, existing trials, records that make no sense."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stepscope.store import StoreError, TrialExistsError, TrialWriter, open_group, open_trial
from stepscope.store.records import StepRecord, TrialEnd
from support.records import INFO
from support.synthetic import Synthetic, write_trial


@pytest.fixture(scope="module")
def record() -> StepRecord:
    return Synthetic(blocks=1).record(0)


def test_an_existing_trial_is_kept(tmp_path: Path) -> None:
    for name in ("trial", "trial-2", "trial-3"):
        with TrialWriter(tmp_path, INFO) as writer:
            assert (writer.name, writer.path) == (name, tmp_path / name)


def test_an_existing_trial_may_be_an_error(tmp_path: Path) -> None:
    TrialWriter(tmp_path, INFO).close(None)
    with pytest.raises(TrialExistsError, match=r"exists; give another trial name, or if_exists='number'"):
        TrialWriter(tmp_path, INFO, if_exists="fail")


def test_an_existing_trial_may_be_overwritten(tmp_path: Path, record: StepRecord) -> None:
    with TrialWriter(tmp_path, INFO) as writer:
        writer.write_step(record)
    with TrialWriter(tmp_path, INFO, if_exists="overwrite") as writer:
        pass
    assert open_trial(writer.path).steps.tolist() == [] and open_group(tmp_path).names == ("trial",)


def test_a_folder_with_other_things_is_never_overwritten(tmp_path: Path) -> None:
    path = write_trial(tmp_path, steps=1, blocks=1, trial="trial")
    (path / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match=r"holds 'thesis.tex', which no trial has"):
        TrialWriter(tmp_path, INFO, if_exists="overwrite")
    assert (path / "thesis.tex").exists() and open_trial(path).steps.tolist() == [0]


def test_unknown_way_to_handle_an_existing_trial(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="if_exists='maybe': expected 'number', 'fail' or 'overwrite'"):
        TrialWriter(tmp_path, INFO, if_exists="maybe")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", " ", "../up", "a/b", ".hidden", "..", "a\\b", "a\0b", "x" * 201])
def test_names_that_are_no_folders_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="name"):
        TrialWriter(tmp_path, replace(INFO, trial=name))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["lr=0.1 β", "résumé", "a.b-c_d", "名前"])
def test_names_with_other_letters(tmp_path: Path, name: str) -> None:
    with TrialWriter(tmp_path, replace(INFO, trial=name)):
        pass
    assert open_group(tmp_path)[name].info.trial == name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shapes": ()}, "has shapes of shape"),
        ({"statistics": np.zeros((1, 11))}, r"has statistics of shape \(1, 11\); expected"),
        ({"samples": (0,)}, "1 samples has per_sample of shape"),
        ({"histograms": np.zeros((3, 2), np.uint32)}, "has histograms of shape"),
        ({"facts": {"model": object()}}, "the facts of step 0 cannot be written"),
        ({"kind": object()}, "a step cannot be written: .*; give None, truth values, numbers"),
    ],
)
def test_records_that_do_not_fit(tmp_path, record, change, message) -> None:  # type: ignore[no-untyped-def]
    with TrialWriter(tmp_path, INFO) as writer:
        with pytest.raises(StoreError, match=message):
            writer.write_step(replace(record, **change))
        writer.write_step(record)
    trial = open_trial(writer.path)
    assert trial.steps.tolist() == [0] and trial.problems == ()


def test_neurons_that_do_not_fit(tmp_path: Path, record: StepRecord) -> None:
    neurons = record.neurons[-1]
    assert neurons is not None
    wrong = replace(neurons, samples=np.zeros(3, np.float32))
    with TrialWriter(tmp_path, INFO) as writer, pytest.raises(StoreError, match=r"samples of shape \(3,\)"):
        writer.write_step(replace(record, neurons=(*record.neurons[:-1], wrong)))


def test_config_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="a trial cannot be written"):
        TrialWriter(tmp_path, replace(INFO, config={"model": object()}))
    with TrialWriter(tmp_path, INFO) as writer:  # the failed one holds no lock
        assert writer.name in ("trial", "trial-2")


def test_closing_twice_and_by_an_exception(tmp_path: Path) -> None:
    writer = TrialWriter(tmp_path, INFO)
    writer.close(TrialEnd("finished", 1.0))
    writer.close(TrialEnd("failed", 2.0))
    assert open_trial(writer.path).state == "finished"
    with pytest.raises(RuntimeError), TrialWriter(tmp_path, INFO) as second:
        raise RuntimeError("out of coffee")
    trial = open_trial(second.path)
    assert (trial.state, trial.exception) == ("failed", "RuntimeError: out of coffee")


def test_equal_layouts_and_graphs_are_written_once(tmp_path: Path) -> None:
    synthetic = Synthetic(blocks=1, kinds=("train",))
    with TrialWriter(tmp_path, synthetic.info()) as writer:
        writer.write_step(synthetic.record(0))
        size = (writer.path / "catalog.stepscope").stat().st_size
        copy = Synthetic(blocks=1, kinds=("train",))  # equal, but other objects
        writer.write_step(copy.record(1))
        assert (writer.path / "catalog.stepscope").stat().st_size == size
