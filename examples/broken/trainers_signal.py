"""Mistakes that let the numbers within a net die, grow, saturate or vanish."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _sky(number: int) -> _Batch:
    """Noisy pictures ``(16, 1, 16, 16)`` with three stars each, and where they are."""
    generator = torch.Generator().manual_seed(number)
    place = torch.rand(16, 256, generator=generator).argsort(1)[:, :3]
    stars = torch.zeros(16, 256).scatter_(1, place, 1.0).view(16, 1, 16, 16)
    spread = F.conv2d(stars, torch.tensor([[0.2, 0.5, 0.2], [0.5, 1.0, 0.5], [0.2, 0.5, 0.2]])[None, None], padding=1)
    return 2 * spread + 0.3 * torch.randn(spread.shape, generator=generator), stars


class _Finder(nn.Module):
    """A dense detector; its last bias says at first that stars are seldom."""

    def __init__(self, *, everywhere: bool) -> None:
        super().__init__()
        self.tower = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.score = nn.Conv2d(16, 1, 3, padding=1)
        for module in self.modules() if everywhere else [self.score]:
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.constant_(module.bias, -math.log(99))  # set-up bug: prior_of_the_head_in_every_layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(self.tower(x))


@broken(
    rules=("dead-units",), words=("dead", "never active"),
    nodes=("model.tower.1", "model.tower.3", "model.tower.0.bias", "model.tower.2.bias"),
)  # fmt: skip
def prior_of_the_head_in_every_layer(lab: Lab) -> None:
    """The bias of -4.6 that belongs to the last layer of a detector is given to all layers, whose ReLUs are dead.

    Source: SageMaker Debugger, DeadRelu.
    """
    model = _Finder(everywhere=not lab.fixed)

    def focal(scores: torch.Tensor, stars: torch.Tensor) -> torch.Tensor:
        chance = scores.sigmoid()
        missed = torch.where(stars > 0, 1 - chance, chance)
        return (missed**2 * F.binary_cross_entropy_with_logits(scores, stars, reduction="none")).sum() / stars.sum()

    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    lab.fit(model, _sky, lambda x, stars: focal(model(x), stars), optimizer)


class _Residual(nn.Module):
    """Two layers around which a shortcut leads; the norm in front of them is optional."""

    def __init__(self, width: int, norm: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.one, self.two = nn.Linear(width, width), nn.Linear(width, width)
        for layer in (self.one, self.two):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.two(F.relu(self.one(self.norm(x))))


@broken(
    rules=("exploding-gradient", "residual-balance", "growing-signal"), words=("explod", "normalis", "times as large"),
    nodes=("model.1", "model.5", "model.9"),
)  # fmt: skip
def residual_blocks_without_their_norms(lab: Lab) -> None:
    """Nine residual blocks are made without their norms, and each of them multiplies what goes through it.

    Source: SageMaker Debugger, ExplodingTensor.
    """
    blocks = [_Residual(48, norm=lab.fixed) for _ in range(9)]  # set-up bug: residual_blocks_without_their_norms
    model = nn.Sequential(nn.Linear(64, 48), *blocks, nn.Linear(48, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    lab.fit(model, data.draw(data.pixels(), 32), lambda x, y: F.cross_entropy(model(x), y), optimizer)


class _Strokes(nn.Module):
    """Reads a digit row by row in both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.LSTM(8, 24, batch_first=True, bidirectional=True)
        self.mix, self.head = nn.Linear(48, 32), nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, (last, _) = self.rows(x.squeeze(1))
        return self.head(F.relu(self.mix(torch.cat([last[0], last[1]], dim=1))))


@broken(
    rules=("weight-scale",), words=("same value", "one number", "symmetr", "initial"),
    nodes=("model.rows.weight_ih_l0", "model.mix.weight", "model.head.weight"),
)  # fmt: skip
def every_weight_is_a_tenth(lab: Lab) -> None:
    """The initialisation fills each weight matrix with 0.1, so that all neurons of a layer are the same.

    Source: SageMaker Debugger, PoorWeightInitialization.
    """
    model = _Strokes()
    for name, parameter in model.named_parameters():
        if "weight" in name and lab.fixed:
            nn.init.xavier_uniform_(parameter)
        elif "weight" in name:
            nn.init.constant_(parameter, 0.1)  # set-up bug: every_weight_is_a_tenth
        else:
            nn.init.zeros_(parameter)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    lab.fit(model, data.draw(data.images(), 32), lambda x, y: F.cross_entropy(model(x), y), optimizer)


class _HandMade(nn.Module):
    """A layer of tanh whose matrix is drawn by hand."""

    def __init__(self, inputs: int, outputs: int, *, scaled: bool) -> None:
        super().__init__()
        size = 5 / 3 / inputs**0.5 if scaled else 1.0
        self.matrix = nn.Parameter(size * torch.randn(inputs, outputs))  # set-up bug: tanh_of_unscaled_matrices
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x @ self.matrix + self.bias)


