"""Mistakes with numbers: roots, logarithms, gaps, how they are kept, and in how few; as people ask about them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import VALIDATE_EVERY, Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _parcels(number: int) -> _Batch:
    """Pictures ``(32, 1, 16, 16)`` of one parcel, and its centre and the roots of its sizes, as shares of the width."""
    generator = torch.Generator().manual_seed(number)
    size = 0.15 + 0.35 * torch.rand(32, 2, generator=generator)
    centre = size / 2 + (1 - size) * torch.rand(32, 2, generator=generator)
    grid = (torch.arange(16) + 0.5) / 16
    inside = (8 * size[:, :, None] - 16 * (grid - centre[:, :, None]).abs() + 0.5).clamp(0, 1)
    pictures = inside[:, 1, :, None] * inside[:, 0, None, :]
    noisy = 2 * pictures + 0.2 * torch.randn(32, 16, 16, generator=generator) - 0.3
    return noisy[:, None], torch.cat([centre, size.sqrt()], dim=1)


class _Yolo(nn.Module):
    """Convolutions, and four numbers for the only parcel."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1), nn.LeakyReLU(0.1), nn.Conv2d(12, 16, 3, stride=2, padding=1),
            nn.LeakyReLU(0.1), nn.Conv2d(16, 24, 3, stride=2, padding=1), nn.LeakyReLU(0.1), nn.Flatten(),
        )  # fmt: skip
        self.hidden, self.box = nn.Linear(384, 64), nn.Linear(64, 4)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.box(F.leaky_relu(self.hidden(self.features(pictures)), 0.1))


