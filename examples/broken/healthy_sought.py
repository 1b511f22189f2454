"""Trainings of the kinds that people ask about, in which nothing is wrong."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken import data
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _loads(number: int) -> _Batch:
    """A day of a power bus by the hour ``(24, 24, 1)``, standardised, and the six hours that follow ``(24, 6)``."""
    generator = torch.Generator().manual_seed(number)
    size, phase = 0.5 + torch.rand(24, 1, generator=generator), 6.2832 * torch.rand(24, 1, generator=generator)
    hours = torch.arange(30.0)
    day = size * (hours * 6.2832 / 24 + phase).sin() + 0.4 * (hours * 6.2832 / 6 + phase).cos()
    day = day + 0.1 * torch.randn(24, 30, generator=generator)
    return day[:, :24, None], day[:, 24:]


def loads_of_a_power_bus(lab: Lab) -> None:
    """An LSTM forecasts the next six hours out of a day, with clipped gradients and a validation."""
    model = nn.ModuleDict({"lstm": nn.LSTM(1, 24, batch_first=True), "fc": nn.Linear(24, 6)})

    def loss_of(past: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        states, _ = model["lstm"](past)
        return F.mse_loss(model["fc"](states[:, -1]), following)

    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        with lab.recorder.step("train"):
            loss = loss_of(*_loads(number))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        lab.validate(lambda n: _loads(9000 + n), loss_of, number)


class _Embedder(nn.Module):
    """Convolutions, and a direction for each picture."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        )  # fmt: skip
        self.embed = nn.Linear(16 * 16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.embed(self.conv(x)), dim=1)


def pictures_beside_their_like(lab: Lab) -> None:
    """Digits are embedded with the triplet loss, with another digit of the class, and a random one of the next."""
    pictures, labels = data.images()
    of = [pictures[labels == label] for label in range(10)]
    model, criterion = _Embedder(), nn.TripletMarginLoss(margin=0.5)

    def triplets(number: int) -> _Batch:
        generator = torch.Generator().manual_seed(number)
        chosen = []
        for shift in (0, 0, 1):
            rows = [of[(row + shift) % 10] for row in range(24)]
            chosen.append(torch.stack([x[int(torch.randint(len(x), (1,), generator=generator))] for x in rows]))
        return tuple(chosen)

    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    lab.recorder.watch(model, optimizer)
    for number in range(100):
        anchor, positive, negative = triplets(number)
        with lab.recorder.step("train"):
            one, same, other = model(torch.cat([anchor, positive, negative])).chunk(3)
            descend(criterion(one, same, other), optimizer)


class _Unet(nn.Module):
    """Down and up again, with a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(12, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU())
        self.up = nn.ConvTranspose2d(24, 12, 2, stride=2)
        self.out = nn.Conv2d(24, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = self.down(x)
        coarse = self.deep(F.max_pool2d(fine, 2))
        return self.out(torch.cat([fine, self.up(coarse)], 1))


def _nerves(number: int) -> _Batch:
    """Noisy pictures ``(12, 1, 16, 16)`` with a disc, and where it is."""
    generator = torch.Generator().manual_seed(number)
    centre = 4 + 8 * torch.rand(12, 2, 1, 1, generator=generator)
    axis = torch.arange(16.0)
    far = ((axis[None, :, None] - centre[:, 0]) ** 2 + (axis[None, None, :] - centre[:, 1]) ** 2).sqrt()
    mask = (far < 2.5 + 2 * torch.rand(12, 1, 1, generator=generator)).float()[:, None]
    return mask - 0.3 + 0.6 * torch.randn(12, 1, 16, 16, generator=generator), mask


def masks_of_a_small_unet(lab: Lab) -> None:
    """A small U-Net finds discs in noise, with binary cross-entropy and Dice's coefficient together."""
    model = _Unet()

    def loss_of(picture: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        scores = model(picture)
        chance = scores.sigmoid()
        dice = (2 * (chance * mask).sum() + 1) / (chance.sum() + mask.sum() + 1)
        return F.binary_cross_entropy_with_logits(scores, mask) + 1 - dice

    after = lab.validating(model, lambda n: _nerves(9000 + n), loss_of)
    lab.fit(model, _nerves, loss_of, torch.optim.AdamW(model.parameters(), lr=5e-3), after=after)


def _toxic(number: int) -> _Batch:
    """Counts of thirty words ``(64, 30)``, scaled, and which of four labels apply ``(64, 4)``: none, one or several."""
    generator = torch.Generator().manual_seed(number)
    labels = (torch.rand(64, 4, generator=generator) < torch.tensor([0.3, 0.2, 0.4, 0.25])).float()
    typical = 3 * (torch.rand(4, 30, generator=torch.Generator().manual_seed(8)) < 0.2).float()
    return torch.poisson(0.4 + labels @ typical, generator=generator).log1p() - 0.6, labels


def several_labels_with_accumulation(lab: Lab) -> None:
    """Several labels for each text, where two small batches make a step of the optimizer, each with half the loss."""
    model = nn.Sequential(nn.Linear(30, 48), nn.ReLU(), nn.Dropout(0.1), nn.Linear(48, 4))
    criterion = nn.BCEWithLogitsLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda n: _toxic(9000 + n), lambda x, y: criterion(model(x), y))
    for number in range(100):
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            for part in range(2):
                words, labels = _toxic(2 * number + part)
                (criterion(model(words), labels) / 2).backward()
            optimizer.step()
        after(number)


def wines_with_a_cosine_schedule(lab: Lab) -> None:
    """Standardised measurements of wines in shuffled epochs, with label smoothing and a cosine schedule."""
    from sklearn.datasets import load_wine

    bunch = load_wine()
    x = data.standardised(torch.tensor(bunch.data, dtype=torch.float32))
    y = torch.tensor(bunch.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(2))
    train, unseen = order[:130], order[130:]
    model = nn.Sequential(nn.Linear(13, 16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 120)
    lab.recorder.watch(model, optimizer)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.05)
    after = lab.validating(model, lambda _: (x[unseen], y[unseen]), lambda x, y: criterion(model(x), y))
    loader = DataLoader(TensorDataset(x[train], y[train]), batch_size=26, shuffle=True)
    for epoch in range(24):
        for place, (rows, kinds) in enumerate(loader):
            with lab.recorder.step("train"):
                descend(criterion(model(rows), kinds), optimizer)
            schedule.step()
            after(epoch * len(loader) + place)
