"""Compiled models are recorded as if they were not compiled, without a word from the compiler."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from stepscope.recorder import Recorder
from stepscope.store import open_trial


def record(model: nn.Module, folder: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Names of the nodes of one step, and paths and classes of the modules."""
    x = torch.randn(4, 3)
    model(x)
    with Recorder(folder, trial="t", schedule=1, strict=True) as recorder:
        recorder.watch(model)
        with recorder.step():
            model(x).sum().backward()
    trial = open_trial(folder / "t")
    return [node.name for node in trial.nodes], [(module.path, module.module_class) for module in trial.network]


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 3, bias=False), nn.Sequential(nn.Linear(3, 3, bias=False), nn.Tanh()))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # the compiler's own doing
@pytest.mark.supports("Compilation", "compiled parts keep their names")
def test_a_compiled_part_keeps_its_name(tmp_path: Path) -> None:
    model = net()
    plain = record(model, tmp_path / "plain")
    model[1] = torch.compile(model[1], backend="eager")
    assert record(model, tmp_path / "compiled") == plain


def test_a_compiled_model_keeps_its_name(tmp_path: Path) -> None:
    model = net()
    plain = record(model, tmp_path / "plain")
    assert record(torch.compile(model, backend="eager"), tmp_path / "compiled") == plain


def test_compiled_steps_after_a_recorded_one_are_called_without_a_warning(tmp_path: Path) -> None:
    model = torch.compile(net(), backend="eager")
    record(model, tmp_path)
    model(torch.randn(4, 3))  # would be an error: warnings are
    assert not nn.modules.module._has_any_global_hook()


def test_the_filters_of_warnings_are_as_before(tmp_path: Path) -> None:
    model = torch.compile(net(), backend="eager")
    model(torch.randn(4, 3))
    assert "torch._dynamo" in sys.modules
    before = list(warnings.filters)
    record(model, tmp_path)
    assert list(warnings.filters) == before
