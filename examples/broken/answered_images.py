"""Mistakes in trainings on pictures, as people asked about them and were answered."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _trunk() -> nn.Sequential:
    """Three convolutions that halve a picture once."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 48, 3, padding=1), nn.ReLU(),
    )  # fmt: skip


def _trained_trunk(*, converted: bool) -> dict[str, torch.Tensor]:
    """Weights of a trunk that has learned to tell digits; a converted file calls them by the names of other layers."""
    trunk, head = _trunk(), nn.Linear(48, 10)
    optimizer = torch.optim.Adam([*trunk.parameters(), *head.parameters()], lr=5e-3)
    batches = data.draw(data.images(), 32)
    for number in range(130):
        x, y = batches(number)
        descend(F.cross_entropy(head(trunk(x).mean((2, 3))), y), optimizer)
    weights = trunk.state_dict()
    return {f"conv_{name}": weight for name, weight in weights.items()} if converted else weights


def _two_digits(number: int) -> _Batch:
    """Two digits side by side ``(40, 1, 8, 16)``, and which of the ten are there ``(40, 10)``."""
    generator = torch.Generator().manual_seed(number)
    x, y = data.images()
    first, second = torch.randint(len(x), (2, 40), generator=generator)
    there = F.one_hot(y[first], 10) + F.one_hot(y[second], 10)
    return torch.cat([x[first], x[second]], dim=3), there.clamp(max=1).float()


