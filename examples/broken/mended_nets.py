"""Mistakes in nets and losses that projects have mended: first weights, masks, places, probabilities, dropout."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _squash(x: torch.Tensor) -> torch.Tensor:
    square = x.pow(2).sum(-1, keepdim=True)
    return square / (1 + square) * x / (square + 1e-7).sqrt()


class _CapsNet(nn.Module):
    """A convolution, nine places with two primary capsules each, and a capsule per digit that they agree on."""

    def __init__(self, std: float) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 24, 3), nn.Conv2d(24, 16, 2, stride=2)
        self.transform = nn.Parameter(std * torch.randn(18, 10, 8, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        primary = F.relu(self.conv2(F.relu(self.conv1(x)))).flatten(2).transpose(1, 2)
        votes = torch.einsum("cdoi,bci->bcdo", self.transform, _squash(primary.reshape(len(x), 18, 8)))
        weights = torch.zeros(votes.shape[:3])
        for again in (True, False):
            caps = _squash((weights.softmax(2)[..., None] * votes).sum(1))
            if again:
                weights = weights + (votes * caps[:, None]).sum(-1)
        return (caps.pow(2).sum(-1) + 1e-7).sqrt()


def _margin_loss(lengths: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    present = F.one_hot(labels, 10)
    return (present * F.relu(0.9 - lengths) ** 2 + 0.5 * (1 - present) * F.relu(lengths - 0.1) ** 2).sum(1).mean()


@broken(
    rules=("weight-scale",),
    words=("initialis", "initial weights", "starts too small"),
    nodes=("model.transform", "model"),
)
def capsules_begin_with_tiny_transformations(lab: Lab) -> None:
    """The transformation matrices between capsules get initial weights of a tenth of the spread that they need.

    Source: github.com/ageron/handson-ml/pull/176, made initial weights higher-variance.
    """
    model = _CapsNet(std=0.1 if lab.fixed else 0.01)  # set-up bug: capsules_begin_with_tiny_transformations
    digits = data.draw(data.images(), 16)

    def loss_of(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return _margin_loss(model(images), labels)

    x, y = data.unseen_pixels()
    after = lab.validating(model, lambda _: (x[:128].view(-1, 1, 8, 8), y[:128]), loss_of)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    replace(lab, steps=120).fit(model, digits, loss_of, optimizer, after=after)


def _prompts(number: int) -> _Batch:
    """Noisy latents ``(16, 6, 4)``, how noisy they are, their prompts ``(16, 6)``, their lengths, and the velocities.

    The clean latents are what the words of a prompt, one to six of them, show together.
    """
    generator = torch.Generator().manual_seed(number)
    shows = torch.randn(8, 6, 4, generator=torch.Generator().manual_seed(3))
    words = torch.randint(8, (16, 6), generator=generator)
    length = torch.randint(1, 7, (16,), generator=generator)
    there = (torch.arange(6) < length[:, None]).float()
    clean = 2 * torch.einsum("bw,bwpc->bpc", there, shows[words]) / length[:, None, None]
    noise, time = torch.randn(16, 6, 4, generator=generator), torch.rand(16, 1, 1, generator=generator)
    return (1 - time) * clean + time * noise, time, words, length, noise - clean


class _Dit(nn.Module):
    """Latents that look at the words of their prompt, each sample by itself, and say how the noise flows."""

    def __init__(self, *, each: bool, width: int = 48) -> None:
        super().__init__()
        self.img_in, self.txt_in, self.time_in = nn.Linear(4, width), nn.Embedding(8, width), nn.Linear(1, width)
        self.places = nn.Parameter(0.1 * torch.randn(6, width))
        self.norm, self.to_q, self.to_kv = nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.mlp = nn.Sequential(nn.LayerNorm(3 * width), nn.Linear(3 * width, 96), nn.GELU(), nn.Linear(96, 4))
        self.each = each

    def forward(self, noisy: torch.Tensor, *given: torch.Tensor) -> torch.Tensor:
        time, words, length = given
        x, text = self.img_in(noisy) + self.places, self.txt_in(words)
        query, (key, value) = self.to_q(self.norm(x)), self.to_kv(text).chunk(2, dim=2)
        seen = []
        for row in range(len(x)):
            end = int(length[row if self.each else 0])  # bug: split_attention_masks_by_the_first
            seen.append(F.scaled_dot_product_attention(query[row], key[row, :end], value[row, :end]))
        hidden = torch.cat([x, torch.stack(seen), self.time_in(time).expand_as(x)], dim=2)
        return self.mlp(hidden)


@broken(words=("mask", "padding", "padded"), nodes=("model", "model.to_kv", "model.txt_in"))
def split_attention_masks_by_the_first(lab: Lab) -> None:
    """Where attention is split into samples, the mask of the first prompt's length is applied to all of the batch.

    Source: github.com/kohya-ss/musubi-tuner/pull/413, attention mask not applied correctly for --split_attn.
    """
    model = _Dit(each=lab.fixed)

    def loss_of(*batch: torch.Tensor) -> torch.Tensor:
        *given, velocity = batch
        return F.mse_loss(model(*given), velocity)

    after = lab.validating(model, lambda number: _prompts(9000 + number), loss_of)
    lab.fit(model, _prompts, loss_of, torch.optim.AdamW(model.parameters(), lr=6e-3), after=after)


class _ExampleModel(nn.Module):
    """Convolutions that give features, and the probability of each class."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        )  # fmt: skip
        self.classifier, self.dim = nn.Linear(96, 10), dim

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.softmax(self.classifier(self.features(x)), dim=self.dim)  # bug: probabilities_over_the_batch


