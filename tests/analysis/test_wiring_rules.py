"""Rules about how layers are put together: without activations, shared, normalised away, read at the wrong end."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.analysis import Finding, diagnose
from support.short_runs import Batch, findings, record


def images(number: int) -> Batch:
    generator = torch.Generator().manual_seed(number)
    return torch.randn(16, 3, 6, 6, generator=generator), torch.randint(4, (16,), generator=generator)


def vectors(number: int) -> Batch:
    generator = torch.Generator().manual_seed(number)
    return torch.randn(16, 8, generator=generator), torch.randint(4, (16,), generator=generator)


def told(folder: Path, model: nn.Module, data: Callable[[int], Batch], *rules: str) -> list[Finding]:
    torch.manual_seed(0)
    return findings(record(folder, model, lambda x, y: F.cross_entropy(model(x), y), data, steps=8), *rules)


def end(channels: int) -> list[nn.Module]:
    return [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4)]


BLOCKS: dict[str, list[nn.Module]] = {
    "convolutions": [nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)],
    "with identity": [nn.Conv2d(3, 8, 3), nn.Identity(), nn.Conv2d(8, 8, 3)],
    "with batch norm": [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3)],
    "with dropout": [nn.Conv2d(3, 8, 3), nn.Dropout(0.1), nn.Conv2d(8, 8, 3)],
    "right": [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)],
    "right, with batch norm": [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 8, 3)],
    "right, largest": [nn.Conv2d(3, 8, 3), nn.MaxPool2d(2), nn.Conv2d(8, 8, 1)],
    "separable": [nn.Conv2d(3, 3, 3, groups=3), nn.Conv2d(3, 8, 1)],
    "separable, turned": [nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8)],
    "bottleneck": [nn.Conv2d(3, 2, 1), nn.Conv2d(2, 8, 3)],
}


@pytest.mark.parametrize("way", BLOCKS)
def test_layers_with_nothing_between(way: str, tmp_path: Path) -> None:
    model = nn.Sequential(*BLOCKS[way], *end(8))
    expected = [] if way.startswith(("right", "separable", "bottleneck")) else ["missing-nonlinearity"]
    assert [finding.rule for finding in told(tmp_path, model, images, "missing-nonlinearity")] == expected


class Excited(nn.Module):
    """Squeeze and excitation: what a convolution makes is averaged for a gate, and weighed with it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
        self.gate = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        change = self.inner(x)
        return x + change * self.gate(change.mean((2, 3)))[..., None, None]


def test_an_output_that_is_also_weighed_is_not_linear(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), Excited(), *end(8))
    assert told(tmp_path, model, images, "missing-nonlinearity") == []


@pytest.mark.parametrize("frozen", [True, False])
def test_a_layer_on_top_of_a_frozen_one_probes_its_features(frozen: bool, tmp_path: Path) -> None:
    trunk = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)).requires_grad_(not frozen)
    model = nn.Sequential(trunk, nn.Conv2d(8, 8, 1), *end(8))
    assert len(told(tmp_path, model, images, "missing-nonlinearity")) == (0 if frozen else 1)


class Stack(nn.Module):
    """Layers one after the other, or heads beside each other."""

    def __init__(self, layers: list[nn.Module], *, beside: bool = False) -> None:
        super().__init__()
        self.enter, self.layers, self.leave = nn.Linear(8, 6), nn.ModuleList(layers), nn.Linear(6, 4)
        self.beside = beside

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter(x)
        if self.beside:
            return self.leave(sum(torch.tanh(layer(x + number)) for number, layer in enumerate(self.layers)))
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return self.leave(x)


def rows(number: int) -> Batch:
    generator = torch.Generator().manual_seed(number)
    return torch.randn(16, 8, generator=generator), torch.randint(4, (16,), generator=generator)


