"""Training runs as the teachers recommend them, in which nothing is wrong."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken import data
from stepscope.examples.broken.lab import Lab, descend
from stepscope.examples.broken.nets import mlp

_Batch = tuple[torch.Tensor, ...]


def _moons(number: int) -> torch.Tensor:
    """Points ``(96, 2)`` in two half moons."""
    random = torch.Generator().manual_seed(number)
    angle = 3.1416 * torch.rand(96, generator=random)
    upper = torch.rand(96, generator=random) < 0.5
    x = torch.where(upper, angle.cos(), 1 - angle.cos()) - 0.5
    y = torch.where(upper, angle.sin(), 0.5 - angle.sin()) - 0.25
    return torch.stack([1.2 * x, 1.8 * y], 1) + 0.05 * torch.randn(96, 2, generator=random)


def moons_by_least_squares(lab: Lab) -> None:
    """A generator and a critic of points play for least squares, each with its own optimizer, after the hacks."""
    generator = mlp(4, 48, 48, 2, activation=nn.ELU)
    critic = mlp(2, 64, 64, 1, activation=lambda: nn.LeakyReLU(0.2))
    made_by = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.99))
    judged_by = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.5, 0.99))
    lab.recorder.watch({"generator": generator, "critic": critic}, {"generator": made_by, "critic": judged_by})
    for number in range(300):
        real = _moons(number)
        with lab.recorder.step("train"):
            fake = generator(torch.randn(96, 4))
            descend((critic(real) - 1).pow(2).mean() + critic(fake.detach()).pow(2).mean(), judged_by)
            descend((critic(fake) - 1).pow(2).mean(), made_by)
        if number % 60 == 59:
            with torch.no_grad(), lab.recorder.step("validation") as step:
                made, real = generator(torch.randn(96, 4)), _moons(9000 + number)
                between = 2 * torch.cdist(made, real).mean()
                step.record("distance", between - torch.cdist(made, made).mean() - torch.cdist(real, real).mean())


def evenness_on_a_frozen_base(lab: Lab) -> None:
    """A base that was trained to tell ten digits is frozen, and a new head learns which are even, after the manual."""
    x, y = data.images()
    base = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(12, 24, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(96, 48), nn.ReLU(),
    )  # fmt: skip
    pretrained = nn.Sequential(base, nn.Linear(48, 10))
    optimizer = torch.optim.Adam(pretrained.parameters(), lr=3e-3)
    for number in range(100):
        images, digits = data.draw((x, y))(5000 + number)
        descend(F.cross_entropy(pretrained(images), digits), optimizer)
    base.requires_grad_(False).eval()
    model = nn.Sequential(base, nn.Linear(48, 1))
    unseen, labels = data.unseen_pixels()

    def loss_of(images: torch.Tensor, digits: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(model(images)[:, 0], (digits % 2 == 0).float())

    @torch.no_grad()
    def after(number: int) -> None:
        lab.validate(lambda _: (unseen.view(-1, 1, 8, 8), labels), loss_of, number)

    lab.fit(model, data.draw((x, y)), loss_of, torch.optim.AdamW(model[1].parameters(), lr=5e-3), after=after)


def moves_by_clipped_ratios(lab: Lab) -> None:
    """A policy and its critic learn by PPO: clipped ratios, normalised advantages, a bonus for entropy."""
    trunk = nn.ModuleDict({"actor": mlp(4, 32, 32, 3, activation=nn.Tanh), "critic": mlp(4, 32, 32, 1)})
    optimizer = torch.optim.Adam(trunk.parameters(), lr=4e-3, eps=1e-5)
    lab.recorder.watch(trunk, optimizer)
    worth = torch.randn(4, 3, generator=torch.Generator().manual_seed(4))
    for number in range(40):
        seen = torch.randn(256, 4)
        with torch.no_grad():
            chances = torch.distributions.Categorical(logits=trunk["actor"](seen))
            moves = chances.sample()
            before = chances.log_prob(moves)
            gains = (seen @ worth).gather(1, moves[:, None])[:, 0] + 0.2 * torch.randn(256)
            surprise = gains - trunk["critic"](seen)[:, 0]
        for rows in torch.randperm(256).split(64):
            with lab.recorder.step("train"):
                now = torch.distributions.Categorical(logits=trunk["actor"](seen[rows]))
                ratio = (now.log_prob(moves[rows]) - before[rows]).exp()
                advantage = (surprise[rows] - surprise[rows].mean()) / (surprise[rows].std() + 1e-8)
                gained = torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()
                missed = F.mse_loss(trunk["critic"](seen[rows])[:, 0], gains[rows])
                optimizer.zero_grad()
                (0.5 * missed - gained - 0.003 * now.entropy().mean()).backward()
                nn.utils.clip_grad_norm_(trunk.parameters(), 0.5)
                optimizer.step()
        if number % 10 == 9:
            seen = torch.randn(400, 4)
            with torch.no_grad(), lab.recorder.step("validation") as step:
                taken = (seen @ worth).gather(1, trunk["actor"](seen).argmax(1, keepdim=True))
                step.record("regret", ((seen @ worth).amax(1) - taken[:, 0]).mean())


def _sentences(number: int) -> _Batch:
    """Sentences ``(32, 14)`` padded with 0, and tags with -100 for padding: a name, behind a title, or not."""
    generator = torch.Generator().manual_seed(number)
    words = torch.randint(4, 40, (32, 14), generator=generator)
    title = torch.rand(32, 14, generator=generator) < 0.2
    words = torch.where(title, torch.randint(1, 4, (32, 14), generator=generator), words)
    tags = F.pad(words[:, :-1] < 4, (1, 0)) & (words > 20)
    length = torch.randint(6, 15, (32, 1), generator=generator)
    padding = torch.arange(14) >= length
    return words.masked_fill(padding, 0), tags.long().masked_fill(padding, -100)


class _Tagger(nn.Module):
    """A small encoder with a head for each word."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(40, width, padding_idx=0), nn.Embedding(14, width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 96, dropout=0.1, batch_first=True, norm_first=True) for _ in range(2)
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 2)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        x = self.words(words) + self.places(torch.arange(words.shape[1]))
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=words == 0)
        return self.head(self.norm(x))


