"""Mistakes in labels, layers, formulas and optimizers that people ask about: lines, walkers, and small classifiers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Batches, Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _flow(table: data.Table, class_mode: str) -> Batches:
    """Batches of pictures with their two classes: in one column of zeros and ones, or in a column for each class."""
    draw = data.draw(table, 48)

    def batches(number: int) -> _Batch:
        pictures, labels = draw(number)
        return pictures, labels[:, None].float() if class_mode == "binary" else F.one_hot(labels, 2).float()

    return batches


def _binary_crossentropy(chance: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """As Keras computes it."""
    chance = chance.clamp(1e-7, 1 - 1e-7)
    return -(truth * chance.log() + (1 - truth) * (1 - chance).log()).mean()


@broken(rules=("broadcast-target",), words=("one-hot", "broadcast", "two columns", "column"), nodes=("target", "loss"))
def one_chance_for_two_columns(lab: Lab) -> None:
    """A net with one sigmoid is given labels in two columns, one for each class, and compared with both of them.

    Source: keras-team/keras 13006, accuracy converges to 0.5; ``class_mode`` is categorical unless told.
    """
    x, y = data.images()
    seen, odd = data.unseen_pixels()[0].view(-1, 1, 8, 8), data.unseen_pixels()[1] % 2
    class_mode = "binary" if lab.fixed else "categorical"
    train, unseen = _flow((x, y % 2), class_mode), _flow((seen, odd), class_mode)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(144, 32), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(32, 1), nn.Sigmoid(),
    )  # fmt: skip

    def loss_of(pictures: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        return _binary_crossentropy(model(pictures), truth)  # bug: one_chance_for_two_columns

    after = lab.validating(model, unseen, loss_of)
    lab.fit(model, train, loss_of, torch.optim.RMSprop(model.parameters(), 2e-3), after=after)


def _gaits(rows: int, seed: int) -> data.Table:
    """Forces under a foot while it is on the ground ``(rows, 2, 32)``, and which of five patients walks."""
    generator = torch.Generator().manual_seed(seed)
    patient = torch.randint(5, (rows,), generator=generator)
    habit = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(8))
    moments = torch.linspace(0, 1, 32)
    waves = torch.stack([(k * torch.pi * moments).sin() for k in (1, 2, 3)])
    strides = habit[patient] + 0.5 * torch.randn(rows, 2, 3, generator=generator)
    return strides @ waves + 0.3 * torch.randn(rows, 2, 32, generator=generator), patient


@broken(rules=("unrelated-targets",), words=("permut", "shuffl", "mismatch"), nodes=("target", "input"))
def patients_shuffled_without_their_gaits(lab: Lab) -> None:
    """Before the training the gaits and the patients they belong to are each shuffled by a permutation of its own.

    Source: sebastian-lapuschkin/explaining-deep-clinical-gait-classification 2, wrong permutation of labels.
    """
    forces, patient = _gaits(960, 1)
    order, other = torch.randperm(960), torch.randperm(960)
    forces, patient = forces[order], patient[order if lab.fixed else other]
    model = nn.Sequential(
        nn.Conv1d(2, 24, 5, padding=2), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(24, 24, 5, padding=2), nn.ReLU(),
        nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Linear(96, 5),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda _: _gaits(300, 2), lambda x, y: F.cross_entropy(model(x), y))
    gaits = TensorDataset(forces, patient)  # set-up bug: patients_shuffled_without_their_gaits
    for epoch in range(5):
        for place, (strides, walker) in enumerate(DataLoader(gaits, 32, shuffle=True)):
            with lab.recorder.step("train"):
                descend(F.cross_entropy(model(strides), walker), optimizer)
            after(30 * epoch + place)


class _MyLinear(nn.Module):
    """A linear layer and a rectifier, made by hand."""

    def __init__(self, inputs: int, units: int, *, data_only: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, units) * inputs**-0.5)
        self.bias = nn.Parameter(torch.zeros(units))
        self.data_only = data_only

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.data_only:
            return F.relu(x @ self.weight.data + self.bias.data)  # bug: layers_that_compute_with_their_data
        return F.relu(x @ self.weight + self.bias)


def _ripples(number: int) -> _Batch:
    """Twelve coordinates ``(64, 12)``, and a function of two directions in them ``(64, 1)``."""
    x = torch.randn(64, 12, generator=torch.Generator().manual_seed(number))
    directions = F.normalize(torch.randn(12, 2, generator=torch.Generator().manual_seed(4)), dim=0)
    a, b = (x @ directions).unbind(1)
    return x, (1.4 * ((2 * a).sin() * (b > 0) + 0.5 * a * (b < 0)))[:, None]


@broken(
    rules=("no-gradient", "gradient-cut"),
    words=(".data", "detach", "no gradient", "never learn"),
    nodes=("model.0", "model.1", "model.0.weight", "model.0.bias", "model.1.weight", "model.1.bias"),
)  # fmt: skip
def layers_that_compute_with_their_data(lab: Lab) -> None:
    """Layers made by hand compute with ``weight.data`` and ``bias.data``, so that no gradient reaches the parameters.

    Source: d2l-ai/d2l-en 2600, fix PyTorch version of custom-layer to allow auto grad.
    """
    wrong = not lab.fixed
    model = nn.Sequential(_MyLinear(12, 32, data_only=wrong), _MyLinear(32, 32, data_only=wrong), nn.Linear(32, 1))

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(x), y)

    after = lab.validating(model, lambda number: _ripples(9000 + number), loss_of)
    lab.fit(model, _ripples, loss_of, torch.optim.Adam(model.parameters(), 1e-2), after=after)


def _walkers(number: int) -> _Batch:
    """Where eight walkers are and were a moment before ``(24, 8, 4)``, in metres, and where each goes ``(24, 8, 2)``.

    Those that are near each other go on alike. Most scenes are pavements; some are squares, and ten times as wide.
    """
    generator = torch.Generator().manual_seed(number)
    group = torch.randint(3, (24, 8, 1), generator=generator).expand(-1, -1, 2)
    wide = 12.0 if number % 30 == 29 else 2.0
    middle = wide * torch.randn(24, 3, 2, generator=generator)
    going = torch.randn(24, 3, 2, generator=generator)
    place = middle.gather(1, group) + 0.2 * torch.randn(24, 8, 2, generator=generator)
    onward = going.gather(1, group)
    return torch.cat([place, onward + 0.7 * torch.randn(24, 8, 2, generator=generator)], 2), onward


class _Groups(nn.Module):
    """Asks of each two walkers whether they are of a group, by a learned distance, and moves each with its group."""

    def __init__(self, *, built_in: bool) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(2.0))
        self.net = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 2))
        self.built_in = built_in

    def forward(self, walkers: torch.Tensor) -> torch.Tensor:
        place, motion = walkers.split(2, 2)
        apart = (place[:, :, None] - place[:, None]).square().sum(3).add(1e-6).sqrt()
        excess = (apart - self.threshold) / 0.2
        together = (-excess).sigmoid() if self.built_in else 1 / (1 + excess.exp())  # bug: togetherness_by_a_formula
        share = together / together.sum(2, keepdim=True)
        return self.net(torch.cat([motion, share @ motion], 2))


@broken(rules=("non-finite",), words=("overflow", "exponential"), nodes=("model", "model.threshold"), onset=29)
def togetherness_by_a_formula(lab: Lab) -> None:
    """A sigmoid of distances is written as a formula whose exponential overflows in a wide scene: its gradient is NaN.

    Source: InhwanBae/GPGraph 2, loss is 0 as it was NaN; the sigmoid that was written out replaced by the built-in one.
    """
    model = _Groups(built_in=lab.fixed)

    def loss_of(walkers: torch.Tensor, onward: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(walkers), onward)

    after = lab.validating(model, lambda number: _walkers(9001 + number), loss_of)
    lab.fit(model, _walkers, loss_of, torch.optim.Adam(model.parameters(), 1e-2), after=after)


def _line(start: float, rows: int) -> data.Table:
    """A straight line with little noise, as the tutorial has it ``(rows, 1)``."""
    x = start + torch.linspace(0, 1, rows)[:, None]
    return x, 0.7 * x + 0.3 + 0.02 * torch.randn(rows, 1, generator=torch.Generator().manual_seed(rows))


class _LinearRegressionModel(nn.Module):
    """A weight and a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.weights, self.bias = nn.Parameter(torch.randn(1)), nn.Parameter(torch.randn(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weights * x + self.bias


class _LinearRegressionModel2(nn.Module):
    """The same by a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear_layer = nn.Linear(1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear_layer(x)


@broken(
    rules=("untrained-parameters",),
    words=("another model", "other model", "optimizer does not", "not given to the optimizer", "not in the optimizer"),
    nodes=("model", "model.linear_layer", "model.linear_layer.weight", "model.linear_layer.bias"),
)  # fmt: skip
def second_model_left_to_the_first_optimizer(lab: Lab) -> None:
    """The second model of a notebook is trained with an optimizer that was made of the first one's parameters.

    Source: mrdbourke/pytorch-deep-learning 399, loss remains the same, ``SGD(params=model_0.parameters())``.
    """
    (x_train, y_train), unseen = _line(-1.0, 40), _line(-0.5, 20)
    model_0, loss_fn = _LinearRegressionModel(), nn.MSELoss()
    optimizer = torch.optim.SGD(model_0.parameters(), lr=0.1)
    for _ in range(100):
        descend(loss_fn(model_0(x_train), y_train), optimizer)
    model_1 = _LinearRegressionModel2()
    if lab.fixed:
        optimizer = torch.optim.SGD(model_1.parameters(), lr=0.1)
    lab.recorder.watch(model_1, optimizer)
    after = lab.validating(model_1, lambda _: unseen, lambda x, y: loss_fn(model_1(x), y))
    for epoch in range(lab.steps):
        with lab.recorder.step("train"):
            loss = loss_fn(model_1(x_train), y_train)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()  # bug: second_model_left_to_the_first_optimizer
        after(epoch)


@broken(words=("exponential", "exp("), nodes=("loss",))
def client_with_an_exponential_loss(lab: Lab) -> None:
    """A client minimises the exponential of its cross-entropy, which explodes at the first batch that it gets wrong.

    Source: Stack Overflow (whosebug.com 6301115), weird behaviour of loss function, ``torch.exp(criterion(...)/eta)``.
    """
    client_model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    criterion, eta = nn.CrossEntropyLoss(), 1.0
    optimizer = torch.optim.SGD(client_model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 0.001, 1.0, 40)
    lab.recorder.watch(client_model, optimizer)
    after = lab.validating(client_model, lambda _: data.unseen_pixels(), lambda x, y: criterion(client_model(x), y))
    batches = data.draw(data.pixels())
    for number in range(lab.steps):
        pixels, target = batches(number)
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            loss = criterion(client_model(pixels), target)
            if not lab.fixed:
                loss = torch.exp(loss / eta)  # bug: client_with_an_exponential_loss
            loss.backward()
            optimizer.step()
        warmup.step()
        after(number)
