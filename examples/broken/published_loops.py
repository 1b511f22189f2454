"""Mistakes in how nets are begun, built up and regularised, from the published collections of faulty programs."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


class _Autoencoder(nn.Module):
    """Convolutions to a code of ten numbers, and back to a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1), nn.ELU(), nn.Flatten(), nn.Linear(256, 10))
        self.decoder = nn.Sequential(
            nn.Linear(10, 256), nn.ELU(), nn.Unflatten(1, (16, 4, 4)), nn.ConvTranspose2d(16, 1, 4, 2, 1)
        )

    def initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.encoder(pictures))


class _CodeTrainer:
    """Trains an autoencoder for epochs with a validation after each."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.model = lab, _Autoencoder()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=4e-3)
        self.loader = DataLoader(TensorDataset(data.images()[0]), 64, shuffle=True, drop_last=True)
        self.unseen = data.unseen_pixels()[0].view(-1, 1, 8, 8)
        lab.recorder.watch(self.model, self.optimizer)

    def epoch(self, number: int) -> None:
        if number == 0 or not self.lab.fixed:
            self.model.initialise()  # set-up bug: code_begun_anew_in_each_epoch
        self.model.train()
        for (pictures,) in self.loader:
            with self.lab.recorder.step("train"):
                descend(F.mse_loss(self.model(pictures), pictures), self.optimizer)

    @torch.no_grad()
    def validate(self) -> None:
        self.model.eval()
        with self.lab.recorder.step("validation") as step:
            step.record("loss", F.mse_loss(self.model(self.unseen), self.unseen), type="loss")


@broken(
    rules=("weights-reset",),
    words=("initialis", "drawn anew", "begun anew", "reset", "start again"),
    nodes=("model", "model.encoder", "model.decoder", "model.encoder.3.weight", "model.decoder.0.weight"),
    onset=22,
)
def code_begun_anew_in_each_epoch(lab: Lab) -> None:
    """Each epoch of an autoencoder begins by initialising its weights, and so forgets all that was learned.

    Source: NeuraLint's rules (TOSEM 2021), parameters should be initialised once, at the beginning of the training.
    """
    trainer = _CodeTrainer(lab)
    for number in range(7):
        trainer.epoch(number)
        trainer.validate()


def _genes(rows: int, seed: int) -> _Batch:
    """The activity of thirty genes ``(rows, 30)``, and whether a treatment helps, of which six genes tell something."""
    generator = torch.Generator().manual_seed(seed)
    activity = torch.randn(rows, 30, generator=generator)
    chance = (3 * activity[:, :6].sum(1) / 6**0.5).sigmoid()
    return activity, (torch.rand(rows, generator=generator) < chance).float()[:, None]


@broken(
    rules=("overfitting",), words=("overfit", "regularis", "dropout", "by heart", "memoris"), nodes=("model", "loss")
)
def genes_learned_by_heart(lab: Lab) -> None:
    """The dropout layers are missing from a wide net, which learns its four hundred patients by heart.

    Source: taxonomy of Humbatova et al. (ICSE 2020), missing, redundant or wrong layer: missing dropout layer.
    """
    layers: list[nn.Module] = []
    for inputs, width in ((30, 160), (160, 160)):
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        if lab.fixed:
            layers.append(nn.Dropout(0.6))  # set-up bug: genes_learned_by_heart
    model = nn.Sequential(*layers, nn.Linear(160, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    criterion, unseen = nn.BCEWithLogitsLoss(), _genes(600, 1)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda _: unseen, lambda x, y: criterion(model(x), y))
    loader = DataLoader(TensorDataset(*_genes(400, 0)), batch_size=40, shuffle=True)
    for epoch in range(15):
        for place, (activity, helped) in enumerate(loader):
            with lab.recorder.step("train"):
                descend(criterion(model(activity), helped), optimizer)
            after(epoch * len(loader) + place)


def _products(number: int) -> _Batch:
    """Two signals ``(32, 2, 40)``, and the product of what they were three moments ago and now ``(32, 1, 40)``."""
    generator = torch.Generator().manual_seed(number)
    signals = torch.randn(32, 2, 43, generator=generator).clamp(-2, 2)
    return signals[..., 3:], signals[:, :1, :-3] * signals[:, 1:, 3:]


class _Filter(nn.Module):
    """Convolutions that see the past only, wider apart from layer to layer."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv1d(2, width, 3)])
        self.convs.extend(nn.Conv1d(width, width, 3, dilation=2**place) for place in (1, 2))
        self.out = nn.Conv1d(width, 1, 1)

    def forward(self, signals: torch.Tensor, *, activate: bool) -> torch.Tensor:
        x = signals
        for conv in self.convs:
            assert isinstance(conv, nn.Conv1d)
            x = conv(F.pad(x, (2 * conv.dilation[0], 0)))
            if activate:
                x = F.leaky_relu(x, 0.1)
        return self.out(x)


