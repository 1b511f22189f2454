"""Mistakes at the end of the net: its last activation, its loss, the shape and range of its targets."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab
from stepscope.examples.broken.nets import mlp


class Reader(nn.Module):
    """Reads digits; may end with the softmax that its loss takes anyway."""

    def __init__(self, *, softmax: bool) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 48), nn.Linear(48, 10)
        self.softmax = softmax

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.last(F.relu(self.first(x)))
        if self.softmax:
            x = F.softmax(x, dim=1)  # bug: softmax_before_cross_entropy
        return x


@broken(rules=("activation-before-loss", "unreachable-targets"), nodes=("model", "loss"))
def softmax_before_cross_entropy(lab: Lab) -> None:
    """The net ends with a softmax, and cross_entropy takes another one of it.

    Source: UMLAUT (Schoop et al., CHI 2021), the loss takes logits but is given probabilities.
    """
    model = Reader(softmax=not lab.fixed)
    lab.fit(model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model(x), y))


@broken(rules=("activation-before-loss", "unreachable-targets"), nodes=("model.3", "model", "loss"))
def sigmoid_before_bce_with_logits(lab: Lab) -> None:
    """The net ends with a sigmoid, and binary_cross_entropy_with_logits takes another one of it.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong activation function; loss and output do not fit.
    """
    model = mlp(30, 32, 1)
    if not lab.fixed:
        model.append(nn.Sigmoid())  # set-up bug: sigmoid_before_bce_with_logits
    lab.fit(model, data.draw(data.tumours()), lambda x, y: F.binary_cross_entropy_with_logits(model(x), y[:, None]))


@broken(rules=("activation-before-loss", "unreachable-targets"), nodes=("model.5", "model", "loss"))
def relu_on_the_logits(lab: Lab) -> None:
    """A ReLU follows the last layer of a classifier, so that no class can get a negative score.

    Source: DeepLocalize (Wardat et al., ICSE 2021), wrong activation of the last layer.
    """
    model = mlp(64, 48, 48, 10)
    if not lab.fixed:
        model.append(nn.ReLU())  # set-up bug: relu_on_the_logits
    lab.fit(model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model(x), y))


class Forecast(nn.Module):
    """Predicts one number; may cut off what is negative."""

    def __init__(self, *, cut: bool) -> None:
        super().__init__()
        self.hidden, self.last = nn.Linear(10, 32), nn.Linear(32, 1)
        self.cut = cut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.last(torch.tanh(self.hidden(x)))
        if self.cut:
            x = F.relu(x)  # bug: relu_on_a_regression
        return x


@broken(rules=("unreachable-targets",), nodes=("model", "loss", "target"))
def relu_on_a_regression(lab: Lab) -> None:
    """A ReLU follows the last layer of a regression whose targets are negative half of the time.

    Source: DeepLocalize (Wardat et al., ICSE 2021), activation of the output in a regression.
    """
    model = Forecast(cut=not lab.fixed)
    lab.fit(model, data.draw(data.diabetes()), lambda x, y: F.mse_loss(model(x), y), lr=1e-3)


@broken(rules=("unreachable-targets", "target-scale"), nodes=("model.3", "model", "target", "loss"))
def sigmoid_for_large_targets(lab: Lab) -> None:
    """A sigmoid ends a regression whose targets lie between 25 and 346.

    Source: DeepDiagnosis (Wardat et al., ICSE 2022), output activation and range of the labels do not fit.
    """
    model = mlp(10, 32, 1)
    table = data.diabetes()
    if not lab.fixed:
        model.append(nn.Sigmoid())  # set-up bug: sigmoid_for_large_targets
        table = data.raw_diabetes()
    lab.fit(model, data.draw(table), lambda x, y: F.mse_loss(model(x), y), lr=1e-3)


@broken(
    rules=("activation-before-loss", "constant-output", "single-class"), words=("softmax",), nodes=("model", "loss")
)
def softmax_of_one_unit(lab: Lab) -> None:
    """A softmax over the single output of a binary classifier is 1 for every sample.

    Source: AutoTrainer (Zhang et al., ICSE 2021) and many questions on Stack Overflow: one unit with a softmax.
    """
    model = mlp(30, 32, 1)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        score = model(x)
        chance = torch.sigmoid(score) if lab.fixed else F.softmax(score, dim=1)  # bug: softmax_of_one_unit
        return F.binary_cross_entropy(chance, y[:, None])

    lab.fit(model, data.draw(data.tumours()), loss_of)


@broken(
    rules=("activation-before-loss", "unbounded-loss"),
    words=("log_softmax", "log-prob", "log prob"),
    nodes=("model", "loss"),
)
def nll_of_raw_scores(lab: Lab) -> None:
    """nll_loss is given the raw scores instead of log-probabilities, so that it falls below zero without end.

    Source: taxonomy of Humbatova et al. (ICSE 2020), missing softmax layer; wrong loss function.
    """
    model = mlp(64, 48, 10)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        scores = model(x)
        if lab.fixed:
            scores = F.log_softmax(scores, dim=1)
        return F.nll_loss(scores, y)  # bug: nll_of_raw_scores

    lab.fit(model, data.draw(data.pixels()), loss_of)


@broken(rules=("unreachable-targets", "unbounded-loss"), words=("between 0 and 1", "outside"), nodes=("target", "loss"))
def labels_from_one(lab: Lab) -> None:
    """The labels of a binary classifier are 1 and 2 instead of 0 and 1.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong labels; wrong shape or range of the targets.
    """
    model = mlp(30, 32, 1)
    x, y = data.tumours()
    if not lab.fixed:
        y = y + 1  # set-up bug: labels_from_one
    lab.fit(model, data.draw((x, y)), lambda x, y: F.binary_cross_entropy_with_logits(model(x)[:, 0], y))


@broken(rules=("softmax-over-batch",), nodes=("model", "loss"))
def softmax_over_the_batch(lab: Lab) -> None:
    """The softmax is taken over the samples of the batch instead of over the classes.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong API usage; UMLAUT (CHI 2021), softmax.
    """
    model = mlp(64, 48, 10)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        logs = F.log_softmax(model(x), dim=1 if lab.fixed else 0)  # bug: softmax_over_the_batch
        return F.nll_loss(logs, y)

    lab.fit(model, data.draw(data.pixels()), loss_of)


@broken(rules=("broadcast-target",), nodes=("model", "target", "loss"))
def targets_broadcast(lab: Lab) -> None:
    """Predictions [B, 1] are compared with targets [B], each with all of them.

    Source: DeepFD (Cao et al., ICSE 2022) and PyTorch's own warning in mse_loss; here the difference is taken by hand.
    """
    model = mlp(10, 32, 1)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        y = y if lab.fixed else y[:, 0]
        return ((model(x) - y) ** 2).mean()  # bug: targets_broadcast

    lab.fit(model, data.draw(data.diabetes()), loss_of, lr=1e-3)


@broken(rules=("gradient-cut", "no-gradient"), words=("argmax",), nodes=("model", "loss"))
def loss_of_the_argmax(lab: Lab) -> None:
    """The loss compares the predicted class, an argmax; ``requires_grad_`` silenced the error that this had raised.

    Source: TrainCheck (Jiang et al., OSDI 2025), nothing trains; a recurring question of the PyTorch forum.
    """
    model = mlp(64, 48, 10)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if lab.fixed:
            return F.cross_entropy(model(x), y)
        predicted = model(x).argmax(1).float()  # bug: loss_of_the_argmax
        return F.mse_loss(predicted, y.float()).requires_grad_()

    lab.fit(model, data.draw(data.pixels()), loss_of)
