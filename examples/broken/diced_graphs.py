"""Mistakes in trainings of graph networks, and of two heads, drawn by dice from the published collections of faults."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import BatchSampler, RandomSampler, Sampler, WeightedRandomSampler

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


class _SageConv(nn.Module):
    """A node beside the mean of its neighbours, as GraphSAGE has it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.own, self.others = nn.Linear(inputs, outputs), nn.Linear(inputs, outputs, bias=False)

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        source, to = edges
        received = torch.zeros_like(x).index_add(0, to, x[source])
        degree = torch.zeros(len(x)).index_add(0, to, torch.ones(len(to))).clamp(min=1)
        return self.own(x) + self.others(received / degree[:, None])


class _Sage(nn.Module):
    """Two layers of GraphSAGE."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = _SageConv(inputs, hidden), _SageConv(hidden, outputs)

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        return self.conv2(F.relu(self.conv1(x, edges)), edges)


@lru_cache
def _payments() -> _Batch:
    """Accounts ``(4000, 8)``, whom each pays ``(2, 24000)``, and which are of swindlers: one in forty."""
    generator = torch.Generator().manual_seed(11)
    swindler = torch.rand(4000, generator=generator) < 1 / 40
    x = torch.randn(4000, 8, generator=generator) + 0.9 * swindler[:, None] * torch.linspace(-1, 1, 8)
    source, to = torch.randint(4000, (2, 24000), generator=generator)
    accomplices = swindler.nonzero()[:, 0]
    again = accomplices[torch.randint(len(accomplices), (24000,), generator=generator)]
    to = torch.where(swindler[source] & (torch.rand(24000, generator=generator) < 0.5), again, to)
    return x, torch.stack([source, to]), swindler.long()


@broken(rules=("imbalanced-targets",), words=("oversampl", "imbalance", "rare", "one class"), nodes=("target", "loss"))
def swindlers_are_drawn_as_they_come(lab: Lab) -> None:
    """One account in forty is a swindler's, and the batches are drawn without the oversampling that makes up for it.

    Source: taxonomy of Humbatova et al. (ICSE 2020), missing preprocessing, missing oversampling.
    """
    x, edges, swindler = _payments()
    train, test = torch.arange(2800), torch.arange(2800, 4000)
    share = torch.bincount(swindler[train])
    sampler: Sampler[int] = RandomSampler(range(len(train)))  # set-up bug: swindlers_are_drawn_as_they_come
    if lab.fixed:
        sampler = WeightedRandomSampler((1 / share)[swindler[train]].tolist(), len(train))
    model = _Sage(8, 12, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3, weight_decay=5e-4)
    lab.recorder.watch(model, optimizer)
    even = torch.cat([test[swindler[test] == 1], test[swindler[test] == 0][: int(swindler[test].sum())]])

    def loss_of(rows: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x, edges)[rows], swindler[rows])

    after = lab.validating(model, lambda _: (even,), loss_of)
    number = 0
    for _ in range(4):
        for chosen in BatchSampler(sampler, 64, drop_last=True):
            rows = torch.tensor(chosen)
            with lab.recorder.step("train"):
                optimizer.zero_grad()
                loss_of(rows).backward()
                optimizer.step()
            after(number)
            number += 1


_SKETCHES = (
    [(i, (i + 1) % 12) for i in range(12)],
    [(0, i) for i in range(1, 12)],
    [(i, i + j) for i in (0, 4, 8) for j in (1, 2, 3)] + [(0, 4), (4, 8)],
    [(i, i + 1) for i in range(11)] + [(i, i + 2) for i in range(0, 10, 2)],
)
"""A ring, a star, three small stars in a row, and a strip of triangles."""


def _molecules(number: int) -> _Batch:
    """Who is bound to whom ``(48, 12, 12)``, the atoms ``(48, 12, 5)``, and the class of each molecule."""
    generator = torch.Generator().manual_seed(number)
    kind = torch.randint(4, (48,), generator=generator)
    bound = torch.zeros(48, 12, 12)
    for row, sketch in enumerate(kind.tolist()):
        source, to = torch.tensor(_SKETCHES[sketch]).T
        bound[row, source, to] = bound[row, to, source] = 1
    spurious = (torch.rand(48, 12, 12, generator=generator) < 0.02).float()
    bound = ((bound + spurious + spurious.mT) > 0).float() * (1 - torch.eye(12))
    atoms = F.one_hot(torch.randint(5, (48, 12), generator=generator), 5).float()
    return bound, atoms, kind


class _Gin(nn.Module):
    """Sums over neighbours, twice, each with a small net; the mean of the nodes; the classes."""

    def __init__(self, *, squash: nn.Module) -> None:
        super().__init__()
        self.net1 = nn.Sequential(nn.Linear(5, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
        self.net2 = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
        self.head, self.squash = nn.Linear(64, 4), squash

    def forward(self, bound: torch.Tensor, atoms: torch.Tensor) -> torch.Tensor:
        x = self.net1(atoms + bound @ atoms)
        x = self.net2(x + bound @ x)
        return self.squash(self.head(torch.cat([x.mean(1), x.amax(1)], dim=1)))


@broken(
    rules=("activation-before-loss", "unreachable-targets"),
    words=("negative scores", "last activation", "activation of the last"),
    nodes=("model.squash", "model"),
)
def molecules_of_positive_scores_only(lab: Lab) -> None:
    """The scores of the classes go through a ReLU before the softmax of the cross-entropy, and none can be negative.

    Source: DeepDiagnosis (ICSE 2022), accuracy not increasing for a wrong activation in the last layer.
    """
    squash = nn.Identity() if lab.fixed else nn.ReLU()  # set-up bug: molecules_of_positive_scores_only
    model = _Gin(squash=squash)

    def loss_of(bound: torch.Tensor, atoms: torch.Tensor, kind: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(bound, atoms), kind)

    after = lab.validating(model, lambda number: _molecules(8000 + number), loss_of)
    lab.fit(model, _molecules, loss_of, lr=3e-3, after=after)


class _Gcn(nn.Module):
    """Kipf and Welling's two layers, over a matrix of neighbours."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.gc1, self.gc2 = nn.Linear(inputs, 16), nn.Linear(16, outputs)

    def forward(self, x: torch.Tensor, near: torch.Tensor) -> torch.Tensor:
        x = F.dropout(F.relu(near @ self.gc1(x)), 0.5, self.training)
        return near @ self.gc2(x)


