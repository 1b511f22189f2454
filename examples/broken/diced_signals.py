"""Mistakes in trainings on tables and signals, drawn by dice from the published collections of faults."""

from __future__ import annotations

import copy
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


class _ResidualBlock(nn.Module):
    """A normalised layer beside a way around it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.fc1, self.fc2 = nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.fc2(F.gelu(self.fc1(self.norm(x))))


class _ResMlp(nn.Module):
    """Six blocks between two layers."""

    def __init__(self, inputs: int, outputs: int, width: int = 40) -> None:
        super().__init__()
        self.stem = nn.Linear(inputs, width)
        self.blocks = nn.Sequential(*(_ResidualBlock(width) for _ in range(6)))
        self.head = nn.Linear(width, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(x)))


@broken(
    rules=("learning-rate",),
    words=("learning rate",),
    nodes=("model.stem.weight", "model.blocks.0.fc1.weight", "model.head.weight"),
)
def residual_layers_that_stand_still(lab: Lab) -> None:
    """A deep net with residuals gets AdamW at a learning rate of a millionth, copied from the end of a schedule.

    Source: DeepDiagnosis (ICSE 2022), unchanged weight, mended by a higher learning rate.
    """
    x, digit = data.pixels()
    model = _ResMlp(64, 10)
    rate = 1e-3 if lab.fixed else 1e-6
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)  # set-up bug: residual_layers_that_stand_still
    criterion = nn.CrossEntropyLoss(label_smoothing=0.05)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda _: data.unseen_pixels(), lambda x, y: criterion(model(x), y))
    loader = DataLoader(TensorDataset(x, digit), 32, shuffle=True, drop_last=True)
    number = 0
    for _ in range(4):
        for rows, labels in loader:
            with lab.recorder.step("train"):
                descend(criterion(model(rows), labels), optimizer)
            after(number)
            number += 1


@broken(
    rules=("learning-rate",), words=("learning rate",), nodes=("model.0.weight", "model.2.weight", "model.4.weight")
)
def weights_thrown_about_in_each_step(lab: Lab) -> None:
    """A small net for patients is trained with RMSprop at a learning rate of 0.3, which replaces its weights each step.

    Source: SageMaker Debugger's built-in rules, WeightUpdateRatio for a learning rate that is too high.
    """
    x, progress = data.diabetes()
    model = mlp(10, 24, 12, 1, activation=nn.Tanh)
    rate = 2e-3 if lab.fixed else 0.3  # set-up bug: weights_thrown_about_in_each_step
    optimizer = torch.optim.RMSprop(model.parameters(), lr=rate, weight_decay=1e-3)
    train, test = (x[:340], progress[:340]), (x[340:], progress[340:])

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(x), y)

    lab.fit(model, data.draw(train, 48), loss_of, optimizer, after=lab.validating(model, lambda _: test, loss_of))


@lru_cache
def _beats() -> _Batch:
    """Heart beats of three kinds ``(1600, 1, 72)`` with noise and drift, and their kinds."""
    generator = torch.Generator().manual_seed(21)
    kind = torch.randint(3, (1600,), generator=generator)
    moment = torch.arange(72.0)
    start = 18 + 24 * torch.rand(1600, 1, generator=generator)
    width = torch.tensor([2.0, 4.5, 2.0])[kind][:, None]
    beat = 3 * (-(((moment - start) / width) ** 2)).exp()
    echo = 1.5 * (-(((moment - start - 14) / 3) ** 2)).exp() * torch.tensor([1.0, 1.0, -1.0])[kind][:, None]
    drift = (moment / 30 + 6.28 * torch.rand(1600, 1, generator=generator)).sin()
    x = beat + echo + 0.5 * drift + 0.3 * torch.randn(1600, 72, generator=generator)
    return ((x - x.mean()) / x.std())[:, None], kind


class _Conv1d(nn.Module):
    """Three strided convolutions with norms over a signal."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (1, 12, 24, 32)
        self.convs = nn.ModuleList(nn.Conv1d(sizes[i], sizes[i + 1], 7, 2, 3, bias=False) for i in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm1d(size) for size in sizes[1:])
        self.fc = nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x)))
        return self.fc(x.mean(2))


class _Accelerator:
    """Prepares a model for a device, as such libraries do: there it is another one, with weights of its own."""

    def prepare(self, model: nn.Module) -> nn.Module:
        return copy.deepcopy(model).float()


