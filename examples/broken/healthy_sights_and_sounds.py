"""Training runs on pictures and sounds in which nothing is wrong, though some of it looks so."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from stepscope.examples.broken import data
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _knocks(number: int) -> _Batch:
    """Sounds ``(32, 320)`` of one to four knocks, some of them recorded far away, and how many less one ``(32,)``."""
    generator = torch.Generator().manual_seed(number)
    knocks = torch.randint(4, (32,), generator=generator)
    start = 40 * torch.rand(32, 1, generator=generator)
    time = torch.arange(320.0) - start
    beat = time.remainder(65)
    heard = (-beat / 12).exp() * (0.9 * beat).sin() * ((time >= 0) & (time < 65 * (1 + knocks[:, None])))
    loudness = 0.05 + 1.5 * torch.rand(32, 1, generator=generator)
    return loudness * heard + 0.002 * torch.randn(32, 320, generator=generator), knocks


class _Ear(nn.Module):
    """Hears the logarithm of the power in windows of 32, and misses a few moments and bands while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.even = nn.InstanceNorm1d(17)
        self.body = nn.Sequential(
            nn.Conv1d(17, 32, 3, padding=1), nn.BatchNorm1d(32), nn.SiLU(), nn.Conv1d(32, 32, 3, stride=2), nn.SiLU()
        )
        self.head = nn.Linear(32, 4)

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        power = torch.fft.rfft(sound.unfold(1, 32, 16) * torch.hann_window(32)).abs().square()
        heard = self.even((power + 1e-5).log().transpose(1, 2))
        if self.training:
            band, moment = torch.randint(15, ()), torch.randint(17, ())
            missed = torch.ones_like(heard)
            missed[:, band : band + 2] = 0
            missed[:, :, moment : moment + 2] = 0
            heard = heard * missed
        return self.head(self.body(heard).mean(2))


def knocks_counted(lab: Lab) -> None:
    """Knocks are counted from spectrograms of which bands and moments are masked; loudness does not matter here."""
    model = _Ear()

    def loss_of(sound: torch.Tensor, knocks: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(sound), knocks)

    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    lab.fit(
        model, _knocks, loss_of, optimizer, after=lab.validating(model, lambda number: _knocks(5000 + number), loss_of)
    )


def _body() -> nn.Sequential:
    """Convolutions that learned to read digits."""
    body = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(),
    )  # fmt: skip
    head = nn.Linear(128, 10)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], 5e-3)
    batches = data.draw(data.images())
    for number in range(80):
        x, y = batches(4000 + number)
        descend(F.cross_entropy(head(body(x)), y), optimizer)
    return body


def unfrozen_from_above(lab: Lab) -> None:
    """A pretrained body is unfrozen layer by layer, from the last one on, each with a rate of its own."""
    model = nn.ModuleDict({"body": _body(), "head": nn.Linear(128, 10)})
    model["body"].requires_grad_(False)
    optimizer = torch.optim.Adam(model["head"].parameters(), 5e-3)
    x, y = data.images()

    def after(number: int) -> None:
        layer = {79: "3", 139: "0"}.get(number)
        if layer is not None:
            parameters = list(model["body"].get_submodule(layer).requires_grad_(True).parameters())
            optimizer.add_param_group({"params": parameters, "lr": 1e-3 if layer == "3" else 3e-4})

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model["head"](model["body"](x)), y)

    replace(lab, steps=220).fit(model, data.draw((x.rot90(1, (2, 3)), y)), loss_of, optimizer, after=after)


class _Restorer(nn.Module):
    """Finds the direction from noise to picture, for a time between 0 and 1."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.enter, self.when = nn.Linear(64, width), nn.Linear(1, width)
        self.middle, self.leave = nn.Linear(width, width), nn.Linear(width, 64)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        hidden = F.gelu(self.enter(x) * (1 + self.when(time)))
        return self.leave(hidden + F.gelu(self.middle(hidden)))


def straight_ways_from_noise(lab: Lab) -> None:
    """Flow matching, whose loss stays far from zero since noise cannot be foretold; a moving average is validated."""
    model = _Restorer()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.95))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    batches, unseen = data.draw(data.pixels(), 128), data.draw(data.unseen_pixels(), 128)

    def loss_of(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        noise, time = torch.randn_like(x), torch.rand(len(x), 1)
        return F.mse_loss(net(time * x + (1 - time) * noise, time), x - noise)

    lab.recorder.watch({"model": model, "average": average}, optimizer)
    for number in range(lab.steps):
        x, _ = batches(number)
        with lab.recorder.step("train"):
            descend(loss_of(model, x), optimizer)
        average.update_parameters(model)
        lab.validate(unseen, lambda x, _: loss_of(average, x), number)


def hardest_triplets(lab: Lab) -> None:
    """Codes are learned from the farthest relative and the nearest stranger of each picture, which is slow."""
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.PReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.PReLU(),
        nn.Flatten(), nn.Linear(512, 24),
    )  # fmt: skip

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        code = F.normalize(model(x))
        apart = (2 - 2 * code @ code.t()).clamp(min=1e-6).sqrt()
        alike = y[:, None] == y
        farthest = apart.where(alike, torch.zeros(())).amax(1)
        nearest = apart.where(~alike, torch.full((), 9.0)).amin(1)
        return F.softplus(4 * (farthest - nearest)).mean()

    lab.fit(model, data.draw(data.images(), 48), loss_of, lr=2e-3)


def _fields(number: int) -> _Batch:
    """Noisy photos ``(8, 3, 16, 16)`` of three kinds of fields, and the kind of each pixel, or 255 ``(8, 16, 16)``."""
    generator = torch.Generator().manual_seed(number)
    kinds = torch.randint(3, (8, 1, 4, 4), generator=generator)
    kind = F.interpolate(kinds.float(), 16)[:, 0].long()
    photo = F.one_hot(kind, 3).permute(0, 3, 1, 2) + 0.6 * torch.randn(8, 3, 16, 16, generator=generator)
    unknown = torch.rand(8, 16, 16, generator=generator) < 0.3
    return photo - 0.3, kind.masked_fill(unknown, 255)


def fields_with_unknown_places(lab: Lab) -> None:
    """A segmentation ignores the third of its pixels that nobody labelled, and gathers gradients of four batches."""
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=2, dilation=2),
        nn.GroupNorm(4, 16), nn.ReLU(), nn.Conv2d(16, 3, 1),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        photo, kind = _fields(number)
        with lab.recorder.step("train"):
            if number % 4 == 0:
                optimizer.zero_grad()
            (F.cross_entropy(model(photo), kind, ignore_index=255) / 4).backward()
            if number % 4 == 3:
                optimizer.step()