@broken(
    rules=("saturated-activation", "weight-scale"), words=("saturat",),
    nodes=("model.2", "model.2.matrix", "model.3.matrix", "model.4"),
)  # fmt: skip
def tanh_of_unscaled_matrices(lab: Lab) -> None:
    """Matrices of unit normal numbers, not divided by the root of their inputs, drive every tanh to -1 or 1.

    Source: SageMaker Debugger, SaturatedActivation.
    """
    letters = data.text()[1]
    made = [_HandMade(a, 100, scaled=lab.fixed) for a in (60, 100, 100)]
    model = nn.Sequential(nn.Embedding(letters, 12), nn.Flatten(), *made, nn.Linear(100, letters))
    pieces = data.characters(64, 6)

    def batches(number: int) -> _Batch:
        text, _ = pieces(number)
        return text[:, :5], text[:, 5]

    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    lab.fit(model, batches, lambda text, following: F.cross_entropy(model(text), following), optimizer)


class _Deep(nn.Module):
    """Twenty layers, around each of which there is a shortcut, or not."""

    def __init__(self, *, shortcuts: bool, width: int = 32) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(30, width), nn.Linear(width, 1)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(20))
        self.shortcuts = shortcuts

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for layer in self.layers:
            new = torch.tanh(layer(x))
            x = x + 0.3 * new if self.shortcuts else new  # bug: twenty_layers_without_a_shortcut
        return self.last(x)[:, 0]


@broken(
    rules=("vanishing-gradient",), words=("vanish",),
    nodes=("model.first.weight", "model.layers.0.weight", "model.layers.3.weight"),
)  # fmt: skip
def twenty_layers_without_a_shortcut(lab: Lab) -> None:
    """The shortcuts around twenty tanh layers were forgotten, and almost no gradient arrives at the first ones.

    Source: SageMaker Debugger, VanishingGradient.
    """
    model = _Deep(shortcuts=lab.fixed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.5)
    lab.fit(model, data.draw(data.tumours()), lambda x, y: F.binary_cross_entropy_with_logits(model(x), y), optimizer)


def _moons(number: int) -> _Batch:
    """Points of two interlocked half circles, and a third column that is noise."""
    generator = torch.Generator().manual_seed(number)
    which = torch.randint(2, (96,), generator=generator)
    angle = 3.1416 * torch.rand(96, generator=generator)
    side = 1.0 - 2 * which
    points = torch.stack([angle.cos() + which, side * angle.sin() + 0.4 * which], dim=1)
    noisy = torch.cat([points, torch.zeros(96, 1)], 1)
    return noisy + 0.1 * torch.randn(96, 3, generator=generator), which


@broken(
    rules=("learning-rate",), words=("learning rate",), nodes=("model.0.weight", "model.2.weight", "model.4.weight")
)
def rates_divided_by_ten_for_each_layer(lab: Lab) -> None:
    """Learning rates that become a little smaller towards the input are divided by ten for each layer, six times.

    Source: SageMaker Debugger, WeightUpdateRatio.
    """
    sizes = (3, 24, 24, 24, 24, 24, 2)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.Mish()]
    model = nn.Sequential(*layers[:-1])
    linear = [layer for layer in model if isinstance(layer, nn.Linear)]
    decay = 0.9 if lab.fixed else 0.1
    groups = [
        {
            "params": layer.parameters(),
            "lr": 2e-3 * decay ** (6 - depth),
        }  # set-up bug: rates_divided_by_ten_for_each_layer
        for depth, layer in enumerate(linear)
    ]
    optimizer = torch.optim.Adam(groups)
    lab.fit(model, _moons, lambda x, which: F.cross_entropy(model(x), which), optimizer)


class _Listener(nn.Module):
    """Convolutions over the frames of sounds, and their mean over those that are no padding."""

    def __init__(self) -> None:
        super().__init__()
        self.frames = nn.Sequential(
            nn.Conv1d(6, 24, 5, padding=2), nn.SELU(), nn.Conv1d(24, 24, 5, padding=2), nn.SELU()
        )
        self.head = nn.Linear(24, 4)

    def forward(self, sound: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        heard = self.frames(sound)
        mask = (torch.arange(1, sound.shape[2] + 1) <= lengths[:, None])[:, None]
        return self.head((heard * mask).sum(2) / mask.sum(2).clamp(min=1))


def _words(number: int) -> _Batch:
    """Sounds ``(32, 6, 40)`` of four words, how much of the longest each one is ``(32,)``, and the words."""
    generator = torch.Generator().manual_seed(number)
    word = torch.randint(4, (32,), generator=generator)
    share = 0.4 + 0.6 * torch.rand(32, generator=generator)
    moments = torch.arange(40.0)
    pitch = (0.4 + 0.35 * word)[:, None, None] * (1 + 0.1 * torch.arange(6.0))[:, None]
    sound = (pitch * moments + 6.28 * torch.rand(32, 1, 1, generator=generator)).sin()
    sound = sound + 0.5 * torch.randn(32, 6, 40, generator=generator)
    return sound * (moments < 40 * share[:, None])[:, None], share, word


@broken(rules=("ignored-input",), words=("mask", "all zero"), nodes=("input.lengths", "input.sound", "model"))
def lengths_as_shares_taken_for_frames(lab: Lab) -> None:
    """The loader gives lengths as shares of the longest sound, and the mask that takes them for frames hides all.

    Source: SageMaker Debugger, AllZero.
    """
    model = _Listener()
    optimizer = torch.optim.Adamax(model.parameters(), 6e-3)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        sound, share, word = _words(number)
        lengths = (share * sound.shape[2]).round() if lab.fixed else share
        with lab.recorder.step("train"):
            scores = model(sound, lengths)  # bug: lengths_as_shares_taken_for_frames
            descend(F.cross_entropy(scores, word), optimizer)
