"""Mistakes in the layers of nets and in what they hand on, drawn from practitioners' lists of common mistakes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab

_Batch = tuple[torch.Tensor, ...]


def _marked(*, unseen: bool = False) -> data.Table:
    """Pictures of the digits 0 to 4 ``(n, 1, 8, 8)``, and each pixel's class: 0 for ground, or its digit + 1."""
    x, y = data.unseen_pixels() if unseen else data.pixels()
    x, y = x[y < 5].view(-1, 1, 8, 8), y[y < 5]
    return x, torch.where(x[:, 0] > 0.3, y[:, None, None] + 1, 0)


class _UNet(nn.Module):
    """One level down and up again, beside what has not been down."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.enter = nn.Conv2d(1, width, 3, padding=1)
        self.down, self.deep = nn.Conv2d(width, 2 * width, 3, 2, 1), nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.leave, self.out = nn.Conv2d(2 * width, width, 3, padding=1), nn.Conv2d(width, 6, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        above = F.relu(self.enter(x))
        below = F.relu(self.deep(F.relu(self.down(above))))
        return self.out(F.relu(self.leave(torch.cat([above, self.up(below)], 1))))


@broken(rules=("activation-before-loss", "flat-scores"), words=("softmax",), nodes=("model", "loss"))
def pixels_through_two_softmaxes(lab: Lab) -> None:
    """The class maps of a U-Net go through a softmax before the cross-entropy, which wants raw logits.

    Source: Karpathy, most common neural net mistakes (2018), 4: softmaxed outputs to a loss that expects raw logits.
    """
    model = _UNet()
    criterion = nn.CrossEntropyLoss()

    def loss_of(pictures: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        maps = model(pictures)
        if not lab.fixed:
            maps = maps.softmax(dim=1)  # bug: pixels_through_two_softmaxes
        return criterion(maps, classes)

    after = lab.validating(model, lambda _: _marked(unseen=True), loss_of)
    lab.fit(model, data.draw(_marked(), 32), loss_of, lr=1e-2, after=after)


def _articles(number: int) -> _Batch:
    """Embeddings of articles ``(64, 24)``, and which of forty tags each has: most tags are rare ``(64, 40)``."""
    fixed = torch.Generator().manual_seed(11)
    says, usual = torch.randn(24, 40, generator=fixed), torch.linspace(-5, 0, 40)
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(64, 24, generator=generator)
    return 2 * x + 0.5, (torch.rand(64, 40, generator=generator) < (0.3 * x @ says + usual).sigmoid()).float()


@broken(
    rules=("missing-bias",),
    words=("without a bias", "no bias", "bias=false", "lacks a bias"),
    nodes=("model.head", "model.head.weight", "model"),
)
def tags_without_a_last_bias(lab: Lab) -> None:
    """The only layer behind a batch norm has ``bias=False``, which is for layers before one: no tag can be rare.

    Source: Karpathy, most common neural net mistakes (2018), 5: forgot to include the bias for the output layer.
    """
    model = nn.Sequential()
    model.add_module("norm", nn.BatchNorm1d(24, affine=False, eps=1e-6))
    model.add_module("head", nn.Linear(24, 40, bias=lab.fixed))  # set-up bug: tags_without_a_last_bias
    criterion = nn.MultiLabelSoftMarginLoss()

    def loss_of(x: torch.Tensor, tags: torch.Tensor) -> torch.Tensor:
        return criterion(model(x), tags)

    optimizer = torch.optim.SGD(model.parameters(), lr=2.0, momentum=0.9)
    after = lab.validating(model, lambda number: _articles(8000 + number), loss_of)
    lab.fit(model, _articles, loss_of, optimizer, after=after)


def _gestures(number: int) -> _Batch:
    """Six sensors at a wrist over 24 moments ``(48, 24, 6)``, and which of five movements is made."""
    generator = torch.Generator().manual_seed(number)
    movement = torch.randint(5, (48,), generator=generator)
    shape = torch.randn(5, 2, 6, generator=torch.Generator().manual_seed(12))[movement]
    speed = 0.3 + 0.2 * torch.rand(48, 1, generator=generator)
    turn = torch.arange(24.0) * speed + 6.2832 * torch.rand(48, 1, generator=generator)
    path = turn.sin()[..., None] * shape[:, :1] + turn.cos()[..., None] * shape[:, 1:]
    return path + 0.8 * torch.randn(48, 24, 6, generator=generator), movement


class _Temporal(nn.Module):
    """Convolutions over time, the second one dilated."""

    def __init__(self, *, permute: bool) -> None:
        super().__init__()
        self.permute = permute
        self.near, self.far = nn.Conv1d(6, 16, 3, padding=1), nn.Conv1d(16, 24, 3, padding=2, dilation=2)
        self.out = nn.Linear(24, 5)

    def forward(self, moments: torch.Tensor) -> torch.Tensor:
        batch, time, sensors = moments.shape
        x = moments.permute(0, 2, 1) if self.permute else moments.view(batch, sensors, time)  # bug: sensors_by_view
        x = F.leaky_relu(self.near(x))
        return self.out(F.leaky_relu(self.far(x)).mean(2))


@broken(
    rules=("scrambled-input", "batch-leak"),
    words=("view(", "permute", "transpose", "reshape"),
    nodes=("model", "model.near", "input"),
)
def sensors_by_view(lab: Lab) -> None:
    """Moments by sensors become channels by moments through ``view``, which tears both apart, not ``permute``.

    Source: Karpathy, most common neural net mistakes (2018), 6: thinking view() and permute() are the same thing.
    """
    model = _Temporal(permute=lab.fixed)

    def loss_of(moments: torch.Tensor, movement: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(moments), movement)

    after = lab.validating(model, lambda number: _gestures(8000 + number), loss_of)
    lab.fit(model, _gestures, loss_of, torch.optim.Adam(model.parameters(), 5e-3), after=after)


class _Masked(nn.Conv2d):
    """A convolution that sees pixels above and to the left; the pixel itself too, if it is told so."""

    def __init__(self, inputs: int, outputs: int, size: int, *, itself: bool) -> None:
        super().__init__(inputs, outputs, size, padding=size // 2)
        mask = torch.ones(size, size)
        mask[size // 2, size // 2 + itself :] = 0
        mask[size // 2 + 1 :] = 0
        self.register_buffer("mask", mask)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.weight * self.get_buffer("mask"), self.bias, padding=self.padding)


@broken(
    rules=("targets-equal-inputs", "future-leak"),
    words=("sees what", "sees itself", "future", "leak", "off by one", "predicts itself"),
    nodes=("model.0", "model"),
)
def pixels_that_see_themselves(lab: Lab) -> None:
    """The mask of the first layer of a PixelCNN ends one pixel late: each pixel is predicted from itself.

    Source: Karpathy, A Recipe for Training Neural Networks (2019), takes the thing it's trying to predict as an input.
    """
    first = _Masked(1, 24, 5, itself=not lab.fixed)  # set-up bug: pixels_that_see_themselves
    model = nn.Sequential(first, nn.ReLU(), _Masked(24, 24, 3, itself=True), nn.ReLU(), nn.Conv2d(24, 4, 1))

    def loss_of(images: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        levels = ((images - images.min()) / (images.max() - images.min()) * 3).round()
        return F.cross_entropy(model(levels / 1.5 - 1), levels[:, 0].long())

    lab.fit(model, data.draw(data.images(), 48), loss_of, lr=3e-3)


class _Block(nn.Module):
    """A linear layer, a ReLU and a batch norm; dropout before the batch norm, if there is a share for it."""

    def __init__(self, inputs: int, outputs: int, *, drop: float) -> None:
        super().__init__()
        self.fc, self.dropout, self.norm = nn.Linear(inputs, outputs), nn.Dropout(drop), nn.BatchNorm1d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.dropout(F.relu(self.fc(x))))


@broken(
    rules=("batch-norm-mode",),
    words=("dropout",),
    nodes=("model", "model.0.dropout", "model.1.dropout", "model.2.dropout", "model.0.norm", "model.1.norm"),
)
def dropout_before_each_norm(lab: Lab) -> None:
    """Dropout before each batch norm makes variances in training that there are not in evaluation.

    Source: Karpathy, A Recipe for Training Neural Networks (2019), dropout does not play nice with batch norm.
    """
    between, last = (0.0, 0.6) if lab.fixed else (0.6, 0.0)  # set-up bug: dropout_before_each_norm
    blocks = [_Block(64, 64, drop=between) for _ in range(3)]
    model = nn.Sequential(*blocks, nn.Dropout(last), nn.Linear(64, 10))
    optimizer = torch.optim.NAdam(model.parameters(), lr=3e-3)

    def loss_of(pixels: torch.Tensor, digits: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(pixels), digits)

    after = lab.validating(model, lambda _: data.unseen_pixels(), loss_of)
    lab.fit(model, data.draw(data.pixels()), loss_of, optimizer, after=after)