def _neighbours(x: torch.Tensor, number: int) -> torch.Tensor:
    """The matrix ``(n, n)`` that takes the mean of each row and its nearest others."""
    nearest = torch.cdist(x, x).topk(number, largest=False).indices
    near = torch.zeros(len(x), len(x)).scatter(1, nearest, 1.0)
    near = ((near + near.T) > 0).float()
    scale = near.sum(1).rsqrt()
    return scale[:, None] * near * scale


@lru_cache
def _wines() -> _Batch:
    """Thirteen measurements of wines, from 0.1 to 1,680 ``(178, 13)``, and which of three growers each is of."""
    from sklearn.datasets import load_wine

    bunch = load_wine()
    return torch.tensor(bunch.data, dtype=torch.float32), torch.tensor(bunch.target, dtype=torch.long)


@broken(
    rules=("input-scale", "extreme-features"),
    words=("standardis", "unscaled", "scale of the input"),
    nodes=("input", "model.gc1"),
)
def wines_measured_in_all_units(lab: Lab) -> None:
    """A graph network of similar wines gets their measurements as they are, from a tenth to almost two thousand.

    Source: UMLAUT (CHI 2021), check_input_normalization: input not between -1 and 1.
    """
    raw, labels = _wines()
    near = _neighbours(data.standardised(raw), 4)
    x = raw
    if lab.fixed:
        x = data.standardised(raw)  # set-up bug: wines_measured_in_all_units
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(2))
    train, test = order[:100], order[100:]
    model = _Gcn(13, 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3, weight_decay=2e-2)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda _: (test,), lambda rows: F.cross_entropy(model(x, near)[rows], labels[rows]))
    for epoch in range(lab.steps):
        with lab.recorder.step("train"):
            descend(F.cross_entropy(model(x, near)[train], labels[train]), optimizer)
        after(epoch)