def names_behind_titles(lab: Lab) -> None:
    """A transformer tags words with warm-up, linear decay and clipping, after the course of Hugging Face."""
    model, steps = _Tagger(), 200
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 20, (steps - step) / (steps - 20))
    )
    lab.recorder.watch(model, optimizer)

    def loss_of(words: torch.Tensor, tags: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(words).transpose(1, 2), tags, ignore_index=-100)

    after = lab.validating(model, lambda number: _sentences(9000 + number), loss_of)
    for number in range(steps):
        batch = _sentences(number)
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            loss_of(*batch).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        schedule.step()
        after(number)


def tumours_in_shuffled_epochs(lab: Lab) -> None:
    """Standardised measurements in shuffled epochs, with dropout, weight decay and a rate that falls on plateaus."""
    x, y = data.tumours()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(2))
    train, unseen = order[:440], order[440:]
    model = nn.Sequential(nn.Linear(30, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.3, patience=3)
    lab.recorder.watch(model, optimizer)
    loader = DataLoader(TensorDataset(x[train], y[train]), batch_size=40, shuffle=True)
    for _ in range(14):
        for rows, harmless in loader:
            with lab.recorder.step("train"):
                descend(F.binary_cross_entropy_with_logits(model(rows)[:, 0], harmless), optimizer)
        model.eval()
        with torch.no_grad(), lab.recorder.step("validation") as step:
            loss = F.binary_cross_entropy_with_logits(model(x[unseen])[:, 0], y[unseen])
            step.record("loss", loss, type="loss")
        model.train()
        schedule.step(loss)