@broken(rules=("non-finite",), words=("root", "sqrt"), nodes=("loss", "model.box", "model"))
def roots_of_what_may_be_negative(lab: Lab) -> None:
    """The loss takes the square root of predicted widths and heights, and about half of these are below zero.

    Source: issue search, loss is nan from the first step: LoveHRTF/YouOnlyLookOnce-TF2.0, pull request 14.
    """
    model = _Yolo()

    def loss_of(pictures: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
        centre, size = model(pictures).split(2, dim=1)
        roots = size if lab.fixed else size.sqrt()  # bug: roots_of_what_may_be_negative
        return 5 * F.mse_loss(centre, box[:, :2]) + 5 * F.mse_loss(roots, box[:, 2:])

    after = lab.validating(model, lambda number: _parcels(7000 + number), loss_of)
    lab.fit(model, _parcels, loss_of, torch.optim.Adam(model.parameters(), lr=2e-3), after=after)


def _birds(number: int) -> _Batch:
    """Power of 32 frequencies in 20 frames ``(32, 20, 32)``, and which of four songs it is."""
    generator = torch.Generator().manual_seed(number)
    song = torch.randint(4, (32,), generator=generator)
    start = 8 + 12 * torch.rand(32, 1, generator=generator)
    moments = torch.linspace(0, 1, 20)
    sweep = torch.stack([6 * moments, -6 * moments, 3 * (12 * moments).sin(), 0 * moments])[song]
    tone = (-(torch.arange(32.0) - (start + sweep)[:, :, None]).square() / 2).exp()
    loudness = 0.5 + 2 * torch.rand(32, 1, 1, generator=generator)
    return loudness * tone + 0.4 * torch.rand(32, 20, 32, generator=generator), song


class _FilterBank(nn.Module):
    """Learned bands, that begin as triangles, and the logarithms of their energies."""

    def __init__(self, *, keep_positive: bool) -> None:
        super().__init__()
        self.keep_positive = keep_positive
        peaks = torch.linspace(2, 29, 14)[:, None]
        self.bands = nn.Linear(32, 14, bias=False)
        self.bands.weight.data = (1 - (torch.arange(32.0) - peaks).abs() / 2.5).clamp(min=0)

    def forward(self, power: torch.Tensor) -> torch.Tensor:
        energy = self.bands(power)
        if self.keep_positive:
            energy = F.relu(energy) + 1e-2
        return torch.log(energy)  # bug: logarithm_of_learned_energies


class _Songs(nn.Module):
    """A filter bank, a recurrent net over the frames, and the song."""

    def __init__(self, *, keep_positive: bool) -> None:
        super().__init__()
        self.bank, self.norm = _FilterBank(keep_positive=keep_positive), nn.LayerNorm(14)
        self.gru, self.head = nn.GRU(14, 32, batch_first=True), nn.Linear(32, 4)

    def forward(self, power: torch.Tensor) -> torch.Tensor:
        states, _ = self.gru(self.norm(self.bank(power)))
        return self.head(states.mean(1))


@broken(rules=("non-finite",), words=("logarithm", "log of", "log("), nodes=("model.bank", "model.bank.bands"), onset=7)
def logarithm_of_learned_energies(lab: Lab) -> None:
    """A net takes the logarithm of energies of learned bands, and nothing keeps these above zero once weights move.

    Source: page search, loss becomes nan after some epochs: "loss becoming NaN due to using torch.log()".
    """
    model = _Songs(keep_positive=lab.fixed)

    def loss_of(power: torch.Tensor, song: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(power), song)

    after = lab.validating(model, lambda number: _birds(5000 + number), loss_of)
    lab.fit(model, _birds, loss_of, torch.optim.Adam(model.parameters(), lr=2e-3), after=after)


_MOVES = torch.randn(5, 3, 3, generator=torch.Generator().manual_seed(11))


def _wrists(number: int) -> _Batch:
    """What a wrist does in 48 moments along three axes ``(64, 3, 48)``, and which of five activities it is."""
    generator = torch.Generator().manual_seed(number)
    activity = torch.randint(5, (64,), generator=generator)
    phase = 6.2832 * torch.rand(64, 1, 1, generator=generator)
    pace = (0.25 + 0.12 * activity)[:, None, None] * (0.95 + 0.1 * torch.rand(64, 1, 1, generator=generator))
    angle = pace * torch.arange(48.0) + phase
    weights = _MOVES[activity]
    swing = weights[:, :, :1] * angle.sin() + weights[:, :, 1:2] * (2 * angle).cos() + 0.3 * weights[:, :, 2:]
    return 0.8 * swing + 0.5 * torch.randn(64, 3, 48, generator=generator), activity


class _Activities(nn.Module):
    """Convolutions along time, and a score for each activity."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv1d(3, 24, 7, stride=2, padding=3, bias=False), nn.BatchNorm1d(24)
        self.conv2, self.norm2 = nn.Conv1d(24, 32, 5, stride=2, padding=2, bias=False), nn.BatchNorm1d(32)
        self.scores = nn.Linear(32, 5)

    def forward(self, moves: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm1(self.conv1(moves)))
        return self.scores(F.relu(self.norm2(self.conv2(x))).mean(2))


@broken(
    rules=("unbounded-loss",), words=("log_softmax", "log-softmax", "log-probabilit", "log probabilit"),
    nodes=("loss", "model.scores", "model"),
)  # fmt: skip
def scores_taken_for_log_probabilities(lab: Lab) -> None:
    """The negative log-likelihood is taken of raw scores: without a log-softmax it falls below zero for ever.

    Source: page search, loss goes below zero: codestudyblog.com 80409021901, F.nll_loss of the output.
    """
    model = _Activities()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    lab.recorder.watch(model, optimizer)

    def loss_of(moves: torch.Tensor, activity: torch.Tensor) -> torch.Tensor:
        scores = model(moves)
        if lab.fixed:
            scores = F.log_softmax(scores, dim=1)
        return F.nll_loss(scores, activity)  # bug: scores_taken_for_log_probabilities

    for number in range(lab.steps):
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            loss = loss_of(*_wrists(number))
            loss.backward()
            optimizer.step()
        model.eval()
        lab.validate(lambda number: _wrists(3000 + number), loss_of, number)
        model.train()


def _cells(rows: int, seed: int) -> data.Table:
    """Twelve readings of battery cells ``(rows, 12)``, standardised, and the capacity that is left ``(rows, 1)``."""
    generator = torch.Generator().manual_seed(seed)
    readings = torch.randn(rows, 12, generator=generator)
    weights = torch.randn(12, generator=torch.Generator().manual_seed(4)) / 3
    left = (readings @ weights).tanh() + 0.4 * readings[:, 0] * readings[:, 1]
    return readings, (left + 0.1 * torch.randn(rows, generator=generator))[:, None]


@broken(rules=("non-finite",), words=("missing",), nodes=("input", "model.0"), onset=23)
def one_reading_is_missing(lab: Lab) -> None:
    """A single reading out of eighteen thousand is missing (NaN), and its row was not left out of the table.

    Source: issue search, all outputs identical: keras-team/keras 6447, "there is one NaN value in my dataset".
    """
    readings, left = _cells(1500, 0)
    readings[617, 5] = float("nan")
    if lab.fixed:
        complete = readings.isfinite().all(1)  # set-up bug: one_reading_is_missing
        readings, left = readings[complete], left[complete]
    model = nn.Sequential(nn.Linear(12, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4 * 46)
    loader = DataLoader(TensorDataset(readings, left), 32, shuffle=True, drop_last=True)
    lab.recorder.watch(model, optimizer)
    unseen = _cells(300, 1)
    for _ in range(4):
        for rows, capacity in loader:
            with lab.recorder.step("train"):
                descend(F.smooth_l1_loss(model(rows), capacity), optimizer)
            schedule.step()
        with torch.no_grad(), lab.recorder.step("validation") as step:
            step.record("loss", F.smooth_l1_loss(model(unseen[0]), unseen[1]), type="loss")


def _student() -> nn.Module:
    """A net that has learned digits where they are centred, before anything is recorded."""
    model = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 256), nn.GELU(), nn.Linear(256, 10))
    optimizer, batches = torch.optim.Adam(model.parameters(), lr=2e-3), data.draw(data.pixels())
    for number in range(150):
        x, y = batches(number)
        descend(F.cross_entropy(model(x), y), optimizer)
    return model


@broken(
    rules=("rounded-updates",), words=("bfloat16", "precision", "rounded", "rounding"),
    nodes=("model", "model.0.weight", "model.2.weight"),
)  # fmt: skip
def weights_kept_in_bfloat16(lab: Lab) -> None:
    """The whole net is cast to bfloat16 for fine-tuning, whose eight bits swallow updates of a ten-thousandth.

    Source: issue search, bfloat16 gives worse results than float32: tianweiy/CausVid 19.
    """
    model = _student()
    if not lab.fixed:
        model = model.to(torch.bfloat16)  # set-up bug: weights_kept_in_bfloat16
    (x, y), (unseen, labels) = data.pixels(), data.unseen_pixels()
    shifted, unseen = (rows.view(-1, 8, 8).roll(1, 2).flatten(1) for rows in (x, unseen))
    batches = data.draw((shifted, y), 128)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        images, digits = batches(number)
        with lab.recorder.step("train"), torch.autocast("cpu", dtype=torch.bfloat16):
            descend(F.cross_entropy(model(images).float(), digits), optimizer)
        if number % VALIDATE_EVERY == VALIDATE_EVERY - 1:
            with torch.no_grad(), lab.recorder.step("validation") as step, torch.autocast("cpu", dtype=torch.bfloat16):
                step.record("loss", F.cross_entropy(model(unseen).float(), labels), type="loss")


@broken(words=("two neurons", "two units", "narrow", "capacity", "bottleneck"), nodes=("model.hidden", "model"))
def two_neurons_for_ten_digits(lab: Lab) -> None:
    """The hidden layer has two sigmoid neurons, through which ten digits cannot be told from each other.

    Source: issue search, accuracy stays at chance: sachin-101/Machine-Learning-by-Andrew-Ng 1, too few neurons.
    """
    width = 48 if lab.fixed else 2  # set-up bug: two_neurons_for_ten_digits
    model = nn.Sequential()
    model.add_module("hidden", nn.Linear(64, width))
    model.add_module("squash", nn.Sigmoid())
    model.add_module("out", nn.Linear(width, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9, weight_decay=1e-4)
    loader = DataLoader(TensorDataset(*data.pixels()), 48, shuffle=True, drop_last=True)
    unseen, labels = data.unseen_pixels()
    lab.recorder.watch(model, optimizer)
    for _ in range(6):
        for pixels, digits in loader:
            with lab.recorder.step("train"):
                descend(F.cross_entropy(model(pixels), digits), optimizer)
        with torch.no_grad(), lab.recorder.step("validation") as step:
            scores = model(unseen)
            step.record("loss", F.cross_entropy(scores, labels), type="loss")
            step.record("accuracy", (scores.argmax(1) == labels).float().mean())
