"""Training runs as in what people report, but without any mistake."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken.lab import VALIDATE_EVERY, Lab
from stepscope.examples.broken.nets import mlp

_Batch = tuple[torch.Tensor, ...]


class _PointNet(nn.Module):
    """A net for each point, the greatest of each feature over all points, and a net for the cloud."""

    def __init__(self) -> None:
        super().__init__()
        self.point = nn.Sequential(nn.Conv1d(3, 32, 1), nn.BatchNorm1d(32), nn.ReLU(), nn.Conv1d(32, 64, 1))
        self.cloud = mlp(64, 32, 4)

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        return self.cloud(self.point(points.transpose(1, 2)).amax(2))


def _clouds(number: int) -> _Batch:
    """Clouds of 48 points ``(32, 48, 3)`` on a ball, a cube, a disc or a rod, turned about, and on which."""
    generator = torch.Generator().manual_seed(number)
    kind = torch.randint(4, (32,), generator=generator)
    ball = F.normalize(torch.randn(32, 48, 3, generator=generator), dim=2)
    cube = ball / ball.abs().amax(2, keepdim=True)
    disc = ball * torch.tensor([1.2, 1.2, 0.1])
    rod = ball * torch.tensor([0.15, 0.15, 1.6])
    points = torch.stack([ball, cube, disc, rod])[kind, torch.arange(32)]
    turn, _ = torch.linalg.qr(torch.randn(32, 3, 3, generator=generator))
    return points @ turn + 0.03 * torch.randn(32, 48, 3, generator=generator), kind


def clouds_of_points(lab: Lab) -> None:
    """Clouds of points are told apart by a small PointNet with batch normalisation."""
    model = _PointNet()

    def loss_of(points: torch.Tensor, kind: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(points), kind)

    after = lab.validating(model, lambda number: _clouds(9000 + number), loss_of)
    lab.fit(model, _clouds, loss_of, torch.optim.Adam(model.parameters(), lr=4e-3), after=after)


def survival_by_partial_likelihood(lab: Lab) -> None:
    """The risk of patients, some of whom left early, is learned by Cox's partial likelihood in batches of 128."""
    random = torch.Generator().manual_seed(1)
    patients = torch.randn(1500, 8, generator=random)
    risk = patients[:, 0] - patients[:, 1] + patients[:, 2].square() - 1
    died = -torch.rand(1500, generator=random).log() / risk.exp()
    left = -2 * torch.rand(1500, generator=random).log()
    table = torch.minimum(died, left), (died <= left).float()
    model = nn.Sequential(mlp(8, 32, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 1, bias=False))

    def batches(number: int, first: int = 0, last: int = 1200) -> _Batch:
        rows = torch.randint(first, last, (128,), generator=torch.Generator().manual_seed(number))
        return patients[rows], table[0][rows], table[1][rows]

    def loss_of(x: torch.Tensor, time: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        order = time.argsort(descending=True)
        score = model(x[order])[:, 0]
        return -((score - score.logcumsumexp(0)) * seen[order]).sum() / seen.sum()

    after = lab.validating(model, lambda _: batches(9000, 1200, 1500), loss_of)
    lab.fit(model, batches, loss_of, torch.optim.AdamW(model.parameters(), lr=3e-3), after=after)


class _Heatmaps(nn.Module):
    """Three convolutions, and for either keypoint a map of where it is."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())
        self.maps = nn.Conv2d(16, 2, 3, padding=1)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        return self.maps(self.body(picture))


def _hands(number: int) -> _Batch:
    """Pictures ``(32, 1, 12, 12)`` of a cross and a ring, and how near each place is to the middle of either."""
    generator = torch.Generator().manual_seed(number)
    cross = torch.tensor([[0.0, 1, 0], [1, 1, 1], [0, 1, 0]])
    signs = torch.stack([cross, 1 - cross])
    rows, columns = torch.randint(1, 11, (2, 32, 2), generator=generator)
    ramp = torch.arange(12.0)
    away = (ramp[:, None] - rows[:, :, None, None]).square() + (ramp - columns[:, :, None, None]).square()
    points = (away == 0).float()
    picture = F.conv2d(points, signs[None], padding=1) + 0.1 * torch.randn(32, 1, 12, 12, generator=generator)
    return (picture - 0.06) / 0.26, (-away / 2).exp()


def keypoints_by_heatmaps(lab: Lab) -> None:
    """Two keypoints are found by maps that peak where they are; places near a keypoint weigh more than the others."""
    model = _Heatmaps()

    def loss_of(picture: torch.Tensor, near: torch.Tensor) -> torch.Tensor:
        return ((1 + 9 * near) * (model(picture) - near).square()).mean()

    after = lab.validating(model, lambda number: _hands(9000 + number), loss_of)
    lab.fit(model, _hands, loss_of, torch.optim.Adam(model.parameters(), lr=5e-3), after=after)


class _Flow(nn.Module):
    """A field that points are carried along, by a classical Runge-Kutta method."""

    def __init__(self) -> None:
        super().__init__()
        self.field = mlp(2, 48, 2, activation=nn.Tanh)

    def forward(self, start: torch.Tensor, moments: int) -> torch.Tensor:
        path, x = [], start
        for _ in range(moments):
            a = self.field(x)
            b = self.field(x + 0.1 * a)
            c = self.field(x + 0.1 * b)
            d = self.field(x + 0.2 * c)
            x = x + 0.2 / 6 * (a + 2 * b + 2 * c + d)
            path.append(x)
        return torch.stack(path, dim=1)


def spirals_by_a_neural_equation(lab: Lab) -> None:
    """Spirals are learned by a neural ordinary differential equation, six moments at a time."""
    model = _Flow()
    turn = torch.linalg.matrix_exp(0.2 * torch.tensor([[-0.2, 1.5], [-1.5, -0.2]]))

    def batches(number: int) -> _Batch:
        start = 2 * torch.rand(32, 2, generator=torch.Generator().manual_seed(number)) - 1
        path = [start]
        for _ in range(6):
            path.append(path[-1] @ turn)
        return start, torch.stack(path[1:], dim=1)

    def loss_of(start: torch.Tensor, path: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(start, 6), path)

    after = lab.validating(model, lambda number: batches(9000 + number), loss_of)
    lab.fit(model, batches, loss_of, torch.optim.Adam(model.parameters(), lr=5e-3), after=after)


class _Tagger(nn.Module):
    """Words and a recurrent layer in both directions, with dropout; a tag for each word."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.gru = (
            nn.Embedding(101, 32, padding_idx=100),
            nn.GRU(32, 32, bidirectional=True, batch_first=True),
        )
        self.tags = nn.Linear(64, 3)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        states, _ = self.gru(F.dropout(self.embed(words), 0.1, self.training))
        return self.tags(states)


