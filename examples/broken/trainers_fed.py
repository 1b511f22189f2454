"""Mistakes in what a training is fed with, and in when its gradients and its dropout act."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


class _Forecaster(nn.Module):
    """Reads twenty values of a series and says the next one."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.read = nn.GRU(1, width, num_layers=2, batch_first=True)
        self.say = nn.Linear(width, 1)

    def forward(self, past: torch.Tensor) -> torch.Tensor:
        states, _ = self.read(past)
        return self.say(states[:, -1])


def _waves(number: int) -> _Batch:
    """Sums of two waves at other speeds: twenty moments ``(32, 20, 1)``, and the next value ``(32, 1)``."""
    generator = torch.Generator().manual_seed(number)
    speed, phase = torch.rand(2, 32, 1, generator=generator)
    moments = torch.arange(21.0)
    wave = ((0.2 + 0.3 * speed) * moments + 6.28 * phase).sin() + 0.5 * (0.9 * moments + 6.28 * speed).cos()
    return wave[:, :20, None], wave[:, 20:]


class _Trainer:
    """Trains a model for an epoch at a time."""

    def __init__(self, lab: Lab, model: nn.Module) -> None:
        self.lab, self.model = lab, model
        self.optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        self.schedule = torch.optim.lr_scheduler.StepLR(self.optimizer, step_size=2, gamma=0.7)
        lab.recorder.watch(model, self.optimizer)

    def train_epoch(self, epoch: int) -> None:
        for number in range(50 * epoch, 50 * epoch + 50):
            past, following = _waves(number)
            with self.lab.recorder.step("train"):
                if self.lab.fixed:
                    self.optimizer.zero_grad()
                loss = F.mse_loss(self.model(past), following)
                loss.backward()  # set-up bug: epochs_without_clearing
                self.optimizer.step()
        self.schedule.step()


@broken(
    rules=("accumulated-gradients",), words=("zero_grad",),
    nodes=("model.read.weight_ih_l0", "model.read.weight_hh_l1", "model.say.weight"),
)  # fmt: skip
def epochs_without_clearing(lab: Lab) -> None:
    """A trainer class for a forecast never clears the gradients, which add up over all its epochs.

    Source: TrainCheck (OSDI 2025), stackoverflow-60335387.
    """
    trainer = _Trainer(lab, _Forecaster())
    for epoch in range(4):
        trainer.train_epoch(epoch)


class _Worker:
    """A process that cuts random pieces out of a text; it begins with a copy of its parent's random numbers."""

    def __init__(self, letters: torch.Tensor, seed: int) -> None:
        self.letters, self.generator = letters, torch.Generator().manual_seed(seed)

    def batch(self, rows: int, length: int) -> _Batch:
        start = torch.randint(len(self.letters) - length - 1, (rows, 1), generator=self.generator)
        piece = self.letters[start + torch.arange(length + 1)]
        return piece[:, :-1], piece[:, 1:]


class _Loader:
    """Four workers that are started anew in each epoch of five batches, and each give a quarter of a batch."""

    def __init__(self, letters: torch.Tensor, *, seeded: bool) -> None:
        self.letters, self.seeded = letters, seeded
        self.workers: list[_Worker] = []

    def __call__(self, number: int) -> _Batch:
        if number % 5 == 0:
            first = 4 * number if self.seeded else 0
            step = 1 if self.seeded else 0
            self.workers = [
                _Worker(self.letters, first + step * w) for w in range(4)
            ]  # set-up bug: workers_of_one_seed
        texts, following = zip(*(worker.batch(8, 32) for worker in self.workers), strict=True)
        return torch.cat(texts), torch.cat(following)


