"""The left panel names tensors so that one knows which of a module's outputs is meant."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from stepscope.recorder import Every, Recorder
from stepscope.store import open_group
from stepscope.viewer.resolve import resolve
from stepscope.viewer.selection import Selection
from stepscope.viewer.views.moment import moment
from stepscope.viewer.views.overview import overview


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.read, self.head = nn.GRU(4, 6, batch_first=True), nn.Linear(6, 1)

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        states, _ = self.read(series)
        return self.head(states)


def test_of_several_outputs_the_one_that_nobody_uses_is_named(tmp_path: Path) -> None:
    model = Reader()
    with Recorder(tmp_path, trial="reader", schedule=Every(1)) as recorder:
        recorder.watch(model)
        with recorder.step():
            model(torch.randn(3, 5, 4)).square().mean().backward()
    group = open_group(tmp_path)
    now = moment(resolve(Selection(trial="reader"), group).selection, group)
    assert now is not None
    text = str(overview(now))
    assert "Unconnected (1)" in text and "model.read, output.1" in text
    assert "model.read, output.0" not in text and "model.head.weight, " not in text
