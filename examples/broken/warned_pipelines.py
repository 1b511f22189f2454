"""Mistakes in what is trained, on what, and for how long, which a playbook, a textbook and two FAQs warn of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _mixtures(rows: int, seed: int) -> _Batch:
    """Ten shares of what concrete is mixed of ``(rows, 10)``, and how strong it is, measured with much noise."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 10, generator=generator)
    strong = 0.7 * x[:, 0] + 0.5 * x[:, 1] - 0.4 * x[:, 2] + 0.3 * x[:, 3].tanh()
    return x, (strong + 0.6 * torch.randn(rows, generator=generator))[:, None]


class _Concrete(nn.Module):
    """Two wide layers beside a skip connection."""

    def __init__(self, dropout: float, width: int = 256) -> None:
        super().__init__()
        self.fc1, self.fc2, self.out = nn.Linear(10, width), nn.Linear(width, width), nn.Linear(width, 1)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.drop(F.gelu(self.fc1(x)))
        return self.out(x + self.drop(F.gelu(self.fc2(x))))


@broken(
    rules=("overfitting",),
    words=("overfit", "by heart", "memor", "regulari", "dropout"),
    nodes=("model", "model.fc1", "model.fc2", "model.fc1.weight", "model.fc2.weight", "model.drop"),
)
def concrete_learned_by_heart(lab: Lab) -> None:
    """A wide net without dropout or weight decay learns 120 measured mixtures and their noise by heart.

    Source: Deep Learning Tuning Playbook, training curves: problematic overfitting.
    """
    train, unseen = TensorDataset(*_mixtures(120, 1)), _mixtures(400, 2)
    decay, dropout = (1.0, 0.5) if lab.fixed else (0.0, 0.0)
    model = _Concrete(dropout)  # set-up bug: concrete_learned_by_heart
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=decay)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda _: unseen, lambda x, y: F.mse_loss(model(x), y))
    loader = DataLoader(train, batch_size=30, shuffle=True)
    for epoch in range(38):
        for place, (mixtures, strong) in enumerate(loader):
            with lab.recorder.step("train"):
                descend(F.mse_loss(model(mixtures), strong), optimizer)
            after(4 * epoch + place)


class _Reader(nn.Module):
    """Reads a digit that was cut out: normalised convolutions, and a linear layer."""

    def __init__(self, width: int = 16, classes: int = 10) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(16 * width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).flatten(1))


def _streets(rows: torch.Tensor, seed: int) -> _Batch:
    """House fronts ``(n, 16, 16)`` with a number somewhere, and its box: top, left, bottom, right ``(n, 4)``."""
    generator = torch.Generator().manual_seed(seed)
    fronts = 0.4 * torch.randn(len(rows), 16, 16, generator=generator) - 0.8
    corner = torch.randint(9, (len(rows), 2), generator=generator)
    for front, digit, (top, left) in zip(fronts, rows, corner.tolist(), strict=True):
        front[top : top + 8, left : left + 8] += digit[0] + 0.8
    return fronts, torch.cat([corner, corner + 8], dim=1)


def _cut(fronts: torch.Tensor, boxes: torch.Tensor, inside: int) -> torch.Tensor:
    """What lies in the boxes, which are made smaller by some pixels at each side, as pictures ``(n, 1, 8, 8)``."""
    cuts = []
    for front, (top, left, bottom, right) in zip(fronts, boxes.tolist(), strict=True):
        cut = front[top + inside : bottom - inside, left + inside : right - inside]
        cuts.append(F.interpolate(cut[None, None], size=(8, 8), mode="bilinear", align_corners=False)[0])
    return torch.stack(cuts)


@broken(words=("crop", "cut off", "cut too", "tight"), nodes=("input",))
def house_numbers_cut_too_tightly(lab: Lab) -> None:
    """The detector's boxes are drawn in by three pixels at each side, so that most of each house number is cut off.

    Source: Goodfellow et al., Deep Learning, 11.5, visualize the worst mistakes: Street View crops too tight.
    """
    x, y = data.images()
    fronts, boxes = _streets(x, 1)
    inside = 0 if lab.fixed else 3
    cuts = _cut(fronts, boxes, inside)  # set-up bug: house_numbers_cut_too_tightly
    unseen = cuts[1200:], y[1200:]
    model = _Reader()
    criterion = nn.CrossEntropyLoss(label_smoothing=0.05)

    def loss_of(cut: torch.Tensor, digit: torch.Tensor) -> torch.Tensor:
        return criterion(model(cut), digit)

    after = lab.validating(model, lambda _: unseen, loss_of)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    lab.fit(model, data.draw((cuts[:1200], y[:1200]), 48), loss_of, optimizer, after=after)


def _pretrained(classes: torch.Tensor, steps: int = 120) -> _Reader:
    """A reader that was trained on the given digits."""
    x, y = data.images()
    chosen = torch.isin(y, classes)
    batches = data.draw((x[chosen], y[chosen]))
    model = _Reader()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for number in range(steps):
        images, labels = batches(number)
        descend(F.cross_entropy(model(images), labels), optimizer)
    return model


