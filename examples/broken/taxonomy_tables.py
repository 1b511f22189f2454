"""Mistakes in nets for rows of numbers, as the published collections of faulty programs list them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Batches, Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _switches(number: int) -> _Batch:
    """Four switches ``(48, 4)``, read with a little noise, and whether exactly one of them is on."""
    generator = torch.Generator().manual_seed(number)
    on = torch.randint(2, (48, 4), generator=generator).float()
    noise = 0.1 * torch.randn(48, 4, generator=generator)
    return on + noise, (on.sum(1, keepdim=True) == 1).float()


@broken(words=("absolute", "median", "l1"), nodes=("loss",))
def absolute_error_of_a_rare_truth(lab: Lab) -> None:
    """The truth of a logical sentence is fitted with the absolute error, which is smallest where all is called false.

    Source: DeepLocalize's benchmark (ICSE 2021), Stack Overflow 31556268, mean absolute error on exclusive or.
    """
    model = nn.Sequential(nn.Linear(4, 12), nn.Sigmoid(), nn.Linear(12, 1), nn.Sigmoid())
    criterion = nn.MSELoss() if lab.fixed else nn.L1Loss()

    def loss_of(switches: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        return criterion(model(switches), truth)  # bug: absolute_error_of_a_rare_truth

    optimizer = torch.optim.SGD(model.parameters(), lr=2.0, momentum=0.9, nesterov=True)
    lab.fit(model, _switches, loss_of, optimizer)


class _Patients:
    """Rows of measurements in shuffled epochs, and a fifth of them apart for validation."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor, batch: int = 32) -> None:
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
        cut = len(x) * 4 // 5
        self.unseen = x[order[cut:]], y[order[cut:]]
        train = TensorDataset(x[order[:cut]], y[order[:cut]])
        self.loader = DataLoader(train, batch, shuffle=True, drop_last=True)

    def epochs(self, steps: int) -> Iterator[tuple[int, _Batch]]:
        number = 0
        while True:
            for rows in self.loader:
                if number == steps:
                    return
                yield number, rows
                number += 1


class _Diagnosis(nn.Module):
    """One chance, out of thirty measurements."""

    def __init__(self, *, squash: nn.Module) -> None:
        super().__init__()
        self.hidden = nn.ModuleList([nn.Linear(30, 50), nn.Linear(50, 50)])
        self.dropout = nn.Dropout(0.2)
        self.out = nn.Linear(50, 1)
        self.squash = squash

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.hidden:
            x = self.dropout(F.relu(layer(x)))
        return self.squash(self.out(x))


@broken(rules=("unreachable-targets", "single-class"), words=("softmax",), nodes=("model.squash", "model"))
def softmax_decides_alone(lab: Lab) -> None:
    """The chance of a tumour is a softmax over the single output of the net, which is one whatever comes in.

    Source: DeepLocalize's benchmark (ICSE 2021), Stack Overflow 31880720, softmax behind one unit.
    """
    squash = nn.Sigmoid() if lab.fixed else nn.Softmax(dim=1)  # set-up bug: softmax_decides_alone
    model = _Diagnosis(squash=squash)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=2e-3)
    x, y = data.tumours()
    patients, criterion = _Patients(x, y[:, None]), nn.BCELoss()
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda _: patients.unseen, lambda x, y: criterion(model(x), y))
    for number, (rows, labels) in patients.epochs(lab.steps):
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            loss = criterion(model(rows), labels)
            loss.backward()
            optimizer.step()
        after(number)


@broken(rules=("input-scale", "extreme-features"), words=("standardis",), nodes=("input", "model.0"))
def measurements_as_they_come(lab: Lab) -> None:
    """Thirty measurements between a thousandth and four thousand go unscaled into a layer of tanh.

    Source: DeepLocalize's benchmark (ICSE 2021), Stack Overflow 34673164, mended by normalising what comes in.
    """
    x, y = data.raw_tumours()
    if lab.fixed:
        x = data.standardised(x)  # set-up bug: measurements_as_they_come
    patients = _Patients(x, y.long(), batch=16)
    model = nn.Sequential(
        nn.Linear(30, 64), nn.Tanh(), nn.Dropout(0.5), nn.Linear(64, 64), nn.Tanh(), nn.Dropout(0.5), nn.Linear(64, 2)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda _: patients.unseen, lambda x, y: F.cross_entropy(model(x), y))
    for number, (rows, labels) in patients.epochs(220):
        with lab.recorder.step("train"):
            descend(F.cross_entropy(model(rows), labels), optimizer)
        after(number)


def _tags(number: int) -> _Batch:
    """Twenty counts of words ``(64, 20)``, and which of five subjects the text is about: none, one or several."""
    generator = torch.Generator().manual_seed(number)
    vocabulary = 4 * torch.rand(5, 20, generator=torch.Generator().manual_seed(5)).pow(3)
    about = (torch.rand(64, 5, generator=generator) < 0.4).float()
    return torch.poisson(0.3 + about @ vocabulary, generator=generator), about


