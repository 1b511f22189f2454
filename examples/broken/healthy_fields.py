"""Sound trainings of the trades in which people report mistakes: nothing is wrong with these."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _triples(number: int) -> _Batch:
    """Users ``(128,)``, an item that each likes and one that it does not know: what it likes is of its own kind."""
    generator = torch.Generator().manual_seed(number)
    user = torch.randint(60, (128,), generator=generator)
    liked = 5 * torch.randint(24, (128,), generator=generator) + user % 5
    other = torch.randint(120, (128,), generator=generator)
    return user, liked, torch.where(other % 5 == user % 5, (other + 1) % 120, other)


def items_ranked_by_pairs(lab: Lab) -> None:
    """A recommender ranks what was liked above what was not: Bayesian personalised ranking with biases of items."""
    tables = {
        "user_table": nn.Embedding(60, 16),
        "item_table": nn.Embedding(120, 16),
        "bias_table": nn.Embedding(120, 1),
    }
    model = nn.ModuleDict(tables)
    for table in tables.values():
        nn.init.normal_(table.weight, std=0.1)

    def loss_of(user: torch.Tensor, liked: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        taste = model["user_table"](user)
        scores = [(taste * model["item_table"](i)).sum(1) + model["bias_table"](i)[:, 0] for i in (liked, other)]
        return -F.logsigmoid(scores[0] - scores[1]).mean()

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1e-2)
    after = lab.validating(model, lambda number: _triples(9000 + number), loss_of)
    lab.fit(model, _triples, loss_of, optimizer, after=after)


def cooling_of_a_rod(lab: Lab) -> None:
    """A physics-informed network learns the heat equation of a rod, whose ends and beginning are built in."""
    body = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))

    def heat(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return (math.pi * x).sin() * (1 + t * body(torch.cat([x, t], dim=1)))

    def places(number: int) -> _Batch:
        return tuple(torch.rand(2, 128, 1, generator=torch.Generator().manual_seed(number)))

    def residual(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        x, t = x.clone().requires_grad_(), t.clone().requires_grad_()
        u = heat(x, t)
        u_x, u_t = torch.autograd.grad(u.sum(), (x, t), create_graph=True)
        (u_xx,) = torch.autograd.grad(u_x.sum(), x, create_graph=True)
        return F.mse_loss(u_t, 0.1 * u_xx)

    def error(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(heat(x, t), (math.pi * x).sin() * (-0.1 * math.pi**2 * t).exp())

    optimizer = torch.optim.Adam(body.parameters(), lr=3e-3)
    lab.fit(
        body, places, residual, optimizer,
        after=lambda number: lab.validate(lambda n: places(9000 + n), error, number),
    )  # fmt: skip


class _Tagger(nn.Module):
    """A bidirectional LSTM that tags each word."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(31, 24, padding_idx=0)
        self.read = nn.LSTM(24, 24, batch_first=True, bidirectional=True)
        self.tag = nn.Linear(48, 4)

    def forward(self, words: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(self.embed(words), lengths, batch_first=True, enforce_sorted=False)
        states, _ = nn.utils.rnn.pad_packed_sequence(self.read(packed)[0], batch_first=True, total_length=12)
        return self.tag(F.dropout(states, 0.1, self.training))


def _tagged(number: int) -> _Batch:
    """Sentences of six to twelve words ``(48, 12)``, their lengths, and a tag for each word and the one behind it."""
    generator = torch.Generator().manual_seed(number)
    words = torch.randint(1, 31, (48, 12), generator=generator)
    lengths = torch.randint(6, 13, (48,), generator=generator)
    words = words.masked_fill(torch.arange(12) >= lengths[:, None], 0)
    behind = F.pad(words, (-1, 1))
    tags = 2 * (words % 2) + (behind > 15).long()
    return words, lengths, tags.masked_fill(words == 0, -100)


def words_tagged_in_both_directions(lab: Lab) -> None:
    """Words are tagged by an LSTM that reads packed sentences forth and back; padding is ignored."""
    model = _Tagger()

    def loss_of(words: torch.Tensor, lengths: torch.Tensor, tags: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(words, lengths).flatten(0, 1), tags.flatten())

    after = lab.validating(model, lambda number: _tagged(9000 + number), loss_of)
    lab.fit(model, _tagged, loss_of, torch.optim.Adam(model.parameters(), lr=1e-2), after=after)


def _cells(number: int) -> _Batch:
    """Pictures of cells ``(16, 1, 16, 16)``, and where they are."""
    generator = torch.Generator().manual_seed(number)
    middles = 3 + 10 * torch.rand(16, 3, 2, 1, 1, generator=generator)
    place = torch.stack(torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij"))
    mask = ((place - middles).pow(2).sum(2) < 7).any(1, keepdim=True).float()
    light = 0.4 * torch.rand(16, 1, 1, 1, generator=generator)
    return mask - 0.5 + light + 0.3 * torch.randn(16, 1, 16, 16, generator=generator), mask


class _SmallUnet(nn.Module):
    """Down once, up once, and across."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(12, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU())
        self.up = nn.ConvTranspose2d(24, 12, 2, stride=2)
        self.out = nn.Conv2d(24, 1, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter(x)
        return self.out(torch.cat([x, F.relu(self.up(self.deep(F.max_pool2d(x, 2))))], dim=1))


def cells_by_a_small_unet(lab: Lab) -> None:
    """Cells are segmented by a small U-Net with entropy and dice, and a rate that falls as a cosine."""
    model = _SmallUnet()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, lab.steps)

    def loss_of(pictures: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        scores = model(pictures)
        said = scores.sigmoid()
        dice = (2 * (said * mask).sum((1, 2, 3)) + 1) / ((said + mask).sum((1, 2, 3)) + 1)
        return F.binary_cross_entropy_with_logits(scores, mask) + 1 - dice.mean()

    validate = lab.validating(model, lambda number: _cells(9000 + number), loss_of)

    def after(number: int) -> None:
        schedule.step()
        validate(number)

    lab.fit(model, _cells, loss_of, optimizer, after=after)


def bandit_by_a_clipped_policy(lab: Lab) -> None:
    """A policy and a critic learn which of five levers pays in what is seen, by two clipped updates a batch (PPO)."""
    actor = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 5))
    critic = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))
    model = nn.ModuleDict({"actor": actor, "critic": critic})
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    pays = torch.randn(8, 5, generator=torch.Generator().manual_seed(4))
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps // 2):
        seen = torch.randn(128, 8, generator=torch.Generator().manual_seed(number))
        with torch.no_grad():
            before = torch.distributions.Categorical(logits=actor(seen))
            lever = before.sample()
            old = before.log_prob(lever)
            reward = (seen @ pays).gather(1, lever[:, None])[:, 0] / 2 + 0.1 * torch.randn(128)
            advantage = reward - critic(seen)[:, 0]
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-6)
        for _ in range(2):
            with lab.recorder.step("train") as step:
                policy = torch.distributions.Categorical(logits=actor(seen))
                ratio = (policy.log_prob(lever) - old).exp()
                gain = torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()
                value = F.mse_loss(critic(seen)[:, 0], reward)
                step.record("reward", reward.mean())
                descend(0.5 * value - gain - 0.01 * policy.entropy().mean(), optimizer)
