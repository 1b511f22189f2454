"""Mistakes in rates, schedules, first weights and augmentations, drawn from practitioners' lists of common mistakes."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _society() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Who knows whom ``(360, 360)``, normalised; noisy facts ``(360, 16)`` of them; and the club of each."""
    generator = torch.Generator().manual_seed(8)
    club = torch.randint(4, (360,), generator=generator)
    chance = torch.where(club[:, None] == club, 0.08, 0.02)
    knows = (torch.rand(360, 360, generator=generator) < chance).float().triu(1)
    knows = knows + knows.T + torch.eye(360)
    root = knows.sum(1).rsqrt()
    facts = torch.randn(360, 16, generator=generator) + 0.7 * torch.randn(4, 16, generator=generator)[club]
    return root[:, None] * knows * root, data.standardised(facts), club


class _GraphNet(nn.Module):
    """Three graph convolutions."""

    def __init__(self, graph: torch.Tensor, width: int = 24) -> None:
        super().__init__()
        self.register_buffer("graph", graph)
        self.first, self.second, self.third = nn.Linear(16, width), nn.Linear(width, width), nn.Linear(width, 4)

    def forward(self, facts: torch.Tensor) -> torch.Tensor:
        graph = self.get_buffer("graph")
        hidden = F.dropout(F.relu(graph @ self.first(facts)), 0.4, self.training)
        hidden = F.dropout(F.relu(graph @ self.second(hidden)), 0.4, self.training)
        return graph @ self.third(hidden)


@broken(
    rules=("learning-rate",),
    words=("learning rate",),
    nodes=("model.first.weight", "model.second.weight", "model.third.weight", "model.third.bias"),
)
def clubs_at_a_rate_of_one(lab: Lab) -> None:
    """Adam trains a graph network with a learning rate of 1, a hundred times too much: predictions jump about.

    Source: Karpathy, A Recipe for Training Neural Networks (2019), prediction dynamics: very high learning rates.
    """
    graph, facts, club = _society()
    model, known = _GraphNet(graph), torch.arange(260)
    rate = 0.01 if lab.fixed else 1.0  # set-up bug: clubs_at_a_rate_of_one
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, weight_decay=5e-4)

    def loss_of(facts: torch.Tensor, club: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(facts)[known], club[known])

    def unseen_loss(facts: torch.Tensor, club: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(facts)[260:], club[260:])

    after = lab.validating(model, lambda _: (facts, club), unseen_loss)
    lab.fit(model, lambda _: (facts, club), loss_of, optimizer, after=after)


def _hearts(number: int) -> _Batch:
    """Noisy heartbeats ``(32, 1, 64)``, and what they are without the noise."""
    generator = torch.Generator().manual_seed(number)
    phase = torch.arange(64) / 64 * (1.5 + 2 * torch.rand(32, 1, generator=generator))
    phase = (phase + torch.rand(32, 1, generator=generator)) % 1
    beat = 4 * (-(((phase - 0.5) / 0.06) ** 2)).exp() + (-(((phase - 0.8) / 0.1) ** 2)).exp() - 0.6
    return (beat + 0.7 * torch.randn(32, 64, generator=generator))[:, None], beat[:, None]


@broken(
    rules=("learning-rate-decay",),
    words=("schedule", "rate decay", "learning rate"), onset=24,
    nodes=("model.down.0.weight", "model.down.2.weight", "model.up.0.weight", "model.up.2.weight"),
)  # fmt: skip
def schedule_of_another_paper(lab: Lab) -> None:
    """The polynomial decay has the length that suited another data set: the rate is zero after 24 of 180 steps.

    Source: Karpathy, A Recipe for Training Neural Networks (2019), do not trust learning rate decay defaults.
    """
    down = nn.Sequential(nn.Conv1d(1, 24, 5, 2, 2), nn.GELU(), nn.Conv1d(24, 32, 5, 2, 2), nn.GELU())
    up = nn.Sequential(nn.ConvTranspose1d(32, 24, 4, 2, 1), nn.GELU(), nn.ConvTranspose1d(24, 1, 4, 2, 1))
    model = nn.Sequential()
    model.add_module("down", down)
    model.add_module("up", up)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    length = 180 if lab.fixed else 24  # set-up bug: schedule_of_another_paper
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, length, 0.9)
    lab.recorder.watch(model, optimizer)
    for number in range(180):
        noisy, clean = _hearts(number)
        with lab.recorder.step("train"):
            descend(F.mse_loss(model(noisy), clean), optimizer)
        schedule.step()
        lab.validate(lambda number: _hearts(7000 + number), lambda x, y: F.mse_loss(model(x), y), number)


