"""Names that do not exist, and folders that are no recordings: what was given, what is near, what there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stepscope.store import NotARecordingError, StoreError, Trial, UnknownNameError, open_trial
from support.synthetic import write_trial


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    return open_trial(write_trial(tmp_path_factory.mktemp("group"), steps=6, blocks=1))


ATTN = "model.blocks.0.attn"


@pytest.mark.parametrize(
    ("node", "asked", "message"),
    [
        ("model.block.0.attn", {}, r"no node in trial 'synthetic': 'model.block.0.attn'; did you mean 'model.blocks.0"),
        ("zzz", {}, r"no node in trial 'synthetic': 'zzz'; there is 'input', .* and 37 more"),
        (ATTN, {"statistic": "meen"}, r"no statistic of the value: 'meen'; did you mean 'mean'"),
        (ATTN, {"statistic": "ratio"}, r"no statistic of the value: 'ratio'; there is|did you mean"),
        (ATTN, {"statistic": "norm", "aggregate": "batch_mean"}, r"no statistic of samples: 'norm'; .*'mean'"),
        (ATTN, {"quantity": "gradients"}, rf"no quantity of '{ATTN}': 'gradients'; did you mean 'gradient'"),
        (ATTN, {"quantity": "update"}, rf"no quantity of '{ATTN}': 'update'; there is 'value', 'gradient'"),
        ("memory", {"role": "initail"}, r"no role of 'memory': 'initail'; did you mean 'initial'"),
        (ATTN, {"aggregate": "mean"}, r"no aggregate 'mean'; did you mean 'batch_mean'"),
        (ATTN, {"sample": -1}, r"sample=-1, aggregate=None: expected a sample's position from 0 on"),
        (ATTN, {"sample": 0, "aggregate": "batch_std"}, r"not both"),
    ],
)
def test_series(trial: Trial, node: str, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        trial.series(node, **asked)


@pytest.mark.parametrize(
    ("node", "asked", "message"),
    [
        ("modell", {}, r"no node in step 10: 'modell'; did you mean 'model"),
        ("model", {"quantity": "grad"}, r"no quantity of 'model' in step 10: 'grad'; did you mean 'gradient'"),
        ("memory", {"role": "old"}, r"no role of 'memory' in step 10: 'old'; there is 'initial', 'new'"),
        ("model", {"iteration": 7}, r"no iteration of 'model' in step 10: 7; there is '0', '1', '2'"),
    ],
)
def test_tensor(trial: Trial, node: str, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        trial.step(10).tensor(node, **asked)


def test_step(trial: Trial) -> None:
    with pytest.raises(UnknownNameError, match=r"step 37 was not recorded in trial 'synthetic'; .*nearest .* is 40"):
        trial.step(37)
    with pytest.raises(UnknownNameError, match=r"no iteration in step 10: 3; .*'0', '1', '2'"):
        trial.step(10).graph(3)


def test_step_of_an_empty_trial(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="no step was"):
        open_trial(write_trial(tmp_path, steps=0)).step(0)


def test_scalar(trial: Trial) -> None:
    with pytest.raises(UnknownNameError, match=r"no scalar '/los'; did you mean '/loss'"):
        trial.scalars("los")


def test_all_are_errors_of_the_store_and_key_errors(trial: Trial) -> None:
    for kind in (StoreError, KeyError):
        with pytest.raises(kind):
            trial.node("nothing")


def test_a_folder_that_is_no_recording(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(NotARecordingError, match=r"is no recording of a trial: it has no journal\.stepscope"):
            open_trial(path)


def test_a_group_is_no_trial(trial: Trial) -> None:
    with pytest.raises(NotARecordingError, match=r"it holds the trial 'synthetic'; give one of these, or open_group"):
        open_trial(trial.path.parent)
