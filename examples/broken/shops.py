"""Mistakes of nets that read graphs and recommend, drawn from reports."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab

_Batch = tuple[torch.Tensor, ...]
USERS, ITEMS = 80, 60


class _Market:
    """Who bought what, by taste: ``bought`` is known, ``later`` comes to light afterwards."""

    def __init__(self, *, busy: float) -> None:
        chance = torch.Generator().manual_seed(2)
        taste, kind = (torch.randn(count, 3, generator=chance) for count in (USERS, ITEMS))
        liked = taste @ kind.T + 0.3 * torch.randn(USERS, ITEMS, generator=chance)
        mine = (liked > liked.quantile(1 - busy, dim=1, keepdim=True)).float()
        hidden = (torch.rand(USERS, ITEMS, generator=chance) < 0.25).float()
        self.bought, self.later = mine * (1 - hidden), mine * hidden
        self.pairs = self.bought.nonzero()

    def batch(self, number: int, *, verified: bool) -> _Batch:
        """Users, something each bought, and something each did not buy (or anything, if not verified)."""
        chance = torch.Generator().manual_seed(number)
        user, item = self.pairs[torch.randint(len(self.pairs), (256,), generator=chance)].T
        odds = torch.rand(256, ITEMS, generator=chance)
        if verified:
            odds = odds - self.bought[user]
        return user, item, odds.argmax(1)

    def precision(self, scores: torch.Tensor) -> torch.Tensor:
        """How many of the best ten that are new to a user will be bought later."""
        best = (scores - 1e9 * self.bought).topk(5, dim=1).indices
        return self.later.gather(1, best).mean()


class _Light(nn.Module):
    """Embeddings of users and items, smoothed along the purchases."""

    def __init__(self, bought: torch.Tensor, width: int = 16) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(USERS, width), nn.Embedding(ITEMS, width)
        degree = bought.sum(1, keepdim=True).sqrt() * bought.sum(0, keepdim=True).sqrt()
        self.edges: torch.Tensor
        self.register_buffer("edges", bought / degree.clamp(min=1))

    def forward(self) -> tuple[torch.Tensor, torch.Tensor]:
        users, items = self.users.weight, self.items.weight
        return users + self.edges @ items, items + self.edges.T @ users


@broken(words=("saturat", "whole batch", "summed", "sum over"), nodes=("loss",))
def scores_summed_before_the_logarithm(lab: Lab) -> None:
    """The differences of all pairs are summed before the log-sigmoid instead of after: one sum for the whole batch.

    Source: pytorch_geometric issue 2104, feature embeddings for each user and item are identical (BPR loss).
    """
    market = _Market(busy=0.2)
    model = _Light(market.bought)

    def loss_of(user: torch.Tensor, bought: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        users, items = model()
        u, p, n = users[user], items[bought], items[other]
        if lab.fixed:
            return -F.logsigmoid(torch.sum(u * (p - n), dim=1)).mean()
        loss = torch.sum(torch.mul(u, p - n))  # bug: scores_summed_before_the_logarithm
        return torch.neg(F.logsigmoid(loss))

    @torch.no_grad()
    def after(_: int) -> None:
        users, items = model()
        lab.recorder.scalar("precision", market.precision(users @ items.T))

    lab.fit(model, lambda number: market.batch(number, verified=True), loss_of, lr=1e-2, after=after)


class _Neural(nn.Module):
    """A neural score of a user and an item: factors that are multiplied, and layers on top of others."""

    def __init__(self, *, logits: bool, width: int = 12) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(USERS, width), nn.Embedding(ITEMS, width)
        self.deep_user, self.deep_item = nn.Embedding(USERS, width), nn.Embedding(ITEMS, width)
        self.layers = nn.Sequential(
            nn.Linear(2 * width, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, width), nn.ReLU()
        )
        self.predict = nn.Linear(2 * width, 1)
        self.logits = logits

    def forward(self, user: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        deep = self.layers(torch.cat([self.deep_user(user), self.deep_item(item)], dim=1))
        score = self.predict(torch.cat([self.user(user) * self.item(item), deep], dim=1))[:, 0]
        return score if self.logits else score.sigmoid()  # bug: scores_squashed_before_the_loss


@broken(
    rules=("activation-before-loss",), words=("second sigmoid", "already contains", "twice"), nodes=("model", "loss")
)
def scores_squashed_before_the_loss(lab: Lab) -> None:
    """The scores of the recommender go through a sigmoid, and the loss, ``BCEWithLogitsLoss``, applies another one.

    Source: daisyRec pull request 15, no sigmoid is needed, otherwise the loss does not converge.
    """
    market, model, criterion = _Market(busy=0.2), _Neural(logits=lab.fixed), nn.BCEWithLogitsLoss()

    def batches(number: int) -> _Batch:
        user, bought, other = market.batch(number, verified=True)
        label = torch.cat([torch.ones(len(user)), torch.zeros(len(user))])
        return user.repeat(2), torch.cat([bought, other]), label

    lab.fit(model, batches, lambda user, item, label: criterion(model(user, item), label), lr=1e-2)


_PEOPLE = 120


def _society() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """People ``(120, 8)``, who knows whom, as a matrix that averages, and who of them belongs to the larger club."""
    chance = torch.Generator().manual_seed(6)
    club = (torch.rand(_PEOPLE, generator=chance) < 0.4).float()
    odds = torch.where(club[:, None] == club, 0.12, 0.02)
    knows = (torch.rand(_PEOPLE, _PEOPLE, generator=chance) < odds).float().triu(1)
    knows = knows + knows.T + torch.eye(_PEOPLE)
    degree = knows.sum(1).rsqrt()
    people = torch.randn(_PEOPLE, 8, generator=chance) + 0.7 * club[:, None]
    return people, degree[:, None] * knows * degree, club


class _Convolved(nn.Module):
    """Two graph convolutions, and the chance to belong to the club."""

    def __init__(self, *, softmax: bool) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Linear(8, 16), nn.Linear(16, 1)
        self.softmax = softmax

    def forward(self, people: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        x = F.dropout(F.relu(edges @ self.conv1(people)), 0.3, self.training)
        x = edges @ self.conv2(x)
        return F.log_softmax(x, dim=1) if self.softmax else x.sigmoid()  # bug: softmax_over_a_single_label


@broken(rules=("single-class",), words=("softmax", "one class", "single class"), nodes=("model",))
def softmax_over_a_single_label(lab: Lab) -> None:
    """A graph net with one output for two classes takes the softmax of it, whose logarithm is 0 whatever it says.

    Source: pytorch_geometric issue 2916, GCN predicting only one incorrect label: log_softmax should be a sigmoid.
    """
    people, edges, club = _society()
    model = _Convolved(softmax=not lab.fixed)
    known = torch.rand(_PEOPLE, generator=torch.Generator().manual_seed(1)) < 0.5

    def loss_of(x: torch.Tensor, y: torch.Tensor, rows: torch.Tensor = known) -> torch.Tensor:
        return F.binary_cross_entropy(model(x, edges)[rows, 0], y[rows])

    def after(number: int) -> None:
        model.eval()
        lab.validate(lambda _: (people, club), lambda x, y: loss_of(x, y, ~known), number)
        model.train()

    optimizer = torch.optim.Adam(model.parameters(), 1e-2, weight_decay=5e-4)
    lab.fit(model, lambda _: (people, club), loss_of, optimizer, after=after)


class _Temporal(nn.Module):
    """Reads the last eight events at two places, and says whether the next one there is odd."""

    def __init__(self, *, logits: bool, width: int = 24) -> None:
        super().__init__()
        self.event, self.age = nn.Embedding(30, width), nn.Embedding(8, width)
        self.transformer = nn.TransformerEncoderLayer(width, 2, 48, dropout=0.0, batch_first=True)
        self.classifier, self.sigmoid = nn.Linear(width, 1), nn.Sigmoid()
        self.logits = logits

    def forward(self, events: torch.Tensor) -> torch.Tensor:
        mean_output = self.transformer(self.event(events) + self.age.weight).mean(1)
        logits = self.classifier(mean_output)
        if not self.logits:
            logits = self.sigmoid(logits)  # bug: chances_taken_for_logits
        return logits.squeeze(1)


@broken(
    rules=("activation-before-loss",),
    words=("second sigmoid", "already contains", "twice"),
    nodes=("model.sigmoid", "loss"),
)
def chances_taken_for_logits(lab: Lab) -> None:
    """The transformer's classifier ends with a sigmoid, and its loss, ``with_logits``, takes that for logits.

    Source: YXNTU/GeneralDyG issue 6, the model outputs probabilities but training uses BCEWithLogits.
    """
    model = _Temporal(logits=lab.fixed)

    def batches(number: int) -> _Batch:
        chance = torch.Generator().manual_seed(number)
        usual = torch.randint(3, (48, 1), generator=chance)
        events = 10 * usual + torch.randint(10, (48, 8), generator=chance)
        odd = torch.rand(48, generator=chance) < 0.15
        events[odd, -1] = (events[odd, -1] + 10) % 30
        return events, odd.float()

    def criterion(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        return torch.mean(loss)

    lab.fit(model, batches, lambda events, odd: criterion(model(events), odd), lr=3e-3)
