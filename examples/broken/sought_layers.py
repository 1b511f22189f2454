"""Mistakes in home-made layers, memories and rival nets, as people reported them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _textures(number: int) -> _Batch:
    """Normal surfaces, seen by a student ``(48, 12)``, and the features that a teacher gives them ``(48, 16)``."""
    fixed = torch.Generator().manual_seed(7)
    centres, features = torch.randn(10, 12, generator=fixed), torch.randn(10, 16, generator=fixed)
    generator = torch.Generator().manual_seed(number)
    kind = torch.randint(10, (48,), generator=generator)
    seen = centres[kind] + 0.3 * torch.randn(48, 12, generator=generator)
    return seen, 1.5 * features[kind] + 0.1 * torch.randn(48, 16, generator=generator)


class _Memory(nn.Module):
    """Slots that are addressed by keys, and give back a mixture of their values."""

    def __init__(self, slots: int, width: int, *, learned: bool) -> None:
        super().__init__()
        keys, values = torch.randn(slots, width), torch.randn(slots, width)  # set-up bug: memory_of_plain_tensors
        if learned:
            keys, values = nn.Parameter(keys), nn.Parameter(values)
        self.keys, self.values = keys, values

    def forward(self, query: torch.Tensor) -> torch.Tensor:
        return (query @ self.keys.T / self.keys.shape[1] ** 0.5).softmax(1) @ self.values


class _Student(nn.Module):
    """Encodes what it sees, and recalls what is normal."""

    def __init__(self, *, learned: bool) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 16))
        self.memory = _Memory(12, 16, learned=learned)

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        return self.memory(self.encoder(seen))


@broken(rules=("unregistered-parameters",), words=("plain tensor", "regist", "nn.parameter"), nodes=("model.memory",))
def memory_of_plain_tensors(lab: Lab) -> None:
    """The keys and values of a memory are plain tensors, no ``nn.Parameter``, and stay as random as they were made.

    Source: SimonThomine/RememberingNormality 7, some questions (not wrapped with ``nn.Parameter``).
    """
    student = _Student(learned=lab.fixed)

    def loss_of(seen: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(student(seen), features)

    optimizer = torch.optim.Adam(student.parameters(), lr=0.02)
    after = lab.validating(student, lambda number: _textures(9000 + number), loss_of)
    lab.fit(student, _textures, loss_of, optimizer, after=after)


class _Factored(nn.Module):
    """A linear layer whose weight is the product of two thin matrices and a core between them."""

    def __init__(self, inputs: int, outputs: int, rank: int, *, attached: bool) -> None:
        super().__init__()
        self.left = nn.Parameter(torch.randn(outputs, rank) / rank**0.5)
        self.core = nn.Parameter(torch.eye(rank) + 0.1 * torch.randn(rank, rank))
        self.right = nn.Parameter(torch.randn(rank, inputs) * (2 / inputs) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.attached = attached

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.left @ self.core @ self.right
        if not self.attached:
            weight = weight.detach()  # bug: factors_cut_from_the_graph
        return F.linear(x, weight, self.bias)


@broken(
    rules=("gradient-cut", "no-gradient"),
    words=("detach", "graph"),
    nodes=("model.0.left", "model.0.core", "model.0.right", "model.0"),
)
def factors_cut_from_the_graph(lab: Lab) -> None:
    """The weight that is made of three factors is detached from the graph, so that no gradient reaches the factors.

    Source: rballester/tntorch 3, usage with PyTorch optimizers using nn.Parameter (the graph was getting detached).
    """
    model = nn.Sequential(_Factored(64, 40, 4, attached=lab.fixed), nn.ReLU(), nn.Linear(40, 10))

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x), y)

    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3, weight_decay=1e-4)
    after = lab.validating(model, lambda _: data.unseen_pixels(), loss_of)
    lab.fit(model, data.draw(data.pixels(), 96), loss_of, optimizer, after=after)


def _sketches(number: int) -> _Batch:
    """Digits ``(48, 1, 8, 8)`` between -1 and 1, as coarse as four by four pixels, and as they are."""
    ink, _ = data.draw(data.images(), 48)(number)
    ink = 2 * (ink - ink.min()) / (ink.max() - ink.min()) - 1
    return F.interpolate(F.avg_pool2d(ink, 2), scale_factor=2), ink


class _Rivals(nn.Module):
    """A generator that fills in details, and a discriminator that sees the sketch and the picture."""

    def __init__(self, ngf: int, ndf: int) -> None:
        super().__init__()
        self.generator = nn.Sequential(
            nn.Conv2d(1, ngf, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(ngf, ngf, 3, padding=1), nn.LeakyReLU(0.2),
            nn.Conv2d(ngf, 1, 3, padding=1), nn.Tanh(),
        )  # fmt: skip
        self.discriminator = nn.Sequential(
            nn.Conv2d(2, ndf, 3, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(ndf, 2 * ndf, 3, padding=1), nn.LeakyReLU(0.2),
            nn.Conv2d(2 * ndf, 1, 3, padding=1),
        )  # fmt: skip

    def judge(self, sketch: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
        return self.discriminator(torch.cat([sketch, picture], 1))


@broken(
    rules=("gan-balance",), words=("stronger", "overpower", "capacity", "has won"), nodes=("generator", "discriminator")
)
def generator_of_two_channels(lab: Lab) -> None:
    """A generator of two channels stands against a discriminator of sixty-four, which tells its pictures with ease.

    Source: junyanz/pytorch-CycleGAN-and-pix2pix 910, loss_D zero, loss_G increasing (capacity of the two).
    """
    ngf = 24 if lab.fixed else 2  # set-up bug: generator_of_two_channels
    model = _Rivals(ngf, 32)
    forger = torch.optim.Adam(model.generator.parameters(), lr=2e-3, betas=(0.5, 0.999))
    critic = torch.optim.Adam(model.discriminator.parameters(), lr=5e-4, betas=(0.5, 0.999))
    rivals = {"generator": model.generator, "discriminator": model.discriminator}
    lab.recorder.watch(rivals, {"forger": forger, "critic": critic})
    for number in range(120):
        sketch, picture = _sketches(number)
        with lab.recorder.step("train") as step:
            forged = model.generator(sketch)
            real, fake = model.judge(sketch, picture), model.judge(sketch, forged.detach())
            loss_d = (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2
            descend(loss_d, critic)
            loss_l1 = F.l1_loss(forged, picture)
            loss_g = F.softplus(-model.judge(sketch, forged)).mean() + 10 * loss_l1
            descend(loss_g, forger)
            step.record("loss_d", loss_d, type="loss")
            step.record("loss_g", loss_g, type="loss")
        lab.validate(lambda n: _sketches(9000 + n), lambda s, p: F.l1_loss(model.generator(s), p), number)
