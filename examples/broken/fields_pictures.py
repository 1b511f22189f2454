"""Mistakes that people report from trainings on pictures, and on several tasks at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


class _Norm(nn.BatchNorm2d):
    """A batch normalisation whose gamma may be fixed at one."""

    def __init__(self, channels: int, *, fix_gamma: bool) -> None:
        super().__init__(channels)
        nn.init.uniform_(self.weight)
        self.fix_gamma = fix_gamma

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gamma = torch.ones_like(self.weight) if self.fix_gamma else self.weight
        return F.batch_norm(x, self.running_mean, self.running_var, gamma, self.bias, self.training)


class _Body(nn.Module):
    """Four convolutions with their norms, and the last layer."""

    def __init__(self, classes: int, *, fix_gamma: bool = False) -> None:
        super().__init__()
        widths = (1, 16, 24, 32, 32)
        self.convs = nn.ModuleList(
            nn.Conv2d(widths[i], widths[i + 1], 3, stride=1 + i % 2, padding=1, bias=False) for i in range(4)
        )
        self.norms = nn.ModuleList(_Norm(width, fix_gamma=fix_gamma) for width in widths[1:])
        self.head = nn.Linear(32 * 2 * 2, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x)))
        return self.head(x.flatten(1))


def _pretrained() -> dict[str, torch.Tensor]:
    """The body's weights after a training on clean digits."""
    (x, y), model = data.images(), _Body(10)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    clean = data.draw((x[:600], y[:600]), 48)
    for number in range(150):
        rows, digits = clean(number)
        descend(F.cross_entropy(model(rows), digits), optimizer)
    return model.state_dict()


@broken(words=("gamma", "checkpoint", "pretrained"), nodes=("model.norms.0", "model.norms.1", "model.norms.2"))
def gammas_of_the_body_fixed_at_one(lab: Lab) -> None:
    """The norms of a pretrained body are built with the default, a gamma fixed at one, while it had learned others.

    Source: apache/mxnet 2147 and 2155, fine-tuned Inception-BN says the same for all, mended by ``fix_gamma=False``.
    """
    weights, (x, y) = _pretrained(), data.images()
    x = 0.7 * x + 0.4 + 0.5 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))  # photographs of digits
    model = _Body(10, fix_gamma=not lab.fixed)  # set-up bug: gammas_of_the_body_fixed_at_one
    model.load_state_dict(weights)
    model.convs.requires_grad_(False)
    model.norms.requires_grad_(False)
    optimizer = torch.optim.SGD(model.head.parameters(), lr=5e-4, momentum=0.9)
    model.norms.eval()  # they keep what they have learned
    lab.recorder.watch(model, optimizer)
    batches = data.draw((x[600:900], y[600:900]), 32)
    for number in range(lab.steps):
        rows, digits = batches(number)
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(rows), digits)
            loss.backward()
            optimizer.step()
        lab.validate(lambda _: (x[1200:], y[1200:]), lambda x, y: F.cross_entropy(model(x), y), number)


