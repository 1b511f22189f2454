"""Mistakes in variational autoencoders, drawn by dice from published collections of training bugs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


class _Vae(nn.Module):
    """An encoder that tells mean and log variance of a code, and a decoder."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, width: int, code: int) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.mean, self.spread = nn.Linear(width, code), nn.Linear(width, code)

    def forward(self, x: torch.Tensor) -> _Batch:
        hidden = self.encoder(x)
        mean, log_variance = self.mean(hidden), self.spread(hidden)
        code = mean
        if self.training:
            code = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        return self.decoder(code), mean, log_variance


def _divergence(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """How far each code is from the prior ``(n,)``."""
    return 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1)


def _days(number: int) -> _Batch:
    """The demand of households by the hour, standardised ``(48, 24)``: two peaks of some height and time."""
    generator = torch.Generator().manual_seed(number)
    height = 0.5 + torch.rand(48, 2, 1, generator=generator)
    peak = torch.tensor([[7.5], [19.0]]) + 1.5 * torch.randn(48, 2, 1, generator=generator)
    day = (height * (-((torch.arange(24.0) - peak) ** 2) / 8).exp()).sum(1)
    return ((day + 0.03 * torch.randn(48, 24, generator=generator) - 0.42) / 0.4,)


@broken(rules=("unreachable-targets",), words=("softmax",), nodes=("model.decoder", "model.decoder.3"))
def shares_of_a_day(lab: Lab) -> None:
    """The decoder of standardised hourly demand ends in a softmax, whose shares between 0 and 1 cannot follow it.

    Source: DeepLocalize and DeepFD, softmax at the output of a regression.
    """
    layers: list[nn.Module] = [nn.Linear(6, 48), nn.ReLU(), nn.Linear(48, 24)]
    if not lab.fixed:
        layers.append(nn.Softmax(dim=1))  # set-up bug: shares_of_a_day
    encoder = nn.Sequential(nn.Linear(24, 48), nn.ReLU())
    model = _Vae(encoder, nn.Sequential(*layers), 48, 6)

    def loss_of(day: torch.Tensor) -> torch.Tensor:
        restored, mean, log_variance = model(day)
        return (5 * ((restored - day) ** 2).sum(1) + _divergence(mean, log_variance)).mean()

    after = lab.validating(model, lambda number: _days(9000 + number), loss_of)
    lab.fit(model, _days, loss_of, torch.optim.Adam(model.parameters(), lr=4e-3), after=after)


def _stars(number: int) -> _Batch:
    """Pictures ``(32, 1, 20, 20)`` of a bright spot on a dark sky, about standardised."""
    generator = torch.Generator().manual_seed(number)
    centre = 4 + 12 * torch.rand(32, 2, 1, 1, generator=generator)
    width = 1.2 + 1.3 * torch.rand(32, 1, 1, generator=generator)
    axis = torch.arange(20.0)
    far = (axis[None, :, None] - centre[:, 0]) ** 2 + (axis[None, None, :] - centre[:, 1]) ** 2
    sky = (-far / (2 * width**2)).exp() + 0.05 * torch.randn(32, 20, 20, generator=generator)
    return (((sky - 0.05) / 0.17)[:, None],)


class _Resize(nn.Module):
    """Brings pictures to the size of the encoder."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, size=(self.side, self.side))


@broken(words=("resiz", "interpolat", "resolution"), nodes=("model.encoder", "model.encoder.0", "input.x"))
def skies_of_four_by_four(lab: Lab) -> None:
    """The pictures are resized to four by four pixels for the encoder, not sixteen, which loses most of the spots.

    Source: TrainCheck, input resized to a size far off what was meant.
    """
    side = 16 if lab.fixed else 4  # set-up bug: skies_of_four_by_four
    encoder = nn.Sequential(
        _Resize(side), nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveMaxPool2d(4), nn.Flatten(), nn.Linear(256, 48), nn.ReLU(),
    )  # fmt: skip
    decoder = nn.Sequential(
        nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 400), nn.Unflatten(1, (1, 20, 20))
    )
    model = _Vae(encoder, decoder, 48, 6)

    def loss_of(sky: torch.Tensor) -> torch.Tensor:
        restored, mean, log_variance = model(sky)
        return F.mse_loss(restored, sky) + 0.002 * _divergence(mean, log_variance).mean()

    after = lab.validating(model, lambda number: _stars(9000 + number), loss_of)
    lab.fit(model, _stars, loss_of, torch.optim.Adam(model.parameters(), lr=3e-3), after=after)


def _tumours() -> tuple[torch.Tensor, torch.Tensor]:
    """Standardised measurements of tumours, cut at 4: some to learn from, and others."""
    x = data.tumours()[0].clamp(-4, 4)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(4))
    return x[order[:420]], x[order[420:]]


def _layer(inputs: int, outputs: int, *, bare: bool) -> list[nn.Module]:
    drop = nn.Identity() if bare else nn.Dropout(0.5)  # set-up bug: units_dropped_ahead_of_the_norm
    return [nn.Linear(inputs, outputs), nn.ReLU(), drop, nn.BatchNorm1d(outputs)]


@broken(rules=("variance-shift",), words=("dropout",), nodes=("model.encoder", "model.decoder"))
def units_dropped_ahead_of_the_norm(lab: Lab) -> None:
    """Dropout stands before each batch norm, whose averages of the variance do not hold once nothing is dropped.

    Source: Google's tuning playbook and its neighbours, dropout combined wrongly with batch norm.
    """
    table, unseen = _tumours()
    encoder = nn.Sequential(*_layer(30, 48, bare=lab.fixed), *_layer(48, 32, bare=lab.fixed))
    decoder = nn.Sequential(*_layer(6, 32, bare=lab.fixed), *_layer(32, 48, bare=lab.fixed), nn.Linear(48, 30))
    model = _Vae(encoder, decoder, 32, 6)

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        restored, mean, log_variance = model(x)
        return (2 * ((restored - x) ** 2).sum(1) + _divergence(mean, log_variance)).mean() / 30

    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    after = lab.validating(model, lambda _: (unseen, unseen), loss_of)
    lab.fit(model, data.draw((table, table), 64), loss_of, optimizer, after=after)


@broken(rules=("clipped-prediction",), words=("clip", "clamp"), nodes=("loss",))
def losses_held_at_forty(lab: Lab) -> None:
    """The loss of each digit is clamped at 40 against outliers, and those above give no gradient any more.

    Source: Karpathy's recipe and list, clipped the loss instead of the gradients.
    """
    encoder = nn.Sequential(nn.Linear(64, 96), nn.ReLU())
    model = _Vae(encoder, nn.Sequential(nn.Linear(12, 96), nn.ReLU(), nn.Linear(96, 64)), 96, 12)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    lab.recorder.watch(model, optimizer)
    batches = data.draw(data.pixels())

    def losses(x: torch.Tensor) -> torch.Tensor:
        restored, mean, log_variance = model(x)
        return ((restored - x) ** 2).sum(1) + _divergence(mean, log_variance)

    after = lab.validating(model, lambda _: data.unseen_pixels(), lambda x, _: losses(x).mean())
    for number in range(180):
        x, _ = batches(number)
        with lab.recorder.step("train"):
            each = losses(x)
            each = each if lab.fixed else each.clamp(max=40.0)  # bug: losses_held_at_forty
            descend(each.mean(), optimizer)
        after(number)
