"""Mistakes in nets that find things in pictures: key points, masks, boxes, movements, and several answers at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab

_Batch = tuple[torch.Tensor, ...]
_Measure = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
_LINE = torch.arange(16.0)


def _crosses(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy pictures ``(24, 1, 16, 16)`` of a small cross among dots, and the cross's row and column ``(24, 2)``."""
    generator = torch.Generator().manual_seed(number)
    centre = torch.randint(2, 14, (24, 2), generator=generator).float()
    down = (_LINE[:, None] - centre[:, 0, None, None]).abs()
    right = (_LINE - centre[:, 1, None, None]).abs()
    cross = ((down == 0) & (right <= 2)) | ((right == 0) & (down <= 2))
    dots = torch.rand(24, 16, 16, generator=generator) < 0.06
    noise = 0.1 * torch.randn(24, 1, 16, 16, generator=generator)
    return (cross | dots)[:, None] + noise, centre


def _heat(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Maps ``(B, 1, 16, 16)`` of a bell around each point."""
    distance = (_LINE[:, None] - rows[:, None, None]).square() + (_LINE - columns[:, None, None]).square()
    return (-distance / 2).exp()[:, None]


@broken(
    rules=("unrelated-targets",), words=("transpos", "mirror", "swapped", "nothing to do", "not depend"),
    nodes=("target", "loss"),
)  # fmt: skip
def heat_drawn_at_column_and_row(lab: Lab) -> None:
    """The target of a key point is drawn at ``[column, row]``, mirrored at the diagonal of the picture.

    Source: mmdetection3d issue 1595, SuperPointPretrainedNetwork issue 12: x and y of a heat map are swapped.
    """
    model = nn.Sequential(
        nn.Conv2d(1, 12, 5, padding=2),
        nn.ReLU(),
        nn.Conv2d(12, 12, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(12, 1, 3, padding=1),
    )

    def batches(number: int) -> _Batch:
        x, centre = _crosses(number)
        row, column = centre.unbind(1) if lab.fixed else centre.flip(1).unbind(1)
        return x, 4 * _heat(row, column)  # set-up bug: heat_drawn_at_column_and_row

    lab.fit(model, batches, lambda x, heat: F.mse_loss(model(x), heat), lr=5e-3)


def _cells(number: int) -> _Batch:
    """Noisy pictures ``(16, 1, 16, 16)`` of two blurred cells, and their mask as a file has it: 0 or 255."""
    generator = torch.Generator().manual_seed(number)
    centre = 2 + 12 * torch.rand(16, 2, 2, 1, 1, generator=generator)
    distance = (_LINE[:, None] - centre[:, :, 0]).square() + (_LINE - centre[:, :, 1]).square()
    near = distance.amin(1, keepdim=True)
    x = (-near / 8).exp() + 0.2 * torch.randn(near.shape, generator=generator)
    return x, (near < 7).to(torch.uint8) * 255


class _Encoder(nn.Module):
    """Once down and up again, beside a path at full size."""

    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        self.fine = nn.Conv2d(1, 8, 3, padding=1)
        self.coarse = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.up = nn.Upsample(scale_factor=2.0)
        self.last = nn.Conv2d(24, outputs, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = F.elu(self.fine(x))
        return self.last(torch.cat([fine, self.up(F.elu(self.coarse(fine)))], dim=1))


@broken(
    rules=("target-scale", "unreachable-targets", "unbounded-loss"), words=("255", "between 0 and 1", "outside 0"),
    nodes=("target", "loss"),
)  # fmt: skip
def mask_of_bytes(lab: Lab) -> None:
    """The masks of a segmentation are 0 and 255, as in their files, where the binary cross-entropy wants 0 and 1.

    Source: Pytorch-UNet issues 65 and 78, segmentation_models issue 95: the loss is negative.
    """
    model = _Encoder()

    def batches(number: int) -> _Batch:
        x, mask = _cells(number)
        return x, mask / 255 if lab.fixed else mask.float()  # set-up bug: mask_of_bytes

    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    lab.fit(model, batches, lambda x, mask: F.binary_cross_entropy_with_logits(model(x), mask), optimizer)


def _bars(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy pictures ``(16, 1, 16, 16)`` of a bar in one of three shades, and maps of classes ``(16, 1, 32, 32)``."""
    generator = torch.Generator().manual_seed(number)
    shade = torch.randint(1, 4, (16, 1, 1, 1), generator=generator)
    left = torch.randint(1, 28, (16, 2, 1, 1), generator=generator)
    line = torch.arange(32)
    upright = (line >= left[:, :1]) & (line < left[:, :1] + 3) & (line[:, None] >= 0)
    level = (line[:, None] >= left[:, 1:]) & (line[:, None] < left[:, 1:] + 3) & (line >= 0)
    classes = shade * (upright | level)
    x = F.avg_pool2d(classes.float(), 2)
    return x - 0.5 + 0.1 * torch.randn(x.shape, generator=generator), classes


@broken(words=("interpol", "resiz", "nearest", "in between"), nodes=("target",))
def classes_interpolated(lab: Lab) -> None:
    """Maps of classes are made smaller by bilinear interpolation: at the edge of class 3 the middle is class 1.

    Source: image-segmentation-keras issue 11, FCN.tensorflow issue 4, CA-Net issue 7: labels need nearest neighbours.
    """
    model = _Encoder(4)

    def batches(number: int) -> _Batch:
        x, classes = _bars(number)
        mode = "nearest" if lab.fixed else "bilinear"
        smaller = F.interpolate(classes.float(), 16, mode=mode)  # set-up bug: classes_interpolated
        return x, smaller[:, 0].long()

    lab.fit(model, batches, lambda x, classes: F.cross_entropy(model(x), classes), lr=5e-3)


def _boxes(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy pictures ``(24, 1, 16, 16)`` of a bright box of 3 to 5 pixels, and its corners ``(24, 4)``."""
    generator = torch.Generator().manual_seed(number)
    size = torch.randint(3, 6, (24, 2), generator=generator)
    corner = (torch.rand(24, 2, generator=generator) * (17 - size)).long()
    end = corner + size
    inside = (corner[..., None] <= _LINE) & (end[..., None] > _LINE)
    box = (inside[:, 1, :, None] & inside[:, 0, None, :])[:, None].float()
    return box + 0.2 * torch.randn(box.shape, generator=generator), torch.cat([corner, end], dim=1).float()


def _overlap(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
    """Intersection over union of boxes ``(..., 4)`` given by their corners."""
    common = (torch.minimum(one[..., 2:], two[..., 2:]) - torch.maximum(one[..., :2], two[..., :2])).clamp(min=0)
    areas = [(box[..., 2:] - box[..., :2]).clamp(min=0).prod(-1) for box in (one, two)]
    return common.prod(-1) / (areas[0] + areas[1] - common.prod(-1) + 1e-6)


def _anchors(size: float) -> torch.Tensor:
    """Squares ``(64, 4)`` around the centres of eight times eight cells."""
    middle = torch.stack(torch.meshgrid(2 * torch.arange(8.0) + 1, 2 * torch.arange(8.0) + 1, indexing="xy"), dim=-1)
    return torch.cat([middle - size / 2, middle + size / 2], dim=-1).flatten(0, 1)


@broken(
    rules=("constant-data", "imbalanced-targets"), words=("no positive", "same target", "one class"),
    nodes=("target", "loss"),
)  # fmt: skip
def no_anchor_fits_the_small_boxes(lab: Lab) -> None:
    """The anchors have the size of another data set, 12 pixels: none overlaps a box of 4 by half, all are background.

    Source: SSD-Tensorflow issue 222, keras-retinanet issue 81, Yet-Another-EfficientDet-Pytorch issue 75.
    """
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 24, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 5, 1), nn.Flatten(2),
    )  # fmt: skip
    anchors = _anchors(4.0 if lab.fixed else 12.0)  # set-up bug: no_anchor_fits_the_small_boxes

    def batches(number: int) -> _Batch:
        x, box = _boxes(number)
        return x, (_overlap(anchors, box[:, None]) > 0.35).float(), box[:, None] - anchors

    def loss_of(x: torch.Tensor, fits: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        found = model(x).transpose(1, 2)
        sure = F.binary_cross_entropy_with_logits(found[..., 0], fits)
        off = (F.smooth_l1_loss(found[..., 1:], shift, reduction="none").mean(2) * fits).sum()
        return sure + off / fits.sum().clamp(min=1)

    lab.fit(model, batches, loss_of, torch.optim.AdamW(model.parameters(), 4e-3))


@broken(
    rules=("no-gradient", "vanishing-gradient"), words=("no gradient", "gradient is zero", "overlap"),
    nodes=("loss", "model"),
)  # fmt: skip
def boxes_apart_give_no_gradient(lab: Lab) -> None:
    """The loss is one minus the overlap and no distance beside it: boxes that are apart, as most are, get no gradient.

    Source: Rezatofighi et al. (2019), generalised intersection over union, on the plateau of the plain one.
    """
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.SiLU(), nn.Conv2d(16, 24, 3, stride=2, padding=1), nn.SiLU(),
        nn.Flatten(), nn.Linear(384, 64), nn.SiLU(), nn.Linear(64, 4),
    )  # fmt: skip

    def loss_of(x: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
        found = 8 * model(x)
        loss = 1 - _overlap(found, box).mean()
        return loss + 0.2 * F.l1_loss(found, box) if lab.fixed else loss  # bug: boxes_apart_give_no_gradient

    lab.fit(model, _boxes, loss_of, lr=2e-3)


def _arrows(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy pictures ``(48, 1, 12, 12)`` of an arrow, and where it points: left, right, up or down ``(48,)``."""
    generator = torch.Generator().manual_seed(number)
    way = torch.randint(4, (48,), generator=generator)
    place = torch.randint(-2, 3, (48, 2), generator=generator)
    head = torch.zeros(12, 12)
    head[6, 2:10] = 1
    for back in range(4):
        head[6 - back, 2 + back] = head[6 + back, 2 + back] = 1
    four = torch.stack([head, head.flip(1), head.t(), head.t().flip(0)])
    shifted = [four[w].roll((int(p[0]), int(p[1])), (0, 1)) for w, p in zip(way, place, strict=True)]
    return torch.stack(shifted)[:, None] + 0.3 * torch.randn(48, 1, 12, 12, generator=generator), way


@broken(
    rules=("unrelated-targets",), words=("flip", "augment", "contradict", "nothing to do", "not depend"),
    nodes=("target", "input"),
)  # fmt: skip
def left_flipped_remains_left(lab: Lab) -> None:
    """Half of the pictures of arrows are flipped, left to right, but one that pointed to the left keeps that label.

    Source: COCO-Human-Pose pull request 29, DeepLabCut pull request 1805: sides are swapped when pictures are flipped.
    """
    model = nn.Sequential(
        nn.Conv2d(1, 12, 5, padding=2), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(3), nn.Conv2d(12, 24, 3, padding=1),
        nn.ReLU(), nn.Flatten(), nn.Linear(384, 4),
    )  # fmt: skip
    mirrored = torch.tensor([1, 0, 2, 3])

    def batches(number: int) -> _Batch:
        x, way = _arrows(number)
        flip = torch.rand(len(x), generator=torch.Generator().manual_seed(number)) < 0.5
        if lab.fixed:
            way = torch.where(flip, mirrored[way], way)
        return torch.where(flip[:, None, None, None], x.flip(-1), x), way  # set-up bug: left_flipped_remains_left

    lab.fit(model, batches, lambda x, way: F.cross_entropy(model(x), way), torch.optim.Adam(model.parameters(), 2e-3))


def _clips(number: int) -> _Batch:
    """Two frames of bytes ``(32, 2, 16, 16)``, in which a grey ball moves, and by how much ``(32, 2)``."""
    generator = torch.Generator().manual_seed(number)
    start = 4 + 8 * torch.rand(32, 2, 1, 1, generator=generator)
    way = torch.empty(32, 2, 1, 1).uniform_(-2, 2, generator=generator)
    frames = []
    for centre in (start, start + way):
        distance = (_LINE[:, None] - centre[:, 0]).square() + (_LINE - centre[:, 1]).square()
        grey = 100 + 90 * (-distance / 6).exp() + 2 * torch.randn(distance.shape, generator=generator)
        frames.append(grey.clamp(0, 255).to(torch.uint8))
    return torch.stack(frames, dim=1), way.flatten(1)


class _Motion(nn.Module):
    """Tells from what has changed between two frames how a thing moved."""

    def __init__(self, *, signed: bool) -> None:
        super().__init__()
        self.look = nn.Sequential(
            nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.ReLU(), nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.ReLU()
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 2))
        self.signed = signed

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        if self.signed:
            frames = frames.short()
        change = (frames[:, 1:] - frames[:, :1]) / 40  # bug: difference_of_bytes_wraps_around
        return self.head(self.look(change))


@broken(rules=("dtype-range",), words=("wrap", "uint8", "bytes", "overflow"), nodes=("model", "input"))
def difference_of_bytes_wraps_around(lab: Lab) -> None:
    """Frames of bytes are subtracted as they are: one grey less is not -1 but 255.

    Source: image-segmentation (dwave-examples) issue 10, picamera pull request 263: differences of uint8 wrap around.
    """
    model = _Motion(signed=lab.fixed)
    lab.fit(model, _clips, lambda frames, way: F.mse_loss(model(frames), way), lr=3e-3)


def _things(number: int) -> _Batch:
    """Noisy pictures ``(32, 1, 16, 16)`` of a disk or a square, which of both, its size, and where it is."""
    generator = torch.Generator().manual_seed(number)
    round_, size = torch.randint(2, (32,), generator=generator), 2 + 3 * torch.rand(32, generator=generator)
    centre = 5 + 6 * torch.rand(32, 2, generator=generator)
    down = (_LINE[:, None] - centre[:, 0, None, None]).abs()
    right = (_LINE - centre[:, 1, None, None]).abs()
    near = torch.where(round_[:, None, None] > 0, (down.square() + right.square()).sqrt(), torch.maximum(down, right))
    x = (near < size[:, None, None])[:, None].float() - 0.3 + 0.2 * torch.randn(32, 1, 16, 16, generator=generator)
    return x, round_, (size - 3.5)[:, None], (centre - 8) / 2


class _Answers(nn.Module):
    """Kind, size and place of the thing in a picture, from one trunk."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(1, 12, 3, stride=2, padding=1), nn.Hardswish(), nn.Conv2d(12, 24, 3, stride=2, padding=1),
            nn.Hardswish(), nn.Flatten(), nn.Linear(384, 48), nn.Hardswish(),
        )  # fmt: skip
        self.heads = nn.ModuleDict({"kind": nn.Linear(48, 2), "size": nn.Linear(48, 1), "place": nn.Linear(48, 2)})

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.trunk(x)
        return {name: head(features) for name, head in self.heads.items()}


@broken(
    rules=("no-gradient", "gradient-cut", "unchanged-parameters", "loss-balance"), words=("not part of the loss",),
    nodes=("model.heads.kind", "model.heads.size", "loss", "model.heads.kind.weight", "model.heads.size.weight"),
)  # fmt: skip
def only_the_last_answer_counts(lab: Lab) -> None:
    """The loop over the losses of three heads assigns each to ``loss`` instead of adding it: only the last one counts.

    Source: PyTorch forum, total loss of several heads; taxonomy of Humbatova et al. (ICSE 2020), wrong loss.
    """
    model = _Answers()

    def loss_of(x: torch.Tensor, *wanted: torch.Tensor) -> torch.Tensor:
        found = model(x)
        loss = torch.zeros(())
        measures: tuple[_Measure, ...] = (F.cross_entropy, F.smooth_l1_loss, F.mse_loss)
        for answer, truth, measure in zip(found.values(), wanted, measures, strict=True):
            part = measure(answer, truth)
            loss = loss + part if lab.fixed else part  # bug: only_the_last_answer_counts
        return loss

    lab.fit(model, _things, loss_of, torch.optim.NAdam(model.parameters(), 3e-3))