@lru_cache
def _papers(kinds: int) -> _Batch:
    """Papers ``(900, 24)``, a matrix of who cites whom, the field of each of ``kinds``, and its topic of five."""
    generator = torch.Generator().manual_seed(6)
    topic = torch.randint(5, (900,), generator=generator)
    words = torch.randn(5, 24, generator=generator)
    x = 0.45 * words[topic] + torch.randn(900, 24, generator=generator)
    chance = torch.where(topic[:, None] == topic, 0.012, 0.003)
    cites = (torch.rand(900, 900, generator=generator) < chance).triu(1).float()
    near = cites + cites.T + torch.eye(900)
    scale = near.sum(1).rsqrt()
    shelf = torch.randint(kinds // 5, (900,), generator=generator)
    return x, scale[:, None] * near * scale, topic * (kinds // 5) + shelf, topic


@broken(words=("too many", "categor", "few examples", "number of classes"), nodes=("target", "model.gc2", "loss"))
def papers_in_two_hundred_categories(lab: Lab) -> None:
    """Papers of five topics are to be put into two hundred categories, with two or three papers each to learn from.

    Source: taxonomy of Humbatova et al. (ICSE 2020), training data quality, too many output categories.
    """
    kinds = 5 if lab.fixed else 200
    x, near, kind, _ = _papers(kinds)  # set-up bug: papers_in_two_hundred_categories
    train, test = torch.arange(500), torch.arange(500, 900)
    model = _Gcn(24, kinds)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-3)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda _: (test,), lambda rows: F.cross_entropy(model(x, near)[rows], kind[rows]))
    for epoch in range(lab.steps):
        with lab.recorder.step("train"):
            descend(F.cross_entropy(model(x, near)[train], kind[train]), optimizer)
        after(epoch)


def _flats(number: int) -> _Batch:
    """Standardised facts of flats ``(64, 7)``, the quarter that each is in, and its standardised rent ``(64, 1)``."""
    generator = torch.Generator().manual_seed(number)
    facts = torch.randn(64, 7, generator=generator)
    streets = torch.randn(7, 4, generator=torch.Generator().manual_seed(7))
    quarter = (2 * facts @ streets + torch.randn(64, 4, generator=generator)).argmax(1)
    rent = 0.8 * facts[:, 0] - 0.4 * facts[:, 1] * facts[:, 2] + torch.tensor([0.5, -0.4, 0.3, -0.5])[quarter]
    return facts, quarter, (rent + 0.2 * torch.randn(64, generator=generator))[:, None]


class _TwoHeads(nn.Module):
    """A trunk for a class and a number."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(7, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU())
        self.quarter, self.rent = nn.Linear(48, 4), nn.Linear(48, 1)

    def forward(self, facts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.trunk(facts)
        return self.quarter(hidden), self.rent(hidden)


@broken(rules=("single-class",), words=("cross-entropy", "cross entropy"), nodes=("model.rent", "loss"))
def rents_judged_as_classes(lab: Lab) -> None:
    """Of two heads, the one that says a number is trained with cross-entropy, too, which is zero for a single column.

    Source: DeepLocalize / DeepFD (Stack Overflow programs), loss, cross-entropy for a regression.
    """
    model = _TwoHeads()
    class_loss = nn.CrossEntropyLoss()
    number_loss = nn.MSELoss() if lab.fixed else nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        facts, quarter, rent = _flats(number)
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            scores, said = model(facts)
            loss = class_loss(scores, quarter) + number_loss(said, rent)  # bug: rents_judged_as_classes
            loss.backward()
            optimizer.step()
