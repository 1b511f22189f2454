"""Mistakes in small nets for tables, as users bring them up."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _sine_of_products(rows: int, seed: int) -> torch.Tensor:
    """Two numbers and the sine of their product ``(rows, 3)``."""
    numbers = torch.randn(rows, 2, generator=torch.Generator().manual_seed(seed))
    return torch.cat([numbers, (numbers[:, 0] * numbers[:, 1]).sin()[:, None]], dim=1)


@broken(rules=("broadcast-target",), words=("broadcast",), nodes=("model", "target", "loss"))
def third_column_without_its_axis(lab: Lab) -> None:
    """The column of truths is cut out of the batch as a row, so each prediction is compared with all truths.

    Source: pytorch/pytorch 63546, "loss not descent, while tensorflow do!": ``criterion(pred, d[:, 2])``.
    """
    table, unseen = _sine_of_products(20_000, 1), _sine_of_products(500, 2)
    layers: list[nn.Module] = []
    for width in (2, 64, 64):
        layers += [nn.Linear(width, 64), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(64, 1))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda _: (unseen,), lambda d: F.l1_loss(model(d[:, :2]), d[:, 2:]))
    for epoch in range(2):
        for place, (rows,) in enumerate(DataLoader(TensorDataset(table), batch_size=250, shuffle=True)):
            with lab.recorder.step("train"):
                pred = model(rows[:, :2])
                truth = rows[:, 2:] if lab.fixed else rows[:, 2]
                loss = (pred - truth).abs().mean()  # bug: third_column_without_its_axis
                descend(loss, optimizer)
            after(80 * epoch + place)


class _Perceptron(nn.Module):
    """Three layers, the second with a sigmoid."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.hidden1, self.hidden2 = nn.Linear(1, hidden), nn.Linear(hidden, hidden)
        self.predict = nn.Linear(hidden, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.predict(torch.sigmoid(self.hidden2(F.relu(self.hidden1(x)))))


@broken(rules=("target-scale", "input-scale"), words=("standardis", "rescal"), nodes=("target", "input"))
def seconds_for_so_many_rows(lab: Lab) -> None:
    """Run times up to 500 seconds are fitted as they were measured, and the sizes are only taken the logarithm of.

    Source: Stack Overflow 75202594, "How to fit a small dataset with a perceptron": rescaling is not enough.
    """
    generator = torch.Generator().manual_seed(3)
    sizes = torch.linspace(500, 10_000, 40)[:, None]
    seconds = 1 + 491 * (sizes / 10_000) ** 2.2 * (1 + 0.03 * torch.randn(40, 1, generator=generator))
    x, y = sizes.log(), seconds
    if lab.fixed:
        x, y = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()  # set-up bug: seconds_for_so_many_rows
    net = _Perceptron(10)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    lab.recorder.watch(net, optimizer)
    for _ in range(200):
        with lab.recorder.step("train"):
            loss = F.mse_loss(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def _surveys(rows: int, seed: int) -> _Batch:
    """Six answers on health ``(rows, 6)``, and the index of well-being, -0.45 to 1, ``(rows, 1)``."""
    generator = torch.Generator().manual_seed(seed)
    answers = torch.randn(rows, 6, generator=generator)
    weights = torch.tensor([[0.9, 0.5, -0.4, 0.3, 0.2, -0.2]]).T
    raw = answers @ weights + 0.2 * torch.randn(rows, 1, generator=generator)
    return answers, -0.454 + 1.454 * torch.sigmoid(1.3 * raw)


@broken(words=("squared target", "squared the target", "lost sign", "sign of the target"), nodes=("target",))
def index_squared_into_the_unit_interval(lab: Lab) -> None:
    """An index between -0.45 and 1 is squared to fit a sigmoid, which makes bad states of health equal to good ones.

    Source: Stats Stack Exchange, "Neural network for regression, actual data vs predicted data" (all predicted alike).
    """
    model = nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, 1), nn.Sigmoid())

    def to_unit(index: torch.Tensor) -> torch.Tensor:
        if lab.fixed:
            return (index + 0.454) / 1.454
        return index**2  # set-up bug: index_squared_into_the_unit_interval

    def from_unit(unit: torch.Tensor) -> torch.Tensor:
        return 1.454 * unit - 0.454 if lab.fixed else unit.sqrt()

    train, unseen = _surveys(1600, 1), _surveys(400, 2)
    loader = DataLoader(TensorDataset(train[0], to_unit(train[1])), batch_size=32, shuffle=True)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda _: unseen, lambda x, y: F.mse_loss(from_unit(model(x)), y))
    for epoch in range(3):
        for place, (x, unit) in enumerate(loader):
            with lab.recorder.step("train"):
                descend(F.mse_loss(model(x), unit), optimizer)
            after(50 * epoch + place)


def _pulses(number: int) -> _Batch:
    """Signals ``(96, 1, 32)``, whether each has a pulse ``(96,)``, the drift ``(96,)``, and the pulse's height."""
    generator = torch.Generator().manual_seed(number)
    has = (torch.rand(96, generator=generator) < 0.25).float()
    drift = torch.randn(96, generator=generator)
    height = torch.randn(96, generator=generator)
    place = torch.randint(6, 26, (96, 1), generator=generator)
    moments = torch.arange(32.0)
    pulse = (1.6 + 0.8 * height)[:, None] * torch.exp(-((moments - place) ** 2) / 8)
    signal = has[:, None] * pulse + drift[:, None] * (moments / 32 - 0.5)
    return (signal + 0.35 * torch.randn(96, 32, generator=generator))[:, None], has, drift, height


