"""Rules about what a net is given: raw numbers, drifting ones, one word in place of all others, what counts once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from support.short_runs import findings, only, record


class _Reader(nn.Module):
    def __init__(self, kind: type[nn.Module], divide: bool) -> None:
        super().__init__()
        self.read, self.head, self.divide = kind(1, 8, batch_first=True), nn.Linear(8, 1), divide

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.read((x - 2000) / 500 if self.divide else x)[0][:, -1])


@pytest.mark.parametrize("divide", [False, True])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_raw_numbers_into_a_recurrent_layer(kind: type[nn.Module], divide: bool, tmp_path: Path) -> None:
    model = _Reader(kind, divide)

    def prices(number: int) -> tuple[torch.Tensor, ...]:
        phase = 6 * torch.rand(16, 1, generator=torch.Generator().manual_seed(number))
        wave = torch.sin(phase + 0.5 * torch.arange(11))[:, :, None]
        return 2000 + 500 * wave[:, :10], wave[:, 10]

    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), prices)
    if divide:
        assert not findings(trial, "input-scale")
    else:
        found = only(trial, "input-scale")
        assert (found.node, found.nodes) == ("input", ("model.read",))


@pytest.mark.parametrize("how", ["unknown", "cut off", "padded", "varied"])
def test_one_word_in_place_of_all_others(how: str, tmp_path: Path) -> None:
    table, head = nn.Embedding(60, 8), nn.Linear(8, 4)
    model = nn.ModuleDict({"embed": table, "head": head})

    def texts(number: int) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(number)
        topic = torch.randint(4, (24,), generator=generator)
        words = 1 + 4 * torch.randint(14, (24, 30), generator=generator) + topic[:, None]
        if how == "unknown":
            words = words * (torch.rand(24, 30, generator=generator) < 0.06)
        if how == "cut off":
            words = (20 * words).clamp(max=59)
        if how == "padded":
            words = words * (torch.arange(30) < torch.randint(1, 4, (24, 1), generator=generator))
        return words, topic

    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(head(table(x).mean(1)), y), texts)
    found = [finding for finding in findings(trial, "unused-embeddings") if finding.level == "warning"]
    assert bool(found) == (how in ("unknown", "cut off"))
    assert all("same token" in finding.summary and finding.node == "input" for finding in found)


@pytest.mark.parametrize("how", ["scaled", "noise", "copies", "agent"])
def test_samples_that_are_changed_in_place(how: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    store, labels = torch.randn(128, 8), torch.randint(4, (128,))
    model = nn.Linear(8, 4)

    def load(number: int) -> tuple[torch.Tensor, ...]:
        rows = slice(32 * (number % 4), 32 * (number % 4) + 32)
        points = store[rows]
        if how == "agent":  # what it sees goes its own way, to and fro
            points.add_(0.05 * torch.randn(8))
        if how == "scaled":
            points.sub_(0.1).div_(0.7)
        if how == "noise":
            points.add_(torch.randn(32, 8))
        return (points + torch.randn(32, 8) if how == "copies" else points.clone()), labels[rows]

    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), load, steps=24)
    found = findings(trial, "input-drift")
    assert [(f.node, f.step, f.level) for f in found] == (
        [("input", 4, "warning")] if how in ("scaled", "noise") else []
    )


class _Masked(nn.Module):
    """A mean over words that are no padding, whose mask is made anew, kept, or sometimes left out."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.embed, self.head, self.how = nn.Embedding(60, 8), nn.Linear(8, 4), how
        self.mask: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mask is None or self.how != "kept":
            self.mask = (x != 0).float()[:, :, None]
        if self.how == "by lot" and torch.rand(()) < 0.5:
            return self.head(self.embed(x).mean(1))
        return self.head((self.embed(x) * self.mask).sum(1) / self.mask.sum(1))


@pytest.mark.parametrize("how", ["kept", "anew", "by lot"])
def test_a_mask_that_is_kept_from_the_first_batch(how: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = _Masked(how)

    def texts(number: int) -> tuple[torch.Tensor, ...]:
        topic = torch.randint(4, (24,))
        words = 1 + 4 * torch.randint(14, (24, 10)) + topic[:, None]
        return words * (torch.arange(10) < torch.randint(1, 10, (24, 1))), topic

    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), texts)
    found = findings(trial, "ignored-input")
    assert [finding.level for finding in found] == (["warning"] if how == "kept" else [])
    assert all("self.embed(x) * self.mask" in finding.source.text for finding in found if finding.source) or not found
    assert not findings(trial, "input-scale")
