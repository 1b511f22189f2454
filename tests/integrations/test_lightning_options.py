"""The callback takes whatever a recorder takes."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from torch import nn

pytest.importorskip("pytorch_lightning", reason="needs the extra 'lightning'")

from stepscope.integrations.lightning import StepscopeCallback
from stepscope.recorder import Recorder, SelectionError
from stepscope.store import Trial, open_trial
from support.lightning_models import Classifier, make_batches, make_trainer

pytestmark = pytest.mark.filterwarnings("ignore::Warning:pytorch_lightning")


def fit(folder: Path, **options: Any) -> Trial:
    callback = StepscopeCallback(folder, schedule=1, trial="t", strict=True, **options)
    make_trainer(callback).fit(Classifier(), make_batches(2))
    return open_trial(folder / "t")


def nodes(trial: Trial) -> set[str]:
    return {node.name for node in trial.nodes if node.name.startswith("model")}


HEAD = {"model.head", "model.head.weight", "model.head.bias"}
LAYERS = HEAD | {"model.net.0", "model.net.0.weight", "model.net.0.bias"}


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({"include": "model.head*"}, HEAD),
        ({"exclude": [re.compile(r"net"), "model"]}, HEAD),
        ({"types": nn.Linear}, LAYERS),
        ({"types": nn.Linear, "depth": 1}, HEAD),
        ({"include": "model.head", "exclude": "*.bias"}, HEAD - {"model.head.bias"}),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
@pytest.mark.supports("Lightning", "recording a part of the model, and every other option of a recorder")
def test_selections(selection: dict[str, Any], expected: set[str], tmp_path: Path) -> None:
    trial = fit(tmp_path, **selection)
    assert nodes(trial) == expected
    assert "leaves out" in trial.messages[0][1]


@pytest.mark.parametrize(
    ("option", "missing"),
    [
        ({"gradients": False}, {"gradient"}),
        ({"updates": False}, {"update"}),
        ({"optimizer_state": False}, {"exp_avg", "exp_avg_sq"}),
    ],
)
def test_quantities(option: dict[str, Any], missing: set[str], tmp_path: Path) -> None:
    assert {"value", "gradient", "update", "exp_avg", "exp_avg_sq"} - set(fit(tmp_path, **option).quantities) == missing


def test_a_selection_that_fits_nothing_is_refused_when_fitting_begins(tmp_path: Path) -> None:
    with pytest.raises(SelectionError, match="nowhere"):
        fit(tmp_path, include="model.nowhere")
    assert open_trial(tmp_path / "t").state == "failed"


def test_there_is_no_option_of_a_recorder_that_the_callback_lacks() -> None:
    def parameters(function: Any) -> dict[str, inspect.Parameter]:
        return dict(inspect.signature(function).parameters)

    of_callback, of_recorder = parameters(StepscopeCallback), parameters(Recorder)
    del of_recorder["start_step"]  # the checkpoint tells it
    assert set(of_recorder) <= set(of_callback)
    assert {"include", "exclude", "depth", "types"} <= set(of_callback)
    changed = {name for name in of_recorder if of_recorder[name].default != of_callback[name].default}
    assert changed == set(), "defaults differ"
