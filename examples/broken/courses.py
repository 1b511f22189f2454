"""Mistakes with what runs in time or along edges: series, their gaps and scales, streams, and graphs."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab
from stepscope.examples.broken.nets import mlp


def _tides(number: int, *, length: int, batch: int = 48) -> torch.Tensor:
    """Waves ``(batch, length)`` of one to three hours' pace and any height, with a little noise."""
    generator = torch.Generator().manual_seed(number)
    pace = 0.3 + 0.9 * torch.rand(batch, 1, generator=generator)
    start = 6.3 * torch.rand(batch, 1, generator=generator)
    wave = 1.4 * (start + pace * torch.arange(length)).sin()
    return wave + 0.05 * torch.randn(batch, length, generator=generator)


class _Outlook(nn.Module):
    """Reads sixteen moments of a series, and then says the six that follow."""

    def __init__(self, *, handed_over: bool, width: int = 32) -> None:
        super().__init__()
        self.read, self.write = nn.GRU(1, width, batch_first=True), nn.GRU(6, width, batch_first=True)
        self.head = nn.Linear(width, 1)
        self.handed_over = handed_over

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        _, state = self.read(series[:, :, None])
        moments = torch.eye(6).expand(len(series), 6, 6)
        following, _ = self.write(moments, state if self.handed_over else None)  # bug: state_of_the_reader_dropped
        return self.head(following)[:, :, 0]


@broken(
    rules=("no-gradient", "gradient-cut", "ignored-input"),
    words=("no gradient", "never used", "not connected", "ignor", "does not depend"),
    nodes=("model.read", "model.read.weight_ih_l0", "model.read.weight_hh_l0"),
)  # fmt: skip
def state_of_the_reader_dropped(lab: Lab) -> None:
    """The decoder is not given the encoder's last state, and starts from zeros: it knows nothing of what was read.

    Source: PyTorch forum on encoders and decoders; Humbatova et al. (ICSE 2020), wrong connection of layers.
    """
    model = _Outlook(handed_over=lab.fixed)

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        wave = _tides(number, length=22)
        return wave[:, :16], wave[:, 16:]

    lab.fit(model, batches, lambda series, following: F.smooth_l1_loss(model(series), following), lr=1e-2)


class _Back(nn.Module):
    """A convolution padded on both sides, of whose outputs those that saw too much are cropped."""

    def __init__(self, inputs: int, outputs: int, gap: int, *, wrong_end: bool) -> None:
        super().__init__()
        self.convolve = nn.Conv1d(inputs, outputs, 3, dilation=gap, padding=2 * gap)
        self.rest, self.wrong_end = 2 * gap, wrong_end

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.convolve(x)
        return x[:, :, self.rest :] if self.wrong_end else x[:, :, : -self.rest]  # bug: cropped_at_the_wrong_end


@broken(
    rules=("future-leak",),
    words=("future", "causal", "later position", "later moment"),
    nodes=("model.0", "model.2", "model.4"),
)  # fmt: skip
def cropped_at_the_wrong_end(lab: Lab) -> None:
    """A temporal convolutional net crops the first moments of its padded outputs, not the last: it sees what follows.

    Source: locuslab/TCN issues 8 and 12 on what is cropped, unit8co/darts issue 480, time-series-machine-learning 12.
    """
    wrong = not lab.fixed
    model = nn.Sequential(
        _Back(1, 24, 1, wrong_end=wrong), nn.ReLU(), _Back(24, 24, 2, wrong_end=wrong), nn.ReLU(),
        _Back(24, 24, 4, wrong_end=wrong), nn.ReLU(), nn.Conv1d(24, 1, 1),
    )  # fmt: skip

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        series = _tides(number, length=33)
        steps = torch.randn(48, 33, generator=torch.Generator().manual_seed(number))
        return (series + 0.3 * steps.cumsum(1))[:, None, :-1], (series + 0.3 * steps.cumsum(1))[:, None, 1:]

    lab.fit(model, batches, lambda series, following: F.mse_loss(model(series), following), lr=5e-3)


