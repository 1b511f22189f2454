"""Mistakes in supervised learning on images: loaders, augmentation, masks, boxes, pretrained weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Batches, Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _unseen_images() -> data.Table:
    x, y = data.unseen_pixels()
    return x.unflatten(1, (1, 8, 8)), y


def _learn(lab: Lab, model: nn.Module, batches: Batches, unseen: Batches) -> None:
    """Train a classifier, and validate it in evaluation mode."""

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x), y)

    lab.fit(model, batches, loss_of, after=lab.validating(model, unseen, loss_of))


@broken(words=("reshape", "permute", "transpose", "channels"), nodes=("input", "model.0"))
def channels_last_reshaped(lab: Lab) -> None:
    """Colour images [B, H, W, 3] are reshaped to [B, 3, H, W], instead of permuted, which mixes colours and places.

    Source: PyTorch forum and Stack Overflow, view instead of permute; Zhang et al. (ISSTA 2018), unaligned tensor.
    """
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ELU(), nn.Conv2d(16, 16, 3, padding=1), nn.ELU(), nn.Conv2d(16, 3, 1)
    )
    batches = data.draw(data.images(), 32)

    def photos(number: int) -> _Batch:
        digits, _ = batches(number)
        generator = torch.Generator().manual_seed(number)
        colour = torch.randint(2, (len(digits),), generator=generator)
        ink = (digits[:, 0] > 0.5).long() * (1 + colour[:, None, None])
        x = F.one_hot(ink, 3) + 0.4 * torch.randn(*ink.shape, 3, generator=generator)
        x = x.permute(0, 3, 1, 2) if lab.fixed else x.reshape(-1, 3, 8, 8)  # set-up bug: channels_last_reshaped
        return x, ink

    lab.fit(model, photos, lambda x, y: F.cross_entropy(model(x), y), lr=5e-3)


def _scene(number: int) -> _Batch:
    """Noisy images ``(24, 1, 16, 16)`` with a bright disk, and the disk ``(24, 1, 16, 16)``."""
    generator = torch.Generator().manual_seed(number)
    centre = 3 + 10 * torch.rand(24, 2, 1, 1, generator=generator)
    radius = 2 + 2 * torch.rand(24, 1, 1, generator=generator)
    line = torch.arange(16.0)
    disk = (line[:, None] - centre[:, 0]).square() + (line - centre[:, 1]).square() < radius.square()
    mask = disk[:, None].float()
    return mask + 0.5 * torch.randn(mask.shape, generator=generator), mask


class _UNet(nn.Module):
    """Once down and up again, with a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.down = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.last = nn.Conv2d(16, 1, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = self.enter(x)
        return self.last(torch.cat([fine, self.up(self.down(fine))], dim=1))


@broken(
    rules=("unrelated-targets",), words=("flip", "augment", "nothing to do", "not depend"),
    nodes=("target", "input", "loss"),
)  # fmt: skip
def mask_not_flipped_with_the_image(lab: Lab) -> None:
    """Half of the images of a segmentation are flipped, left to right, but not their masks.

    Source: kornia issue 476 and PyTorch forum, same random transform for image and mask; Humbatova et al. (ICSE 2020).
    """
    model = _UNet()

    def flipped(number: int) -> _Batch:
        x, mask = _scene(number)
        flip = (torch.rand(len(x), generator=torch.Generator().manual_seed(number)) < 0.5)[:, None, None, None]
        if lab.fixed:
            mask = mask.flip(-1).where(flip, mask)
        return x.flip(-1).where(flip, x), mask  # set-up bug: mask_not_flipped_with_the_image

    lab.fit(model, flipped, lambda x, mask: F.binary_cross_entropy_with_logits(model(x), mask), lr=1e-2)


def _boxed(number: int) -> _Batch:
    """Noisy images ``(64, 1, 16, 16)`` with a bright box, and its left, top, width and height ``(64, 4)``."""
    generator = torch.Generator().manual_seed(number)
    size = torch.randint(4, 9, (64, 2), generator=generator)
    corner = (torch.rand(64, 2, generator=generator) * (17 - size)).long()
    line = torch.arange(16)
    inside = (line >= corner[..., None]) & (line < (corner + size)[..., None])
    box = (inside[:, 1, :, None] & inside[:, 0, None, :])[:, None].float()
    return box + 0.2 * torch.randn(box.shape, generator=generator), torch.cat([corner, size], dim=1) / 16


def _corners(box: torch.Tensor) -> torch.Tensor:
    """Left, top, right and bottom from left, top, width and height."""
    return torch.cat([box[:, :2], box[:, :2] + box[:, 2:]], dim=1)


def _generalised_iou(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
    """Of boxes ``(B, 4)`` given by their corners; from -1 to 1."""
    common = (torch.minimum(one[:, 2:], two[:, 2:]) - torch.maximum(one[:, :2], two[:, :2])).clamp(min=0).prod(1)
    union = (one[:, 2:] - one[:, :2]).prod(1) + (two[:, 2:] - two[:, :2]).prod(1) - common
    hull = (torch.maximum(one[:, 2:], two[:, 2:]) - torch.minimum(one[:, :2], two[:, :2])).prod(1)
    return common / (union + 1e-6) - (hull - union) / (hull + 1e-6)


@broken(words=("corner", "width and height", "inverted box", "format"), nodes=("target", "loss"))
def sizes_taken_for_corners(lab: Lab) -> None:
    """Boxes are annotated by corner and size, as in COCO, and the loss takes the size for the other corner.

    Source: owl-vit-object-detection issue 14, VLTVG issue 5: boxes in another format than generalised IoU expects.
    """
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3, stride=2, padding=1), nn.LeakyReLU(0.1), nn.Conv2d(12, 24, 3, stride=2, padding=1),
        nn.LeakyReLU(0.1), nn.Flatten(), nn.Linear(384, 64), nn.LeakyReLU(0.1), nn.Linear(64, 4), nn.Sigmoid(),
    )  # fmt: skip

    def loss_of(x: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        found = _corners(model(x))
        corners = _corners(wanted) if lab.fixed else wanted
        return (1 - _generalised_iou(found, corners)).mean()  # bug: sizes_taken_for_corners

    lab.fit(model, _boxed, loss_of, torch.optim.AdamW(model.parameters(), 3e-3))


@broken(
    rules=("unbounded-loss",), words=("sigmoid", "probabilit", "negative", "below zero"),
    nodes=("loss", "model.4", "model"),
)  # fmt: skip
def dice_of_raw_scores(lab: Lab) -> None:
    """The Dice loss of a segmentation is given raw scores, not probabilities, and can fall below zero.

    Source: tf_unet issue 15, Dice loss operating on logits; pytorch-3dunet issue 17.
    """
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=2, dilation=2), nn.ReLU(),
        nn.Conv2d(12, 1, 1),
    )  # fmt: skip

    def loss_of(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        share = model(x)
        if lab.fixed:
            share = share.sigmoid()
        common = (share * mask).sum((1, 2, 3))
        return (
            1 - (2 * common + 1) / (share.sum((1, 2, 3)) + mask.sum((1, 2, 3)) + 1)
        ).mean()  # bug: dice_of_raw_scores

    lab.fit(model, _scene, loss_of, lr=5e-3)


def _backbone() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.Tanh(), nn.Conv2d(8, 12, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(48, 12)
    )


def _pretrained() -> Mapping[str, torch.Tensor]:
    """A backbone that knows the digits, saved as multi-GPU training saves it."""
    model = nn.Sequential(nn.ModuleDict({"module": _backbone()})["module"], nn.Tanh(), nn.Linear(12, 10))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    batches = data.draw(data.images())
    for number in range(90):
        x, y = batches(1000 + number)
        descend(F.cross_entropy(model(x), y), optimizer)
    return {f"module.{name}": weight for name, weight in model[0].state_dict().items()}


@broken(
    words=("initial weights", "initialis", "pretrained", "checkpoint", "not loaded", "random weights"),
    nodes=("model.backbone", "model.backbone.0.weight", "model.backbone.2.weight"),
)  # fmt: skip
def checkpoint_with_other_names(lab: Lab) -> None:
    """The names in a checkpoint begin with ``module.``; ``strict=False`` loads none, and the frozen backbone is random.

    Source: pytorch/examples issue 1029, torchgeo issue 4036: strict=False, pretrained weights are never loaded.
    """
    weights = _pretrained()
    if lab.fixed:
        weights = {name.removeprefix("module."): weight for name, weight in weights.items()}
    model = nn.ModuleDict({"backbone": _backbone(), "head": nn.Linear(12, 10)})
    model["backbone"].load_state_dict(weights, strict=False)  # set-up bug: checkpoint_with_other_names
    model["backbone"].requires_grad_(False)
    optimizer = torch.optim.Adam(model["head"].parameters(), 2e-2)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model["head"](model["backbone"](x).tanh()), y)

    lab.fit(model, data.draw(_unseen_images(), 32), loss_of, optimizer)


