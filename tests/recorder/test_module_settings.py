"""The settings of torch's own layers are recorded as torch prints them; no code of the user is called for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from stepscope.recorder import Every, Recorder
from stepscope.store import open_trial


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale

    def extra_repr(self) -> str:
        raise AssertionError("who asks?")


class Inherited(nn.Linear):
    pass


def test_the_settings_of_all_modules(tmp_path: Path) -> None:
    model = nn.Sequential(
        nn.Conv1d(2, 4, 2, stride=8), nn.Flatten(), nn.Dropout(0.25), Inherited(8, 3, bias=False), Own(),
    )  # fmt: skip
    with Recorder(tmp_path, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch(model)
        with recorder.step():
            model(torch.randn(5, 2, 16)).sum().backward()
    settings = {module.path: module.settings for module in open_trial(tmp_path / "trial").network}
    assert settings == {
        "model": "",
        "model.0": "2, 4, kernel_size=(2,), stride=(8,)",
        "model.1": "start_dim=1, end_dim=-1",
        "model.2": "p=0.25, inplace=False",
        "model.3": "in_features=8, out_features=3, bias=False",
        "model.4": "",
    }


def test_a_layer_that_cannot_be_printed(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Conv1d(1, 1, 1))
    del model[1].stride
    with pytest.raises(KeyError):
        repr(model)
    with Recorder(tmp_path, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch(model)
        with recorder.step():
            model[0](torch.randn(5, 3)).sum().backward()
    assert [module.settings for module in open_trial(tmp_path / "trial").network] == [
        "", "in_features=3, out_features=3, bias=True", "",
    ]  # fmt: skip


def test_settings_that_change_are_written_again(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))
    with Recorder(tmp_path, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch(model)
        for share in (0.5, 0.125):
            model[1].p = share
            with recorder.step():
                model(torch.randn(5, 3)).sum().backward()
    assert open_trial(tmp_path / "trial").network[2].settings == "p=0.125, inplace=False"
