"""Training runs of the fields that people asked about, in which nothing is wrong."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken.lab import Lab, descend
from stepscope.examples.broken.nets import mlp

_Batch = tuple[torch.Tensor, ...]


class _Stereo(nn.Module):
    """Features of both pictures, how well they fit at five shifts, and the mean of the shifts."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()
        )
        self.smooth = nn.Sequential(nn.Conv2d(5, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 5, 3, padding=1))

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        one, other = self.features(left), self.features(right)
        fits = torch.stack([(one * F.pad(other, (shift, -shift))).mean(1) for shift in range(5)], dim=1)
        chances = (fits + self.smooth(fits)).softmax(1)
        return (chances * torch.arange(5.0)[:, None, None]).sum(1)


def _pair(number: int) -> _Batch:
    """Pictures by two cameras ``(12, 1, 12, 20)``, and by how many pixels they differ ``(12, 12, 20)``."""
    generator = torch.Generator().manual_seed(number)
    scene = torch.randn(12, 1, 12, 24, generator=generator)
    shift = torch.randint(5, (12,), generator=generator)
    right = torch.stack([picture[:, :, k : k + 20] for picture, k in zip(scene, shift.tolist(), strict=True)])
    right = right + 0.05 * torch.randn(right.shape, generator=generator)
    return scene[:, :, :, :20], right, shift[:, None, None].expand(-1, 12, 20).float()


