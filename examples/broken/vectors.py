"""Mistakes in supervised learning on vectors: regressions, several labels, several tasks, tables with holes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend
from stepscope.examples.broken.nets import mlp

_Batch = tuple[torch.Tensor, ...]


class _Regressor(nn.Module):
    """Three layers, the second of which may be made where it is used."""

    def __init__(self, *, kept: bool) -> None:
        super().__init__()
        self.embed, self.last = nn.Linear(10, 48), nn.Linear(48, 1)
        self.middle = nn.Linear(48, 24) if kept else None
        self.narrow = nn.Linear(24, 48)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = F.silu(self.embed(x))
        middle = self.middle or nn.Linear(48, 24)  # bug: layer_made_in_forward
        return self.last(F.silu(self.narrow(F.silu(middle(hidden)))))


@broken(
    rules=("unregistered-parameters",), words=("registered", "unknown to", "made anew"),
    nodes=("model", "model.narrow", "model.embed"),
)  # fmt: skip
def layer_made_in_forward(lab: Lab) -> None:
    """A layer is made in ``forward``, as one would in Keras: it is another random one in each step and never trains.

    Source: PyTorch forum, layers defined in forward; taxonomy of Humbatova et al. (ICSE 2020), wrong layer.
    """
    model = _Regressor(kept=lab.fixed)
    lab.fit(model, data.draw(data.diabetes(), 128), lambda x, y: F.mse_loss(model(x), y), lr=5e-3)


def _topics(number: int) -> _Batch:
    """Vectors ``(64, 20)``, and which of 8 labels hold ``(64, 8)``: 2.5 of them on average."""
    directions = torch.randn(20, 8, generator=torch.Generator().manual_seed(7)) / 20**0.5
    x = torch.randn(64, 20, generator=torch.Generator().manual_seed(number))
    return x, (x @ directions > 0.5).float()


@broken(
    words=("multi-hot", "more than one class", "several classes", "several labels", "sum to", "not a distribution"),
    nodes=("loss", "target"),
)  # fmt: skip
def cross_entropy_for_several_labels(lab: Lab) -> None:
    """The cross-entropy of one class among eight is taken of samples with several labels, or none.

    Source: PyTorch forum 67011, BCEWithLogitsLoss for multi-label classification; Humbatova et al. (ICSE 2020).
    """
    model = mlp(20, 64, 8, activation=nn.GELU)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if lab.fixed:
            return F.binary_cross_entropy_with_logits(model(x), y)
        return F.cross_entropy(model(x), y)  # bug: cross_entropy_for_several_labels

    lab.fit(model, _topics, loss_of, torch.optim.AdamW(model.parameters(), 1e-2))


def _sensors(number: int) -> _Batch:
    """Measurements ``(64, 6)``, their target ``(64,)``, and trust ``(64, 1)``: little where the sensor failed."""
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(64, 6, generator=generator)
    y = x[:, 0] * x[:, 1] + x[:, 2].abs() + x[:, 3]
    failed = torch.rand(64, generator=generator) < 0.4
    trust = torch.where(failed, 0.001, 1.0)
    return x, torch.where(failed, 8.0, y), trust[:, None]


@broken(rules=("broadcast-target",), words=("broadcast", "each with all"), nodes=("loss", "smooth_l1_loss", "target 2"))
def sample_weights_in_a_column(lab: Lab) -> None:
    """Weights [B, 1] times losses [B] weigh each loss with all the weights: broken sensors count like others.

    Source: PyTorch forum on weighted losses with reduction='none'; taxonomy of Humbatova et al. (ICSE 2020).
    """
    model = mlp(6, 64, 64, 1)

    def loss_of(x: torch.Tensor, y: torch.Tensor, trust: torch.Tensor) -> torch.Tensor:
        weights = trust[:, 0] if lab.fixed else trust
        each = F.smooth_l1_loss(model(x)[:, 0], y, reduction="none")
        return (weights * each).mean() / trust.mean()  # bug: sample_weights_in_a_column

    lab.fit(model, _sensors, loss_of, torch.optim.NAdam(model.parameters(), 3e-3))


@broken(
    rules=("targets-equal-inputs",), words=("leak", "gives away", "copy of the target", "contains the target"),
    nodes=("input", "target"),
)  # fmt: skip
def label_left_among_the_features(lab: Lab) -> None:
    """The column to be predicted was left in the table, and is empty where the net is used.

    Source: Kapoor and Narayanan (2023), leakage; Karpathy's recipe (2019), become one with the data.
    """
    x, y = data.diabetes()
    known, seen = x[:300], y[:300]
    unknown = x[300:]
    if not lab.fixed:
        known = torch.cat([known, seen], dim=1)  # set-up bug: label_left_among_the_features
        unknown = F.pad(unknown, (0, 1))
    model = mlp(known.shape[1], 24, 1)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(x), y)

    optimizer = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9)
    others = data.draw((unknown, y[300:]), 142)
    lab.fit(
        model, data.draw((known, seen), 32), loss_of, optimizer,
        after=lambda number: lab.validate(others, loss_of, number),
    )  # fmt: skip


@broken(rules=("extreme-features", "input-scale"), words=("-999",), nodes=("input", "model.0", "model.0.weight"))
def missing_as_minus_999(lab: Lab) -> None:
    """Missing measurements stand as -999 in a standardised table, and nobody fills them in.

    Source: UMLAUT (CHI 2021), unusual input; taxonomy of Humbatova et al. (ICSE 2020), missing preprocessing.
    """
    model = mlp(10, 32, 16, 1, activation=nn.LeakyReLU)
    x, y = data.diabetes()
    holes = torch.rand(x.shape, generator=torch.Generator().manual_seed(3)) < 0.03
    x = x.masked_fill(holes, 0.0 if lab.fixed else -999.0)  # set-up bug: missing_as_minus_999
    lab.fit(model, data.draw((x, y), 48), lambda x, y: F.huber_loss(model(x), y), lr=2e-3)


def _surface(number: int) -> _Batch:
    """Points ``(64, 5)``, and three smooth functions of them ``(64, 3)`` around 2."""
    x = torch.randn(64, 5, generator=torch.Generator().manual_seed(number))
    return x, 2 + torch.stack([x[:, 0].sin() + x[:, 1], x[:, 2] * x[:, 3], x[:, 4].abs()], dim=1)


def _unseen_surface(number: int) -> _Batch:
    return _surface(number + 10_000)


@broken(words=("dropout",), nodes=("model.5", "model"))
def dropout_behind_the_last_layer(lab: Lab) -> None:
    """Dropout stands behind the last layer of a regression, and zeroes answers: the others become too small.

    Source: PyTorch forum and Stack Overflow, dropout on the outputs of a regression; Humbatova et al. (ICSE 2020).
    """
    last, dropout = nn.Linear(64, 3), nn.Dropout(0.3)
    end = (dropout, last) if lab.fixed else (last, dropout)  # set-up bug: dropout_behind_the_last_layer
    model = nn.Sequential(nn.Linear(5, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), *end)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(x), y)

    lab.fit(model, _surface, loss_of, lr=5e-3, after=lab.validating(model, _unseen_surface, loss_of))


@broken(rules=("no-gradient", "gradient-cut"), words=("requires_grad",), nodes=("loss", "cross_entropy", "model.trunk"))
def losses_collected_in_a_new_tensor(lab: Lab) -> None:
    """The losses of three tasks are put in a new tensor, which requires a gradient but passes none on.

    Source: PyTorch forum and Stack Overflow: loss = torch.tensor([...], requires_grad=True), nothing is learned.
    """
    trunk, heads = mlp(64, 64, 32, activation=nn.ELU), nn.ModuleList([nn.Linear(32, 2) for _ in range(3)])
    model = nn.ModuleDict({"trunk": trunk, "heads": heads})

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        code = F.elu(trunk(x))
        questions = (y % 2, (y > 4).long(), (y % 3 == 0).long())
        losses = [F.cross_entropy(head(code), answer) for head, answer in zip(heads, questions, strict=True)]
        if lab.fixed:
            return torch.stack(losses).sum()
        values = [loss.item() for loss in losses]
        return torch.tensor(values, requires_grad=True).sum()  # bug: losses_collected_in_a_new_tensor

    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, nesterov=True)
    lab.fit(model, data.draw(data.pixels()), loss_of, optimizer)


def _uneven_noise(number: int) -> _Batch:
    """A curve over ``(128, 1)``, noisier on the right."""
    generator = torch.Generator().manual_seed(number)
    x = 4 * torch.rand(128, 1, generator=generator) - 2
    return x, (2 * x).sin() + 0.1 * (x + 2.1) * torch.randn(128, 1, generator=generator)


@broken(
    rules=("unbounded-loss",), words=("variance", "no minimum", "without end", "unbounded"), nodes=("loss", "model")
)
def variance_without_its_price(lab: Lab) -> None:
    """The likelihood of a normal distribution lacks its log of the variance, which is free to grow without end.

    Source: questions on losses of Kendall and Gal (2017); Humbatova et al. (ICSE 2020), wrong loss calculation.
    """
    model = mlp(1, 48, 48, 2, activation=nn.Tanh)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        mean, log_variance = model(x).chunk(2, dim=1)
        squares = (y - mean).square() * (-log_variance).exp()
        price = log_variance if lab.fixed else torch.zeros_like(log_variance)
        return 0.5 * (squares + price).mean()  # bug: variance_without_its_price

    lab.fit(model, _uneven_noise, loss_of, lr=1e-2)


@broken(
    words=("optimizer is made", "state of the optimizer", "state of its optimizer", "moments", "new optimizer"),
    nodes=("model.0.weight", "model.2.weight", "model.4.weight"),
)  # fmt: skip
def optimizer_made_in_every_step(lab: Lab) -> None:
    """The optimizer is made in the loop, so that it forgets its moments and takes steps of full length for ever.

    Source: PyTorch forum, optimizer created inside the training loop; Humbatova et al. (ICSE 2020), wrong optimisation.
    """
    model = mlp(10, 64, 64, 1, activation=nn.SiLU)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        x, y = _surface(number)
        if not lab.fixed:
            optimizer = torch.optim.Adam(model.parameters(), 1e-2)  # set-up bug: optimizer_made_in_every_step
        with lab.recorder.step("train"):
            descend(F.mse_loss(model(torch.cat([x, x.square()], dim=1)), y[:, :1]), optimizer)