def _scans(number: int, rows: int = 16) -> _Batch:
    """Scans ``(rows, 1, 16, 16)``, and where the lung, the tumour in it, and its core are ``(rows, 3, 16, 16)``."""
    generator = torch.Generator().manual_seed(number)
    middle = 8 + 2 * torch.rand(rows, 2, 1, 1, generator=generator) - 1
    place = torch.stack(torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij"))
    inside = middle + 6 * (torch.rand(rows, 2, 1, 1, generator=generator) - 0.5)
    lung = (place - middle).pow(2).sum(1) < 42
    tumour, core = ((place - inside).pow(2).sum(1) < size for size in (3.5, 1.2))
    masks = torch.stack([lung, tumour, core], dim=1).float()
    scan = (masks * torch.tensor([1.0, 0.8, 0.8])[:, None, None]).sum(1, keepdim=True) - 0.7
    return scan + 0.15 * torch.randn(rows, 1, 16, 16, generator=generator), masks


@broken(
    rules=("imbalanced-targets",), words=("imbalance", "each label", "per label", "weigh"), nodes=("loss", "target"),
)  # fmt: skip
def one_dice_for_all_labels(lab: Lab) -> None:
    """One dice is taken of all voxels of all labels, so that lungs count for it and the few voxels of tumours do not.

    Source: ellisdg/3DUnetCNN 256, dice of 0 for tumour core and enhancing tumour, mended by the weighted dice.
    """
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.GroupNorm(3, 12), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1),
        nn.GroupNorm(3, 12), nn.ReLU(), nn.Conv2d(12, 3, 1),
    )  # fmt: skip
    over = (0, 2, 3) if lab.fixed else (0, 1, 2, 3)  # set-up bug: one_dice_for_all_labels

    def loss_of(scan: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        said = model(scan).sigmoid()
        dice = (2 * (said * masks).sum(over) + 1) / ((said + masks).sum(over) + 1)
        return 1 - dice.mean()

    after = lab.validating(model, lambda number: _scans(9000 + number, 64), loss_of)
    lab.fit(model, _scans, loss_of, torch.optim.Adam(model.parameters(), lr=3e-3), after=after)


def _birds(number: int) -> _Batch:
    """Pictures with a bird each ``(48, 1, 16, 16)``, and its box: left, upper, width and height ``(48, 4)``."""
    generator = torch.Generator().manual_seed(number)
    size = torch.randint(4, 8, (48, 2), generator=generator)
    corner = (torch.rand(48, 2, generator=generator) * (16 - size)).long()
    across = torch.arange(16)
    columns, rows = ((across >= corner[:, i : i + 1]) & (across < (corner + size)[:, i : i + 1]) for i in (0, 1))
    bird = (rows[:, :, None] & columns[:, None]).float()
    pictures = bird[:, None] - 0.15 + 0.1 * torch.randn(48, 1, 16, 16, generator=generator)
    return pictures, torch.cat([corner, size], dim=1).float()


@broken(rules=("non-finite",), words=("width", "corner", "box", "negative"), nodes=("target", "loss"))
def widths_taken_for_corners(lab: Lab) -> None:
    """The boxes of a new data set are left, upper, width, height, and are read as two corners: logarithms fail (NaN).

    Source: donghao.org 2019-06-11, debugging NaN in training a detector, CUB-200-2011 has widths and heights.
    """
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(12, 24, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(24 * 4 * 4, 48), nn.ReLU(), nn.Linear(48, 4),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    prior = torch.tensor([8.0, 8.0, 6.0, 6.0])

    def encode(box: torch.Tensor) -> torch.Tensor:
        first, last = box[:, :2], box[:, 2:]
        if lab.fixed:
            last = first + box[:, 2:]
        middle = ((first + last) / 2 - prior[:2]) / (0.5 * prior[2:])
        return torch.cat([middle, ((last - first) / prior[2:]).log() / 0.2], dim=1)  # bug: widths_taken_for_corners

    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        pictures, box = _birds(number)
        with lab.recorder.step("train"):
            loss = F.smooth_l1_loss(model(pictures), encode(box))
            descend(loss, optimizer)


class _Views:
    """Two views of each of 48 digits, moved by a pixel at most and with a little noise."""

    def __init__(self) -> None:
        self.pictures, self.digits = data.images()

    def __call__(self, number: int) -> _Batch:
        generator = torch.Generator().manual_seed(number)
        rows = torch.randint(1200, (48,), generator=generator)
        return self.view(rows, generator), self.view(rows, generator)

    def view(self, rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        x = F.pad(self.pictures[rows], (1, 1, 1, 1), value=-0.8)
        down, right = torch.randint(3, (2,), generator=generator).tolist()
        return x[:, :, down : down + 8, right : right + 8] + 0.3 * torch.randn(len(rows), 1, 8, 8, generator=generator)


@broken(
    rules=("representation-collapse",), words=("hardest", "collapse", "same code", "negative"), nodes=("loss", "model"),
)  # fmt: skip
def hardest_negative_of_each_picture(lab: Lab) -> None:
    """A triplet loss takes the hardest negative of each picture only, and draws the codes of all pictures together.

    Source: wanggrun/triplet 1, the triplet loss converges to the margin, all examples have one embedding.
    """
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 16),
    )  # fmt: skip

    def loss_of(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        distance = torch.cdist(model(one), model(other))
        same = distance.diagonal()
        others = distance[~torch.eye(len(one), dtype=torch.bool)].view(len(one), -1)
        if not lab.fixed:
            others = others.amin(1, keepdim=True)  # bug: hardest_negative_of_each_picture
        return F.relu(same[:, None] - others + 1).mean()

    lab.fit(model, _Views(), loss_of, torch.optim.Adam(model.parameters(), lr=3e-3))


@broken(rules=("learning-rate",), words=("learning rate",), nodes=("model.0.weight", "model.2.weight", "model.2.bias"))
def student_at_a_thousandth(lab: Lab) -> None:
    """The student of a distillation is trained at a learning rate of 0.001 with plain SGD, at which it hardly moves.

    Source: a7b23/Distilling-the-knowledge-in-neural-network 1, the student's learning rate is too small.
    """
    x, y = data.pixels()
    teacher = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    batches, teaching = data.draw((x[:1200], y[:1200])), torch.optim.Adam(teacher.parameters(), lr=3e-3)
    for number in range(150):
        rows, digits = batches(number)
        descend(F.cross_entropy(teacher(rows), digits), teaching)
    teacher.eval().requires_grad_(False)
    model = nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.2 if lab.fixed else 1e-3
    )  # set-up bug: student_at_a_thousandth

    def loss_of(rows: torch.Tensor, digits: torch.Tensor) -> torch.Tensor:
        scores, soft = model(rows), (teacher(rows) / 2).softmax(1)
        distilled = F.kl_div((scores / 2).log_softmax(1), soft, reduction="batchmean")
        return 0.5 * F.cross_entropy(scores, digits) + 0.5 * 4 * distilled

    after = lab.validating(model, lambda _: (x[1200:], y[1200:]), loss_of)
    lab.fit(model, batches, loss_of, optimizer, after=after)


class _Machine(nn.Module):
    """Says how warm and how worn a machine is, and how much each error counts."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(12, 48), nn.GELU(), nn.Linear(48, 48), nn.GELU())
        self.warm, self.worn = nn.Linear(48, 1), nn.Linear(48, 3)
        self.eta = nn.Parameter(torch.zeros(2))

    def forward(self, x: torch.Tensor) -> _Batch:
        hidden = self.trunk(x)
        return self.warm(hidden), self.worn(hidden)


def _sensors(number: int) -> _Batch:
    """Twelve sensors ``(64, 12)``, a temperature ``(64, 1)`` and one of three degrees of wear ``(64,)``."""
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(64, 12, generator=generator)
    warm = x[:, :1] * x[:, 1:2] + x[:, 2:3]
    worn = (x[:, 3:6] + 0.5 * x[:, 6:9]).argmax(1)
    return x, warm + 0.1 * torch.randn(64, 1, generator=generator), worn


@broken(
    rules=("gradient-cut", "no-gradient", "terms-without-gradient"), words=("detach", "copied", "cut off", "graph"),
    nodes=("model.trunk", "model.warm", "model.worn", "loss"),
)  # fmt: skip
def errors_copied_into_a_new_tensor(lab: Lab) -> None:
    """The errors of two tasks are copied into a new tensor to be weighed, and no gradient gets back to the network.

    Source: discuss.pytorch.org 39681, how to learn the weights between two losses, ``torch.Tensor(loss)``.
    """
    model = _Machine()

    def loss_of(x: torch.Tensor, warm: torch.Tensor, worn: torch.Tensor) -> torch.Tensor:
        said_warm, said_worn = model(x)
        errors = [F.mse_loss(said_warm, warm), F.cross_entropy(said_worn, worn)]
        copies = torch.tensor([error.item() for error in errors])
        each = torch.stack(errors) if lab.fixed else copies  # bug: errors_copied_into_a_new_tensor
        return (each * torch.exp(-model.eta) + model.eta).sum()

    after = lab.validating(model, lambda number: _sensors(9000 + number), loss_of)
    lab.fit(model, _sensors, loss_of, torch.optim.AdamW(model.parameters(), lr=3e-3), after=after)