@broken(
    rules=("unrelated-targets",), words=("unrelated", "independent of", "not depend", "nothing to do"),
    nodes=("target", "input", "loss"),
)  # fmt: skip
def files_sorted_as_text(lab: Lab) -> None:
    """Files are sorted as text, 10.png before 2.png, and the lines of the table with their labels are not.

    Source: labelme issue 953 and SinGAN pull request 136, order of files; Humbatova et al. (ICSE 2020), wrong labels.
    """
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 24, 3), nn.BatchNorm2d(24), nn.ReLU(), nn.Flatten(), nn.Linear(96, 10),
    )  # fmt: skip
    x, y = data.images()
    files = [f"{number}.png" for number in range(len(x))]
    if not lab.fixed:
        files = sorted(files)  # set-up bug: files_sorted_as_text
    x = x[[int(file.removesuffix(".png")) for file in files]]
    _learn(lab, model, data.draw((x, y), 32), data.draw(_unseen_images()))


@broken(
    rules=("constant-output", "small-batch-norm"), words=("one value", "single value", "normalis"),
    nodes=("model.6",),
)  # fmt: skip
def group_norm_of_pooled_features(lab: Lab) -> None:
    """Group normalisation with a group for each channel follows a global average: each group has one value, made zero.

    Source: ddfnet issue 14, normalisation of 1x1 maps gives zeros; PyTorch forum, InstanceNorm after global pooling.
    """
    groups = 1 if lab.fixed else 32
    norm = nn.GroupNorm(groups, 32)  # set-up bug: group_norm_of_pooled_features
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        norm, nn.Linear(32, 10),
    )  # fmt: skip
    optimizer = torch.optim.RMSprop(model.parameters(), 2e-3)
    lab.fit(model, data.draw(data.images(), 32), lambda x, y: F.cross_entropy(model(x), y), optimizer)


