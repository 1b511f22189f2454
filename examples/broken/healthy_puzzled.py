"""Training runs of the kinds that people were puzzled about, in which nothing is wrong."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


class _Gcn(nn.Module):
    """Two graph convolutions."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Linear(features, 16), nn.Linear(16, classes)

    def forward(self, x: torch.Tensor, adjacency: torch.Tensor) -> torch.Tensor:
        x = F.dropout(F.relu(adjacency @ self.conv1(x)), 0.3, self.training)
        return adjacency @ self.conv2(x)


def graph_of_papers_and_citations(lab: Lab) -> None:
    """A graph convolutional network classifies papers by their words and citations, all of them in each step."""
    generator = torch.Generator().manual_seed(6)
    topic = torch.randint(3, (240,), generator=generator)
    alike = topic[:, None] == topic
    cites = torch.rand(240, 240, generator=generator) < torch.where(alike, 0.04, 0.006)
    adjacency = (cites | cites.T).float().fill_diagonal_(1)
    degree = adjacency.sum(1).rsqrt()
    adjacency = degree[:, None] * adjacency * degree
    words = F.one_hot(topic, 12).float() + torch.randn(240, 12, generator=generator)
    known = torch.rand(240, generator=generator) < 0.6
    model = _Gcn(12, 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3, weight_decay=5e-3)
    lab.recorder.watch(model, optimizer)

    def loss_of(chosen: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(words, adjacency)[chosen], topic[chosen])

    after = lab.validating(model, lambda _: (~known,), loss_of)
    for number in range(lab.steps):
        with lab.recorder.step("train"):
            descend(loss_of(known), optimizer)
        after(number)


def state_handed_on_and_detached(lab: Lab) -> None:
    """A language model reads a text in order; the state is handed on from piece to piece without its gradients."""
    letters, kinds = data.text()
    streams = letters[: 12 * 4000].view(12, 4000)
    model = nn.ModuleDict({
        "embed": nn.Embedding(kinds, 24), "rnn": nn.GRU(24, 48, batch_first=True), "head": nn.Linear(48, kinds)
    })  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    lab.recorder.watch(model, optimizer)
    hidden = torch.zeros(1, 12, 48)
    for number in range(lab.steps):
        piece = streams[:, 20 * number : 20 * number + 21]
        with lab.recorder.step("train"):
            states, hidden = model["rnn"](model["embed"](piece[:, :-1]), hidden.detach())
            loss = F.cross_entropy(model["head"](states).flatten(0, 1), piece[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()


def student_of_a_larger_net(lab: Lab) -> None:
    """A small net learns digits from their labels and from what a larger one says at a higher temperature."""
    x, labels = data.pixels()
    batches = data.draw((x, labels))
    teacher = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Dropout(0.2), nn.Linear(96, 10))
    learning = torch.optim.Adam(teacher.parameters(), lr=3e-3)
    for number in range(150):
        rows, wanted = batches(5000 + number)
        descend(F.cross_entropy(teacher(rows), wanted), learning)
    teacher.eval().requires_grad_(False)
    student = nn.Sequential(nn.Linear(64, 24), nn.Tanh(), nn.Linear(24, 10))

    def loss_of(rows: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        scores = student(rows)
        soft = F.softmax(teacher(rows) / 3, dim=1)
        told = F.kl_div(F.log_softmax(scores / 3, dim=1), soft, reduction="batchmean") * 9
        return 0.5 * F.cross_entropy(scores, wanted) + 0.5 * told

    after = lab.validating(student, lambda _: data.unseen_pixels(), loss_of)
    lab.fit(student, batches, loss_of, torch.optim.Adam(student.parameters(), 5e-3), after=after)


def _blobs(number: int) -> _Batch:
    """Pictures ``(16, 1, 16, 16)`` with a round spot, and where it is."""
    generator = torch.Generator().manual_seed(number)
    rows, columns = torch.arange(16.0)[:, None], torch.arange(16.0)
    centre = 4 + 8 * torch.rand(2, 16, 1, 1, generator=generator)
    radius = 2 + 2 * torch.rand(16, 1, 1, generator=generator)
    spot = ((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2).float()
    return (1.5 * spot - 0.2 + 0.6 * torch.randn(16, 16, 16, generator=generator))[:, None], spot[:, None]


def spots_by_dice_and_entropy(lab: Lab) -> None:
    """Spots are segmented with the Dice loss and the cross-entropy together, with a warm-up of the rate."""
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1),
        nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 1, 3, padding=1),
    )  # fmt: skip

    def loss_of(picture: torch.Tensor, spot: torch.Tensor) -> torch.Tensor:
        scores = model(picture)
        chance = scores.sigmoid()
        both, each = (chance * spot).sum((1, 2, 3)), (chance + spot).sum((1, 2, 3))
        dice = 1 - ((2 * both + 1) / (each + 1)).mean()
        return dice + F.binary_cross_entropy_with_logits(scores, spot)

    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda number: min(1.0, (number + 1) / 20))
    validate = lab.validating(model, lambda number: _blobs(9000 + number), loss_of)

    def after(number: int) -> None:
        schedule.step()
        validate(number)

    lab.fit(model, _blobs, loss_of, optimizer, after=after)
