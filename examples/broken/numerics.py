"""Numbers that leave what their type can hold, or are lost in it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab
from stepscope.examples.broken.nets import mlp


@broken(rules=("non-finite",), nodes=("loss", "model"))
def logarithm_of_a_softmax(lab: Lab) -> None:
    """The cross-entropy is written by hand as the log of a softmax, which is zero for a confident net.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong loss calculation; DeepLocalize (ICSE 2021), NaN loss.
    """
    model = mlp(64, 48, 10)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        scores = 40 * F.normalize(model(x))  # a cosine classifier
        if lab.fixed:
            return F.cross_entropy(scores / 4, y)
        share = F.softmax(4 * scores, dim=1)
        return -(F.one_hot(y, 10) * torch.log(share)).sum(1).mean()  # bug: logarithm_of_a_softmax

    lab.fit(model, data.draw(data.pixels()), loss_of)


@broken(rules=("non-finite",), nodes=("model", "loss"), onset=30)
def root_of_a_zero_distance(lab: Lab) -> None:
    """The distance of a pair is a square root; from step 30 on a pair is identical, and its gradient is infinite.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong loss calculation; a known trap of contrastive losses.
    """
    model = mlp(64, 48, 8)
    x, y = data.pixels()
    first, second = data.draw((x[::2], y[::2])), data.draw((x[1::2], y[1::2]))  # no image is in both

    def pairs(number: int) -> tuple[torch.Tensor, ...]:
        (one, label), (other, other_label) = first(number), second(number)
        if number >= 30:
            other[0], other_label[0] = one[0], label[0]
        return one, other, (label == other_label).float()

    def loss_of(one: torch.Tensor, other: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
        square = (model(one) - model(other)).pow(2).sum(1)
        distance = (square + 1e-6).sqrt() if lab.fixed else square.sqrt()  # bug: root_of_a_zero_distance
        return (same * square + (1 - same) * F.relu(1 - distance) ** 2 + 0.1 * same * distance).mean()

    lab.fit(model, pairs, loss_of, lr=1e-3)


class OwnNorm(nn.Module):
    """Standardises each sample by itself, and classifies."""

    def __init__(self, *, eps: float) -> None:
        super().__init__()
        self.layers = mlp(64, 48, 10)
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x - x.mean(1, keepdim=True)
        x = x / (x.std(1, keepdim=True) + self.eps)  # bug: division_by_no_spread
        return self.layers(x)


@broken(rules=("non-finite",), nodes=("model.layers.0", "model.layers", "input", "model"), onset=50)
def division_by_no_spread(lab: Lab) -> None:
    """Each image is divided by its standard deviation, which is zero for the blank one that comes in step 50.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong preprocessing; DeepLocalize (ICSE 2021), NaN.
    """
    model = OwnNorm(eps=1e-5 if lab.fixed else 0.0)
    batches = data.draw(data.pixels())

    def with_a_blank(number: int) -> tuple[torch.Tensor, ...]:
        x, y = batches(number)
        if number == 50:
            x[5] = 0.0
        return x, y

    lab.fit(model, with_a_blank, lambda x, y: F.cross_entropy(model(x), y))


class HalfNet(nn.Module):
    """A net in half precision that sums the squares of its units."""

    def __init__(self, *, half: bool) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 256), nn.Linear(256, 10)
        self.half_precision = half

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = F.relu(self.first(x)) * 30
        if self.half_precision:
            hidden = hidden.half()
        energy = (hidden * hidden).sum(1, keepdim=True)  # bug: half_precision_overflow
        return self.last((hidden / (energy + 1).sqrt()).float())


@broken(
    rules=("non-finite", "dtype-range"), words=("float16", "overflow"), nodes=("model.last", "model.first", "model")
)
def half_precision_overflow(lab: Lab) -> None:
    """A sum of squares in half precision grows beyond 65,504.

    Source: TrainCheck (OSDI 2025), mixed precision gone wrong; SageMaker Debugger's ExplodingTensor.
    """
    model = HalfNet(half=not lab.fixed)
    lab.fit(model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model(x), y), lr=1e-3)


@broken(
    rules=("unchanged-parameters", "learning-rate"), words=("bfloat16", "rounded"),
    nodes=("model.0.weight", "model.2.weight", "model.0.bias", "model.2.bias"),
)  # fmt: skip
def updates_lost_in_bfloat16(lab: Lab) -> None:
    """The weights are kept in bfloat16, whose three digits swallow updates of 1e-5.

    Source: TrainCheck (OSDI 2025), mixed precision gone wrong; Transformers without float32 master weights.
    """
    model = mlp(64, 48, 10)
    lr = 3e-3 if lab.fixed else 1e-5
    kind = torch.float32 if lab.fixed else torch.bfloat16
    model.to(kind)  # set-up bug: updates_lost_in_bfloat16
    lab.fit(model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model(x.to(kind)).float(), y), lr=lr)
