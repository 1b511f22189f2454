"""Training runs of the same trades as those of the practitioner's list, in which nothing is wrong."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken import data
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def digits_cleaned_of_their_noise(lab: Lab) -> None:
    """A convolutional autoencoder takes the noise, which is drawn anew in each step, from handwritten digits."""
    pictures, _ = data.images()
    train, unseen = pictures[:1200], pictures[1200:]
    noisy = unseen + 0.7 * torch.randn(unseen.shape, generator=torch.Generator().manual_seed(1))
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3, stride=2, padding=1), nn.ELU(), nn.Conv2d(12, 24, 3, padding=1), nn.ELU(),
        nn.ConvTranspose2d(24, 16, 4, stride=2, padding=1), nn.ELU(), nn.Conv2d(16, 1, 3, padding=1),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    lab.recorder.watch(model, optimizer)
    loader = DataLoader(TensorDataset(train), batch_size=50, shuffle=True)
    for epoch in range(6):
        for place, (clean,) in enumerate(loader):
            with lab.recorder.step("train"):
                descend(F.mse_loss(model(clean + 0.7 * torch.randn_like(clean)), clean), optimizer)
            lab.validate(lambda _: (noisy, unseen), lambda x, y: F.mse_loss(model(x), y), 24 * epoch + place)


class _Probe(nn.Module):
    """A body, trained before and frozen on purpose, and a linear layer for new classes."""

    def __init__(self, body: nn.Module, width: int) -> None:
        super().__init__()
        self.body = body.requires_grad_(False)
        self.fc = nn.Linear(width, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.body(x))


def new_digits_for_a_frozen_body(lab: Lab) -> None:
    """A body that knows five digits stays frozen, as in the tutorial on transfer learning; a head learns five more."""
    x, y = data.images()
    known = y < 5
    body = nn.Sequential(nn.Conv2d(1, 24, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24 * 36, 80), nn.ReLU())
    before = nn.Sequential(body, nn.Linear(80, 5))
    first = torch.optim.Adam(before.parameters(), lr=2e-3)
    for number in range(80):
        pictures, labels = data.draw((x[known], y[known]), 48)(number)
        descend(F.cross_entropy(before(pictures), labels), first)
    model = _Probe(body, 80)
    new, labels = x[~known], y[~known] - 5
    optimizer = torch.optim.SGD(model.fc.parameters(), lr=0.02, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, lab.steps)
    validate = lab.validating(
        model, lambda _: (new[600:], labels[600:]), lambda pictures, digit: F.cross_entropy(model(pictures), digit)
    )

    def after(number: int) -> None:
        schedule.step()
        validate(number)

    train = data.draw((new[:600], labels[:600]), 32)
    lab.fit(model, train, lambda pictures, digit: F.cross_entropy(model(pictures), digit), optimizer, after=after)


def _cells(number: int) -> _Batch:
    """Photos ``(16, 1, 16, 16)`` with two round cells each, and where they are."""
    generator = torch.Generator().manual_seed(number)
    middle = 3 + 10 * torch.rand(16, 2, 2, 1, 1, generator=generator)
    row, column = torch.arange(16.0)[:, None], torch.arange(16.0)[None]
    distance = (row - middle[:, :, 0]) ** 2 + (column - middle[:, :, 1]) ** 2
    mask = (distance < 7).any(1, keepdim=True).float()
    photo = mask * 1.5 - 0.2 + 0.5 * torch.randn(16, 1, 16, 16, generator=generator)
    return photo, mask


class _UNet(nn.Module):
    """One step down and up again, with a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.norm1, self.norm2 = nn.GroupNorm(2, 8), nn.GroupNorm(2, 16)
        self.up, self.out = nn.ConvTranspose2d(16, 8, 2, stride=2), nn.Conv2d(16, 1, 3, padding=1)

    def forward(self, photo: torch.Tensor) -> torch.Tensor:
        fine = F.relu(self.norm1(self.down(photo)))
        coarse = F.relu(self.norm2(self.deep(F.max_pool2d(fine, 2))))
        return self.out(torch.cat([fine, self.up(coarse)], dim=1))


def cells_by_overlap_and_entropy(lab: Lab) -> None:
    """A small U-Net finds cells by the sum of a cross-entropy and of one less the overlap (Dice)."""
    model = _UNet()

    def loss_of(photo: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        scores = model(photo)
        chance = scores.sigmoid()
        overlap = (2 * (chance * mask).sum((1, 2, 3)) + 1) / (chance.sum((1, 2, 3)) + mask.sum((1, 2, 3)) + 1)
        return F.binary_cross_entropy_with_logits(scores, mask) + (1 - overlap).mean()

    after = lab.validating(model, lambda number: _cells(5000 + number), loss_of)
    lab.fit(model, _cells, loss_of, torch.optim.AdamW(model.parameters(), lr=4e-3), after=after)


def adverts_chosen_by_a_policy(lab: Lab) -> None:
    """A policy chooses one of four adverts for a reader, by the gradient of its advantage and some entropy."""
    policy = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 4))
    value = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 1))
    model = nn.ModuleDict({"policy": policy, "value": value})
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    lab.recorder.watch(model, optimizer)
    liked = torch.randn(6, 4, generator=torch.Generator().manual_seed(3)) / 6**0.5
    for number in range(lab.steps):
        generator = torch.Generator().manual_seed(number)
        reader = torch.randn(128, 6, generator=generator)
        with lab.recorder.step("train"):
            choice = torch.distributions.Categorical(logits=model["policy"](reader))
            advert = choice.sample()
            noise = 0.3 * torch.randn(128, generator=generator)
            reward = (reader @ liked).gather(1, advert[:, None])[:, 0] + noise
            guess = model["value"](reader)[:, 0]
            advantage = (reward - guess).detach()
            acting = -(advantage * choice.log_prob(advert)).mean() - 0.01 * choice.entropy().mean()
            descend(acting + 0.5 * F.mse_loss(guess, reward), optimizer)


class _Letters(nn.Module):
    """A transformer's layer under a causal mask."""

    def __init__(self, letters: int, width: int = 32) -> None:
        super().__init__()
        self.letter, self.place = nn.Embedding(letters, width), nn.Embedding(data.CONTEXT, width)
        layer = nn.TransformerEncoderLayer(width, 4, 64, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 1, norm=nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, letters)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        length = text.shape[1]
        hidden = self.letter(text) + self.place(torch.arange(length))
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        return self.head(self.layers(hidden, mask=mask, is_causal=True)).transpose(1, 2)


def letters_with_a_warm_up(lab: Lab) -> None:
    """A small causal transformer learns letters with a warm-up, a cosine and clipped gradients."""
    _, letters = data.text()
    model = _Letters(letters)
    optimizer = torch.optim.AdamW(model.parameters(), lr=8e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda number: min((number + 1) / 15, 0.55 + 0.45 * math.cos(math.pi * min(number / lab.steps, 1)))
    )
    lab.recorder.watch(model, optimizer)
    batches = data.characters(16)
    for number in range(lab.steps):
        text, following = batches(number)
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(text), following)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        schedule.step()
        lab.validate(lambda n: batches(9000 + n), lambda x, y: F.cross_entropy(model(x), y), number)