def _news(count: int, seed: int) -> _Batch:
    """Sentences ``(count, 14)``, padded, and their tags: a name begins, goes on, or none; -100 for padding."""
    random = torch.Generator().manual_seed(seed)
    words = torch.randint(40, 100, (count, 14), generator=random)
    tags = torch.zeros(count, 14, dtype=torch.long)
    for row in range(count):
        at, length = torch.randint(1, 6, (2,), generator=random).tolist()
        words[row, at - 1] = 30 + int(words[row, at - 1]) % 10
        words[row, at : at + length] = torch.randint(30, (length,), generator=random)
        tags[row, at : at + length] = 2
        tags[row, at] = 1
    padded = torch.arange(14) >= torch.randint(11, 15, (count, 1), generator=random)
    return words.masked_fill(padded, 100), tags.masked_fill(padded, -100)


def names_in_the_news(lab: Lab) -> None:
    """Names are tagged in shuffled sentences over three epochs, with clipped gradients and a cosine schedule."""
    model = _Tagger()
    loader = DataLoader(TensorDataset(*_news(1600, 1)), batch_size=32, shuffle=True)
    unseen = _news(200, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3 * len(loader))
    lab.recorder.watch(model, optimizer)
    number = 0
    for _ in range(3):
        for words, tags in loader:
            with lab.recorder.step("train"):
                loss = F.cross_entropy(model(words).flatten(0, 1), tags.flatten(), ignore_index=-100)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
            schedule.step()
            if number % VALIDATE_EVERY == VALIDATE_EVERY - 1:
                model.eval()
                lab.validate(
                    lambda _: unseen, lambda x, y: F.cross_entropy(model(x).flatten(0, 1), y.flatten()), number
                )
                model.train()
            number += 1