@broken(rules=("input-scale",), words=("inputs grow", "inputs drift", "in place"), nodes=("input", "model.0"), onset=21)
def normalised_in_place(lab: Lab) -> None:
    """The loader normalises images in place, in its own store, so that in each epoch they are normalised once more.

    Source: docTR issue 840, data changed in place by __getitem__; torch.from_numpy and Normalize(inplace=True).
    """
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.SiLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.SiLU(),
        nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip
    x, y = data.images()
    store = (x - x.min()) / (x.max() - x.min())
    mean, deviation = float(store.mean()), float(store.std())

    def load(row: int) -> torch.Tensor:
        if lab.fixed:
            return (store[row] - mean) / deviation
        return store[row].sub_(mean).div_(deviation)  # set-up bug: normalised_in_place

    def batches(number: int) -> _Batch:
        epoch, place = divmod(number, len(y) // 64)
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(epoch))
        rows = order[64 * place : 64 * place + 64]
        return torch.stack([load(int(row)) for row in rows]), y[rows]

    _learn(lab, model, batches, data.draw(_unseen_images()))


@broken(
    rules=("unrelated-targets",), words=("validation label", "validation target", "of the validation"),
    nodes=("target", "loss"), onset=30,
)  # fmt: skip
def classes_numbered_by_folder(lab: Lab) -> None:
    """Classes are numbered by the folders that exist, and the validation has none for the 2: its labels are shifted.

    Source: timm issue 957, ultralytics issue 13936 and pull request 23566: ImageFolder numbers classes by itself.
    """
    model = nn.Sequential(
        nn.Conv2d(1, 24, 3), nn.Hardswish(), nn.Conv2d(24, 24, 3, groups=24), nn.Conv2d(24, 48, 1), nn.Hardswish(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.2), nn.Linear(192, 10),
    )  # fmt: skip
    x, digit = _unseen_images()
    x, digit = x[digit != 2], digit[digit != 2]
    folders = list(range(10)) if lab.fixed else sorted(set(digit.tolist()))
    y = torch.tensor([folders.index(name) for name in digit.tolist()])  # set-up bug: classes_numbered_by_folder
    _learn(lab, model, data.draw(data.images(), 40), data.draw((x, y)))