def _few_and_many(classes: torch.Tensor, few: int) -> tuple[data.Table, data.Table]:
    """A few pictures of the given digits, numbered from 0, and all the others of them."""
    x, y = data.images()
    chosen = torch.isin(y, classes)
    x, y = x[chosen], torch.searchsorted(classes, y[chosen])
    return (x[:few], y[:few]), (x[few:], y[few:])


@broken(
    words=("not frozen", "frozen", "freez", "requires_grad"),
    nodes=("model.body", "model.body.0.weight", "model.body.3.weight", "model.body.0", "model.body.3"),
)
def body_frozen_by_an_attribute(lab: Lab) -> None:
    """``body.requires_grad = False`` makes a new attribute of the module and freezes nothing: forty pictures train all.

    Source: Keras FAQ, how can I freeze layers: settings of ``trainable`` that do not take effect.
    """
    model = _pretrained(torch.arange(6))
    model.head = nn.Linear(256, 4)
    if lab.fixed:
        model.body.requires_grad_(False)
    else:
        model.body.requires_grad = False  # type: ignore[assignment]  # set-up bug: body_frozen_by_an_attribute
    model.body.eval()
    few, many = _few_and_many(torch.arange(6, 10), 40)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    criterion = nn.CrossEntropyLoss()
    lab.recorder.watch(model, optimizer)
    batches = data.draw(few, 20)
    for number in range(lab.steps):
        images, labels = batches(number)
        images = images + 0.6 * torch.randn(images.shape)
        with lab.recorder.step("train"):
            descend(criterion(model(images), labels), optimizer)
        lab.validate(lambda _: many, lambda x, y: criterion(model(x), y), number)


def _patient(number: int) -> _Batch:
    """Sixteen slices of one patient ``(16, 1, 8, 8)``, brighter the higher the dose, and its log ``(16, 1)``."""
    generator = torch.Generator().manual_seed(number)
    x, _ = data.images()
    dose = 2 * torch.rand(1, generator=generator) - 1
    slices = x[torch.randint(len(x), (16,), generator=generator)]
    return slices * 2**dose, dose.expand(16, 1)


@broken(
    rules=("batch-norm-mode",), words=("training mode", "batch norm", "statistics", "eval()", "evaluation mode"),
    nodes=("model", "model.body", "model.body.1", "model.body.4", "model.body.1.running_mean",
           "model.body.4.running_mean"),
)  # fmt: skip
def frozen_norms_follow_each_patient(lab: Lab) -> None:
    """A frozen body is in training mode still: its norms take the statistics of each patient, and with them the dose.

    Source: Keras FAQ, the ``training`` argument and the ``trainable`` attribute: frozen batch norms at inference.
    """
    model = _pretrained(torch.arange(10))
    model.head = nn.Linear(256, 1)
    model.body.requires_grad_(False)
    optimizer = torch.optim.Adam(model.head.parameters(), lr=2e-3)
    lab.recorder.watch(model, optimizer)
    others = [_patient(9000 + number) for number in range(40)]
    unseen = torch.cat([slices for slices, _ in others]), torch.cat([dose for _, dose in others])
    for number in range(lab.steps):
        slices, dose = _patient(number)
        model.train()
        if lab.fixed:
            model.body.eval()
        with lab.recorder.step("train"):
            said = model(slices)  # bug: frozen_norms_follow_each_patient
            descend(F.mse_loss(said, dose), optimizer)
        model.eval()
        lab.validate(lambda _: unseen, lambda x, y: F.mse_loss(model(x), y), number)


class _Mixer(nn.Module):
    """A small mixer over the rows of a picture, in order to tell what it shows."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.rows = nn.Linear(8, width)
        self.across, self.along = nn.Linear(8, 8), nn.Linear(width, width)
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width * 8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.rows(x.squeeze(1))
        x = x + F.gelu(self.across(x.transpose(1, 2))).transpose(1, 2)
        x = x + F.gelu(self.along(self.norm(x)))
        return self.out(x.flatten(1))


@broken(
    rules=("evaluation-data",),
    words=("shuffl", "split", "sorted", "missing class", "never seen", "other classes", "classes of the validation"),
    nodes=("target", "input"),
)
def last_fifth_of_a_sorted_folder(lab: Lab) -> None:
    """The last fifth of the pictures is kept for validation, but they are sorted by class: it is all eights and nines.

    Source: Keras FAQ, how is the validation split computed: the last part, not shuffled before.
    """
    x, y = data.images()
    folder = torch.argsort(y, stable=True)
    if lab.fixed:
        folder = folder[torch.randperm(len(folder))]
    kept = len(folder) * 4 // 5
    train, unseen = folder[:kept], folder[kept:]  # set-up bug: last_fifth_of_a_sorted_folder
    model = _Mixer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda _: (x[unseen], y[unseen]), lambda x, y: F.cross_entropy(model(x), y))
    number = 0
    for _ in range(6):
        for rows in train[torch.randperm(len(train))].split(48):
            with lab.recorder.step("train"):
                descend(F.cross_entropy(model(x[rows]), y[rows]), optimizer)
            after(number)
            number += 1