class _Gauge(nn.Module):
    """Says the next value of a series."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.read, self.head = nn.LSTM(1, width, batch_first=True), nn.Linear(width, 1)

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        return self.head(self.read(series[:, :, None])[0][:, -1])[:, 0]


def _filled(series: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
    """Each missing value is that of the last moment that was measured."""
    moments = torch.arange(series.shape[1]).expand_as(series)
    last = moments.masked_fill(missing, 0).cummax(1).values
    return series.gather(1, last)


@broken(
    rules=("targets-equal-inputs", "future-leak"),
    words=("equal the input", "leak", "among the inputs", "same as the input", "future"),
    nodes=("input", "target"),
)  # fmt: skip
def gaps_filled_from_what_follows(lab: Lab) -> None:
    """Gaps are filled with the next value (``bfill``): where the last moments are missing, that is the target itself.

    Source: StackOverflow on bfill and leakage in time series; Kaufman et al. (2012), leakage in data mining.
    """
    model = _Gauge()

    def known(number: int, *, back: bool) -> tuple[torch.Tensor, ...]:
        wave = _tides(number, length=17)
        missing = torch.rand(48, 17, generator=torch.Generator().manual_seed(number)) < 0.6
        missing[:, 0] = missing[:, -1] = False
        if back:
            return _filled(wave.flip(1), missing.flip(1)).flip(1)[:, :-1], wave[:, -1]
        return _filled(wave, missing)[:, :-1], wave[:, -1]

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        return known(number, back=not lab.fixed)  # set-up bug: gaps_filled_from_what_follows

    def loss_of(series: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(series), following)

    def after(number: int) -> None:
        lab.validate(lambda number: known(10_000 + number, back=False), loss_of, number)

    lab.fit(model, batches, loss_of, lr=1e-2, after=after)


@broken(
    rules=("target-scale", "unrelated-targets"),
    words=("standardi", "normali", "not scaled"),
    nodes=("target", "input"),
)  # fmt: skip
def windows_standardised_without_their_targets(lab: Lab) -> None:
    """Each window is brought to mean 0 and deviation 1 by itself, and its target is not: no input tells its level.

    Source: StackOverflow and PyTorch forum on MinMaxScaler per window; Humbatova et al. (ICSE 2020), preprocessing.
    """
    model = mlp(16, 48, 48, 1)

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(number)
        size, level = 0.5 + torch.rand(48, 1, generator=generator), 2 * torch.randn(48, 1, generator=generator)
        wave = level + size * _tides(number, length=17)
        window, following = wave[:, :-1], wave[:, -1:]
        mean, spread = window.mean(1, keepdim=True), window.std(1, keepdim=True)
        wanted = (following - mean) / spread if lab.fixed else following
        return (window - mean) / spread, wanted  # set-up bug: windows_standardised_without_their_targets

    lab.fit(model, batches, lambda window, wanted: F.l1_loss(model(window), wanted), lr=5e-3)


class _Rounds(nn.Module):
    """Two rounds of messages along edges ``(2, n)``, from the first of each to the second."""

    def __init__(self, features: int = 4, width: int = 32) -> None:
        super().__init__()
        self.say = nn.ModuleList([nn.Linear(features, width), nn.Linear(width, width)])
        self.stay = nn.ModuleList([nn.Linear(features, width), nn.Linear(width, width)])
        self.head = nn.Linear(width, 1)

    def forward(self, vertices: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        for say, stay in zip(self.say, self.stay, strict=True):
            said = say(vertices)
            heard = torch.zeros_like(said).index_add(0, edges[1], said[edges[0]])
            vertices = (stay(vertices) + heard).relu()
        return self.head(vertices)[:, 0]


@broken(
    rules=("batch-leak",),
    words=("other samples", "edges", "same vertices", "offset"),
    nodes=("input.edges", "model"),
)  # fmt: skip
def edges_numbered_from_zero_in_each_graph(lab: Lab) -> None:
    """Sixteen graphs make a batch, and the edges of each still count from 0: all messages go to the first graph.

    Source: pyg-team/pytorch_geometric issues 31 and 1827; GMCF issue 6, where indices are not increased in a batch.
    """
    model = _Rounds()

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(number)
        vertices = torch.randn(16, 8, 4, generator=generator)
        near = torch.rand(16, 8, 8, generator=generator) < 0.3
        graph, source, goal = near.nonzero(as_tuple=True)
        heard = (near.float().transpose(1, 2) @ vertices[:, :, :1])[:, :, 0] + vertices[:, :, 1]
        first = 8 * graph if lab.fixed else 0  # set-up bug: edges_numbered_from_zero_in_each_graph
        return vertices.flatten(0, 1), torch.stack([first + source, first + goal]), heard.flatten()

    lab.fit(model, batches, lambda vertices, edges, heard: F.mse_loss(model(vertices, edges), heard), lr=1e-2)


class _Friends(nn.Module):
    """Three graph convolutions over adjacency matrices ``(batch, n, n)``, normalised on both sides."""

    def __init__(self, *, safe: bool, width: int = 24) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, width), nn.Linear(width, width), nn.Linear(width, 3)])
        self.safe = safe

    def forward(self, people: torch.Tensor, near: torch.Tensor) -> torch.Tensor:
        degree = near.sum(2).clamp(min=1) if self.safe else near.sum(2)
        share = degree.pow(-0.5)  # bug: someone_without_any_friend
        for layer in self.layers:
            people = layer(people + share[:, :, None] * (near @ (share[:, :, None] * people))).tanh()
        return 3 * people


@broken(
    rules=("non-finite",),
    words=("infinit", "division", "divided"),
    nodes=("model", "input.near"), onset=124,
)  # fmt: skip
def someone_without_any_friend(lab: Lab) -> None:
    """A graph convolution divides by the root of each vertex' degree, which is zero for one that comes in step 124.

    Source: stellargraph issue 1015, MrLeeeee/GCN-GAT-and-Graphsage issue 3, pytorch_geometric issue 1129.
    """
    model = _Friends(safe=lab.fixed)

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(number)
        near = (torch.rand(12, 10, 10, generator=generator) < 0.4).triu(1).float()
        near[:, torch.arange(10), torch.arange(1, 11) % 10] = 1.0
        near = (near + near.transpose(1, 2)).clamp(max=1)
        if number >= 124:
            lonely = number % 12
            near[lonely, 3], near[lonely, :, 3] = 0.0, 0.0
        people = torch.randn(12, 10, 6, generator=generator)
        return people, near, (people + near @ people / 3)[:, :, :3].argmax(2)

    def loss_of(people: torch.Tensor, near: torch.Tensor, kind: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(people, near).flatten(0, 1), kind.flatten())

    replace(lab, steps=220).fit(model, batches, loss_of, lr=1e-2)


class _Crowd(nn.Module):
    """Four layers, each of which gathers what all neighbours say; the answer is about the whole graph."""

    def __init__(self, *, averaged: bool, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(5 if first else width, width) for first in (True, False, False, False)])
        self.head = nn.Linear(width, 2)
        self.averaged = averaged

    def forward(self, vertices: torch.Tensor, near: torch.Tensor) -> torch.Tensor:
        if self.averaged:
            near = near / near.sum(2, keepdim=True)
        for layer in self.layers:
            vertices = layer(near @ vertices).relu()  # bug: neighbours_summed_in_a_crowd
        return self.head(vertices.mean(1))


@broken(
    rules=("exploding-gradient", "growing-signal"),
    words=("grow", "explod", "larger with each", "normali"),
    nodes=("input.near", "model.layers.0", "model.layers.1", "model.layers.2", "model.layers.3"),
)  # fmt: skip
def neighbours_summed_in_a_crowd(lab: Lab) -> None:
    """The adjacency matrix is not normalised: each of four layers sums thirty neighbours, and values grow with each.

    Source: Emory-Melody/GraphSlim issue 4, tkipf/pygcn issue 21; Kipf and Welling (2017) on renormalisation.
    """
    model = _Crowd(averaged=lab.fixed)

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(number)
        near = (torch.rand(32, 40, 40, generator=generator) < 0.75).float() + torch.eye(40)
        kind = torch.randint(2, (32,), generator=generator)
        vertices = torch.randn(32, 40, 5, generator=generator) + 0.5 * (2 * kind[:, None, None] - 1) * torch.eye(5)[2]
        return vertices, near, kind

    lab.fit(model, batches, lambda vertices, near, kind: F.cross_entropy(model(vertices, near), kind))


class _Narrator(nn.Module):
    """A recurrent net over letters."""

    def __init__(self, letters: int, width: int = 64) -> None:
        super().__init__()
        self.embed, self.read = nn.Embedding(letters, 32), nn.GRU(32, width, batch_first=True)
        self.head = nn.Linear(width, letters)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        return self.head(self.read(self.embed(text))[0])


@broken(
    rules=("repeated-batch",),
    words=("same batch", "same in every", "repeat", "identical batch"),
    nodes=("input", "target"), onset=121,
)  # fmt: skip
def stream_that_repeats_its_last_batch(lab: Lab) -> None:
    """The stream of texts ends at step 120, and its wrapper goes on to give the batch that it read last.

    Source: Humbatova et al. (ICSE 2020), wrong use of the data loader; PyTorch forum on IterableDataset at its end.
    """
    _, count = data.text()
    model, letters = _Narrator(count), data.characters(24)

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        return letters(number if lab.fixed else min(number, 120))  # set-up bug: stream_that_repeats_its_last_batch

    def loss_of(text: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(text).flatten(0, 1), following.flatten())

    def after(number: int) -> None:
        lab.validate(lambda number: letters(10_000 + number), loss_of, number)

    replace(lab, steps=270).fit(model, batches, loss_of, lr=1e-2, after=after)
