"""Mistakes about which dimension is which: classes or width, samples or moments, one moment or the next."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab

Batch = tuple[torch.Tensor, ...]


@broken(
    rules=("softmax-over-batch",), words=("over another dimension", "wrong dim"), nodes=("model", "model.2", "loss")
)
def classes_over_the_width(lab: Lab) -> None:
    """The log-softmax of a segmentation is taken over the last dimension, which is the width of the picture.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong API usage; PyTorch forum, dim of softmax in segmentation.
    """
    model = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 3, 3, padding=1))
    pictures = data.draw(data.images(), 32)

    def batches(number: int) -> Batch:
        x, _ = pictures(number)
        return x, (x[:, 0] > 0).long() + (x[:, 0] > 1).long()

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        logs = F.log_softmax(model(x), dim=1 if lab.fixed else -1)
        return F.nll_loss(logs, y)  # bug: classes_over_the_width

    lab.fit(model, batches, loss_of)


class BothEnds(nn.Module):
    """Reads sequences in both directions; may put the two final states side by side by a view alone."""

    def __init__(self, *, viewed: bool) -> None:
        super().__init__()
        self.read, self.head = nn.GRU(4, 24, batch_first=True, bidirectional=True), nn.Linear(48, 4)
        self.viewed = viewed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, last = self.read(x)
        if self.viewed:
            return self.head(last.view(len(x), -1))  # bug: final_states_viewed
        return self.head(last.transpose(0, 1).flatten(1))


@broken(
    rules=("batch-leak",), words=("mixes", "other samples", "transpos"), nodes=("model.read", "model.head", "model")
)
def final_states_viewed(lab: Lab) -> None:
    """The final states (2, batch, width) of both directions are viewed as (batch, 2 * width), which mixes samples.

    Source: PyTorch forum, how to join the states of a bidirectional layer; Karpathy's recipe, view instead of permute.
    """
    model = BothEnds(viewed=not lab.fixed)
    lab.fit(model, data.sequences(6), lambda x, y: F.cross_entropy(model(x), y), lr=1e-2)


class FirstOrLast(nn.Module):
    """Answers from the first or from the last moment of what a recurrent layer gives."""

    def __init__(self, *, first: bool) -> None:
        super().__init__()
        self.embed, self.read, self.head = nn.Embedding(10, 16), nn.LSTM(16, 24, batch_first=True), nn.Linear(24, 10)
        self.first = first

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        states, _ = self.read(self.embed(words))  # bug: answer_before_the_reading
        return self.head(states[:, 0 if self.first else -1])


@broken(
    rules=("ignored-input", "no-gradient"), words=("first moment",),
    nodes=("model.read", "model.read.weight_hh_l0", "model.head"),
)  # fmt: skip
def answer_before_the_reading(lab: Lab) -> None:
    """The answer is taken from the first moment of a recurrent layer, which has read one word by then.

    Source: StackOverflow, which index of an LSTM's output is the last one; Humbatova et al. (ICSE 2020), wrong tensor.
    """
    model = FirstOrLast(first=not lab.fixed)

    def batches(number: int) -> Batch:
        words = torch.randint(10, (32, 8), generator=torch.Generator().manual_seed(number))
        return words, words[:, -1]

    lab.fit(model, batches, lambda words, y: F.cross_entropy(model(words), y), lr=5e-3)


class Encoder(nn.Module):
    """A transformer that says which word came first; may read the samples of a batch as if they were moments."""

    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        self.embed, self.places = nn.Embedding(20, 32), nn.Parameter(0.1 * torch.randn(12, 32))
        self.mix = nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=batch_first)
        self.head = nn.Linear(32, 4)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        mixed = self.mix(self.embed(words) + self.places)  # bug: encoder_without_batch_first
        return self.head(mixed.mean(1))


@broken(
    rules=("batch-leak",), words=("samples influence", "batch_first"),
    nodes=("model.mix.self_attn", "model.mix", "model.embed"),
)  # fmt: skip
def encoder_without_batch_first(lab: Lab) -> None:
    """A transformer's layer lacks batch_first=True, so that the samples of a batch attend to each other.

    Source: PyTorch issue 25100 and forum threads on the order of dimensions in nn.Transformer.
    """
    model = Encoder(batch_first=lab.fixed)

    def batches(number: int) -> Batch:
        words = torch.randint(20, (32, 12), generator=torch.Generator().manual_seed(number))
        return words, words[:, 0] // 5

    lab.fit(model, batches, lambda words, y: F.cross_entropy(model(words), y))


class Waves(nn.Module):
    """Predicts the next character by a convolution over time, which pads on the left or on both sides."""

    def __init__(self, characters: int, *, centred: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(characters, 32)
        self.mix = nn.Conv1d(32, 64, 5, padding=2 if centred else 4)
        self.head = nn.Linear(64, characters)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        mixed = self.mix(self.embed(text).transpose(1, 2))  # bug: convolution_sees_what_follows
        return self.head(F.relu(mixed[:, :, : text.shape[1]]).transpose(1, 2))


@broken(rules=("future-leak",), words=("future", "causal"), nodes=("model.mix", "model.embed"))
def convolution_sees_what_follows(lab: Lab) -> None:
    """A convolution over the characters of a text pads both ends alike, so that it sees those it has to predict.

    Source: WaveNet's causal convolutions (van den Oord et al., 2016); PyTorch forum, causal padding of Conv1d.
    """
    _, count = data.text()
    model = Waves(count, centred=not lab.fixed)
    lab.fit(
        model, data.characters(),
        lambda text, following: F.cross_entropy(model(text).flatten(0, 1), following.flatten()), lr=5e-3,
    )  # fmt: skip