class _Writer(nn.Module):
    """A small causal transformer over characters."""

    def __init__(self, letters: int, width: int = 32) -> None:
        super().__init__()
        self.letter, self.place = nn.Embedding(letters, width), nn.Embedding(data.CONTEXT, width)
        self.layer = nn.TransformerEncoderLayer(width, 4, 64, dropout=0.0, batch_first=True, norm_first=True)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, letters)

    def forward(self, letters: torch.Tensor) -> torch.Tensor:
        places = torch.arange(letters.shape[1])
        mask = nn.Transformer.generate_square_subsequent_mask(len(places))
        x = self.layer(self.letter(letters) + self.place(places), src_mask=mask, is_causal=True)
        return self.head(self.norm(x))


@broken(
    rules=("weight-scale",),
    words=("initiali", "standard deviation of 1", "first weights"),
    nodes=("model.head", "model.head.weight", "loss"),
)
def head_of_unit_normals(lab: Lab) -> None:
    """The last layer of a language model begins with unit normal weights: it is sure of what it cannot know yet.

    Source: Karpathy, A Recipe for Training Neural Networks (2019), verify loss @ init.
    """
    _, letters = data.text()
    model = _Writer(letters)
    nn.init.normal_(model.head.weight, std=0.02 if lab.fixed else 1.0)  # set-up bug: head_of_unit_normals
    nn.init.zeros_(model.head.bias)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)

    def loss_of(letters: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(letters).flatten(0, 1), following.flatten())

    after = lab.validating(model, lambda number: data.characters()(5000 + number), loss_of)
    lab.fit(model, data.characters(), loss_of, optimizer, after=after)


def _molecules(number: int) -> _Batch:
    """Sets of eight atoms with five properties each ``(48, 8, 5)``, and when they boil ``(48, 1)``: around 50."""
    generator = torch.Generator().manual_seed(number)
    atoms = torch.randn(48, 8, 5, generator=generator)
    boils = 50 + 4 * (atoms[..., 0] * atoms[..., 1]).mean(1) + 2 * atoms[..., 2].relu().sum(1) - 6.4
    return atoms, (boils + 0.2 * torch.randn(48, generator=generator))[:, None]


class _DeepSet(nn.Module):
    """What each atom adds, and what follows from their sum."""

    def __init__(self, *, mean: float) -> None:
        super().__init__()
        self.atom = nn.Sequential(nn.Linear(5, 32), nn.SiLU(), nn.Linear(32, 32), nn.SiLU())
        self.all = nn.Sequential(nn.Linear(32, 32), nn.SiLU())
        self.out = nn.Linear(32, 1)
        nn.init.constant_(self.out.bias, mean)  # set-up bug: boiling_points_from_zero

    def forward(self, atoms: torch.Tensor) -> torch.Tensor:
        return self.out(self.all(self.atom(atoms).mean(1)))


@broken(
    rules=("target-scale",),
    words=("mean of the target", "last bias", "bias of the last", "centre", "offset"),
    nodes=("model.out", "model.out.bias", "target"),
)
def boiling_points_from_zero(lab: Lab) -> None:
    """The last bias starts at 0, although what is predicted lies around 50: the whole run is spent on getting there.

    Source: Karpathy, A Recipe for Training Neural Networks (2019), init well: a mean of 50, a final bias of 50.
    """
    model = _DeepSet(mean=50.0 if lab.fixed else 0.0)
    criterion = nn.SmoothL1Loss()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    after = lab.validating(model, lambda number: _molecules(6000 + number), lambda x, y: criterion(model(x), y))
    lab.fit(model, _molecules, lambda atoms, boils: criterion(model(atoms), boils), optimizer, after=after)


def _turned(images: torch.Tensor, most: float, generator: torch.Generator) -> torch.Tensor:
    """Each image turned by an angle of its own, up to ``most`` either way."""
    angle = most * (2 * torch.rand(len(images), generator=generator) - 1)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    turns = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    grid = F.affine_grid(turns, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


class _Separable(nn.Module):
    """Convolutions within each channel, and then across them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.depth = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs)
        self.point, self.norm = nn.Conv2d(inputs, outputs, 1), nn.GroupNorm(4, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.silu(self.norm(self.point(self.depth(x))))


@broken(words=("rotat", "turned", "radian", "angle", "augment"), nodes=("input",))
def turned_by_twelve_radians(lab: Lab) -> None:
    """The augmentation turns digits by up to 12 radians where degrees were meant: they lie in any direction.

    Source: Karpathy, A Recipe for Training Neural Networks (2019), visualize just before the net.
    """
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.SiLU(), nn.MaxPool2d(2), _Separable(12, 32), nn.Flatten(),
        nn.Linear(512, 10),
    )  # fmt: skip
    draw = data.draw(data.images())
    most = math.radians(12) if lab.fixed else 12.0  # set-up bug: turned_by_twelve_radians

    def batches(number: int) -> _Batch:
        images, labels = draw(number)
        turned = _turned(images, most, torch.Generator().manual_seed(number))
        return turned, labels

    def loss_of(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(images), labels)

    x, y = data.unseen_pixels()
    after = lab.validating(model, lambda _: (x.view(-1, 1, 8, 8), y), loss_of)
    lab.fit(model, batches, loss_of, torch.optim.Adam(model.parameters(), 3e-3), after=after)