@broken(
    rules=("untrained-parameters",),
    words=("no optimizer", "the optimizer holds", "in the optimizer", "of another model"),
    nodes=("model.convs.0.weight", "model.fc.weight", "model"),
)
def beats_read_by_the_prepared_model(lab: Lab) -> None:
    """The optimizer is made before the model is prepared, and holds the weights of the model that is not trained.

    Source: TrainCheck (OSDI 2025), accelerate-2665, optimizer made before the model is prepared.
    """
    x, kind = _beats()
    net, accelerator = _Conv1d(), _Accelerator()
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)  # set-up bug: beats_read_by_the_prepared_model
    model = accelerator.prepare(net)
    if lab.fixed:
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    lab.recorder.watch(model, optimizer)
    test = x[1300:], kind[1300:]
    after = lab.validating(model, lambda _: test, lambda x, y: F.cross_entropy(model(x), y))
    for number in range(lab.steps):
        rows, labels = data.draw((x[:1300], kind[:1300]), 32)(number)
        with lab.recorder.step("train"):
            loss = F.cross_entropy(model(rows), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        after(number)


def _power(number: int) -> _Batch:
    """The power that a town used in 24 hours ``(32, 24, 2)`` with the clock, and in the three after them."""
    generator = torch.Generator().manual_seed(number)
    first = 24 * torch.rand(32, 1, generator=generator)
    hours = first + torch.arange(27.0)
    level, swing = torch.rand(2, 32, 1, generator=generator)
    used = level - 0.5 + (0.7 + 0.6 * swing) * (hours * 0.2618).sin() + 0.3 * (hours * 0.5236 + 1).cos()
    used = used + 0.1 * torch.randn(32, 27, generator=generator)
    return torch.stack([used[:, :24], (hours[:, :24] * 0.2618).cos()], dim=2), used[:, 24:]


class _Load(nn.Module):
    """A recurrent layer and three hours at once."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.out = nn.GRU(2, 40, batch_first=True), nn.Linear(40, 3)

    def forward(self, past: torch.Tensor) -> torch.Tensor:
        _, last = self.gru(past)
        return self.out(last[0])


@broken(
    rules=("learning-rate",),
    words=("learning rate",),
    nodes=("model.gru.weight_ih_l0", "model.gru.weight_hh_l0", "model.out.weight"),
)
def town_forecast_in_tiny_steps(lab: Lab) -> None:
    """A forecast of power is trained with Adam at a learning rate of a hundred-thousandth, and hardly a weight moves.

    Source: DeepDiagnosis (ICSE 2022), unchanged weight, mended by a higher learning rate.
    """
    model = _Load()
    rate = 5e-3 if lab.fixed else 1e-5  # set-up bug: town_forecast_in_tiny_steps
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 50, gamma=0.5)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        past, following = _power(number)
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            loss = F.smooth_l1_loss(model(past), following)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
        schedule.step()
        lab.validate(lambda n: _power(9000 + n), lambda x, y: F.smooth_l1_loss(model(x), y), number)


class _Rates(nn.Module):
    """Reads what three currencies did and says what they do next."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.GRU(3, 32, batch_first=True)
        self.say = nn.Linear(32, 3)

    def forward(self, past: torch.Tensor) -> torch.Tensor:
        states, _ = self.read(past)
        return self.say(states)


def _currencies(number: int) -> _Batch:
    """Fifteen days of three currencies ``(32, 15, 3)`` that pull each other, and the days after them."""
    generator = torch.Generator().manual_seed(number)
    pull = torch.tensor([[0.6, 0.5, 0.0], [-0.5, 0.6, 0.2], [0.0, 0.6, -0.6]])
    days = [torch.randn(32, 3, generator=generator)]
    for _ in range(15):
        days.append(days[-1] @ pull.T + 0.3 * torch.randn(32, 3, generator=generator))
    series = torch.stack(days, dim=1) / 0.7
    return series[:, :-1], series[:, 1:]


class _Session:
    """Holds a model and its optimizer for one training after the other."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.model = _Rates()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=8e-3)

    def reset(self) -> None:
        """Forget what was learned."""
        self.model = _Rates()  # set-up bug: a_fresh_model_for_the_old_optimizer
        if self.lab.fixed:
            self.optimizer = torch.optim.Adam(self.model.parameters(), lr=8e-3)

    def loss(self, past: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(self.model(past), following)

    def fit(self) -> None:
        self.reset()
        self.lab.recorder.watch(self.model, self.optimizer)
        after = self.lab.validating(self.model, lambda number: _currencies(9000 + number), self.loss)
        for number in range(self.lab.steps):
            past, following = _currencies(number)
            with self.lab.recorder.step("train"):
                self.model.zero_grad()
                self.loss(past, following).backward()
                self.optimizer.step()
            after(number)


@broken(
    rules=("untrained-parameters",),
    words=("no optimizer", "the optimizer holds", "in the optimizer", "of another model"),
    nodes=("model.read.weight_ih_l0", "model.say.weight", "model"),
)
def a_fresh_model_for_the_old_optimizer(lab: Lab) -> None:
    """Before a training the model is made anew, and the optimizer goes on with the parameters of the one before.

    Source: SageMaker Debugger's built-in rules, LossNotDecreasing, the optimizer does not hold the model's parameters.
    """
    _Session(lab).fit()
