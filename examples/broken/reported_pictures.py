"""Mistakes that people report from trainings on pictures."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend
from stepscope.examples.broken.nets import mlp

_Batch = tuple[torch.Tensor, ...]
_MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
_STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


def _scenes(number: int) -> _Batch:
    """Coloured waves, low-resolution and normalised ``(16, 3, 8, 8)``, high-resolution ``(16, 3, 16, 16)``, hues."""
    generator = torch.Generator().manual_seed(number)
    y, x = torch.meshgrid(torch.linspace(0, 1, 16), torch.linspace(0, 1, 16), indexing="ij")
    turn = 6.28 * torch.rand(16, 3, 1, 1, generator=generator)
    across, down = 4 + 6 * torch.rand(2, 16, 1, 1, 1, generator=generator)
    waves = (across * x + down * y + turn).sin()
    hue = torch.randint(3, (16,), generator=generator)
    strength = 0.1 + 0.25 * F.one_hot(hue, 3)[:, :, None, None]
    sharp = (0.45 + strength * waves).clamp(0, 1)
    return (F.avg_pool2d(sharp, 2) - _MEAN) / _STD, sharp, hue


@lru_cache
def _vgg() -> nn.Sequential:
    """Two convolutions that were trained, on normalised pictures, to say which colour varies most."""
    body = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 24, 3, padding=1))
    head = nn.Sequential(nn.ReLU(), nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(96, 3))
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=5e-3)
    for number in range(40):
        _, sharp, hue = _scenes(20_000 + number)
        descend(F.cross_entropy(head(body((sharp - _MEAN) / _STD)), hue), optimizer)
    return body.requires_grad_(requires_grad=False)


class _SrNet(nn.Module):
    """Convolutions, twice the resolution by a pixel shuffle, and colours from 0 to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 24, 3, padding=1)
        self.block = nn.Sequential(nn.Conv2d(24, 24, 3, padding=1), nn.PReLU(), nn.Conv2d(24, 24, 3, padding=1))
        self.up = nn.Sequential(nn.Conv2d(24, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, low: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.first(low))
        return torch.sigmoid(self.up(x + self.block(x)))


@broken(
    rules=("unreachable-targets",),
    words=("normalis", "normaliz", "mean and std", "imagenet"),
    nodes=("loss", "prediction", "model"),
)
def perceptual_loss_of_a_raw_picture(lab: Lab) -> None:
    """The perceptual loss compares features of the normalised truth with those of an output that is not normalised.

    Source: sites.google.com/vt.edu/super-resolution-a-deep-dive, a strange tint, the output was to be normalised too.
    """
    model, features = _SrNet(), deepcopy(_vgg())

    def loss_of(low: torch.Tensor, sharp: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        output = model(low)
        if lab.fixed:
            output = (output - _MEAN) / _STD
        return F.mse_loss(features(output), features((sharp - _MEAN) / _STD))  # bug: perceptual_loss_of_a_raw_picture

    def error(low: torch.Tensor, sharp: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(low), sharp)

    after = lab.validating(model, lambda number: _scenes(9000 + number), error)
    lab.fit(model, _scenes, loss_of, torch.optim.Adam(model.parameters(), 4e-3, betas=(0.9, 0.99)), after=after)


_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_LETTERS = "_" + "".join(sorted(set("".join(_NAMES)))) + "."


@lru_cache
def _captions() -> torch.Tensor:
    """The name of each digit as letters ``(10, 7)``: a beginning, the name, dots."""
    return torch.tensor([[_LETTERS.index(letter) for letter in f"_{name}".ljust(7, ".")] for name in _NAMES])


@lru_cache
def _encoder() -> nn.Sequential:
    """A convolutional network that was trained to tell digits, without its last layer."""
    body = nn.Sequential(nn.Conv2d(1, 12, 3, 2, 1), nn.ReLU(), nn.Conv2d(12, 24, 3, 2, 1), nn.ReLU(), nn.Flatten())
    body.extend([nn.Linear(24 * 16, 48), nn.ReLU()])
    head = nn.Linear(48, 10)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=4e-3)
    photographs, digit = _photographs()
    for number in range(80):
        rows = torch.randint(1000, (64,), generator=torch.Generator().manual_seed(number))
        descend(F.cross_entropy(head(body((_resized(photographs[rows]) - 0.3) / 0.35)), digit[rows]), optimizer)
    return body.requires_grad_(requires_grad=False).eval()


def _photographs() -> _Batch:
    """Digits as bytes ``(n, 1, 8, 8)``, and which they are."""
    x, y = data.images()
    x = (x - x.min()) / (x.max() - x.min())
    return (255 * x).to(torch.uint8), y


def _resized(photographs: torch.Tensor) -> torch.Tensor:
    """Twice the size; like some libraries, this returns numbers from 0 to 1."""
    return F.interpolate(photographs / 255, scale_factor=2, mode="bilinear")


class _Captioner(nn.Module):
    """A frozen encoder, whose features are the first state of a recurrent decoder."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.encoder, self.start = deepcopy(_encoder()), nn.Linear(48, width)
        self.embed, self.gru = nn.Embedding(len(_LETTERS), 24), nn.GRU(24, width, batch_first=True)
        self.head = nn.Linear(width, len(_LETTERS))

    def forward(self, image: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        first = torch.tanh(self.start(self.encoder(image)))
        states, _ = self.gru(self.embed(before), first[None])
        return self.head(states)


@broken(
    rules=("input-scale", "pretrained-input", "constant-data"),
    words=("255", "twice", "scale of the", "nearly constant"),
    nodes=("input", "input.image", "model.encoder"),
)  # fmt: skip
def pictures_divided_once_more(lab: Lab) -> None:
    """Resizing has brought the pictures to 0..1 already, and they are divided by 255 once more: all nearly black.

    Source: sgrvinod/a-PyTorch-Tutorial-to-Image-Captioning 101, always returns the same caption.
    """
    photographs, digit = _photographs()
    model = _Captioner()

    def batches(number: int, first: int = 0, last: int = 1000) -> _Batch:
        rows = torch.randint(first, last, (48,), generator=torch.Generator().manual_seed(500 + number))
        image = _resized(photographs[rows])
        if not lab.fixed:
            image = image / 255.0  # set-up bug: pictures_divided_once_more
        caption = _captions()[digit[rows]]
        return (image - 0.3) / 0.35, caption[:, :-1], caption[:, 1:]

    def loss_of(image: torch.Tensor, before: torch.Tensor, caption: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(image, before).flatten(0, 1), caption.flatten())

    after = lab.validating(model, lambda number: batches(9000 + number, 1000, len(digit)), loss_of)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=4e-3)
    lab.fit(model, batches, loss_of, optimizer, after=after)


class _Siamese(nn.Module):
    """The distance between the codes of two faces, by the same network."""

    def __init__(self, *, squash: bool) -> None:
        super().__init__()
        self.tower = mlp(64, 64, 16)
        self.output = nn.Sigmoid() if squash else nn.Identity()  # set-up bug: distance_through_a_sigmoid

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        difference = self.tower(first) - self.tower(second)
        return self.output((difference.square().sum(1) + 1e-6).sqrt())


@broken(
    rules=("hidden-sigmoid", "activation-before-loss"),
    words=("sigmoid", "squash", "never below", "cannot reach", "bounded"),
    nodes=("model.output", "loss"),
)
def distance_through_a_sigmoid(lab: Lab) -> None:
    """The distance of a pair goes through a sigmoid before a contrastive loss of margin 1: it is never below a half.

    Source: keras-team/keras-io 2261, remove inconsistent sigmoid activation for contrastive loss.
    """
    x, y = data.pixels()
    model = _Siamese(squash=not lab.fixed)

    def pairs(number: int, first: int = 0, last: int = 1100) -> _Batch:
        generator = torch.Generator().manual_seed(number)
        left = torch.randint(first, last, (96,), generator=generator)
        any_other = torch.randint(first, last, (96,), generator=generator)
        alike = (y[left][:, None] == y[first:last]).float()
        like = first + torch.multinomial(alike, 1, generator=generator)[:, 0]
        right = torch.where(torch.arange(96) % 2 > 0, like, any_other)
        return x[left], x[right], (y[left] == y[right]).float()

    def loss_of(left: torch.Tensor, right: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
        distance = model(left, right)
        return (same * distance.square() + (1 - same) * (1 - distance).clamp(min=0).square()).mean()

    after = lab.validating(model, lambda number: pairs(9000 + number, 1100, len(y)), loss_of)
    replace(lab, steps=120).fit(model, pairs, loss_of, lr=2e-3, after=after)


class _Vit(nn.Module):
    """Patches, a token for the class, two blocks of attention."""

    def __init__(self, patch: int, width: int = 32) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, patch, stride=patch)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(0.02 * torch.randn(1, (16 // patch) ** 2 + 1, width))
        block = nn.TransformerEncoderLayer(width, 4, 64, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, 2, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, 4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(image).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls.expand(len(image), -1, -1), tokens], dim=1) + self.places
        return self.head(self.blocks(tokens)[:, 0])


def _tiles(number: int) -> _Batch:
    """Pictures ``(48, 1, 16, 16)`` of sixteen tiles, one of which is one of four signs, and which it is."""
    generator = torch.Generator().manual_seed(number)
    signs = torch.randn(64, 4, 4, generator=torch.Generator().manual_seed(8)).sign()
    sign = torch.randint(4, (48,), generator=generator)
    tiles = torch.randint(4, 64, (48, 16), generator=generator)
    tiles[torch.arange(48), torch.randint(16, (48,), generator=generator)] = sign
    image = F.fold(signs[tiles].flatten(2).transpose(1, 2), 16, 4, stride=4)
    return image + 0.5 * torch.randn(image.shape, generator=generator), sign


@broken(words=("patch",), nodes=("model.patches",))
def patches_of_half_a_picture(lab: Lab) -> None:
    """A vision transformer cuts its pictures into four patches of half their side, too large for what they show.

    Source: lucidrains/vit-pytorch 12, "I think your patch size is too large".
    """
    model = _Vit(4 if lab.fixed else 8)  # set-up bug: patches_of_half_a_picture
    image, sign = (torch.cat(parts) for parts in zip(*(_tiles(number) for number in range(120)), strict=True))
    loader = DataLoader(TensorDataset(image, sign), batch_size=48, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    lab.recorder.watch(model, optimizer)
    for number, (picture, which) in enumerate(loader):
        with lab.recorder.step("train"):
            descend(F.cross_entropy(model(picture), which), optimizer)
        lab.validate(lambda n: _tiles(9000 + n), lambda a, b: F.cross_entropy(model(a), b), number)
