"""Networks that say something about every place of a picture, as reported with their mistakes."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Batches, Lab

_Batch = tuple[torch.Tensor, ...]
SIDE = 16


def _shapes(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy pictures ``(n, 1, 16, 16)`` of discs or squares, and what each pixel shows: nothing, a disc, a square."""
    draws = torch.Generator().manual_seed(seed)
    middle = 4 + 8 * torch.rand(count, 2, 1, 1, generator=draws)
    kind = torch.randint(1, 3, (count, 1, 1), generator=draws)
    line = torch.arange(float(SIDE))
    down, across = (line[:, None] - middle[:, 0]).abs(), (line - middle[:, 1]).abs()
    inside = torch.where(kind == 1, down**2 + across**2 < 16, torch.maximum(down, across) < 3)
    tone = torch.where(kind == 1, 1.0, -1.0) * inside
    return (tone + 0.3 * torch.randn(count, SIDE, SIDE, generator=draws))[:, None], (kind * inside).long()


def _drawn(x: torch.Tensor, y: torch.Tensor, batch: int = 24) -> Batches:
    def batches(number: int) -> _Batch:
        rows = torch.randint(len(x), (batch,), generator=torch.Generator().manual_seed(number))
        return x[rows], y[rows]

    return batches


class _Small(nn.Module):
    """Down twice, up twice, with the finer maps handed across."""

    def __init__(self, classes: int, width: int = 8) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.deep = nn.Sequential(
            nn.MaxPool2d(2), nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(),
            nn.ConvTranspose2d(2 * width, width, 2, stride=2),
        )  # fmt: skip
        self.up = nn.Sequential(nn.Conv2d(2 * width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, classes, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = self.down(x)
        return self.up(torch.cat([fine, self.deep(fine)], dim=1))


@broken(rules=("constant-data",), words=("same target", "divided by", "scaled to"), nodes=("target",))
def masks_loaded_like_photographs(lab: Lab) -> None:
    """The masks go through the transform for photographs, which divides by 255: the classes all become 0.

    Source: ziqi-jin/finetune-anything issue 15, labels returned by the data loader were between 0 and 1.
    """
    model = _Small(3)
    x, y = _shapes(400, seed=1)
    y[:, [0, -1]] = 255

    def to_tensor(mask: torch.Tensor) -> torch.Tensor:
        return mask if lab.fixed else mask / 255

    def loss_of(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        labels = to_tensor(mask).long()  # bug: masks_loaded_like_photographs
        return F.cross_entropy(model(x), labels, ignore_index=255)

    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    lab.fit(model, _drawn(x, y), loss_of, optimizer)


@broken(rules=("imbalanced-targets", "constant-data"), words=("ignore", "255"), nodes=("target", "loss"))
def ignored_number_for_the_liver(lab: Lab) -> None:
    """The masks say 255 for what is sought, which the loss ignores: only the background is left to learn.

    Source: HRNet/HRNet-Semantic-Segmentation issue 77, my criterion remains unchanged during the training.
    """
    model = _Small(2)
    x, y = _shapes(400, seed=2)
    y = y.clamp(max=1) * (1 if lab.fixed else 255)  # set-up bug: ignored_number_for_the_liver
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)
    lab.fit(model, _drawn(x, y), lambda x, y: F.cross_entropy(model(x), y, ignore_index=255), optimizer)


class _Solids(nn.Module):
    """Encodes a shape, and says of points whether they lie in it."""

    def __init__(self, code: int = 24) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, 4, 2, 1), nn.LeakyReLU(0.02), nn.Conv2d(16, 32, 4, 2, 1), nn.LeakyReLU(0.02), nn.Flatten(),
            nn.Linear(512, code),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Linear(code + 2, 64), nn.LeakyReLU(0.02), nn.Linear(64, 64), nn.LeakyReLU(0.02), nn.Linear(64, 1)
        )

    def forward(self, shapes: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        code = self.encoder(shapes)[:, None].expand(-1, points.shape[1], -1)
        return self.decoder(torch.cat([code, points], dim=2))[..., 0]


def _parts(count: int, seed: int) -> torch.Tensor:
    """Shapes ``(n, 1, 16, 16)`` made of two plates, one cut out of the other or joined to it."""
    draws = torch.Generator().manual_seed(seed)
    line = torch.arange(float(SIDE))
    plates = []
    for _ in range(2):
        middle = 4 + 8 * torch.rand(count, 2, 1, 1, generator=draws)
        half = 1.5 + 3.5 * torch.rand(count, 2, 1, 1, generator=draws)
        plates.append(((line[:, None] - middle[:, 0]).abs() < half[:, 0]) & ((line - middle[:, 1]).abs() < half[:, 1]))
    join = torch.rand(count, 1, 1, generator=draws) < 0.5
    return torch.where(join, plates[0] | plates[1], plates[0] & ~plates[1]).float()[:, None]


def _asked(shapes: torch.Tensor, batch: int = 16) -> Batches:
    """Shapes, points ``(n, 48, 2)``, and whether they lie inside."""

    def batches(number: int) -> _Batch:
        draws = torch.Generator().manual_seed(number)
        chosen = shapes[torch.randint(len(shapes), (batch,), generator=draws)]
        cells = torch.randint(SIDE, (batch, 48, 2), generator=draws)
        inside = chosen[torch.arange(batch)[:, None], 0, cells[..., 0], cells[..., 1]]
        return chosen, cells / 8 - 1, inside

    return batches


@broken(
    rules=("duplicate-samples",), words=("also in the validation", "same samples", "training samples", "leak"),
    nodes=("input.shapes",),
)  # fmt: skip
def fitted_to_the_test_shapes(lab: Lab) -> None:
    """The training loads the split for tests, which is small, and is the very one that the validation judges.

    Source: BunnySoCrazy/SECAD-Net issue 1, not converging: the training code was loading the test dataset.
    """
    model = _Solids()
    splits = {"train": _parts(1500, seed=5), "test": _parts(12, seed=6)}
    shapes = splits["train" if lab.fixed else "test"]  # set-up bug: fitted_to_the_test_shapes

    def loss_of(shapes: torch.Tensor, points: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(model(shapes, points), inside)

    judged = _asked(splits["test"], batch=12)
    longer = replace(lab, steps=200)
    longer.fit(
        model, _asked(shapes), loss_of, lr=2e-3, after=lambda number: lab.validate(judged, loss_of, number)
    )  # fmt: skip