@broken(
    rules=("softmax-over-batch",),
    words=("over the batch", "over the samples", "dim=0", "add up to one"),
    nodes=("model",),
)
def probabilities_over_the_batch(lab: Lab) -> None:
    """The softmax that makes probabilities of scores runs over dimension 0, the images of a batch, not the classes.

    Source: github.com/perone/euclidesdb/issues/2, issue with softmax dimension on example models.
    """
    model = _ExampleModel(dim=1 if lab.fixed else 0)
    x, y = data.unseen_pixels()

    def loss_of(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.nll_loss((model(images) + 1e-8).log(), labels)

    after = lab.validating(model, lambda _: (x.view(-1, 1, 8, 8), y), loss_of)
    lab.fit(model, data.draw(data.images(), 48), loss_of, lr=2e-3, after=after)


def _visits(number: int) -> _Batch:
    """Ten facts of visits to a page ``(64, 10)``, and whether they came from a machine, which can hardly be missed."""
    generator = torch.Generator().manual_seed(number)
    machine = (torch.rand(64, 1, generator=generator) < 0.5).float()
    facts = torch.randn(64, 10, generator=generator) + (2 * machine - 1) * torch.linspace(0.5, 1.5, 10)
    return facts, machine


@broken(rules=("non-finite",), words=("log of zero", "log(0)", "logarithm"), nodes=("loss", "model"), onset=38)
def logarithm_of_a_zero(lab: Lab) -> None:
    """A written-out cross-entropy takes the logarithm of a chance that is zero in the end, and times zero it is NaN.

    Source: github.com/deeplearning4j/nd4j/pull/377, loss calculation robustness for z=0.
    """
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1), nn.Sigmoid())
    smallest = torch.finfo(torch.float32).eps if lab.fixed else 0.0

    def loss_of(facts: torch.Tensor, machine: torch.Tensor) -> torch.Tensor:
        z = model(facts).clamp(smallest, 1 - smallest)
        return -(machine * z.log() + (1 - machine) * (1 - z).log()).mean()  # bug: logarithm_of_a_zero

    optimizer = torch.optim.RMSprop(model.parameters(), lr=4e-3)
    lab.fit(model, _visits, loss_of, optimizer)


class _Nodes(nn.Module):
    """Layers as they are put together by hand on a canvas, each with its settings."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dense1, self.drop1 = nn.Linear(30, 32), nn.Dropout(dropout)
        self.dense2, self.drop2 = nn.Linear(32, 32), nn.Dropout(dropout)
        self.output = nn.Linear(32, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.drop1(F.relu(self.dense1(x)))
        return self.output(self.drop2(F.relu(self.dense2(x))))


@broken(rules=("dropout-mode",), words=("dropout",), nodes=("model.drop1", "model.drop2"))
def dropout_is_inverted(lab: Lab) -> None:
    """The value of the dropout is inverted on its way from the settings, and all but a tenth is dropped.

    Source: github.com/kok202/Dluid/pull/125, bug fix at dropout value was inverted.
    """
    keep = 0.9
    model = _Nodes(1 - keep if lab.fixed else keep)  # set-up bug: dropout_is_inverted
    x, y = data.tumours()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    x, y = x[order], y[order, None]

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(model(x), y)

    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    after = lab.validating(model, lambda _: (x[420:], y[420:]), loss_of)
    lab.fit(model, data.draw((x[:420], y[:420]), 32), loss_of, optimizer, after=after)


def _waves(places: int, width: int, *, whole: bool) -> torch.Tensor:
    """Sinusoids ``(places, width)``; with whole numbers, the exponent of each wave is rounded down."""
    index = torch.arange(width)
    exponent = 2 * (index // 2) // width if whole else 2 * (index // 2) / width  # set-up bug: all_waves_of_one_length
    angle = torch.arange(places)[:, None] / 10000.0**exponent
    return torch.where(index % 2 == 0, angle.sin(), angle.cos())


class _Translator(nn.Module):
    """Words with their places, two layers of self-attention, a word for each place."""

    def __init__(self, *, whole: bool, width: int = 32, length: int = 14) -> None:
        super().__init__()
        self.words = nn.Embedding(16, width)
        self.register_buffer("places", _waves(length, width, whole=whole))
        layer = nn.TransformerEncoderLayer(width, 4, 64, 0.0, batch_first=True, norm_first=True)
        self.blocks, self.out = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(width, 16)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.out(self.blocks(self.words(words) + self.get_buffer("places")))


def _reversed(number: int) -> _Batch:
    """Sentences ``(24, 14)``, and their words the other way round."""
    words = torch.randint(16, (24, 14), generator=torch.Generator().manual_seed(number))
    return words, words.flip(1)


@broken(
    rules=("lost-order",),
    words=("position", "places of the words"),
    nodes=("model.places", "model.words", "model.blocks.layers.0.self_attn", "model"),
)
def all_waves_of_one_length(lab: Lab) -> None:
    """Whole numbers are divided in the exponent of the position encoding, it is zero, and all waves are the same.

    Source: github.com/Kyubyong/transformer/pull/81, the result of dividing the integer is 0.
    """
    model = _Translator(whole=not lab.fixed)
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3, betas=(0.9, 0.98))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 20))
    lab.recorder.watch(model, optimizer)
    for number in range(160):
        words, answer = _reversed(number)
        with lab.recorder.step("train"):
            descend(F.cross_entropy(model(words).flatten(0, 1), answer.flatten()), optimizer)
        scheduler.step()