@pytest.mark.parametrize("way", ["multiplied", "beside", "made"])
def test_a_list_whose_entries_are_one_module(way: str, tmp_path: Path) -> None:
    layers: list[nn.Module] = [nn.Linear(6, 6)] * 3
    if way == "made":
        layers = [nn.Linear(6, 6) for _ in range(3)]
    found = told(tmp_path, Stack(layers, beside=way == "beside"), rows, "shared-modules")
    levels = {"multiplied": ["warning"], "beside": ["info"], "made": []}
    assert [finding.level for finding in found] == levels[way]
    assert all(finding.node == "model.layers.0" for finding in found)


def test_tied_embeddings_are_no_shared_modules(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Embedding(12, 8), nn.Linear(8, 12, bias=False))
    model[1].weight = model[0].weight

    def data(number: int) -> Batch:
        words = torch.randint(12, (16, 5), generator=torch.Generator().manual_seed(number))
        return words[:, 0], words[:, 1]

    assert told(tmp_path, model, data, "shared-modules") == []


@pytest.mark.parametrize("groups", [8, 2])
def test_groups_of_single_numbers(groups: int, tmp_path: Path) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.GroupNorm(groups, 8), nn.Flatten(), nn.Linear(8, 4)
    )
    found = told(tmp_path, model, images, "constant-output")
    assert [(finding.node, finding.level) for finding in found] == ([("model.3", "error")] if groups == 8 else [])


@pytest.mark.parametrize(
    ("width", "norm", "count"),
    [
        (1, nn.LayerNorm(1), 1),
        (1, nn.LayerNorm(1, elementwise_affine=False), 1),
        (4, nn.LayerNorm(4), 0),
        (4, nn.LayerNorm(4, elementwise_affine=False), 0),
    ],
)
def test_a_norm_over_a_single_feature(width: int, norm: nn.Module, count: int, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, width), norm, nn.Linear(width, width), deepcopy(norm), nn.Linear(width, 4))
    found = told(tmp_path, model, vectors, "constant-output")
    assert [finding.node for finding in found] == ["model.1"] * count
    assert all("over one value" in finding.summary and finding.nodes == ("model.3",) for finding in found)


class Reader(nn.Module):
    """Reads sequences, and answers from one of their ends."""

    def __init__(self, end: str) -> None:
        super().__init__()
        self.read = nn.LSTM(8, 6, batch_first=True, bidirectional=end == "last of both")
        self.leave, self.end = nn.Linear(12 if end == "last of both" else 6, 4), end

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.leave(self.read(x)[0][:, 0 if self.end == "first" else -1])


@pytest.mark.parametrize("at", ["first", "last of both", "last"])
def test_an_answer_from_the_wrong_end(at: str, tmp_path: Path) -> None:
    def data(number: int) -> Batch:
        return torch.randn(16, 5, 8, generator=torch.Generator().manual_seed(number)), torch.arange(16) % 4

    found = told(tmp_path, Reader(at), data, "ignored-input")
    assert [finding.node for finding in found] == ([] if at == "last" else ["model.read"])


class Writer(nn.Module):
    """Predicts the next letter."""

    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        self.embed, self.read = nn.Embedding(12, 8), nn.GRU(8, 8, batch_first=batch_first)
        self.leave = nn.Linear(8, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.leave(self.read(self.embed(x))[0])


@pytest.mark.parametrize("batch_first", [True, False])
def test_a_text_that_is_read_across_the_batch(batch_first: bool, tmp_path: Path) -> None:
    model = Writer(batch_first=batch_first)

    def data(number: int) -> Batch:
        words = torch.randint(12, (16, 7), generator=torch.Generator().manual_seed(number))
        return words[:, :-1], words[:, 1:]

    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x).flatten(0, 1), y.flatten()), data, steps=8)
    assert [finding.node for finding in findings(trial, "batch-leak")] == ([] if batch_first else ["model.read"])