@broken(
    rules=("missing-nonlinearity",),
    words=("activation", "linear map", "non-linear", "nonlinear"),
    nodes=("model", "model.convs.0", "model.convs.1", "model.convs.2", "model.out"),
)
def product_by_convolutions_alone(lab: Lab) -> None:
    """Dilated convolutions follow one another without an activation, and no linear filter is a product of signals.

    Source: NeuraLint's rules (TOSEM 2021), activations of learning layers should be non-linear.
    """
    model = _Filter()

    def loss_of(signals: torch.Tensor, product: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(signals, activate=lab.fixed), product)  # bug: product_by_convolutions_alone

    after = lab.validating(model, lambda number: _products(3000 + number), loss_of)
    lab.fit(model, _products, loss_of, torch.optim.NAdam(model.parameters(), 6e-3), after=after)


def _landscape(number: int) -> _Batch:
    """Places on a map ``(128, 2)``, from -1 to 1, and how high the ground is there ``(128, 1)``, standardised."""
    place = 2 * torch.rand(128, 2, generator=torch.Generator().manual_seed(number)) - 1
    x, y = place.split(1, dim=1)
    height = (3 * x).sin() + 0.8 * (4 * y + x).cos() - 1.5 * (-8 * ((x - 0.3) ** 2 + y**2)).exp()
    return place, (height + 0.05) / 0.95


class _Ground(nn.Module):
    """Waves of the coordinates, two hidden layers, one height."""

    waves: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("waves", 1.5 * torch.randn(2, 16))
        self.hidden = nn.Sequential(nn.Linear(32, 48), nn.SiLU(), nn.Linear(48, 48), nn.SiLU())
        self.height = nn.Sequential(nn.Linear(48, 1))

    def forward(self, place: torch.Tensor) -> torch.Tensor:
        angles = math.pi / 2 * place @ self.waves
        return self.height(self.hidden(torch.cat([angles.sin(), angles.cos()], dim=1)))


@broken(
    rules=("unreachable-targets",),
    words=("sigmoid", "cannot reach", "unreachable", "out of reach"),
    nodes=("model.height", "prediction", "model"),
)
def valleys_above_a_sigmoid(lab: Lab) -> None:
    """The height ends with a sigmoid, between 0 and 1, while standardised heights go from about -2 to 2.

    Source: DeepLocalize's benchmark (ICSE 2021), Stack Overflow 48221692, sigmoid at the end of a regression.
    """
    model = _Ground()
    if not lab.fixed:
        model.height.append(nn.Sigmoid())  # set-up bug: valleys_above_a_sigmoid
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99)
    lab.recorder.watch(model, optimizer)
    for number in range(160):
        place, height = _landscape(number)
        with lab.recorder.step("train"):
            descend(F.mse_loss(model(place), height), optimizer)
        schedule.step()
        lab.validate(lambda number: _landscape(2000 + number), lambda x, y: F.mse_loss(model(x), y), number)


def _tower(width: int, depth: int, *, norms: bool) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(1, width, 3, 2, 1)]
    for _ in range(depth):
        layers += [nn.BatchNorm2d(width)] if norms else []
        layers += [nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)]
    return nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, 10))


@broken(
    rules=("vanishing-gradient", "weight-scale"),
    words=("norm layer", "batch norm", "normalisation layer", "without norm", "missing norm", "fade", "shrink"),
    nodes=("model", "model.0", "model.2", "model.4", "model.6", "model.8"),
)
def twelve_convolutions_without_a_norm(lab: Lab) -> None:
    """A tower of a dozen convolutions is built without normalisation layers, and signals fade on their way up.

    Source: taxonomy of Humbatova et al. (ICSE 2020), missing, redundant or wrong layer: missing normalisation layer.
    """
    model = _tower(16, 11, norms=lab.fixed)  # set-up bug: twelve_convolutions_without_a_norm
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.02)
    unseen, labels = data.unseen_pixels()
    unseen = unseen.view(-1, 1, 8, 8)
    after = lab.validating(model, lambda _: (unseen, labels), lambda x, y: criterion(model(x), y))
    lab.fit(model, data.draw(data.images()), lambda x, y: criterion(model(x), y), optimizer, after=after)
