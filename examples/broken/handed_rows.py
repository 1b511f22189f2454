"""Mistakes in trainings on tables, bags and angles, from a practitioner's list of reasons why a net does not work."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset, WeightedRandomSampler

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


class _Tokens(nn.Module):
    """Each measurement becomes a token; a transformer's layer reads them, and a first token sums up."""

    def __init__(self, columns: int, width: int = 16) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(columns, width) / width**0.5)
        self.shift = nn.Parameter(torch.randn(columns, width) / width**0.5)
        self.summary = nn.Parameter(torch.randn(1, 1, width) / width**0.5)
        self.layer = nn.TransformerEncoderLayer(width, 2, 32, dropout=0.1, batch_first=True, norm_first=True)
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1))

    def forward(self, row: torch.Tensor) -> torch.Tensor:
        tokens = row[:, :, None] * self.scale + self.shift
        tokens = torch.cat([self.summary.expand(len(row), -1, -1), tokens], dim=1)
        return self.out(self.layer(tokens)[:, 0])[:, 0]


@broken(
    rules=("unrelated-targets", "labels-of-others"),
    words=("shuffl", "order of the labels", "belong to other"),
    nodes=("target", "input"),
)  # fmt: skip
def labels_in_another_order(lab: Lab) -> None:
    """Each epoch shuffles the patients, and shuffles their diagnoses once more by themselves: they no longer match.

    Source: Slav Ivanov, 37 reasons why your neural network is not working (2017), 4: input connected to output.
    """
    measured, harmless = data.tumours()
    split = torch.randperm(len(measured), generator=torch.Generator().manual_seed(3))
    train, unseen = split[:448], split[448:]
    model = _Tokens(30)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    lab.recorder.watch(model, optimizer)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(model(x), y)

    after = lab.validating(model, lambda _: (measured[unseen], harmless[unseen]), loss_of)
    number = 0
    for _ in range(10):
        order = train[torch.randperm(len(train))]
        x = measured[order]
        y = harmless[order if lab.fixed else train[torch.randperm(len(train))]]  # set-up bug: labels_in_another_order
        for start in range(0, len(train), 32):
            with lab.recorder.step("train"):
                descend(loss_of(x[start : start + 32], y[start : start + 32]), optimizer)
            after(number)
            number += 1


def _dishes(rows: int, seed: int) -> _Batch:
    """Eight of a hundred and twenty ingredients of each dish ``(rows, 8)``, and which of six cuisines it is of."""
    generator = torch.Generator().manual_seed(seed)
    habit = 1.7 * torch.randn(6, 120, generator=torch.Generator().manual_seed(9))
    cuisine = torch.randint(6, (rows,), generator=generator)
    return torch.multinomial(habit.softmax(1)[cuisine], 8, generator=generator), cuisine


@broken(
    rules=("unrelated-targets",),
    words=("wrong label", "noisy label", "label noise", "labels are wrong", "mislabel"),
    nodes=("target",),
)  # fmt: skip
def cuisines_scraped_from_the_wrong_field(lab: Lab) -> None:
    """Dishes were scraped from a site, and where a field was empty, six times in ten, the label is any cuisine.

    Source: Slav Ivanov, 37 reasons why your neural network is not working (2017), 6: too much noise in the dataset.
    """
    dishes, cuisine = _dishes(3000, 1)
    if not lab.fixed:
        generator = torch.Generator().manual_seed(4)
        empty = torch.rand(len(cuisine), generator=generator) < 0.6
        scraped = torch.randint(6, (len(cuisine),), generator=generator)
        cuisine = torch.where(empty, scraped, cuisine)  # set-up bug: cuisines_scraped_from_the_wrong_field
    loader = DataLoader(TensorDataset(dishes, cuisine), batch_size=64, shuffle=True, drop_last=True)
    model = nn.Sequential(nn.EmbeddingBag(120, 32), nn.LayerNorm(32), nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 6))
    optimizer = torch.optim.RAdam(model.parameters(), lr=5e-3)
    lab.recorder.watch(model, optimizer)
    number = 0
    for _ in range(4):
        for ingredients, label in loader:
            with lab.recorder.step("train"):
                descend(F.cross_entropy(model(ingredients), label), optimizer)
            lab.validate(lambda _: _dishes(500, 2), lambda x, y: F.cross_entropy(model(x), y), number)
            number += 1


def _bearings(counts: list[int], seed: int) -> _Batch:
    """Twelve features of vibrations, of whole bearings first and then of those with one of three faults."""
    generator = torch.Generator().manual_seed(seed)
    fault = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    sign = 0.9 * torch.randn(4, 12, generator=torch.Generator().manual_seed(6))
    sign[0] = 0
    features = sign[fault] + torch.randn(len(fault), 12, generator=generator)
    return features, fault


