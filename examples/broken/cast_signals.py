"""Mistakes with recordings of sleepers and pictures of digits, as dice drew them from collections of faults."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_SLEEPERS, _WINDOWS = 50, 30


def _nights(seed: int) -> TensorDataset:
    """Thirty windows of each of fifty sleepers ``(1500, 1, 64)``, and who of them is ill ``(1500,)``.

    Each sleeper has rhythms of their own; in illness there are more spindles, short and fast.
    """
    generator = torch.Generator().manual_seed(seed)
    ill = torch.rand(_SLEEPERS, generator=generator) < 0.5
    own = torch.rand(2, _SLEEPERS, 1, 1, generator=generator)
    moments = torch.arange(64.0)
    phase = 6.2832 * torch.rand(2, _SLEEPERS, _WINDOWS, 1, generator=generator)
    slow = ((0.15 + 0.25 * own[0]) * moments + phase[0]).sin() + 0.7 * ((0.5 + 0.6 * own[1]) * moments + phase[1]).sin()
    share = torch.where(ill, 0.85, 0.15)[:, None, None]
    spindle = (torch.rand(_SLEEPERS, _WINDOWS, 1, generator=generator) < share).float()
    place = 12 + 40 * torch.rand(_SLEEPERS, _WINDOWS, 1, generator=generator)
    fast = spindle * (-((moments - place) ** 2) / 30).exp() * (2.0 * moments).sin()
    windows = slow + 1.8 * fast + 0.3 * torch.randn(_SLEEPERS, _WINDOWS, 64, generator=generator)
    return TensorDataset(windows.flatten(0, 1)[:, None], ill.float().repeat_interleave(_WINDOWS))


class _Sleep(nn.Module):
    """Three convolutions over time, and what is largest and what is usual in each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv1d(1, 16, 9, padding=4), nn.Conv1d(16, 32, 5, padding=2)
        self.conv3 = nn.Conv1d(32, 32, 5, padding=2)
        self.fc = nn.Linear(64, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool1d(F.relu(self.conv1(x)), 2)
        x = F.max_pool1d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.conv3(x))
        return self.fc(torch.cat([x.amax(2), x.mean(2)], dim=1))[:, 0]


@broken(words=("leak", "in both", "also in the training", "overlap", "seen in training"), nodes=("input",))
def sleepers_on_both_sides_of_the_split(lab: Lab) -> None:
    """Windows are split at random, so that every sleeper of the validation is known from the training: data leak.

    Source: UMLAUT (CHI 2021), validation accuracy too high: test data leak into the training.
    """
    nights = _nights(1)
    order = torch.randperm(len(nights), generator=torch.Generator().manual_seed(2))
    if lab.fixed:
        order = torch.arange(len(nights))
    known, unknown = order[:1200].tolist(), order[1200:].tolist()  # set-up bug: sleepers_on_both_sides_of_the_split
    loader = DataLoader(Subset(nights, known), 64, shuffle=True, drop_last=True)
    windows, ill = nights[unknown]
    model, criterion = _Sleep(), nn.BCEWithLogitsLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    lab.recorder.watch(model, optimizer)
    number = 0
    for _ in range(9):
        for batch, labels in loader:
            with lab.recorder.step("train"):
                descend(criterion(model(batch), labels), optimizer)
            lab.validate(lambda _: (windows, ill), lambda x, y: criterion(model(x), y), number)
            number += 1


class _Vae(nn.Module):
    """Digits through ten variables, by convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(
            nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Flatten()
        )
        self.mean, self.logvar = nn.Linear(128, 10), nn.Linear(128, 10)
        self.decode = nn.Sequential(
            nn.Linear(10, 128), nn.ReLU(), nn.Unflatten(1, (32, 2, 2)),
            nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(16, 1, 4, 2, 1),
        )  # fmt: skip

    def forward(self, digits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        code = self.encode(digits)
        mean, logvar = self.mean(code), self.logvar(code)
        return self.decode(mean + torch.randn_like(mean) * (0.5 * logvar).exp()), mean, logvar


@broken(rules=("optimizer-settings",), words=("momentum",), nodes=("model", "loss"))
def digits_swept_past_by_momentum(lab: Lab) -> None:
    """The momentum of the descent is 0.99 where 0.9 was meant: updates add up tenfold and swing to and fro.

    Source: DeepLocalize and DeepFD, programs of Stack Overflow (34673164): momentum wrongly set.
    """
    digits, labels = data.images()
    model = _Vae()
    momentum = 0.9 if lab.fixed else 0.99  # set-up bug: digits_swept_past_by_momentum
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=momentum)

    def loss_of(digits: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        rebuilt, mean, logvar = model(digits)
        rest = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum(1).mean()
        return F.mse_loss(rebuilt, digits) + 0.004 * rest

    def unseen(number: int) -> data.Table:
        x, y = data.unseen_pixels()
        return x.view(-1, 1, 8, 8), y

    after = lab.validating(model, unseen, loss_of)
    lab.fit(model, data.draw((digits, labels), 96), loss_of, optimizer, after=after)
