"""Trainings that look odd to those who only glance at them, in which nothing is wrong."""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


class _Reservoir(nn.Module):
    """A random recurrent layer that stays as it is, and a readout that learns."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.within = nn.Linear(1, 96), nn.Linear(96, 96, bias=False)
        nn.init.orthogonal_(self.within.weight, gain=0.9)
        nn.init.uniform_(self.into.weight, -0.7, 0.7)
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        self.readout = nn.Linear(96, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = x.new_zeros(len(x), 96)
        for moment in x.unbind(1):
            state = torch.tanh(self.into(moment) + self.within(state))
        return self.readout(state)


def _waves(number: int) -> _Batch:
    """Sixteen moments of a wave ``(32, 16, 1)``, and where it is two moments later ``(32, 1)``."""
    generator = torch.Generator().manual_seed(number)
    phase, pace = 6.2832 * torch.rand(2, 32, 1, generator=generator)
    wave = (torch.arange(18.0) * (0.4 + 0.06 * pace) + phase).sin()
    return wave[:, :16, None] + 0.03 * torch.randn(32, 16, 1, generator=generator), wave[:, 17:]


def echoes_of_a_fixed_reservoir(lab: Lab) -> None:
    """An echo state network: the recurrent weights are random on purpose and frozen, and only the readout learns."""
    model = _Reservoir()

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(x), y)

    optimizer = torch.optim.Adam(model.readout.parameters(), lr=1e-2)
    lab.fit(model, _waves, loss_of, optimizer, after=lab.validating(model, lambda n: _waves(9000 + n), loss_of))


class _Coupling(nn.Module):
    """Shifts and scales one coordinate by what the other tells."""

    def __init__(self, *, flip: bool) -> None:
        super().__init__()
        last = nn.Linear(32, 2)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.net = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), last)
        self.flip = flip

    def forward(self, x: torch.Tensor) -> _Batch:
        kept, moved = x.flip(1).chunk(2, 1) if self.flip else x.chunk(2, 1)
        scale, shift = self.net(kept).chunk(2, 1)
        scale = 2 * scale.tanh()
        both = torch.cat([kept, moved * scale.exp() + shift], 1)
        return both.flip(1) if self.flip else both, scale.squeeze(1)


def _arcs(number: int) -> _Batch:
    """Points close to an arc ``(128, 2)``."""
    generator = torch.Generator().manual_seed(number)
    angle = 3 * torch.rand(128, generator=generator) - 1.5
    points = torch.stack([angle.sin(), angle.cos() - 0.6], 1)
    return (points + 0.03 * torch.randn(128, 2, generator=generator),)


def density_of_an_arc(lab: Lab) -> None:
    """A normalising flow starts as the identity and learns a dense arc, for which its loss well falls below zero."""
    model = nn.ModuleList([_Coupling(flip=number % 2 == 1) for number in range(6)])

    def loss_of(points: torch.Tensor) -> torch.Tensor:
        grown = points.new_zeros(len(points))
        for layer in model:
            points, scale = layer(points)
            grown = grown + scale
        return (0.5 * points.square().sum(1) + math.log(2 * math.pi) - grown).mean()

    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    lab.recorder.watch(model, optimizer)
    for number in range(200):
        with lab.recorder.step("train"):
            loss = loss_of(*_arcs(number))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
        lab.validate(lambda n: _arcs(9000 + n), loss_of, number)


class _Sine(nn.Module):
    """A layer with a sine for activation, that starts with the spread that such layers need."""

    def __init__(self, inputs: int, outputs: int, frequency: float, spread: float) -> None:
        super().__init__()
        self.linear, self.frequency = nn.Linear(inputs, outputs), frequency
        nn.init.uniform_(self.linear.weight, -spread, spread)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.frequency * self.linear(x)).sin()


def _wallpaper(number: int) -> _Batch:
    """Places on a wallpaper ``(256, 2)`` and how bright it is there ``(256, 1)``."""
    place = 2 * torch.rand(256, 2, generator=torch.Generator().manual_seed(number)) - 1
    bright = (9 * place[:, :1]).sin() * (7 * place[:, 1:]).cos() + 0.5 * (12 * place.sum(1, keepdim=True)).sin()
    return place, bright


def wallpaper_in_sines(lab: Lab) -> None:
    """A net with sines for activations learns a picture by its places; its first weights are wide, as they must be."""
    later = math.sqrt(6 / 64) / 12
    model = nn.Sequential(_Sine(2, 64, 12, 1 / 2), _Sine(64, 64, 12, later), nn.Linear(64, 1))

    def loss_of(place: torch.Tensor, bright: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(place), bright)

    after = lab.validating(model, lambda n: _wallpaper(9000 + n), loss_of)
    lab.fit(model, _wallpaper, loss_of, lr=2e-3, after=after)


class _Gated(nn.Module):
    """A residual block whose branch is let in by a gate that starts at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.gate * self.branch(x)


def depth_behind_closed_gates(lab: Lab) -> None:
    """Ten residual blocks begin behind gates at zero, so that the branches get no gradient in the very first step."""
    model = nn.Sequential(nn.Linear(64, 48), *[_Gated(48) for _ in range(10)], nn.Linear(48, 10))

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x), y)

    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    after = lab.validating(model, lambda _: data.unseen_pixels(), loss_of)
    lab.fit(model, data.draw(data.pixels()), loss_of, optimizer, after=after)


def average_that_teaches(lab: Lab) -> None:
    """A student learns from few labels and from a slow average of itself, which is moved by hand, without gradients."""
    student = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    teacher = copy.deepcopy(student).requires_grad_(False)
    x, y = data.pixels()
    labelled, unlabelled = data.draw((x[:200], y[:200]), 32), data.draw((x, y), 64)
    optimizer = torch.optim.Adam(student.parameters(), lr=2e-3, weight_decay=1e-4)
    lab.recorder.watch({"student": student, "teacher": teacher}, optimizer)
    for number in range(180):
        (shown, classes), (seen, _) = labelled(number), unlabelled(number)
        with lab.recorder.step("train") as step:
            known = F.cross_entropy(student(shown), classes)
            guess = student(seen + 0.3 * torch.randn_like(seen)).softmax(1)
            alike = (guess - teacher(seen).softmax(1)).square().sum(1).mean()
            step.record("known_loss", known, type="loss")
            step.record("alike_loss", alike, type="loss")
            descend(known + min(1.0, number / 60) * alike, optimizer)
            with torch.no_grad():
                for slow, quick in zip(teacher.parameters(), student.parameters(), strict=True):
                    slow.lerp_(quick, 0.05)
        lab.validate(lambda _: data.unseen_pixels(), lambda x, y: F.cross_entropy(teacher(x), y), number)
