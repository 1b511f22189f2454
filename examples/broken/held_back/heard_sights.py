"""Mistakes in nets that look at pictures, as users told of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _scattered(number: int) -> _Batch:
    """Digits ``(48, 1, 16, 16)`` somewhere on a larger sheet, and their classes ``(48,)``."""
    pictures, labels = data.images()
    generator = torch.Generator().manual_seed(number)
    rows = torch.randint(len(pictures), (48,), generator=generator)
    sheets = torch.full((48, 1, 16, 16), float(pictures.min()))
    for sheet, picture, place in zip(
        sheets, pictures[rows], torch.randint(9, (48, 2), generator=generator), strict=True
    ):
        top, left = place.tolist()
        sheet[:, top : top + 8, left : left + 8] = picture
    return sheets + 0.05 * torch.randn(48, 1, 16, 16, generator=generator), labels[rows]


def _as_it_is(layer: nn.Linear) -> nn.Linear:
    """Let the layer give the transformation that changes nothing."""
    nn.init.zeros_(layer.weight)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]))
    return layer


class _Looker(nn.Module):
    """Decides where to look, takes that part of the sheet, and classifies it."""

    def __init__(self, *, fixed: bool) -> None:
        super().__init__()
        self.locate = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(128, 32), nn.ReLU()
        )
        self.theta = _as_it_is(nn.Linear(32, 6)) if fixed else nn.Linear(32, 6)  # set-up bug: looks_anywhere_at_first
        self.classify = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(),
            nn.AdaptiveMaxPool2d(3), nn.Flatten(), nn.Linear(216, 10),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        theta = self.theta(self.locate(x)).view(-1, 2, 3)
        grid = F.affine_grid(theta, [len(x), 1, 16, 16], align_corners=False)
        return self.classify(F.grid_sample(x, grid, padding_mode="border", align_corners=False))


@broken(words=("initialis", "identity"), nodes=("model.theta", "model.theta.weight", "model.theta.bias"))
def looks_anywhere_at_first(lab: Lab) -> None:
    """The layer that gives the transformation starts from random weights, not from the identity: it shows hardly a dot.

    Source: kevinzakka/spatial-transformer-network 10, the training does not converge (zero weights, identity as bias).
    """
    model = _Looker(fixed=lab.fixed)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x), y)

    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    lab.recorder.watch(model, optimizer)
    for number in range(220):
        sheets, classes = _scattered(number)
        with lab.recorder.step("train"):
            descend(loss_of(sheets, classes), optimizer)
        lab.validate(lambda n: _scattered(9000 + n), loss_of, number)


class _Variational(nn.Module):
    """A variational autoencoder of vectors of pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 96), nn.ReLU())
        self.mean, self.log_variance = nn.Linear(96, 12), nn.Linear(96, 12)
        self.decoder = nn.Sequential(nn.Linear(12, 96), nn.ReLU(), nn.Linear(96, 64))

    def forward(self, x: torch.Tensor) -> _Batch:
        hidden = self.encoder(x)
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        code = mean + (log_variance / 2).exp() * torch.randn_like(mean) if self.training else mean
        return self.decoder(code), mean, log_variance


@broken(
    rules=("posterior-collapse", "loss-balance"),
    words=("outweigh", "mean over", "averag"),
    nodes=("loss", "model.mean", "model.log_variance", "kl_loss", "reconstruction_loss"),
)
def pixels_averaged_beside_a_sum(lab: Lab) -> None:
    """The squared error is averaged over the pixels, and the divergence summed, which then makes all codes alike.

    Source: AppliedDataSciencePartners/WorldModels 12, VAE performance is bad (means where the original sums).
    """
    model = _Variational()
    batches = data.draw((data.pixels()[0], data.pixels()[0]))
    unseen, _ = data.unseen_pixels()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda _: (unseen,), lambda x: F.mse_loss(model(x)[0], x))
    for number in range(200):
        x, _ = batches(number)
        with lab.recorder.step("train") as step:
            decoded, mean, log_variance = model(x)
            error = (decoded - x).square()
            reconstruction = error.sum(1).mean() if lab.fixed else error.mean()  # bug: pixels_averaged_beside_a_sum
            divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1).mean()
            step.record("reconstruction_loss", reconstruction, type="loss")
            step.record("kl_loss", divergence, type="loss")
            descend(reconstruction + divergence, optimizer)
        after(number)


