"""The rule ``gradient-cut`` where a module is called on its own state again and again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from support.short_runs import Batch, findings, record


class Reader(nn.Module):
    """Goes through sequences ``(16, 5, 4)``, with a cell of torch's own or one made by hand."""

    def __init__(self, kind: str, *, is_cut: bool) -> None:
        super().__init__()
        self.kind, self.is_cut, self.leave = kind, is_cut, nn.Linear(8, 3)
        self.cell = {"lstm": nn.LSTMCell, "gru": nn.GRUCell}.get(kind, nn.Linear)(
            *((12, 8) if kind in ("hand", "each") else (4, 8))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state, memory, scores = torch.zeros(len(x), 8), torch.zeros(len(x), 8), []
        for moment in x.unbind(1):
            if self.is_cut:
                state, memory = state.detach(), memory.detach()
            if self.kind == "lstm":
                state, memory = self.cell(moment, (state, memory))
            elif self.kind == "gru":
                state = self.cell(moment, state)
            else:
                state = self.cell(torch.cat([moment, state], dim=1)).tanh()
            scores.append(self.leave(state))
        return torch.stack(scores).mean(0) if self.kind == "each" else scores[-1]


def sequences(number: int) -> Batch:
    generator = torch.Generator().manual_seed(number)
    return torch.randn(16, 5, 4, generator=generator), torch.randint(3, (16,), generator=generator)


def told(folder: Path, kind: str, *, is_cut: bool) -> list[tuple[str, str]]:
    torch.manual_seed(0)
    model = Reader(kind, is_cut=is_cut)
    trial = record(folder, model, lambda x, y: F.cross_entropy(model(x), y), sequences, steps=4)
    found = findings(trial, "gradient-cut")
    return [(finding.level, finding.source.text if finding.source else "") for finding in found]


@pytest.mark.parametrize(("kind", "level"), [("lstm", "warning"), ("gru", "warning"), ("hand", "warning")])
def test_a_state_that_is_detached_at_every_moment_is_told_with_its_line(kind: str, level: str, tmp_path: Path) -> None:
    assert told(tmp_path, kind, is_cut=True) == [(level, "state, memory = state.detach(), memory.detach()")]


def test_calls_with_a_loss_each_may_be_truncated_on_purpose(tmp_path: Path) -> None:
    assert [level for level, _ in told(tmp_path, "each", is_cut=True)] == ["info"]


@pytest.mark.parametrize("kind", ["lstm", "gru", "hand", "each"])
def test_a_state_that_is_kept_is_right(kind: str, tmp_path: Path) -> None:
    assert told(tmp_path, kind, is_cut=False) == []
