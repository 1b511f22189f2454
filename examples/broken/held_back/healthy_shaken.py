"""Trainings of unusual but sound practice, in which nothing is wrong."""

from __future__ import annotations

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _unseen(_: int) -> _Batch:
    x, y = data.unseen_pixels()
    return x.view(-1, 1, 8, 8), y


class _Gated(nn.Module):
    """A residual block whose branch is scaled by a number that starts at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.scale = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.scale * self.conv2(F.relu(self.conv1(x)))


def branches_that_begin_at_nothing(lab: Lab) -> None:
    """A residual net without norms, whose branches are switched off at first by scales of zero, learns digits."""
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), *(_Gated(12) for _ in range(4)), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(192, 10),
    )  # fmt: skip
    scales = [p for name, p in model.named_parameters() if name.endswith("scale")]
    others = [p for name, p in model.named_parameters() if not name.endswith("scale")]
    optimizer = torch.optim.AdamW(
        [{"params": others, "lr": 3e-3, "weight_decay": 1e-3}, {"params": scales, "lr": 1e-2, "weight_decay": 0.0}]
    )

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x), y)

    after = lab.validating(model, _unseen, loss_of)
    lab.fit(model, data.draw(data.images(), 32), loss_of, optimizer, after=after)


def pupils_of_their_own_average(lab: Lab) -> None:
    """A net predicts what the moving average of itself makes of another view; the average gets no gradient."""
    width = 32
    student = nn.Sequential(nn.Linear(64, 96), nn.BatchNorm1d(96), nn.ReLU(), nn.Linear(96, width))
    predictor = nn.Sequential(nn.Linear(width, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, width))
    teacher = deepcopy(student).requires_grad_(False)
    probe = nn.Linear(width, 10)
    trained = [*student.parameters(), *predictor.parameters(), *probe.parameters()]
    optimizer = torch.optim.Adam(trained, lr=2e-3)
    models = {"student": student, "predictor": predictor, "teacher": teacher, "probe": probe}
    lab.recorder.watch(models, optimizer)
    batches = data.draw(data.pixels())
    for number in range(150):
        x, y = batches(number)
        with lab.recorder.step("train"):
            loss = torch.zeros(())
            views = [x + 0.4 * torch.randn_like(x) for _ in range(2)]
            for one, other in (views, views[::-1]):
                said = predictor(student(one))
                loss = loss - F.cosine_similarity(said, teacher(other).detach()).mean()
            descend(loss + F.cross_entropy(probe(student(x).detach()), y), optimizer)
            with torch.no_grad():
                for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
                    slow.lerp_(fast, 0.02)
        student.eval()
        lab.validate(lambda _: data.unseen_pixels(), lambda x, y: F.cross_entropy(probe(student(x)), y), number)
        student.train()


class _Codebook(nn.Module):
    """Gives the nearest of its vectors, and lets the gradient pass as if it had given back what it was given."""

    def __init__(self, entries: int, width: int) -> None:
        super().__init__()
        self.entries = nn.Parameter(0.5 * torch.randn(entries, width))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        nearest = self.entries[torch.cdist(x.detach(), self.entries.detach()).argmin(-1)]
        commitment = F.mse_loss(nearest, x.detach()) + 0.25 * F.mse_loss(x, nearest.detach())
        return x + (nearest - x).detach(), commitment


class _Quantised(nn.Module):
    """Eight groups of four numbers between encoder and decoder, each group one of the vectors of a codebook."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 32))
        self.codebook = _Codebook(32, 4)
        self.decoder = nn.Sequential(nn.Linear(32, 96), nn.ReLU(), nn.Linear(96, 64))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        code, commitment = self.codebook(self.encoder(x).unflatten(1, (8, 4)))
        return self.decoder(code.flatten(1)), commitment


def groups_from_a_codebook(lab: Lab) -> None:
    """An autoencoder with vector quantisation and straight-through gradients learns digits."""
    model = _Quantised()

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        restored, commitment = model(x)
        return F.mse_loss(restored, x) + commitment

    after = lab.validating(model, lambda _: data.unseen_pixels(), loss_of)
    lab.fit(model, data.draw(data.pixels()), loss_of, torch.optim.Adam(model.parameters(), lr=3e-3), after=after)


def _rivers(number: int) -> _Batch:
    """The height of a river ``(96, 1)`` and, on one of two branches with little noise, its width ``(96, 1)``."""
    generator = torch.Generator().manual_seed(number)
    x = 2 * torch.rand(96, 1, generator=generator) - 1
    side = 2.0 * (torch.rand(96, 1, generator=generator) < 0.5) - 1
    return 1.7 * x, side * (0.7 + 0.5 * (3 * x).sin()) + 0.05 * torch.randn(96, 1, generator=generator)


def densities_below_zero(lab: Lab) -> None:
    """A mixture of densities learns two branches, and its negative log likelihood falls below zero, as it may."""
    last = nn.Linear(48, 12)
    nn.init.uniform_(last.bias, -1.0, 1.0)
    model = nn.Sequential(nn.Linear(1, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh(), last)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        share, mean, log_spread = model(x).chunk(3, dim=1)
        log_spread = 0.5 * log_spread.clamp(-7, 3)
        log_density = -0.5 * ((y - mean) / log_spread.exp()) ** 2 - log_spread - 0.919
        return -(share.log_softmax(1) + log_density).logsumexp(1).mean()

    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=250)
    lab.recorder.watch(model, optimizer)
    for number in range(250):
        batch = _rivers(number)
        with lab.recorder.step("train"):
            loss = loss_of(*batch)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        schedule.step()
        lab.validate(lambda n: _rivers(9000 + n), loss_of, number)


class _Waves(nn.Module):
    """Random waves that are never trained, and a net that is given them."""

    def __init__(self) -> None:
        super().__init__()
        self.waves = nn.Linear(2, 64).requires_grad_(False)
        nn.init.normal_(self.waves.weight, std=4.0)
        nn.init.uniform_(self.waves.bias, 0.0, 6.2832)
        self.body = nn.Sequential(nn.Linear(64, 48), nn.SiLU(), nn.Linear(48, 1))

    def forward(self, place: torch.Tensor) -> torch.Tensor:
        return self.body(1.414 * self.waves(place).sin())


def _relief(number: int) -> _Batch:
    """Places on a map ``(128, 2)``, from -1 to 1, and how high they are ``(128, 1)``, standardised."""
    place = 2 * torch.rand(128, 2, generator=torch.Generator().manual_seed(number)) - 1
    height = (5 * place[:, :1]).sin() * (4 * place[:, 1:]).cos() + (7 * place.sum(1, keepdim=True)).sin()
    return place, height / 0.87


def heights_by_frozen_waves(lab: Lab) -> None:
    """A field over coordinates is learnt out of random Fourier features, whose layer is frozen on purpose."""
    model = _Waves()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=5e-3)

    def loss_of(place: torch.Tensor, height: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(place), height)

    after = lab.validating(model, lambda number: _relief(9000 + number), loss_of)
    lab.fit(model, _relief, loss_of, optimizer, after=after)