class _Siamese(nn.Module):
    """Tells how far two pictures are from each other."""

    def __init__(self, *, fixed: bool) -> None:
        super().__init__()
        self.embed = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(96, 12),
        )  # fmt: skip
        self.output = nn.Identity() if fixed else nn.Sigmoid()  # set-up bug: distances_through_a_sigmoid

    def forward(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        apart = self.embed(one) - self.embed(other)
        return self.output((apart.square().sum(1) + 1e-6).sqrt())


def _pairs(number: int) -> _Batch:
    """Two pictures ``(48, 1, 8, 8)`` each, of one class in half of the cases, and whether they are ``(48,)``."""
    pictures, labels = data.images()
    generator = torch.Generator().manual_seed(number)
    first = torch.randint(len(pictures), (48,), generator=generator)
    wanted = (labels[first] + (torch.arange(48) % 2) * torch.randint(1, 10, (48,), generator=generator)) % 10
    rows = [torch.where(labels == kind)[0] for kind in wanted]
    second = torch.stack([row[torch.randint(len(row), (1,), generator=generator)[0]] for row in rows])
    return pictures[first], pictures[second], (labels[first] == labels[second]).float()


@broken(
    rules=("half-sigmoid", "unreachable-targets"),
    words=("sigmoid", "squash", "bounded"),
    nodes=("model.output", "model", "loss"),
)
def distances_through_a_sigmoid(lab: Lab) -> None:
    """The distance of a pair passes a sigmoid, so that it is never below a half nor above the margin of the loss.

    Source: keras-team/keras-io 2261, remove inconsistent sigmoid activation for contrastive loss.
    """
    model = _Siamese(fixed=lab.fixed)

    def loss_of(one: torch.Tensor, other: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
        distance = model(one, other)
        return (same * distance.square() + (1 - same) * (1 - distance).clamp(min=0).square()).mean()

    after = lab.validating(model, lambda n: _pairs(9000 + n), loss_of)
    lab.fit(model, _pairs, loss_of, lr=2e-3, after=after)


def _surfaces(number: int, tiles: int = 4) -> _Batch:
    """Tiles ``(12, tiles, 12, 12)`` of a surface, where their defects are, and their kinds ``(12, tiles)``: 1 to 3."""
    generator = torch.Generator().manual_seed(number)
    kinds = torch.randint(1, 4, (12, tiles), generator=generator)
    centre = 3 + 6 * torch.rand(2, 12, tiles, 1, 1, generator=generator)
    axis = torch.arange(12.0)
    down, across = (axis[:, None] - centre[0]).abs(), (axis[None, :] - centre[1]).abs()
    shapes = [(down < 1) & (across < 4), (down < 4) & (across < 1), (down < 2) & (across < 2)]
    where = torch.stack([shape.expand(12, tiles, 12, 12) for shape in shapes], 2).float()
    mask = where.gather(2, (kinds - 1)[:, :, None, None, None].expand(-1, -1, 1, 12, 12))[:, :, 0]
    return 1.5 * mask - 0.3 + 0.4 * torch.randn(12, tiles, 12, 12, generator=generator), mask, kinds


def _mosaic(tiles: torch.Tensor) -> torch.Tensor:
    """Four tiles ``(n, 4, a, b)`` in a square ``(n, 2a, 2b)``."""
    return torch.cat([torch.cat([tiles[:, 0], tiles[:, 1]], 2), torch.cat([tiles[:, 2], tiles[:, 3]], 2)], 1)


@broken(
    words=("mosaic", "wrong label", "wrong class", "label noise"), nodes=("input.target", "loss", "model.6", "model")
)
def mosaics_named_after_one_tile(lab: Lab) -> None:
    """Four tiles make a mosaic, but the kind of the first tile's defect becomes the label of the defects in all four.

    Source: boschresearch/MultiADS 15, aug_rate and combine_img (one cls_id for all combined pictures).
    """
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 24, 5, padding=2),
        nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 4, 3, padding=1),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    criterion = nn.CrossEntropyLoss()
    lab.recorder.watch(model, optimizer)

    def unseen_loss(tiles: torch.Tensor, mask: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
        return criterion(model(tiles), (mask * kinds[:, :, None, None]).long()[:, 0])

    after = lab.validating(model, lambda n: _surfaces(9000 + n, 1), unseen_loss)
    for number in range(120):
        tiles, masks, kinds = _surfaces(number)
        with lab.recorder.step("train"):
            picture, mask = _mosaic(tiles)[:, None], _mosaic(masks)
            names = kinds if lab.fixed else kinds[:, :1].expand(-1, 4)  # bug: mosaics_named_after_one_tile
            target = mask * _mosaic(names[:, :, None, None].expand(-1, -1, 12, 12))
            descend(criterion(model(picture), target.long()), optimizer)
        after(number)