def depth_from_two_cameras(lab: Lab) -> None:
    """A stereo net with a cost volume and the soft argmin, trained by the smooth absolute error with a cosine."""
    model = _Stereo()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=150)
    lab.recorder.watch(model, optimizer)

    def loss_of(left: torch.Tensor, right: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        return F.smooth_l1_loss(model(left, right)[:, :, 4:], shift[:, :, 4:])

    for number in range(150):
        left, right, shift = _pair(number)
        with lab.recorder.step("train"):
            descend(loss_of(left, right, shift), optimizer)
        schedule.step()
        lab.validate(lambda n: _pair(9000 + n), loss_of, number)


def _sessions(number: int) -> _Batch:
    """What was clicked in sessions ``(48, 10)``, and next: most clicks go on through one of six departments."""
    generator = torch.Generator().manual_seed(number)
    department = 6 * torch.randint(6, (48, 1), generator=generator)
    place = torch.randint(6, (48, 1), generator=generator) + torch.arange(11)
    clicks = department + place % 6
    astray = torch.rand(48, 11, generator=generator) < 0.1
    clicks = torch.where(astray, torch.randint(36, (48, 11), generator=generator), clicks)
    return clicks[:, :-1], clicks[:, 1:]


class _Recommender(nn.Module):
    """A GRU over the items of a session, whose states are compared with the vectors of all items."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.items = nn.Embedding(36, width)
        nn.init.normal_(self.items.weight, std=width**-0.5)
        self.gru, self.drop = nn.GRU(width, width, batch_first=True), nn.Dropout(0.1)

    def forward(self, clicks: torch.Tensor) -> torch.Tensor:
        states, _ = self.gru(self.drop(self.items(clicks)))
        return states @ self.items.weight.T


def next_click_of_a_session(lab: Lab) -> None:
    """A recommender for sessions with one table of items for both ends, after GRU4Rec with the cross-entropy."""
    model = _Recommender()

    def loss_of(clicks: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(clicks).flatten(0, 1), following.flatten())

    after = lab.validating(model, lambda number: _sessions(9000 + number), loss_of)
    lab.fit(model, _sessions, loss_of, lr=1e-2, after=after)


def _paraphrases(number: int) -> _Batch:
    """Two sentences of eight words on each of 32 subjects ``(32, 8)``: other words, of the same kinds."""
    generator = torch.Generator().manual_seed(number)
    kinds = torch.rand(32, 20, generator=generator).argsort(1)[:, :3]
    chosen = torch.randint(3, (2, 32, 8), generator=generator)
    words = 5 * kinds.expand(2, -1, -1).gather(2, chosen) + torch.randint(5, (2, 32, 8), generator=generator)
    return words[0], words[1]


def sentences_and_their_paraphrases(lab: Lab) -> None:
    """Vectors of sentences by contrast: each one's paraphrase is to be found among those of the batch."""
    model = nn.Sequential(nn.EmbeddingBag(100, 48), nn.Linear(48, 64), nn.ReLU(), nn.Linear(64, 32))

    def loss_of(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        cosines = F.normalize(model(one)) @ F.normalize(model(other)).T
        return F.cross_entropy(cosines / 0.1, torch.arange(len(one)))

    after = lab.validating(model, lambda number: _paraphrases(9000 + number), loss_of)
    lab.fit(model, _paraphrases, loss_of, lr=7e-3, after=after)


def _proteins(rows: int, seed: int) -> TensorDataset:
    """Chains of thirty residues ``(rows, 30)``, and the fold at each, which those around it decide."""
    generator = torch.Generator().manual_seed(seed)
    pull = torch.randn(20, 3, generator=torch.Generator().manual_seed(1))
    chains = torch.randint(20, (rows, 30), generator=generator)
    around = F.avg_pool1d(pull[chains].transpose(1, 2), 5, stride=1, padding=2, count_include_pad=False)
    return TensorDataset(chains, around.argmax(1))


class _Folds(nn.Module):
    """Convolutions along a chain with layer normalisation, and one class a residue."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.residues, self.norm = nn.Embedding(20, width), nn.LayerNorm(width)
        self.near, self.far = nn.Conv1d(width, width, 5, padding=2), nn.Conv1d(width, width, 5, padding=2)
        self.head = nn.Conv1d(width, 3, 1)

    def forward(self, chains: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.residues(chains)).transpose(1, 2)
        x = x + F.gelu(self.near(x))
        return self.head(x + F.gelu(self.far(x)))


def folds_along_a_chain(lab: Lab) -> None:
    """Where a protein folds how, told by convolutions in three epochs, with a warm-up and clipped gradients."""
    model, unseen = _Folds(), _proteins(200, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=150)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda _: unseen.tensors, lambda x, y: F.cross_entropy(model(x), y))
    loader = DataLoader(_proteins(1600, 1), batch_size=32, shuffle=True, drop_last=True)
    for epoch in range(3):
        for place, (chains, folds) in enumerate(loader):
            with lab.recorder.step("train"):
                optimizer.zero_grad()
                F.cross_entropy(model(chains), folds).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
            schedule.step()
            after(epoch * len(loader) + place)


def _three_steps(number: int) -> _Batch:
    """Three moves on a corridor of ten fields at a time: from where, the first one, rewards so far, to where, ended."""
    generator = torch.Generator().manual_seed(number)
    start, moves = torch.randint(9, (64,), generator=generator), torch.randint(2, (64, 3), generator=generator)
    place, reward, ended = start.clone(), torch.zeros(64), torch.zeros(64)
    for step in range(3):
        place = torch.where(ended > 0, place, (place + 2 * moves[:, step] - 1).clamp(0, 9))
        arrived = (place == 9).float() * (1 - ended)
        reward = reward + 0.9**step * arrived
        ended = ended + arrived
    return F.one_hot(start, 10).float(), moves[:, 0], reward, F.one_hot(place, 10).float(), ended


def returns_over_three_moves(lab: Lab) -> None:
    """Double Q-learning with returns over three moves, and a target net that is renewed every ten steps."""
    model = mlp(10, 48, 48, 2)
    target = deepcopy(model).requires_grad_(requires_grad=False)

    def loss_of(
        start: torch.Tensor, move: torch.Tensor, reward: torch.Tensor, there: torch.Tensor, ended: torch.Tensor
    ) -> torch.Tensor:
        with torch.no_grad():
            best = model(there).argmax(1, keepdim=True)
            wanted = reward + 0.9**3 * (1 - ended) * target(there).gather(1, best).squeeze(1)
        return F.smooth_l1_loss(model(start).gather(1, move[:, None]).squeeze(1), wanted)

    def after(number: int) -> None:
        if number % 10 == 9:
            target.load_state_dict(model.state_dict())

    replace(lab, steps=180).fit(model, _three_steps, loss_of, lr=3e-3, after=after)
