"""The rule ``forgetful-recurrence``: layers and cells that begin anew at each moment; and those that go on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from support.short_runs import Batch, findings, record


def series(number: int) -> Batch:
    x = torch.randn(8, 6, 4, generator=torch.Generator().manual_seed(number))
    return x, x.cumsum(1).mean(2)


class Reader(nn.Module):
    """Reads moment by moment, in one of several ways."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.gru = nn.GRU(4, 6, batch_first=True)
        self.lstm = nn.LSTM(4, 6)
        self.cell = nn.LSTMCell(4, 6)
        self.out, self.back = nn.Linear(6, 1), nn.Linear(1, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.out(h)[:, 0] for h in getattr(self, self.way)(x)], dim=1)

    def layer(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.gru(x[:, t : t + 1])[0][:, 0] for t in range(6)]

    def time_first(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.lstm(moment[None])[0][0] for moment in x.unbind(1)]

    def cells(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.cell(moment)[0] for moment in x.unbind(1)]

    def zeros_in_the_loop(self, x: torch.Tensor) -> list[torch.Tensor]:
        found = []
        for moment in x.unbind(1):
            state = torch.zeros(8, 6), torch.zeros(8, 6)
            found.append(self.cell(moment, state)[0])
        return found

    def generated(self, x: torch.Tensor) -> list[torch.Tensor]:
        given, found = x[:, :1], []
        for _ in range(6):
            output, _ = self.gru(given)
            found.append(output[:, 0])
            given = self.back(self.out(output))
        return found

    def on_their_own(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.gru(x.mean(1, keepdim=True) + shift)[0][:, 0] for shift in range(6)]

    def kept(self, x: torch.Tensor) -> list[torch.Tensor]:
        state, found = None, []
        for t in range(6):
            output, state = self.gru(x[:, t : t + 1], state)
            found.append(output[:, 0])
        return found

    def kept_cells(self, x: torch.Tensor) -> list[torch.Tensor]:
        state, found = (torch.zeros(8, 6), torch.zeros(8, 6)), []
        for moment in x.unbind(1):
            state = self.cell(moment, state)
            found.append(state[0])
        return found

    def prefixes(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.gru(x[:, : t + 1])[0][:, -1] for t in range(6)]

    def twice(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.gru(x[:, t : t + 1])[0][:, 0] for t in range(2)] * 3

    def whole(self, x: torch.Tensor) -> list[torch.Tensor]:
        return list(self.gru(x)[0].unbind(1))


@pytest.mark.parametrize(
    ("way", "node", "level"),
    [
        ("layer", "model.gru", "warning"),
        ("time_first", "model.lstm", "warning"),
        ("cells", "model.cell", "warning"),
        ("zeros_in_the_loop", "model.cell", "warning"),
        ("generated", "model.gru", "warning"),
        ("on_their_own", "model.gru", "info"),
    ],
)
def test_a_layer_that_begins_anew_at_each_moment(way: str, node: str, level: str, tmp_path: Path) -> None:
    model = Reader(way)
    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), series, steps=3)
    (found,) = findings(trial, "forgetful-recurrence")
    assert (found.node, found.level) == (node, level)
    assert "called 6 times" in found.summary


@pytest.mark.parametrize("way", ["kept", "kept_cells", "prefixes", "twice", "whole"])
def test_a_layer_that_goes_on(way: str, tmp_path: Path) -> None:
    model = Reader(way)
    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), series, steps=3)
    assert findings(trial, "forgetful-recurrence") == []
