"""Training runs on images in which nothing is wrong, though much is unusual."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.lab import Lab

_Batch = tuple[torch.Tensor, ...]


def _spots(number: int) -> _Batch:
    """Noisy images ``(16, 1, 16, 16)`` and a small spot in each, of nine pixels in 256."""
    generator = torch.Generator().manual_seed(number)
    centre = torch.randint(2, 14, (16, 2, 1, 1), generator=generator)
    line = torch.arange(16)
    near = ((line[:, None] - centre[:, 0]).abs() <= 1) & ((line - centre[:, 1]).abs() <= 1)
    spot = near[:, None].float()
    return spot + 0.3 * torch.randn(spot.shape, generator=generator), spot


class _Hourglass(nn.Module):
    """Down by strides and up by interpolation, with a skip connection and normalised instances."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.InstanceNorm2d(8, affine=True), nn.LeakyReLU())
        self.down = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.InstanceNorm2d(16), nn.LeakyReLU())
        self.last = nn.Conv2d(24, 1, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = self.enter(x)
        coarse = F.interpolate(self.down(fine), scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.last(torch.cat([fine, coarse], dim=1))


def segmentation_of_small_spots(lab: Lab) -> None:
    """Three pixels in a hundred are of the spot; Dice and cross-entropy together find it all the same."""
    model = _Hourglass()

    def loss_of(x: torch.Tensor, spot: torch.Tensor) -> torch.Tensor:
        scores = model(x)
        share = scores.sigmoid()
        common, both = (share * spot).sum((1, 2, 3)), (share + spot).sum((1, 2, 3))
        dice = (2 * common + 1) / (both + 1)
        return F.binary_cross_entropy_with_logits(scores, spot) + 1 - dice.mean()

    lab.fit(model, _spots, loss_of, torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=1e-3))


def _crossings(number: int) -> _Batch:
    """Images ``(16, 1, 16, 16)`` of one cross each, where its centre is on a map ``(16, 1, 8, 8)``, and its arm."""
    generator = torch.Generator().manual_seed(number)
    centre = torch.randint(3, 13, (16, 2, 1, 1), generator=generator)
    arm = torch.randint(1, 4, (16, 1, 1), generator=generator)
    line = torch.arange(16)
    down, right = (line[:, None] - centre[:, 0]).abs(), (line - centre[:, 1]).abs()
    cross = ((down == 0) & (right <= arm)) | ((right == 0) & (down <= arm))
    heat = ((down == 0) & (right == 0)).float()[:, None]
    noise = 0.1 * torch.randn(16, 1, 16, 16, generator=generator)
    return cross[:, None] + noise, F.max_pool2d(heat, 2), arm.float()[..., None]


class _CentreNet(nn.Module):
    """A map of how likely a centre is, and a map of sizes; at first it deems centres as rare as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 5, padding=2), nn.Mish(), nn.Conv2d(8, 24, 3, stride=2, padding=1), nn.Mish(),
            nn.Conv2d(24, 24, 3, padding=1), nn.Mish(),
        )  # fmt: skip
        self.heat, self.size = nn.Conv2d(24, 1, 1), nn.Conv2d(24, 1, 1)
        self.heat.load_state_dict({"weight": self.heat.weight, "bias": torch.full((1,), -4.6)})

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.body(x)
        return self.heat(features), self.size(features)


def centres_with_a_focal_loss(lab: Lab) -> None:
    """A detector with a focal loss, one place in 64 of which is a centre; sizes are learned at the centres only."""
    model = _CentreNet()

    def loss_of(x: torch.Tensor, centre: torch.Tensor, arm: torch.Tensor) -> torch.Tensor:
        heat, size = model(x)
        plain = F.binary_cross_entropy_with_logits(heat, centre, reduction="none")
        focal = ((1 - (-plain).exp()).square() * plain).sum() / centre.sum()
        return focal + 0.3 * (centre * (size - arm).abs()).sum() / centre.sum()

    lab.fit(model, _crossings, loss_of, lr=4e-3)


class _Sharpener(nn.Module):
    """Adds details to an enlarged picture: none at first, since its last layer starts at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 24, 3, padding=1), nn.PReLU(), nn.Conv2d(24, 24, 3, padding=1))
        self.last = nn.Conv2d(24, 4, 3, padding=1)
        self.last.load_state_dict({name: torch.zeros_like(w) for name, w in self.last.state_dict().items()})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        details = F.pixel_shuffle(self.last(F.gelu(self.body(x))), 2)
        return F.interpolate(x, scale_factor=2.0, mode="nearest") + details


def enlarged_pictures(lab: Lab) -> None:
    """A net enlarges pictures of four by four pixels, from a last layer of zeros, by a rounded absolute error."""
    model = _Sharpener()

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        error = model(F.avg_pool2d(x, 2)) - x
        return (error.square() + 1e-6).sqrt().mean()

    lab.fit(model, data.draw(data.images(), 32), loss_of, torch.optim.RMSprop(model.parameters(), 1e-3))


class _Skippable(nn.Module):
    """A residual block with squeeze and excitation, which is left out now and then while it trains."""

    def __init__(self, width: int, kept: float) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1, bias=False))
        self.gate = nn.Sequential(nn.Linear(width, 4), nn.ReLU(), nn.Linear(4, width), nn.Sigmoid())
        self.kept = kept

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and torch.rand(()) > self.kept:
            return x
        change = self.inner(x)
        change = change * self.gate(change.mean((2, 3)))[..., None, None]
        return x + (change / self.kept if self.training else change)


def mixed_images_of_random_depth(lab: Lab) -> None:
    """Blocks are skipped at random and images mixed in pairs, so that the loss of training stays above the other."""
    blocks = [_Skippable(16, 0.8) for _ in range(2)]
    model = nn.Sequential(nn.Conv2d(1, 16, 3), *blocks, nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(64, 10))
    x, y = data.unseen_pixels()
    unseen = data.draw((x.unflatten(1, (1, 8, 8)), F.one_hot(y, 10).float()))
    batches = data.draw(data.images(), 32)

    def mixed(number: int) -> _Batch:
        x, y = batches(number)
        share = torch.distributions.Beta(0.4, 0.4).sample((len(x), 1))
        classes = F.one_hot(y, 10).float()
        images = share[..., None, None] * x + (1 - share[..., None, None]) * x.flip(0)
        return images, share * classes + (1 - share) * classes.flip(0)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x), y, label_smoothing=0.1)

    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=lab.steps)

    def after(number: int) -> None:
        schedule.step()
        model.eval()
        lab.validate(unseen, loss_of, number)
        model.train()

    lab.fit(model, mixed, loss_of, optimizer, after=after)