class _Letters(nn.Module):
    """Causal convolutions over letters."""

    def __init__(self, letters: int, width: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(letters, width)
        self.layers = nn.ModuleList(nn.Conv1d(width, 2 * width, 3, dilation=d) for d in (1, 2, 4))
        self.head = nn.Conv1d(width, letters, 1)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        x = self.embed(text).transpose(1, 2)
        for layer, reach in zip(self.layers, (1, 2, 4), strict=True):
            x = x + F.glu(layer(F.pad(x, (2 * reach, 0))), dim=1)
        return self.head(x)


@broken(
    rules=("duplicate-samples", "repeated-batch", "repeated-randomness"),
    words=("same sample", "identical", "copies", "same batch", "seed"), nodes=("input", "target"),
)  # fmt: skip
def workers_of_one_seed(lab: Lab) -> None:
    """All workers of the loader begin each epoch with the same random numbers, and cut out the same pieces of text.

    Source: TrainCheck (OSDI 2025), stackoverflow-67180955 (workers of a DataLoader share the seed of NumPy).
    """
    letters, kinds = data.text()
    model = _Letters(kinds)
    loader = _Loader(letters[:150_000], seeded=lab.fixed)
    unseen = _Worker(letters[150_000:], 1).batch(64, 32)
    after = lab.validating(model, lambda _: unseen, lambda text, following: F.cross_entropy(model(text), following))
    lab.fit(model, loader, lambda text, following: F.cross_entropy(model(text), following), lr=4e-3, after=after)


class _Attention(nn.Module):
    """Self-attention by the fused function."""

    def __init__(self, width: int, *, always: bool) -> None:
        super().__init__()
        self.mixed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.always = always

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = (part.unflatten(2, (1, -1)).transpose(1, 2) for part in self.mixed(x).chunk(3, dim=2))
        dropped = 0.4 if self.training or self.always else 0.0
        seen = F.scaled_dot_product_attention(query, key, value, dropout_p=dropped)  # bug: fused_attention_always_drops
        return self.out(seen.transpose(1, 2).flatten(2))


class _Lookup(nn.Module):
    """Reads pairs of a letter and a number, then a letter, and says the number that stood with it."""

    def __init__(self, *, always: bool, width: int = 64) -> None:
        super().__init__()
        self.letters, self.numbers = nn.Embedding(12, width), nn.Embedding(11, width)
        self.norm, self.attention = nn.LayerNorm(width), _Attention(width, always=always)
        self.head = nn.Linear(width, 10)

    def forward(self, letters: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        x = self.letters(letters) + self.numbers(numbers)
        return self.head((x + self.attention(self.norm(x)))[:, -1])


def _pairs(number: int) -> _Batch:
    """Eight letters with their numbers and one of them again ``(128, 9)``, its number left out, and that number."""
    generator = torch.Generator().manual_seed(number)
    letters = torch.rand(128, 12, generator=generator).argsort(1)[:, :8]
    numbers = torch.randint(10, (128, 8), generator=generator)
    asked = torch.randint(8, (128, 1), generator=generator)
    asked_for = torch.full((128, 1), 10)
    return (
        torch.cat([letters, letters.gather(1, asked)], 1),
        torch.cat([numbers, asked_for], 1),
        numbers.gather(1, asked)[:, 0],
    )


@broken(rules=("dropout-mode",), words=("dropout",), nodes=("model.attention",), onset=30)
def fused_attention_always_drops(lab: Lab) -> None:
    """The fused attention is given its chance of dropout in evaluation, too, as it knows nothing of the mode.

    Source: TrainCheck (OSDI 2025), transformers-33844 (dropout of FlashAttention2 in evaluation mode).
    """
    model = _Lookup(always=not lab.fixed)

    def loss_of(letters: torch.Tensor, numbers: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(letters, numbers), answer)

    after = lab.validating(model, lambda number: _pairs(9000 + number), loss_of)
    lab.fit(model, _pairs, loss_of, torch.optim.AdamW(model.parameters(), 3e-3), after=after)


def _station(rows: int = 3000) -> torch.Tensor:
    """Temperature, pressure and wind of a weather station by the hour ``(3000, 3)``."""
    generator = torch.Generator().manual_seed(4)
    hours = torch.arange(float(rows))
    slow = torch.randn(rows, generator=generator).cumsum(0)
    slow = (slow - slow.mean()) / slow.std()
    warm = (hours * 6.2832 / 24).sin() + 0.5 * slow
    noise = 0.2 * torch.randn(rows, 3, generator=generator)
    return torch.stack([warm, slow, warm.roll(3) - slow], dim=1) + noise


@broken(rules=("non-finite",), words=("missing",), nodes=("input",), onset=58)
def hours_that_the_station_was_down(lab: Lab) -> None:
    """Some hours of the weather station are missing (NaN), and the windows with them are not left out.

    Source: UMLAUT (CHI 2021), check_nan_in_loss: NaN in the input.
    """
    hours = _station()
    hours[1730:1733, 1] = float("nan")
    starts = torch.arange(len(hours) - 24)
    if lab.fixed:
        starts = starts[~hours.unfold(0, 25, 1).isnan().flatten(1).any(1)]
    model = nn.ModuleDict({"reader": nn.LSTM(3, 24, batch_first=True), "head": nn.Linear(24, 1)})
    optimizer = torch.optim.RMSprop(model.parameters(), 3e-3)
    lab.recorder.watch(model, optimizer)
    order = torch.Generator().manual_seed(5)
    for _ in range(lab.steps):
        rows = starts[torch.randint(len(starts), (8, 1), generator=order)]
        windows = hours[rows + torch.arange(25)]  # set-up bug: hours_that_the_station_was_down
        with lab.recorder.step("train"):
            states, _ = model["reader"](windows[:, :24])
            descend(F.mse_loss(model["head"](states[:, -1]), windows[:, 24, :1]), optimizer)
