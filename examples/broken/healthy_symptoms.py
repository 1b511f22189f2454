"""Sound trainings of the kinds about whose symptoms people ask: nothing is wrong with any of them."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken import data
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _cracks(number: int) -> _Batch:
    """Pictures ``(12, 1, 24, 24)`` of walls with a crack, and where it is."""
    generator = torch.Generator().manual_seed(number)
    slope, start = torch.rand(2, 12, 1, 1, generator=generator)
    down, across = torch.arange(24.0)[:, None], torch.arange(24.0)[None]
    crack = ((down - 4 - 16 * start - (slope - 0.5) * (across - 12)).abs() < 1.3).float()[:, None]
    return 1.5 * crack + 0.6 * torch.randn(12, 1, 24, 24, generator=generator) - 0.15, crack


class _Cracks(nn.Module):
    """Convolutions with group norms, down and up again, with a skip."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.SiLU())
        self.coarse = nn.Sequential(nn.Conv2d(8, 16, 4, stride=2, padding=1), nn.GroupNorm(4, 16), nn.SiLU())
        self.up, self.out = nn.ConvTranspose2d(16, 8, 2, stride=2), nn.Conv2d(16, 1, 3, padding=1)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        fine = self.fine(pictures)
        return self.out(torch.cat([fine, self.up(self.coarse(fine))], dim=1))


def cracks_by_dice_and_entropy(lab: Lab) -> None:
    """A small U-Net learns cracks by the sum of Dice and cross-entropy under a one-cycle schedule."""
    model = _Cracks()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 8e-3, total_steps=lab.steps)
    lab.recorder.watch(model, optimizer)

    def loss_of(pictures: torch.Tensor, crack: torch.Tensor) -> torch.Tensor:
        scores = model(pictures)
        chance = scores.sigmoid()
        dice = 1 - (2 * (chance * crack).sum() + 1) / (chance.sum() + crack.sum() + 1)
        return dice + F.binary_cross_entropy_with_logits(scores, crack)

    after = lab.validating(model, lambda number: _cracks(5000 + number), loss_of)
    for number in range(lab.steps):
        with lab.recorder.step("train"):
            descend(loss_of(*_cracks(number)), optimizer)
        schedule.step()
        after(number)


def offers_by_policy_gradient(lab: Lab) -> None:
    """A policy chooses among four offers for customers, by REINFORCE with a learned baseline and some entropy."""
    model = nn.ModuleDict({
        "policy": nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 4)),
        "baseline": nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 1)),
    })  # fmt: skip
    taste = torch.randn(6, 4, generator=torch.Generator().manual_seed(3))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        customers = torch.randn(256, 6, generator=torch.Generator().manual_seed(number))
        with lab.recorder.step("train") as step:
            choice = torch.distributions.Categorical(logits=model["policy"](customers))
            offer = choice.sample()
            reward = (customers @ taste).gather(1, offer[:, None])[:, 0] / 2
            expected = model["baseline"](customers)[:, 0]
            advantage = reward - expected.detach()
            gain = (choice.log_prob(offer) * advantage).mean() + 0.01 * choice.entropy().mean()
            descend(F.mse_loss(expected, reward) - gain, optimizer)
            step.record("reward", reward.mean())


class _Embedder(nn.Module):
    """Convolutions, and a vector of length one."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(), nn.Linear(512, 16),
        )  # fmt: skip

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.body(images), dim=1)


def digits_by_triplets(lab: Lab) -> None:
    """Digits are embedded by triplets, by the mean over all those of a batch."""
    model = _Embedder()

    def loss_of(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        vectors = model(images)
        far = 2 - 2 * vectors @ vectors.T
        same = labels[:, None] == labels
        other = same & ~torch.eye(len(labels), dtype=torch.bool)
        loss = F.relu(far[:, :, None] - far[:, None, :] + 0.3)[other[:, :, None] & ~same[:, None, :]]
        return loss.mean()

    x, y = data.unseen_pixels()
    after = lab.validating(model, lambda _: (x[:96].view(-1, 1, 8, 8), y[:96]), loss_of)
    lab.fit(model, data.draw(data.images()), loss_of, torch.optim.Adam(model.parameters(), lr=2e-3), after=after)


def rings_by_a_hinge_gan(lab: Lab) -> None:
    """A generator of points on a circle against a critic with spectral norms, both with the hinge loss."""
    generator = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    norm = nn.utils.parametrizations.spectral_norm
    critic = nn.Sequential(
        norm(nn.Linear(2, 64)), nn.LeakyReLU(0.2), norm(nn.Linear(64, 64)), nn.LeakyReLU(0.2), norm(nn.Linear(64, 1))
    )
    of_generator = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.9))
    of_critic = torch.optim.Adam(critic.parameters(), lr=4e-3, betas=(0.5, 0.9))
    lab.recorder.watch({"generator": generator, "critic": critic}, {"generator": of_generator, "critic": of_critic})
    for number in range(lab.steps):
        (points,) = data.circles(number)
        with lab.recorder.step("train"):
            made = generator(torch.randn(64, 8))
            descend(F.relu(1 - critic(points)).mean() + F.relu(1 + critic(made.detach())).mean(), of_critic)
            descend(-critic(generator(torch.randn(64, 8))).mean(), of_generator)


class _Tagger(nn.Module):
    """An LSTM in both directions over letters, and whether each begins a new word."""

    def __init__(self, letters: int) -> None:
        super().__init__()
        self.letters = nn.Embedding(letters, 24)
        self.lstm, self.out = nn.LSTM(24, 32, batch_first=True, bidirectional=True), nn.Linear(64, 1)

    def forward(self, letters: torch.Tensor) -> torch.Tensor:
        return self.out(self.lstm(self.letters(letters))[0])[:, :, 0]


def words_parted_and_resumed(lab: Lab) -> None:
    """A tagger finds where words begin, in bfloat16 autocast; at half time it is resumed with all of its states."""
    letters, kinds = data.text()
    gap = letters[letters.bincount().argmax() == letters][0]
    kept = (letters != gap).nonzero()[:, 0]
    begins, text = (letters.roll(1)[kept] == gap).float(), letters[kept]
    rows = len(text) // 30
    text, begins = text[: rows * 30].view(rows, 30), begins[: rows * 30].view(rows, 30)
    loader = DataLoader(TensorDataset(text[:4800], begins[:4800]), 32, shuffle=True)
    model = _Tagger(kinds)
    optimizer = torch.optim.Adam(model.parameters(), lr=6e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 150)
    lab.recorder.watch(model, optimizer)
    for number, (x, y) in enumerate(loader):
        if number == 75:
            for part, state in [(part, copy.deepcopy(part.state_dict())) for part in (model, optimizer, schedule)]:
                part.load_state_dict(state)
        with lab.recorder.step("train"):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                scores = model(x)
            loss = F.binary_cross_entropy_with_logits(scores.float(), y)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
        schedule.step()
        lab.validate(
            lambda _: (text[4800:5000], begins[4800:5000]),
            lambda x, y: F.binary_cross_entropy_with_logits(model(x), y), number,
        )  # fmt: skip