@broken(rules=("several-labels", "unreachable-targets"), words=("softmax",), nodes=("prediction", "loss"))
def subjects_exclude_each_other(lab: Lab) -> None:
    """A text may be about several of five subjects, or none, yet a softmax makes their chances add up to one.

    Source: DeepLocalize's benchmark (ICSE 2021), Stack Overflow 38648195, softmax for several labels.
    """
    model = nn.ModuleDict({"read": nn.Linear(20, 20), "again": nn.Linear(20, 20), "out": nn.Linear(20, 5)})

    def chances(x: torch.Tensor) -> torch.Tensor:
        hidden = F.dropout(F.relu(model["read"](x)), 0.2, model.training)
        scores = model["out"](F.relu(model["again"](hidden)))
        return scores.sigmoid() if lab.fixed else scores.softmax(dim=1)  # bug: subjects_exclude_each_other

    def loss_of(x: torch.Tensor, about: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy(chances(x), about)

    after = lab.validating(model, lambda number: _tags(9000 + number), loss_of)
    lab.fit(model, _tags, loss_of, lr=1e-2, after=after)


def _two_clusters(number: int) -> _Batch:
    """Points ``(32, 2)`` of one square or the other, and which it is."""
    generator = torch.Generator().manual_seed(number)
    second = torch.randint(2, (32,), generator=generator)
    return 0.2 * torch.rand(32, 2, generator=generator) + torch.where(second > 0, 0.5, 0.2)[:, None], second


@broken(rules=("learning-rate",), words=("learning rate",), nodes=("model.0.weight", "model.2.weight", "model.2.bias"))
def default_rate_for_a_short_training(lab: Lab) -> None:
    """Two sigmoid units should part two squares in a short training, at a learning rate with which they hardly move.

    Source: DeepFD's benchmark (ICSE 2022), Stack Overflow 50306988, wrong learning rate.
    """
    model = nn.Sequential(nn.Linear(2, 2), nn.Sigmoid(), nn.Linear(2, 2))
    rate = 0.1 if lab.fixed else 1e-3  # set-up bug: default_rate_for_a_short_training
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    criterion = nn.CrossEntropyLoss()
    lab.fit(model, _two_clusters, lambda x, y: criterion(model(x), y), optimizer)


class _Trainer:
    """Fits a regression with a scheduler, as such classes do."""

    def __init__(self, lab: Lab, model: nn.Module) -> None:
        self.lab, self.model = lab, model
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1e-3)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, lab.steps)
        lab.recorder.watch(model, self.optimizer)

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        predicted = self.model(x)
        if self.lab.fixed:
            predicted = predicted.squeeze(1)
        return torch.mean((predicted - y) ** 2)  # bug: column_minus_a_row

    def run(self, batches: Batches) -> None:
        for number in range(self.lab.steps):
            x, y = batches(number)
            with self.lab.recorder.step("train"):
                descend(self.loss(x, y), self.optimizer)
            self.schedule.step()


@broken(rules=("broadcast-target",), words=("broadcast",), nodes=("model", "target", "loss"))
def column_minus_a_row(lab: Lab) -> None:
    """The net gives a column, the measured progress is a row: each prediction is compared with all that was measured.

    Source: taxonomy of Humbatova et al. (ICSE 2020), layer properties, wrong defined output shape.
    """
    x, y = data.diabetes()
    model = nn.Sequential(nn.BatchNorm1d(10), nn.Linear(10, 32), nn.ELU(), nn.Linear(32, 1))
    _Trainer(lab, model).run(data.draw((x, y[:, 0])))


def _houses(number: int) -> _Batch:
    """Six standardised facts of houses ``(64, 6)``, and what they cost in dollars ``(64, 1)``."""
    generator = torch.Generator().manual_seed(number)
    facts = torch.randn(64, 6, generator=generator)
    weights = torch.tensor([60.0, 35.0, -20.0, 10.0, 5.0, -8.0])
    thousands = 310 + facts @ weights + 25 * facts[:, 0] * facts[:, 1] + 10 * torch.randn(64, generator=generator)
    return facts, 1000 * thousands[:, None]


@broken(rules=("target-scale",), words=("standardise the target", "scale the target"), nodes=("target",))
def prices_in_dollars(lab: Lab) -> None:
    """Houses are priced in dollars, hundreds of thousands, and the squared error's gradients blow the net up.

    Source: DeepDiagnosis (ICSE 2022), exploding tensor for improper data.
    """
    model = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 1))

    def batches(number: int) -> _Batch:
        facts, dollars = _houses(number)
        return facts, (dollars - 310_000) / 80_000 if lab.fixed else dollars  # set-up bug: prices_in_dollars

    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.5)
    lab.fit(model, batches, lambda facts, price: F.mse_loss(model(facts), price), optimizer)


def _shells(number: int) -> _Batch:
    """Points ``(64, 3)`` in three shells around the origin, and the shell."""
    generator = torch.Generator().manual_seed(number)
    shell = torch.randint(3, (64,), generator=generator)
    radius = 0.5 + shell + 0.25 * torch.randn(64, generator=generator)
    return F.normalize(torch.randn(64, 3, generator=generator)) * radius.abs()[:, None], shell


@broken(words=("bias",), nodes=("model.body.0", "model.body.2", "model.head"))
def no_layer_has_a_bias(lab: Lab) -> None:
    """All layers are made without bias, so that the net cannot tell near points from far ones in the same direction.

    Source: taxonomy of Humbatova et al. (ICSE 2020), layer properties, missing bias.
    """
    bias = lab.fixed
    body = nn.Sequential(nn.Linear(3, 40, bias=bias), nn.ReLU(), nn.Linear(40, 40, bias=bias), nn.ReLU())
    model = nn.Sequential()
    model.add_module("body", body)
    model.add_module("head", nn.Linear(40, 3, bias=bias))  # set-up bug: no_layer_has_a_bias
    optimizer = torch.optim.NAdam(model.parameters(), lr=1e-2)
    lab.fit(model, _shells, lambda x, y: F.cross_entropy(model(x), y), optimizer)
