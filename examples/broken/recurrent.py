"""Mistakes with sequences: lengths, order, states that outlive their sequence, windows that see too much."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Batches, Lab
from stepscope.examples.broken.nets import mlp

LONGEST = 10


def _of_many_lengths(number: int) -> tuple[torch.Tensor, ...]:
    """Sequences ``(48, 10, 4)`` of 2 to 8 moments, padded with zeros; their lengths; the class their last one tells."""
    generator = torch.Generator().manual_seed(number)
    lengths = torch.randint(2, 9, (48,), generator=generator)
    x = torch.randn(48, LONGEST, 4, generator=generator)
    x = x * (torch.arange(LONGEST) < lengths[:, None])[:, :, None]
    return x, lengths, x[torch.arange(48), lengths - 1].argmax(1)


class Packed(nn.Module):
    """Reads padded sequences up to their lengths; may answer from the last place instead of the last moment."""

    def __init__(self, *, last_place: bool) -> None:
        super().__init__()
        self.read, self.head = nn.GRU(4, 24, batch_first=True), nn.Linear(24, 4)
        self.last_place = last_place

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.read(packed)[0], batch_first=True, total_length=LONGEST)
        if self.last_place:
            return self.head(states[:, -1])  # bug: answer_from_the_padding
        return self.head(states[torch.arange(len(x)), lengths - 1])


@broken(
    rules=("constant-output", "ignored-input"), words=("padding",),
    nodes=("model.head", "model.read", "model"),
)  # fmt: skip
def answer_from_the_padding(lab: Lab) -> None:
    """The answer is read at ``[:, -1]`` of padded sequences, where a packed recurrent layer leaves only zeros.

    Source: PyTorch forum, how to get the last output of a packed sequence; taxonomy of Humbatova et al. (ICSE 2020).
    """
    model = Packed(last_place=not lab.fixed)
    lab.fit(
        model, _of_many_lengths, lambda x, lengths, y: F.cross_entropy(model(x, lengths), y), lr=1e-2
    )  # fmt: skip


@broken(
    rules=("unrelated-targets",), words=("other samples", "do not belong"), nodes=("target", "input", "loss"),
)  # fmt: skip
def sorted_by_length_without_the_labels(lab: Lab) -> None:
    """Sequences are sorted by length, as packing once wanted it, and their labels are not.

    Source: PyTorch forum and StackOverflow on pack_padded_sequence, which wants sequences sorted.
    """
    model = Packed(last_place=False)

    def sorted_batches(number: int) -> tuple[torch.Tensor, ...]:
        x, lengths, y = _of_many_lengths(number)
        order = lengths.argsort(descending=True)
        return x[order], lengths[order], y[order] if lab.fixed else y  # set-up bug: sorted_by_length_without_the_labels

    lab.fit(model, sorted_batches, lambda x, lengths, y: F.cross_entropy(model(x, lengths), y), lr=1e-2)


@broken(
    words=("carried over", "not reset", "kept from", "step before", "earlier step"),
    nodes=("model.read", "input", "model"),
)  # fmt: skip
def state_carried_to_other_sequences(lab: Lab) -> None:
    """The hidden state of the last batch is where the next one begins, though its sequences are others.

    Source: Keras issue 1870 and char-rnn issue 78, states that are not reset; cudnn.torch issue 348.
    """
    model = nn.ModuleDict({"read": nn.GRU(1, 24, batch_first=True), "head": nn.Linear(24, 1)})
    state: torch.Tensor | None = None

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        x = 2 * torch.rand(64, 5, 1, generator=torch.Generator().manual_seed(number)) - 1
        return x, x.sum(1)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        nonlocal state
        states, last = model["read"](x, None if lab.fixed else state)  # bug: state_carried_to_other_sequences
        state = last.detach()
        return F.mse_loss(model["head"](states[:, -1]), y)

    lab.fit(model, batches, loss_of, lr=5e-3)


class TimeFirst(nn.Module):
    """A recurrent layer that wants the time first, or the batch."""

    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        self.read = nn.GRU(4, 24, batch_first=batch_first)
        self.head = nn.Linear(24, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, _ = self.read(x)  # bug: batch_first_forgotten
        return self.head(states[:, -1])


@broken(
    rules=("batch-leak",),
    words=("batch_first", "samples influence", "mixes", "across the batch", "other samples"),
    nodes=("model.read", "model", "input"),
)  # fmt: skip
def batch_first_forgotten(lab: Lab) -> None:
    """The recurrent layer lacks batch_first: it reads through the samples of a batch as if they were moments.

    Source: pytorch-tutorial issues 89 and 196, where this makes a net for digits guess; pytorch/pytorch issue 1538.
    """
    model = TimeFirst(batch_first=lab.fixed)
    lab.fit(model, data.sequences(6), lambda x, y: F.cross_entropy(model(x), y), lr=1e-2)


class Reader(nn.Module):
    """Predicts the next character with a recurrent layer."""

    def __init__(self, characters: int, width: int = 48) -> None:
        super().__init__()
        self.embed, self.read = nn.Embedding(characters, width), nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, characters)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        return self.head(self.read(self.embed(text))[0])


@broken(
    rules=("unrelated-targets",), words=("another order", "transpos", "other samples"), nodes=("target", "loss"),
)  # fmt: skip
def targets_flattened_in_another_order(lab: Lab) -> None:
    """Scores are flattened text by text and targets place by place, so that each score meets another one's target.

    Source: StackOverflow on cross_entropy of sequences, view of transposed tensors; Humbatova et al. (ICSE 2020).
    """
    _, count = data.text()
    model = Reader(count)

    def loss_of(text: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        target = following if lab.fixed else following.T
        return F.cross_entropy(model(text).flatten(0, 1), target.flatten())  # bug: targets_flattened_in_another_order

    lab.fit(model, data.characters(), loss_of, lr=5e-3)


def _windows(*, ahead: int, length: int = 12) -> Batches:
    """Pieces ``(64, 12)`` of noisy waves, which end ``ahead`` moments too late, and the moment after them."""

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(number)
        speed = 0.3 + 0.7 * torch.rand(64, 1, generator=generator)
        start = 6 * torch.rand(64, 1, generator=generator)
        wave = (start + speed * torch.arange(length + 1)).sin()
        wave = wave + 0.3 * torch.randn(64, length + 1, generator=generator)
        return wave[:, ahead : ahead + length], wave[:, length:]

    return batches


@broken(
    rules=("targets-equal-inputs", "future-leak"), words=("leak", "equal the input", "copy of", "same as the input"),
    nodes=("input", "target"),
)  # fmt: skip
def window_contains_its_target(lab: Lab) -> None:
    """The window that a forecast is made from ends one moment too late, and contains what is to be forecast.

    Source: pytorch-forecasting issue 182, featuretools issues 2227 and 2731: look-ahead by one.
    """
    model = mlp(12, 48, 48, 1)
    batches = _windows(ahead=0 if lab.fixed else 1)  # set-up bug: window_contains_its_target
    lab.fit(model, batches, lambda x, y: F.mse_loss(model(x), y))


class Remembers(nn.Module):
    """A cell that is called for each moment, over ``(batch, time, 4)``."""

    def __init__(self, *, cut: bool) -> None:
        super().__init__()
        self.cell, self.head, self.cut = nn.GRUCell(4, 24), nn.Linear(24, 4), cut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = x.new_zeros(len(x), 24)
        for moment in x.unbind(1):
            if self.cut:
                state = state.detach()  # bug: state_cut_off_at_every_moment
            state = self.cell(moment, state)
        return self.head(state)


@broken(
    rules=("gradient-cut", "vanishing-gradient"), words=("detach", "cut off"), nodes=("model.cell", "model")
)  # fmt: skip
def state_cut_off_at_every_moment(lab: Lab) -> None:
    """The state is detached at each moment instead of once a sequence: the cell cannot learn what to remember.

    Source: PyTorch forum, where to detach in truncated backpropagation through time; TrainCheck (OSDI 2025).
    """
    model = Remembers(cut=not lab.fixed)
    lab.fit(model, data.sequences(5), lambda x, y: F.cross_entropy(model(x), y), lr=1e-2)