@broken(words=("pretrained", "state_dict", "state dict", "strict="), nodes=("model.trunk", "model.trunk.0.weight"))
def trunk_from_a_converted_file(lab: Lab) -> None:
    """The trunk that is kept as it is should be pretrained, but no name in the file fits, and nothing is loaded.

    Source: jiwoon-ahn/psa 1, the loss of classification network doesn't decrease, pretrained weights not loaded.
    """
    model = nn.Sequential()
    model.add_module("trunk", _trunk())
    model.add_module("classify", nn.Conv2d(48, 10, 1))
    weights = _trained_trunk(converted=not lab.fixed)
    model.get_submodule("trunk").load_state_dict(weights, strict=False)  # set-up bug: trunk_from_a_converted_file
    for parameter in model.get_submodule("trunk").parameters():
        parameter.requires_grad_(False)
    optimizer = torch.optim.Adam(model.get_submodule("classify").parameters(), lr=3e-2)

    def loss_of(x: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        return F.multilabel_soft_margin_loss(2 * model(x).mean((2, 3)), there)

    after = lab.validating(model, lambda number: _two_digits(9000 + number), loss_of)
    replace(lab, steps=120).fit(model, _two_digits, loss_of, optimizer, after=after)


class _UNet(nn.Module):
    """Down once, up once, and what was seen before."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.down, self.mid = nn.Conv2d(1, width, 5, padding=2), nn.Conv2d(width, 2 * width, 3, padding=1)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.join, self.out = nn.Conv2d(2 * width, width, 3, padding=1), nn.Conv2d(width, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = F.relu(self.down(x))
        coarse = F.relu(self.mid(F.max_pool2d(fine, 2)))
        return self.out(F.relu(self.join(torch.cat([fine, self.up(coarse)], dim=1))))


def _scans(number: int) -> _Batch:
    """Noisy scans ``(12, 1, 24, 24)`` with a faint spot in each, and where it is ``(12, 24, 24)``: a pixel in sixty."""
    generator = torch.Generator().manual_seed(number)
    centre = torch.randint(3, 21, (12, 2, 1, 1), generator=generator)
    rows, columns = torch.meshgrid(torch.arange(24), torch.arange(24), indexing="ij")
    spot = ((rows - centre[:, 0]) ** 2 + (columns - centre[:, 1]) ** 2 <= 3).long()
    return (1.3 * spot + torch.randn(12, 24, 24, generator=generator))[:, None], spot


@broken(
    rules=("imbalanced-targets",),
    words=("imbalance", "class weight", "weight the rare", "rare class", "unbalanced"),
    nodes=("loss", "target"),
)
def spots_drowned_in_background(lab: Lab) -> None:
    """One pixel in sixty belongs to a spot, and counts no more than one of the background, which is all that is said.

    Source: laganvalleydup.co.uk, UNet segmentor only identifies background class (imbalance of the pixels).
    """
    model = _UNet()
    weight = torch.tensor([1.0, 30.0]) if lab.fixed else None
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    lab.recorder.watch(model, optimizer)

    def missed(x: torch.Tensor, spot: torch.Tensor) -> torch.Tensor:
        said = model(x).argmax(1)
        return 1 - 0.5 * ((said == spot)[spot == 1].float().mean() + (said == spot)[spot == 0].float().mean())

    for number in range(120):
        x, spot = _scans(number)
        with lab.recorder.step("train"):
            loss = F.cross_entropy(model(x), spot, weight=weight)  # bug: spots_drowned_in_background
            descend(loss, optimizer)
        lab.validate(lambda n: _scans(9000 + n), missed, number)


class _Block(nn.Module):
    """Two normalised convolutions beside a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class _ResNet(nn.Module):
    """A stem, two blocks, a linear layer over their mean."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.layer1, self.layer2 = _Block(width), _Block(width)
        self.fc = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer2(F.max_pool2d(self.layer1(F.relu(self.bn(self.stem(x)))), 2))
        return self.fc(x.mean((2, 3)))


@broken(
    rules=("batch-norm-mode",),
    words=("training mode", "eval()", "evaluation mode"), onset=29,
    nodes=("model", "model.bn", "model.layer1.bn1", "model.layer2.bn2"),
)  # fmt: skip
def pictures_one_by_one_in_training_mode(lab: Lab) -> None:
    """The tuned network is judged picture by picture without ``eval()``: each is normalised by itself.

    Source: pytorch/vision 201 and 222, low classification accuracy of pretrained ResNets (``eval()`` not called).
    """
    model = _ResNet()
    learning = torch.optim.Adam(model.parameters(), lr=5e-3)
    batches = data.draw(data.images())
    for number in range(60):
        x, y = batches(number)
        descend(F.cross_entropy(model(x), y), learning)
    x, y = data.unseen_pixels()
    unseen = [(row.view(1, 1, 8, 8).flip(3), label[None]) for row, label in zip(x[:40], y[:40], strict=True)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    lab.recorder.watch(model, optimizer)
    for number in range(120):
        x, y = batches(500 + number)
        with lab.recorder.step("train"):
            descend(F.cross_entropy(model(x.flip(3)), y), optimizer)
        if number % 30 == 29:
            if lab.fixed:
                model.eval()
            with torch.no_grad(), lab.recorder.step("validation") as step:
                scores = torch.cat([model(x) for x, _ in unseen])  # bug: pictures_one_by_one_in_training_mode
                step.record("loss", F.cross_entropy(scores, torch.cat([y for _, y in unseen])), type="loss")
            model.train()


@broken(
    rules=("evaluation-data",),
    words=("preprocess", "scaled differently", "other scale", "another scale"),
    nodes=("input",),
    onset=29,
)
def later_digits_as_they_come(lab: Lab) -> None:
    """The digits for training are scaled to between -1 and 1, those for the test are left between 0 and 16.

    Source: mlpack/examples 213, apply the same preprocessing to the test set (accuracy of 9 per cent).
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x, y = torch.tensor(bunch.data, dtype=torch.float32), torch.tensor(bunch.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(2))
    x, y = x[order], y[order]
    train, test = x[:1400] / 8 - 1, x[1400:]
    if lab.fixed:
        test = test / 8 - 1  # set-up bug: later_digits_as_they_come
    model = nn.Sequential(
        nn.Linear(64, 100), nn.ReLU(), nn.Dropout(0.2), nn.Linear(100, 50), nn.ReLU(), nn.Linear(50, 10),
        nn.LogSoftmax(dim=1),
    )  # fmt: skip
    criterion = nn.NLLLoss()
    after = lab.validating(model, lambda _: (test, y[1400:]), lambda x, y: criterion(model(x), y))
    lab.fit(model, data.draw((train, y[:1400])), lambda x, y: criterion(model(x), y), after=after)


def _streets(number: int, *, checked: bool) -> _Batch:
    """Pictures ``(32, 1, 24, 24)`` with a car each, and its box; a tenth were annotated before they were shrunk."""
    generator = torch.Generator().manual_seed(number)
    corner = torch.randint(0, 14, (32, 2), generator=generator)
    size = torch.randint(4, 10, (32, 2), generator=generator)
    end, place = corner + size, torch.arange(24)
    rows = (place >= corner[:, :1]) & (place < end[:, :1])
    columns = (place >= corner[:, 1:]) & (place < end[:, 1:])
    picture = (rows[:, :, None] & columns[:, None]).float() + 0.3 * torch.randn(32, 24, 24, generator=generator)
    boxes = torch.cat([corner, end], dim=1).float()
    old = torch.rand(32, 1, generator=generator) < 0.1
    if not checked:
        boxes = torch.where(old, 5 * boxes, boxes)  # set-up bug: boxes_beyond_the_picture
    return picture[:, None], boxes / 24


@broken(words=("outside the", "beyond the picture", "out of range", "out of the image", "outlier"), nodes=("target",))
def boxes_beyond_the_picture(lab: Lab) -> None:
    """One box in ten is annotated in the coordinates of a larger picture, and lies far beyond the edge of this one.

    Source: rbgirshick/py-faster-rcnn 535, annotations out of the image range ("fixed some, and it works well").
    """
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(12, 24, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(24 * 36, 64), nn.ReLU(), nn.Linear(64, 4),
    )  # fmt: skip

    def loss_of(x: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(x), boxes)

    after = lab.validating(model, lambda number: _streets(9000 + number, checked=True), loss_of)
    lab.fit(model, lambda number: _streets(number, checked=lab.fixed), loss_of, lr=2e-3, after=after)