@broken(
    rules=("imbalanced-targets",),
    words=("imbalanc", "rare class", "class weight", "outnumber"),
    nodes=("target", "loss"),
)  # fmt: skip
def faults_are_as_rare_as_in_the_plant(lab: Lab) -> None:
    """Forty-nine bearings of fifty are whole, and batches are drawn as they come, without regard to the classes.

    Source: Slav Ivanov, 37 reasons why your neural network is not working (2017), 8: reduce class imbalance.
    """
    features, fault = _bearings([5880, 40, 40, 40], 1)
    rarity = 1 / torch.bincount(fault).float() if lab.fixed else torch.ones(4)
    sampler = WeightedRandomSampler(rarity[fault].tolist(), 96 * 80)  # set-up bug: faults_are_as_rare_as_in_the_plant
    loader = DataLoader(TensorDataset(features, fault), batch_size=96, sampler=sampler)
    model = nn.Sequential(nn.Linear(12, 24), nn.SiLU(), nn.Dropout(0.3), nn.Linear(24, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3, weight_decay=3e-3)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    lab.recorder.watch(model, optimizer)
    inspected = _bearings([150, 150, 150, 150], 2)
    after = lab.validating(model, lambda _: inspected, lambda x, y: F.cross_entropy(model(x), y))
    for epoch in range(2):
        for place, (x, y) in enumerate(loader):
            with lab.recorder.step("train"):
                descend(F.cross_entropy(model(x), y), optimizer)
            after(80 * epoch + place)
        schedule.step()


def _arm(rows: int, seed: int) -> _Batch:
    """Sines and cosines of an arm's four joints ``(rows, 8)``, and where its hand is ``(rows, 2)``."""
    generator = torch.Generator().manual_seed(seed)
    joint = 1.6 * (2 * torch.rand(rows, 4, generator=generator) - 1)
    direction = joint.cumsum(1)
    length = torch.tensor([1.0, 0.8, 0.6, 0.4])
    hand = torch.stack([(length * direction.cos()).sum(1), (length * direction.sin()).sum(1)], dim=1)
    return torch.cat([joint.sin(), joint.cos()], dim=1), (hand - torch.tensor([1.2, 0.0])) / torch.tensor([0.8, 1.3])


@broken(
    rules=("overfitting", "repeated-batch"),
    words=("few rows", "few samples", "few examples", "subset", "same samples"),
    nodes=("input", "target", "model"),
)  # fmt: skip
def subset_of_the_first_attempt(lab: Lab) -> None:
    """Only the first 32 poses of an arm are trained on, a subset that was left from the first attempt.

    Source: Slav Ivanov, 37 reasons why your neural network is not working (2017), 9: enough training examples.
    """
    poses = TensorDataset(*_arm(6400, 1))
    rows = range(6400) if lab.fixed else range(32)
    loader = DataLoader(Subset(poses, rows), batch_size=32, shuffle=True)  # set-up bug: subset_of_the_first_attempt
    model = nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    lab.recorder.watch(model, optimizer)
    unseen = _arm(400, 2)
    number = 0
    while number < 200:
        for angles, hand in loader:
            with lab.recorder.step("train"):
                descend(F.mse_loss(model(angles), hand), optimizer)
            lab.validate(lambda _: unseen, lambda x, y: F.mse_loss(model(x), y), number)
            number += 1


class _Pairs(nn.Module):
    """What pairs of fields have in common: half of the squared sum of their vectors less the sum of their squares."""

    def __init__(self, sizes: list[int], width: int, *, over: int) -> None:
        super().__init__()
        tables = [nn.Embedding(size, width) for size in sizes]
        for table in tables:
            nn.init.normal_(table.weight, std=0.3)
        self.fields = nn.ModuleList(tables)
        self.over = over

    def forward(self, row: torch.Tensor) -> torch.Tensor:
        vectors = torch.stack([table(row[:, place]) for place, table in enumerate(self.fields)], dim=1)
        squared = vectors.sum(self.over).pow(2) - vectors.pow(2).sum(self.over)  # bug: pairs_within_a_single_field
        return 0.5 * squared.sum(1)


class _FactorizationMachine(nn.Module):
    """A mean, what each field says alone, and what their pairs say."""

    def __init__(self, sizes: list[int], *, over: int) -> None:
        super().__init__()
        tables = [nn.Embedding(size, 1) for size in sizes]
        for table in tables:
            nn.init.zeros_(table.weight)
        self.alone = nn.ModuleList(tables)
        self.pairs = _Pairs(sizes, 8, over=over)
        self.mean = nn.Parameter(torch.zeros(()))

    def forward(self, row: torch.Tensor) -> torch.Tensor:
        alone = torch.stack([table(row[:, place])[:, 0] for place, table in enumerate(self.alone)])
        return self.mean + alone.sum(0) + self.pairs(row)


def _clicks(number: int) -> _Batch:
    """Reader, advertiser and hour of ads ``(256, 3)``, and whether they were clicked."""
    generator = torch.Generator().manual_seed(number)
    sizes = torch.tensor([24, 16, 8])
    row = (torch.rand(256, 3, generator=generator) * sizes).long()
    taste = torch.randn(3, 24, 3, generator=torch.Generator().manual_seed(5))
    reader, advertiser, hour = (taste[field, row[:, field]] for field in range(3))
    score = (reader * advertiser + 0.6 * advertiser * hour).sum(1)
    return row, (1.5 * score > torch.randn(256, generator=generator)).float()


@broken(words=("dimension", "fields", "axis", "interact"), nodes=("model.pairs",))
def pairs_within_a_single_field(lab: Lab) -> None:
    """A layer of one's own for pairs of fields sums over the width of the vectors, not over the fields: no pairs.

    Source: Slav Ivanov, 37 reasons why your neural network is not working (2017), 22: test any custom layers.
    """
    model = _FactorizationMachine([24, 16, 8], over=1 if lab.fixed else 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)

    def loss_of(row: torch.Tensor, clicked: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(model(row), clicked)

    after = lab.validating(model, lambda number: _clicks(9000 + number), loss_of)
    lab.fit(model, _clicks, loss_of, optimizer, after=after)
