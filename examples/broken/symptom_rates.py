"""Mistakes in rates, schedules, first weights and the size of steps, as people ask about them."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _fields(number: int) -> _Batch:
    """Aerial pictures ``(16, 2, 20, 20)``, and which of three kinds of land each pixel is ``(16, 20, 20)``."""
    generator = torch.Generator().manual_seed(number)
    height = F.interpolate(torch.randn(16, 1, 5, 5, generator=generator), 20, mode="bilinear", align_corners=True)
    land = (height[:, 0] > -0.4).long() + (height[:, 0] > 0.5)
    colours = torch.tensor([[-0.8, 0.6], [0.7, 0.5], [-0.1, -1.0]])[land].movedim(3, 1)
    return colours + 0.7 * torch.randn(16, 2, 20, 20, generator=generator), land


class _SegNet(nn.Module):
    """Down twice, up twice, with skips."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(2, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU())
        self.down = nn.Sequential(nn.Conv2d(12, 20, 3, 2, 1, bias=False), nn.BatchNorm2d(20), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(20, 20, 3, padding=1, bias=False), nn.BatchNorm2d(20), nn.ReLU())
        self.up = nn.ConvTranspose2d(20, 12, 2, stride=2)
        self.out = nn.Conv2d(24, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.first(x)
        deep = self.up(self.deep(self.down(first)))
        return self.out(torch.cat([first, deep], dim=1))


@broken(rules=("learning-rate-decay",), words=("compound", "decay"), nodes=("model", "model.out.weight"), onset=10)
def decayed_once_more_in_each_epoch(lab: Lab) -> None:
    """The schedule multiplies the rate as it is, which was decayed already, by a power that grows with the epochs.

    Source: issue search, loss doesn't change at all: tensorflow 48308, a misused scheduler (lr * 0.9 ** epoch).
    """
    model, first = _SegNet(), 0.03
    optimizer = torch.optim.SGD(model.parameters(), lr=first)
    lab.recorder.watch(model, optimizer)

    def loss_of(pictures: torch.Tensor, land: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(pictures), land)

    def scheduled(epoch: int, rate: float) -> float:
        return (first if lab.fixed else rate) * 0.95**epoch  # set-up bug: decayed_once_more_in_each_epoch

    after = lab.validating(model, lambda number: _fields(6000 + number), loss_of)
    for number in range(lab.steps):
        if number % 5 == 0:
            for group in optimizer.param_groups:
                group["lr"] = scheduled(number // 5, group["lr"])
        with lab.recorder.step("train"):
            descend(loss_of(*_fields(number)), optimizer)
        after(number)


class _Denoiser(nn.Module):
    """Says which noise was added to a point, at a moment."""

    pitches: torch.Tensor

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.register_buffer("pitches", 2.0 ** torch.arange(4))
        self.enter, self.time = nn.Linear(2, width), nn.Linear(8, width)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.leave = nn.Linear(width, 2)

    def forward(self, points: torch.Tensor, moment: torch.Tensor) -> torch.Tensor:
        angles = moment[:, None] * self.pitches
        x = self.enter(points) + self.time(torch.cat([angles.sin(), angles.cos()], dim=1))
        for block in self.blocks:
            x = x + F.silu(block(F.silu(x)))
        return self.leave(x)


def _noised(number: int) -> _Batch:
    """Points of a spiral with noise ``(256, 2)``, the moments, and the noise."""
    generator = torch.Generator().manual_seed(number)
    turn = 3.2 * torch.rand(256, generator=generator).sqrt()
    points = torch.stack([turn * (2 * turn).cos(), turn * (2 * turn).sin()], dim=1) / 1.6
    moment = 1.5 * torch.rand(256, generator=generator)
    noise = torch.randn(256, 2, generator=generator)
    return moment.cos()[:, None] * points + moment.sin()[:, None] * noise, moment, noise


@broken(rules=("learning-rate",), words=("learning rate",), nodes=("model", "model.leave.weight"))
def diffusion_at_too_high_a_rate(lab: Lab) -> None:
    """A diffusion model is trained by Adam with a learning rate that rises to 0.2, where it jumps out of what it knew.

    Source: issue search, loss decreases and then jumps: bubbliiiing/ddpm-pytorch 17, mended by another rate.
    """
    model = _Denoiser()
    rate = 3e-3 if lab.fixed else 0.2  # set-up bug: diffusion_at_too_high_a_rate
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, 1.0, 60)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        points, moment, noise = _noised(number)
        with lab.recorder.step("train"):
            descend(F.mse_loss(model(points, moment), noise), optimizer)
        warm_up.step()
        lab.validate(lambda number: _noised(8000 + number), lambda x, t, e: F.mse_loss(model(x, t), e), number)


_NEXT = torch.stack([torch.randperm(60, generator=torch.Generator().manual_seed(index)) for index in range(2)])


def _baskets(number: int) -> torch.Tensor:
    """What 48 customers looked at, thirteen things each ``(48, 13)``: mostly what follows the thing before."""
    generator = torch.Generator().manual_seed(number)
    kind = torch.randint(2, (48,), generator=generator)
    things = [torch.randint(60, (48,), generator=generator)]
    for stray in torch.randint(60, (12, 48), generator=generator):
        keeps = torch.rand(48, generator=generator) < 0.85
        things.append(torch.where(keeps, _NEXT[kind, things[-1]], stray))
    return torch.stack(things, dim=1)


class _SasRec(nn.Module):
    """Self-attention over what was looked at; the scores of things are products with their own vectors."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.things, self.places = nn.Embedding(60, width), nn.Embedding(12, width)
        layer = nn.TransformerEncoderLayer(width, 2, 96, 0.1, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(12))

    def forward(self, things: torch.Tensor) -> torch.Tensor:
        x = self.things(things) + self.places.weight
        x = self.norm(self.layers(x, mask=self.mask, is_causal=True))
        return x @ self.things.weight.T


@broken(rules=("weight-scale",), words=("initial", "unit normal"), nodes=("model.things", "model.things.weight"))
def vectors_of_things_start_at_one(lab: Lab) -> None:
    """The vectors of things keep their default start, unit normal numbers, and give scores of seven at first.

    Source: issue search, slower to converge than the original: pmixer/SASRec.pytorch 9, weights initialised.
    """
    model = _SasRec()
    if lab.fixed:
        for table in (model.things, model.places):
            nn.init.normal_(table.weight, std=0.1)  # set-up bug: vectors_of_things_start_at_one

    def loss_of(things: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(things[:, :-1]).flatten(0, 1), things[:, 1:].flatten())

    after = lab.validating(model, lambda number: (_baskets(4000 + number),), loss_of)
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3, betas=(0.9, 0.98))
    lab.fit(model, lambda number: (_baskets(number),), loss_of, optimizer, after=after)


class _LiquidCell(nn.Module):
    """Time constants that depend on the input, solved in small steps (Liquid Time-Constant Networks)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.inward, self.recurrent = nn.Linear(inputs, width), nn.Linear(width, width, bias=False)
        self.towards = nn.Parameter(torch.randn(width))
        nn.init.orthogonal_(self.recurrent.weight, gain=1.5)

    def forward(self, x: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        drive = torch.tanh(self.inward(x) + self.recurrent(state))
        return state + 0.5 * (drive * self.towards - 0.3 * state)


class _Liquid(nn.Module):
    """The cell over all moments, and an answer from the last state."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.cell, self.answer = _LiquidCell(2, width), nn.Linear(width, 1)

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        state = series.new_zeros(len(series), self.answer.in_features)
        for moment in series.unbind(1):
            state = self.cell(moment, state)
        return self.answer(state)


def _currents(number: int) -> _Batch:
    """Two noisy currents over 40 moments ``(32, 40, 2)``, and what of them remains after some leaking ``(32, 1)``."""
    generator = torch.Generator().manual_seed(number)
    series, kept = torch.randn(32, 40, 2, generator=generator), 0.85 ** torch.arange(39, -1, -1)
    return series, (series[:, :, 0] @ kept - series[:, :, 1] @ kept**2)[:, None] / 2.2


@broken(rules=("exploding-gradient",), words=("clip", "explod"), nodes=("model.cell", "model.cell.recurrent.weight"))
def liquid_cell_without_clipping(lab: Lab) -> None:
    """Gradients of a liquid recurrent cell grow over forty moments, and nobody clips them before the step.

    Source: issue search, gradients explode in a recurrent net: Ammar-Raneez/Liquid-Time-stochasticity-networks 1.
    """
    model = _Liquid()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        series, remains = _currents(number)
        with lab.recorder.step("train"):
            loss = F.mse_loss(model(series), remains)
            optimizer.zero_grad()
            loss.backward()
            if lab.fixed:
                nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()  # bug: liquid_cell_without_clipping
        lab.validate(lambda number: _currents(9000 + number), lambda x, y: F.mse_loss(model(x), y), number)


class _Waves(nn.Module):
    """Dilated causal convolutions, and the next value at each moment."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.enter = nn.Conv1d(1, width, 1)
        self.dilated = nn.ModuleList(nn.Conv1d(width, width, 2, dilation=2**depth) for depth in range(4))
        self.leave = nn.Conv1d(width, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter(x)
        for depth, layer in enumerate(self.dilated):
            x = x + torch.tanh(layer(F.pad(x, (2**depth, 0))))
        return self.leave(x)


def _tides(number: int) -> _Batch:
    """Tides of two periods ``(32, 1, 40)``, and the same one hour later."""
    generator = torch.Generator().manual_seed(number)
    phase = 6.2832 * torch.rand(2, 32, 1, generator=generator)
    strength = 0.5 + torch.rand(2, 32, 1, generator=generator)
    hours = torch.arange(41.0)
    tide = strength[0] * (0.506 * hours + phase[0]).sin() + 0.5 * strength[1] * (0.9 * hours + phase[1]).sin()
    return tide[:, None, :-1], tide[:, None, 1:]


def _tools(model: nn.Module) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    return optimizer, torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, 150)


@broken(
    rules=("settings-change",), words=("resum", "checkpoint", "optimizer's state", "scheduler's state"),
    nodes=("model", "model.enter.weight", "model.leave.weight"), onset=113,
)  # fmt: skip
def only_weights_are_resumed(lab: Lab) -> None:
    """A training goes on from a checkpoint with its weights only: the schedule and Adam's moments begin anew.

    Source: issue search, after loading a checkpoint the loss is high again: hiyouga/LlamaFactory 512.
    """
    model = _Waves()
    optimizer, schedule = _tools(model)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        if number == 110:
            states = [copy.deepcopy(part.state_dict()) for part in (model, optimizer, schedule)]
            optimizer, schedule = _tools(model)
            model.load_state_dict(states[0])  # set-up bug: only_weights_are_resumed
            if lab.fixed:
                optimizer.load_state_dict(states[1])
                schedule.load_state_dict(states[2])
            lab.recorder.watch(model, optimizer)
        tides, later = _tides(number)
        with lab.recorder.step("train"):
            descend(F.mse_loss(model(tides), later), optimizer)
        schedule.step()
        lab.validate(lambda number: _tides(2000 + number), lambda x, y: F.mse_loss(model(x), y), number)
