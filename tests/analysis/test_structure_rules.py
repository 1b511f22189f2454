"""Rules about residual branches, hidden states and embeddings: on runs that have the problem, and on look-alikes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.store import Trial
from support.short_runs import curve_batches, findings, mlp, only, record

# ---------------------------------------------------------------------- residual branches


class Block(nn.Module):
    def __init__(self, scale: float, *, learned: bool = False) -> None:
        super().__init__()
        self.norm, self.branch = nn.LayerNorm(16), mlp(16, 16, 16)
        self.scale = nn.Parameter(torch.tensor(scale)) if learned else scale
        self.out = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.out(self.scale * self.branch(self.norm(x)))


@pytest.mark.parametrize(
    ("scale", "learned", "text"),
    [(1e-6, False, "adds next to nothing"), (3000.0, False, "drowns"), (0.3, False, ""), (1e-6, True, "")],
)
def test_residual_branches(scale: float, learned: bool, text: str, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 16), Block(0.5), Block(scale, learned=learned), nn.Linear(16, 2))
    lr = 1e-2 if scale < 1 else 1e-6
    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), curve_batches, steps=20, lr=lr)
    found = findings(trial, "residual-balance")
    assert [finding.node for finding in found] == (["model.2.out"] if text else [])
    assert not text or text in found[0].summary


class Mixed(nn.Module):
    def __init__(self, kept: float, *, scale: float = 1.0) -> None:
        super().__init__()
        self.branch = mlp(16, 16, 16)
        self.kept, self.scale = kept, nn.Parameter(torch.full((16,), scale))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.kept * x + self.scale * self.branch(x)


@pytest.mark.parametrize(
    ("blocks", "kept", "scale", "said"),
    [(6, 0.1, 1.0, True), (6, 0.25, 1.0, True), (6, 1.0, 1.0, False), (6, 0.71, 0.71, False), (1, 0.1, 1.0, False),
     (6, 1.0, 3.0, False), (6, 0.5, 0.5, False)],
)  # fmt: skip
def test_skips_that_let_nothing_through(blocks: int, kept: float, scale: float, said: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 16), *(Mixed(kept, scale=scale) for _ in range(blocks)), nn.LayerNorm(16), nn.Linear(16, 2)
    )
    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), curve_batches, steps=12, lr=1e-3)
    found = [finding for finding in findings(trial, "residual-balance") if "multiplies its skip" in finding.summary]
    assert [finding.node for finding in found] == (["model.1"] if said else [])


# ---------------------------------------------------------------------- hidden states


@pytest.mark.parametrize("how", ["grows", "saturates", "counts"])
def test_a_state_that_grows_over_the_iterations(how: str, tmp_path: Path) -> None:
    cell, head = nn.Linear(8, 8, bias=False), nn.Linear(8, 2)
    with torch.no_grad():
        cell.weight.copy_({"grows": 2.0, "saturates": 2.0, "counts": 1.0}[how] * torch.eye(8))
    model = nn.ModuleDict({"cell": cell, "head": head, "activation": nn.Tanh(), "enter": nn.Linear(2, 8)})

    def loss(number: int, step: object) -> torch.Tensor:
        numbers = torch.rand(10, 16, 2, generator=torch.Generator().manual_seed(number))
        state = torch.zeros(16, 8)
        for given in numbers:
            with step.iteration():  # type: ignore[attr-defined]
                state = cell(state) + model["enter"](given)
                state = model["activation"](state) if how == "saturates" else state
                step.record("state", state)  # type: ignore[attr-defined]
                answer = head(state)
        return F.mse_loss(answer, numbers.sum(0))

    found = findings(record(tmp_path, model, loss, steps=6, lr=1e-6), "growing-state")
    assert [(f.node, f.level) for f in found] == ([("state", "warning")] if how == "grows" else [])


# ---------------------------------------------------------------------- embeddings


class Reader(nn.Module):
    def __init__(self, words: int, padding: int | None = None) -> None:
        super().__init__()
        self.words = nn.Embedding(words, 8, padding_idx=padding)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.words(tokens).mean(1))


def read(folder: Path, model: Reader, *, padded: bool = False, ends: bool = False, steps: int = 30) -> Trial:
    def loss(number: int, _: object) -> torch.Tensor:
        generator = torch.Generator().manual_seed(number)
        tokens = torch.randint(1, 10, (16, 8), generator=generator)
        label = tokens[:, 0] % 3
        if padded:
            length = torch.randint(3, 9, (16, 1), generator=generator)
            tokens = tokens.masked_fill(torch.arange(8) >= length, 0)
        if ends:
            tokens[:, -1] = 0
        return F.cross_entropy(model(tokens), label)

    return record(folder, model, loss, steps=steps)


@pytest.mark.parametrize(("words", "expected"), [(1000, ["info"]), (10, []), (14, [])])
def test_a_table_that_is_too_large(words: int, expected: list[str], tmp_path: Path) -> None:
    found = findings(read(tmp_path, Reader(words)), "unused-embeddings")
    assert [finding.level for finding in found] == expected


def test_padding_that_learns(tmp_path: Path) -> None:
    finding = only(read(tmp_path, Reader(10), padded=True, steps=8), "trained-padding")
    assert finding.node == "model.words.weight" and "Token 0" in finding.summary


@pytest.mark.parametrize("how", ["padding_idx", "an end", "no padding"])
def test_what_is_no_padding_or_does_not_learn(how: str, tmp_path: Path) -> None:
    model = Reader(10, padding=0 if how == "padding_idx" else None)
    trial = read(tmp_path, model, padded=how == "padding_idx", ends=how == "an end", steps=8)
    assert findings(trial, "trained-padding") == []
