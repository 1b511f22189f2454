"""Networks that learn how alike two pictures are, as reported with their mistakes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _pairs(number: int) -> _Batch:
    """Two digits each, and 1 if they are of the same class; as many such pairs as others."""
    x, y = data.pixels()
    draws = torch.Generator().manual_seed(number)
    one = torch.randint(len(x), (48,), generator=draws)
    same = torch.arange(48) % 2
    fits = (y[one][:, None] == y) == (same[:, None] == 1)
    other = torch.multinomial(fits.float(), 1, generator=draws)[:, 0]
    return x[one], x[other], same.float()


@broken(words=("swapped", "wrong way round", "other way round", "labels of the pairs"), nodes=("loss", "target"))
def contrast_of_the_wrong_pairs(lab: Lab) -> None:
    """The label says 1 for pairs of one class, and the contrastive loss draws together those with 0.

    Source: keras-team/keras issue 4980, MNIST siamese example returning wrong accuracy values.
    """
    model = nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.1), nn.Linear(128, 128), nn.ReLU(), nn.Dropout(0.1),
        nn.Linear(128, 64),
    )  # fmt: skip

    def loss_of(one: torch.Tensor, other: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
        distance = ((model(one) - model(other)).square().sum(1) + 1e-7).sqrt()
        near = same if lab.fixed else 1 - same  # bug: contrast_of_the_wrong_pairs
        return (near * distance**2 + (1 - near) * (1 - distance).clamp(min=0) ** 2).mean()

    lab.fit(model, _pairs, loss_of, torch.optim.RMSprop(model.parameters(), 1e-3))


def _four_of_each(number: int) -> data.Table:
    """Four noisy digits of each of eight classes."""
    x, y = data.images()
    draws = torch.Generator().manual_seed(number)
    classes = torch.randperm(10, generator=draws)[:8]
    rows = torch.cat([torch.multinomial((y == kind).float(), 4, generator=draws) for kind in classes])
    return x[rows] + 0.55 * torch.randn(len(rows), 1, 8, 8, generator=draws), y[rows]


class _Embedder(nn.Module):
    """A body, as in a network for classes, and a code."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(24, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        )  # fmt: skip
        self.code = nn.Sequential(nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.code(self.body(x))


def _checkpoint() -> dict[str, torch.Tensor]:
    """The weights of a body that learned to tell classes."""
    body, head = _Embedder().body, nn.Linear(128, 10)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], 3e-3)
    for number in range(160):
        x, y = _four_of_each(5000 + number)
        descend(F.cross_entropy(head(body(x)), y), optimizer)
    return body.state_dict()


def _hardest(codes: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The farthest of the same class shall be nearer than the nearest of another one, by a soft margin."""
    same, squares = y[:, None] == y, (codes[:, None] - codes).square().sum(2)
    between = squares.clamp(min=1e-12).sqrt()
    return F.softplus((between * same).amax(1) - between.masked_fill(same, float("inf")).amin(1)).mean()


@broken(words=("pretrained", "checkpoint", "from scratch", "random weights"), nodes=("model", "model.body"))
def checkpoint_made_but_not_loaded(lab: Lab) -> None:
    """The lines that load the pretrained weights were deleted: from scratch, the hardest triplets shrink all codes.

    Source: VisualComputingInstitute/triplet-reid issue 30, unable to approach loss of less than 0.7.
    """
    weights = _checkpoint()
    model = _Embedder()  # set-up bug: checkpoint_made_but_not_loaded
    if lab.fixed:
        model.body.load_state_dict(weights)
    lab.fit(model, _four_of_each, lambda x, y: _hardest(model(x), y), lr=1e-3)
