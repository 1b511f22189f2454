"""Numbers that exist elsewhere only: roots and logarithms of zero, spreads of one sample, gradients below half."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend
from stepscope.examples.broken.nets import mlp


class Rooted(nn.Module):
    """Compresses its hidden units with a root, where they are positive."""

    def __init__(self, *, safe: bool) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(64, 48), nn.Linear(48, 10)
        self.safe = safe

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.embed(x)
        inside = hidden.clamp(min=1e-3) if self.safe else hidden
        root = torch.where(hidden > 0, inside.sqrt(), torch.zeros_like(hidden))  # bug: where_hides_a_root
        return self.head(root)


@broken(rules=("non-finite",), nodes=("model", "model.embed", "model.head"))
def where_hides_a_root(lab: Lab) -> None:
    """``torch.where`` hides the roots of negative numbers from the values, but not from the gradients: NaN.

    Source: pytorch/pytorch issues 187297, 68425 and 52248.
    """
    model = Rooted(safe=lab.fixed)
    lab.fit(model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model(x), y))


@broken(rules=("non-finite", "dtype-range"), words=("overflow",), nodes=("loss", "model"))
def exponential_without_the_maximum(lab: Lab) -> None:
    """A softmax by hand, in half precision, does not subtract the maximum: the exponential of 12 is infinite there.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong loss calculation; TrainCheck (OSDI 2025), mixed precision.
    """
    model = mlp(64, 48, 10)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        scores = 16 * F.normalize(model(x))  # a cosine classifier
        if lab.fixed:
            return F.cross_entropy(scores, y)
        powers = scores.half().exp()  # bug: exponential_without_the_maximum
        return -(powers[torch.arange(len(y)), y] / powers.sum(1)).float().log().mean()

    lab.fit(model, data.draw(data.pixels()), loss_of)


@broken(rules=("non-finite",), words=("one sample", "single sample"), nodes=("loss", "model", "target"), onset=40)
def spread_of_a_batch_of_one(lab: Lab) -> None:
    """Rewards are divided by their standard deviation over the batch, which a last batch of one sample has not.

    Source: stable-baselines3 issues 325 and 440: all networks turn to NaN.
    """
    policy = mlp(10, 32, 2)

    def spread(reward: torch.Tensor) -> torch.Tensor:
        return ((reward - reward.mean()).square().sum() / (len(reward) - 1)).sqrt()

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        scores = policy(x).log_softmax(1)
        action = (scores.detach() - torch.empty_like(scores).exponential_().log()).argmax(1)
        reward = (action == (y[:, 0] > 0)).float()
        if not lab.fixed or len(reward) > 1:
            reward = (reward - reward.mean()) / (spread(reward) + 1e-6)  # bug: spread_of_a_batch_of_one
        return -(scores[torch.arange(len(x)), action] * reward).mean()

    batches = data.draw(data.diabetes())

    def with_a_rest(number: int) -> tuple[torch.Tensor, ...]:
        x, y = batches(number)
        return (x[:1], y[:1]) if number % 41 == 40 else (x, y)

    lab.fit(policy, with_a_rest, loss_of)


@broken(rules=("non-finite",), nodes=("loss", "target", "model"))
def divergence_of_impossible_classes(lab: Lab) -> None:
    """A divergence by hand multiplies probabilities of zero with their logarithm, which is 0 times infinity: NaN.

    Source: defect4ML and the taxonomy of Humbatova et al. (ICSE 2020), wrong loss; kl_div by hand with zeros.
    """
    model = mlp(64, 48, 10)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        wanted = 0.9 * F.one_hot(y, 10) + 0.1 * F.one_hot((y + 1) % 10, 10)  # is often taken for the digit before
        found = model(x).log_softmax(1)
        if lab.fixed:
            return F.kl_div(found, wanted, reduction="batchmean")
        return (wanted * (wanted.log() - found)).sum(1).mean()  # bug: divergence_of_impossible_classes

    lab.fit(model, data.draw(data.pixels()), loss_of)


class Halved(nn.Module):
    """An autoencoder whose encoder works in half precision."""

    def __init__(self, *, half: bool) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(64, 24), nn.Linear(24, 64)
        self.half_precision = half

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        code = self.encode(x)
        if self.half_precision:
            code = code.half()
        return self.decode(code.tanh().float())  # bug: gradients_too_small_for_half


@broken(
    rules=("dtype-range", "no-gradient", "vanishing-gradient"), words=("float16", "underflow"),
    nodes=("model.encode", "model.encode.weight", "model.encode.bias", "model", "model.decode"),
)  # fmt: skip
def gradients_too_small_for_half(lab: Lab) -> None:
    """A mean over many pixels weighs 1e-4 and is not scaled up: in half precision its gradients round to zero.

    Source: Micikevicius et al. (2018), mixed precision training without loss scaling; TrainCheck (OSDI 2025).
    """
    model = Halved(half=not lab.fixed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, eps=1e-15)
    lab.recorder.watch(model, optimizer)
    batches = data.draw(data.pixels(), 256)
    for number in range(lab.steps):
        x, _ = batches(number)
        with lab.recorder.step("train"):
            descend(1e-4 * F.mse_loss(model(x), x), optimizer)