class _ThreeHeads(nn.Module):
    """Convolutions, and three numbers for each signal."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv1d(1, 24, 7, padding=3), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(24, 32, 5, padding=2), nn.ReLU(),
            nn.Flatten(), nn.Linear(512, 64), nn.ReLU(),
        )  # fmt: skip
        self.pulse, self.drift, self.height = nn.Linear(64, 1), nn.Linear(64, 1), nn.Linear(64, 1)

    def forward(self, signal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        seen = self.trunk(signal)
        return self.pulse(seen)[:, 0], self.drift(seen)[:, 0], self.height(seen)[:, 0]


@broken(words=("imput", "placeholder", "mask"), nodes=("model.height", "target", "loss"))
def no_pulse_has_the_height_zero(lab: Lab) -> None:
    """Signals without a pulse have no height, yet count in its loss with an imputed zero, the mean of all heights.

    Source: Stats Stack Exchange, "Multi-task learning: finding a loss function that 'ignores' certain samples".
    """
    model = _ThreeHeads()

    def loss_of(signal: torch.Tensor, has: torch.Tensor, drift: torch.Tensor, height: torch.Tensor) -> torch.Tensor:
        pulse, drifting, high = model(signal)
        loss = F.binary_cross_entropy_with_logits(pulse, has) + F.mse_loss(drifting, drift)
        if lab.fixed:
            return loss + (has * (high - height) ** 2).sum() / has.sum().clamp(min=1)
        return loss + F.mse_loss(high, has * height)  # bug: no_pulse_has_the_height_zero

    def of_pulses(signal: torch.Tensor, has: torch.Tensor, _: torch.Tensor, height: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(signal)[2][has > 0], height[has > 0])

    after = lab.validating(model, lambda number: _pulses(9000 + number), of_pulses)
    lab.fit(model, _pulses, loss_of, torch.optim.AdamW(model.parameters(), 2e-3), after=after)


def _dense(inputs: int, outputs: int) -> list[nn.Module]:
    """A layer as the answers recommend it."""
    return [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU(), nn.Dropout(0.2)]


@broken(
    rules=("single-unit",), words=("one neuron", "one unit", "single neuron", "single unit", "bottleneck", "width"),
    nodes=("model.0", "model"),
)  # fmt: skip
def seven_measurements_through_one_neuron(lab: Lab) -> None:
    """The first layer has one neuron instead of many, and what it, its ReLU and its dropout lose, no layer can restore.

    Source: blog.51cto.com u_87851/7627358, all predictions of a regression become alike: Linear(7, 1), ReLU, dropout.
    """
    generator = torch.Generator().manual_seed(8)
    x = torch.randn(2400, 7, generator=generator)
    y = x[:, 0] * x[:, 1] + x[:, 2].abs() + x[:, 3:].sum(1) + 0.3 * torch.randn(2400, generator=generator)
    y = ((y - y.mean()) / y.std())[:, None]
    width = 80 if lab.fixed else 1
    model = nn.Sequential(
        *_dense(7, width),  # set-up bug: seven_measurements_through_one_neuron
        *_dense(width, 100), *_dense(100, 150), nn.Linear(150, 1),
    )  # fmt: skip
    criterion, optimizer = nn.MSELoss(), torch.optim.Adam(model.parameters(), lr=5e-3)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda _: (x[2000:], y[2000:]), lambda x, y: criterion(model(x), y))
    loader = DataLoader(TensorDataset(x[:2000], y[:2000]), batch_size=80, shuffle=True)
    for epoch in range(6):
        for place, (rows, truth) in enumerate(loader):
            with lab.recorder.step("train"):
                descend(criterion(model(rows), truth), optimizer)
            after(25 * epoch + place)


class _Loaded:
    """A program loaded from a file, that hands out its weights by name."""

    def __init__(self, net: nn.Module, *, copies: bool) -> None:
        self.net, self.copies = net, copies

    def weights(self) -> dict[str, torch.Tensor]:
        named = dict(self.net.named_parameters())
        if self.copies:
            return {name: w.detach().clone() for name, w in named.items()}  # set-up bug: weights_lent_as_copies
        return {name: weight for name, weight in named.items()}

    def gradients(self, loss: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(loss, list(self.net.parameters()))


@broken(
    rules=("untrained-parameters",), words=("copies", "clone"),
    nodes=("model.0", "model.2", "model.0.weight", "model.2.weight"),
)  # fmt: skip
def weights_lent_as_copies(lab: Lab) -> None:
    """The loaded program hands out clones of its weights, which the optimizer updates, and runs on with its own.

    Source: pytorch/executorch 6039, "Fix weights not updating during training": the returned weights were clones.
    """
    from sklearn.datasets import load_wine

    bunch = load_wine()
    x = torch.tensor(bunch.data, dtype=torch.float32)
    x, y = (x - x.mean(0)) / x.std(0), torch.tensor(bunch.target)
    order = torch.randperm(len(x))
    train, unseen = order[:128], order[128:]
    net = nn.Sequential(nn.Linear(13, 16), nn.SiLU(), nn.Linear(16, 3))
    program = _Loaded(net, copies=not lab.fixed)
    weights = program.weights()
    optimizer = torch.optim.SGD(weights.values(), lr=0.02, momentum=0.9, weight_decay=2e-2)
    lab.recorder.watch(net, optimizer)
    after = lab.validating(net, lambda _: (x[unseen], y[unseen]), lambda x, y: F.cross_entropy(net(x), y))
    for number in range(lab.steps):
        rows = train[torch.randperm(128)[:32]]
        with lab.recorder.step("train") as step:
            loss = F.cross_entropy(net(x[rows]), y[rows])
            step.record("loss", loss, type="loss")
            for weight, gradient in zip(weights.values(), program.gradients(loss), strict=True):
                weight.grad = gradient
            optimizer.step()
        after(number)