class Asking(nn.Module):
    """A learned question in front of a sequence, read at its place; a causal mask lets it see itself only."""

    def __init__(self, *, masked: bool) -> None:
        super().__init__()
        self.question = nn.Parameter(torch.randn(1, 1, 8))
        self.mix, self.leave, self.masked = (
            nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True),
            nn.Linear(8, 4),
            masked,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([self.question.expand(len(x), -1, -1), x], 1)
        ahead = torch.ones(x.shape[1], x.shape[1]).triu(1) > 0
        return self.leave(self.mix(x, ahead if self.masked else None)[:, 0])


@pytest.mark.parametrize("masked", [True, False])
def test_a_question_that_sees_no_answer_is_no_matter_of_dead_units(masked: bool, tmp_path: Path) -> None:
    def data(number: int) -> Batch:
        return torch.randn(16, 5, 8, generator=torch.Generator().manual_seed(number)), torch.arange(16) % 4

    trial = record(tmp_path, model := Asking(masked=masked), lambda x, y: F.cross_entropy(model(x), y), data, steps=8)
    assert ("constant-output" in [finding.rule for finding in diagnose(trial)]) == masked


class Filter(nn.Module):
    """Predicts the next letter by a convolution over time."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.embed, self.leave, self.way = nn.Embedding(12, 8), nn.Linear(8, 12), way
        self.mix = nn.Conv1d(8, 8, 3, padding={"centred": 1, "cut": 2, "padded": 0}[way])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.embed(x).transpose(1, 2)
        h = self.mix(F.pad(h, (2, 0)) if self.way == "padded" else h)[:, :, : x.shape[1]]
        return self.leave(torch.relu(h).transpose(1, 2))


@pytest.mark.parametrize("way", ["centred", "cut", "padded"])
def test_a_convolution_that_sees_the_next_letter(way: str, tmp_path: Path) -> None:
    assert leaks(Filter(way), tmp_path) == (["model.mix"] if way == "centred" else [])


@pytest.mark.parametrize("both", [True, False])
def test_a_layer_that_reads_the_next_letter_from_behind(both: bool, tmp_path: Path) -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.read = nn.Embedding(12, 8), nn.GRU(8, 8, batch_first=True, bidirectional=both)
            self.leave = nn.Linear(16 if both else 8, 12)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.leave(self.read(self.embed(x))[0])

    assert leaks(Both(), tmp_path) == (["model.read"] if both else [])


@pytest.mark.parametrize("both", [True, False])
def test_a_layer_that_reads_the_next_value_of_a_series_from_behind(both: bool, tmp_path: Path) -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read = nn.LSTM(1, 8, batch_first=True, bidirectional=both)
            self.leave = nn.Linear(16 if both else 8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.leave(self.read(x)[0])

    def series(number: int) -> Batch:
        values = torch.randn(8, 10, 1, generator=torch.Generator().manual_seed(number))
        return values[:, :-1], values[:, 1:]

    model = Both()
    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), series, steps=4)
    assert [finding.node for finding in findings(trial, "future-leak")] == (["model.read"] if both else [])


def leaks(model: nn.Module, folder: Path) -> list[str]:
    def data(number: int) -> Batch:
        words = torch.randint(12, (16, 10), generator=torch.Generator().manual_seed(number))
        return words[:, :-1], words[:, 1:]

    trial = record(folder, model, lambda x, y: F.cross_entropy(model(x).flatten(0, 1), y.flatten()), data, steps=8)
    return [finding.node for finding in findings(trial, "future-leak")]


def test_the_weights_of_an_attention_are_no_moments(tmp_path: Path) -> None:
    class Weighing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.leave = nn.Embedding(12, 8), nn.Linear(8, 12)
            self.attend = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.embed(x)
            ahead = torch.ones(x.shape[1], x.shape[1]).triu(1) > 0
            return self.leave(h + self.attend(h, h, h, attn_mask=ahead)[0])

    model = Weighing()

    def data(number: int) -> Batch:
        words = torch.randint(12, (16, 10), generator=torch.Generator().manual_seed(number))
        return words[:, :-1], words[:, 1:]

    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x).flatten(0, 1), y.flatten()), data, steps=8)
    assert findings(trial, "batch-leak", "future-leak") == []
