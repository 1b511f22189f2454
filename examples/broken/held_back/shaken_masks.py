"""Mistakes in nets for masks, graphs and likeness, drawn by dice from published collections of training bugs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]
_AXIS = torch.arange(16.0)


class _Block(nn.Sequential):
    """Two convolutions."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        around = kernel // 2
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, padding=around), nn.ReLU(),
            nn.Conv2d(outputs, outputs, kernel, padding=around), nn.ReLU(),
        )  # fmt: skip


class _Unet(nn.Module):
    """Down twice and up again, with shortcuts."""

    def __init__(self, inputs: int, kernel: int = 3) -> None:
        super().__init__()
        self.fine, self.middle = _Block(inputs, 8, kernel), _Block(8, 16, kernel)
        self.deep = _Block(16, 24, kernel)
        self.up2, self.up1 = nn.ConvTranspose2d(24, 16, 2, 2), nn.ConvTranspose2d(16, 8, 2, 2)
        self.join2, self.join1 = _Block(32, 16, kernel), _Block(16, 8, kernel)
        self.out = nn.Conv2d(8, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = self.fine(x)
        middle = self.middle(F.max_pool2d(fine, 2))
        deep = self.deep(F.max_pool2d(middle, 2))
        joined = self.join2(torch.cat([middle, self.up2(deep)], 1))
        return self.out(self.join1(torch.cat([fine, self.up1(joined)], 1)))


def _lakes(number: int) -> _Batch:
    """Noisy aerial pictures ``(12, 2, 16, 16)`` of round lakes, with their height, and where the lakes are."""
    generator = torch.Generator().manual_seed(number)
    centre = 4 + 8 * torch.rand(12, 2, 1, 1, generator=generator)
    far = ((_AXIS[None, :, None] - centre[:, 0]) ** 2 + (_AXIS[None, None, :] - centre[:, 1]) ** 2).sqrt()
    lake = (far < 4 + 3 * torch.rand(12, 1, 1, generator=generator)).float()[:, None]
    noise = torch.randn(12, 2, 16, 16, generator=generator)
    return torch.cat([1.2 * lake - 0.5, 0.4 - lake], 1) + 0.8 * noise, lake


def _initialise(model: nn.Module, gain: float) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.orthogonal_(module.weight, gain)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


@broken(
    rules=("weight-scale",), words=("initialis", "initializ"), nodes=("model", "model.fine", "model.deep", "model.out")
)
def lakes_of_a_hundredth(lab: Lab) -> None:
    """All layers of a U-Net are initialised with the gain 0.01 of a policy's last layer, far too small to learn.

    Source: Karpathy's recipe and list, init of the weights with the wrong gain.
    """
    model = _Unet(2)
    gain = nn.init.calculate_gain("relu") if lab.fixed else 0.01  # set-up bug: lakes_of_a_hundredth
    _initialise(model, gain)

    def loss_of(picture: torch.Tensor, lake: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(model(picture), lake)

    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    after = lab.validating(model, lambda number: _lakes(9000 + number), loss_of)
    lab.fit(model, _lakes, loss_of, optimizer, after=after)


def _fields(number: int) -> _Batch:
    """Pictures ``(12, 1, 16, 16)`` of two fields, one ploughed along and one across, and where the latter is."""
    generator = torch.Generator().manual_seed(number)
    phase = 6.2832 * torch.rand(12, 2, 1, 1, generator=generator)
    along = (2.1 * _AXIS[None, :, None] + phase[:, 0]).sin().expand(-1, -1, 16)
    across = (2.1 * _AXIS[None, None, :] + phase[:, 1]).sin().expand(-1, 16, -1)
    angle = 6.2832 * torch.rand(12, 1, 1, generator=generator)
    side = angle.cos() * (_AXIS[None, :, None] - 7.5) + angle.sin() * (_AXIS[None, None, :] - 7.5)
    there = (side > 0).float()
    soil = 1.3 * torch.where(there > 0, across, along) + 0.4 * torch.randn(12, 16, 16, generator=generator)
    return soil[:, None], there[:, None]


@broken(
    rules=("pointwise-filters",),
    words=("kernel", "neighbour", "1x1", "receptive"),
    nodes=("model", "model.fine", "model.middle"),
)
def fields_seen_by_single_pixels(lab: Lab) -> None:
    """The convolutions of a U-Net have kernels of one pixel, which cannot see in which direction a field is ploughed.

    Source: DeepDiagnosis, wrong kernel or pool size.
    """
    kernel = 3 if lab.fixed else 1  # set-up bug: fields_seen_by_single_pixels
    model = _Unet(1, kernel)
    criterion = nn.BCEWithLogitsLoss()

    def loss_of(soil: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        return criterion(model(soil), there)

    after = lab.validating(model, lambda number: _fields(9000 + number), loss_of)
    lab.fit(model, _fields, loss_of, torch.optim.Adam(model.parameters(), lr=4e-3), after=after)


def _vessels(number: int) -> _Batch:
    """Noisy pictures ``(12, 1, 16, 16)`` of two vessels that wind from side to side, and where they are."""
    generator = torch.Generator().manual_seed(number)
    middle = torch.tensor([4.0, 11.0])[:, None] + 1.5 * torch.randn(12, 2, 1, generator=generator)
    swing = 2.5 * torch.rand(12, 2, 1, generator=generator)
    path = middle + swing * (0.5 * _AXIS + 6.2832 * torch.rand(12, 2, 1, generator=generator)).sin()
    vessel = ((_AXIS[:, None] - path[:, :, None, :]).abs() < 1.6).any(1).float()[:, None]
    return 1.6 * (vessel - 0.4) + 0.6 * torch.randn(12, 1, 16, 16, generator=generator), vessel


@broken(rules=("learning-rate",), words=("learning rate", "sgd", "momentum"), nodes=("optimizer",))
def vessels_by_plain_descent(lab: Lab) -> None:
    """A U-Net without norms is trained by plain SGD as it comes, which hardly moves its deep layers in time.

    Source: DeepLocalize and DeepFD, SGD by default on an ill-scaled problem.
    """
    model = _Unet(1)
    parameters = list(model.parameters())
    method = torch.optim.AdamW if lab.fixed else torch.optim.SGD  # set-up bug: vessels_by_plain_descent
    optimizer = method(parameters, lr=3e-3)
    lab.recorder.watch(model, optimizer)

    def loss_of(picture: torch.Tensor, vessel: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(model(picture), vessel)

    for number in range(150):
        picture, vessel = _vessels(number)
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            loss = loss_of(picture, vessel)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 5.0)
            optimizer.step()
        lab.validate(lambda n: _vessels(9000 + n), loss_of, number)


class _Tower(nn.Module):
    """What both pictures of a pair go through."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.embed = nn.Linear(64, 64), nn.Linear(64, 32), nn.Linear(32, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.embed(torch.tanh(self.fc2(torch.tanh(self.fc1(x)))))


def _pairs(table: data.Table, number: int) -> _Batch:
    """Pairs of digits ``(64, 64)``, and whether they are of one class ``(64,)``: every other one is."""
    x, y = table
    generator = torch.Generator().manual_seed(number)
    one = torch.randint(len(x), (64,), generator=generator)
    chance = torch.rand(64, len(x), generator=generator)
    alike = y[one][:, None] == y[None, :]
    same = torch.arange(64) % 2 == 0
    other = torch.where(alike == same[:, None], chance, torch.zeros(1)).argmax(1)
    return x[one], x[other], same.float()


@broken(
    rules=("saturated-activation", "weight-scale"),
    words=("saturat", "initialis", "initializ"),
    nodes=("model.fc1", "model.fc2", "model"),
)
def towers_of_normal_weights(lab: Lab) -> None:
    """The weights of a siamese net with tanh are drawn with standard deviation 1, and its units are saturated.

    Source: DeepDiagnosis, saturated activation: initial weights too large.
    """
    model = _Tower()
    for layer in (model.fc1, model.fc2, model.embed):
        spread = layer.in_features**-0.5 if lab.fixed else 1.0  # set-up bug: towers_of_normal_weights
        nn.init.normal_(layer.weight, std=spread)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    table, unseen = data.pixels(), data.unseen_pixels()

    def loss_of(one: torch.Tensor, other: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
        far = (model(one) - model(other)).norm(dim=1)
        return (same * far**2 + (1 - same) * F.relu(2.0 - far) ** 2).mean()

    after = lab.validating(model, lambda number: _pairs(unseen, number), loss_of)
    lab.fit(model, lambda number: _pairs(table, number), loss_of, optimizer, after=after)


def _friends(number: int) -> _Batch:
    """A graph of 60 people in three circles: features ``(60, 8)``, normalised links ``(60, 60)``, circles ``(60,)``."""
    generator = torch.Generator().manual_seed(number)
    circle = torch.arange(60) % 3
    chance = torch.where(circle[:, None] == circle[None, :], 0.25, 0.04)
    links = (torch.rand(60, 60, generator=generator) < chance).float().triu(1)
    links = links + links.T + torch.eye(60)
    scale = links.sum(1).rsqrt()
    typical = torch.randn(3, 8, generator=torch.Generator().manual_seed(5))
    person = (0.7 * typical[circle] + torch.randn(60, 8, generator=generator)) / 1.2
    return person, scale[:, None] * links * scale[None, :], circle


class _Graph(nn.Module):
    """Two layers that mix what linked people tell."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 32), nn.Linear(32, 32)
        self.head = nn.Linear(32, 3)

    def forward(self, x: torch.Tensor, links: torch.Tensor) -> torch.Tensor:
        x = F.relu(links @ self.first(x))
        return self.head(F.relu(links @ self.second(x)))


@broken(rules=("learning-rate",), words=("learning rate", "step size"), nodes=("optimizer",))
def circles_at_three_tenths(lab: Lab) -> None:
    """Adam trains a graph net at the learning rate 0.3, thirty times what it can bear.

    Source: UMLAUT, learning rate too high.
    """
    model = _Graph()
    lr = 0.01 if lab.fixed else 0.3  # set-up bug: circles_at_three_tenths
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    lab.recorder.watch(model, optimizer)

    def loss_of(person: torch.Tensor, links: torch.Tensor, circle: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(person, links), circle)

    for number in range(140):
        batch = _friends(number)
        with lab.recorder.step("train"):
            descend(loss_of(*batch), optimizer)
        lab.validate(lambda n: _friends(9000 + n), loss_of, number)
