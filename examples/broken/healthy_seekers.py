"""Training runs that read on, look things up, and play, in which nothing is wrong."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.lab import Lab, descend
from stepscope.examples.broken.nets import mlp


class _Novel(nn.Module):
    """Two recurrent layers, which go on from the state that they are given."""

    def __init__(self, letters: int, width: int = 48) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(letters, 32), nn.Linear(width, letters)
        self.read = nn.GRU(32, width, 2, batch_first=True, dropout=0.1)

    def forward(self, text: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        states, state = self.read(self.embed(text), state)
        return self.head(states), state


def text_read_on_with_its_state(lab: Lab) -> None:
    """Twenty parts of a text are read on piece by piece; the state is carried over, and cut off between pieces."""
    text, count = data.text()
    model, parts = _Novel(count), text[: len(text) // 20 * 20].view(20, -1)
    state = torch.zeros(2, 20, 48)

    def loss_of(piece: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        nonlocal state
        scores, after = model(piece, state)
        state = after.detach()
        return F.cross_entropy(scores.flatten(0, 1), following.flatten())

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        start = 20 * number
        return parts[:, start : start + 20], parts[:, start + 1 : start + 21]

    lab.fit(model, batches, loss_of, lr=5e-3)


class _Neighbours(nn.Module):
    """Two graph convolutions with dropout; each vertex counts among its own neighbours."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, width), nn.Linear(width, 10)
        self.drop = nn.Dropout(0.3)

    def forward(self, vertices: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        x = (share @ self.first(self.drop(vertices))).relu()
        return share @ self.second(self.drop(x))


def one_graph_with_few_labels(lab: Lab) -> None:
    """Digits are joined to those that look alike; the whole graph is every batch, and one label in eight is known."""
    x, y = data.pixels()
    x, y = x[:320], y[:320]
    nearest = torch.cdist(x, x).topk(6, largest=False).indices
    near = torch.zeros(320, 320).scatter(1, nearest, 1.0)
    near = (near + near.T).clamp(max=1)
    root = near.sum(1).rsqrt()
    share, known = root[:, None] * near * root, torch.arange(320) % 8 == 0
    model = _Neighbours()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2, weight_decay=5e-4)
    wanted = y.masked_fill(~known, -100)
    lab.fit(
        model, lambda _: (x, share, wanted),
        lambda x, share, wanted: F.cross_entropy(model(x, share), wanted, ignore_index=-100), optimizer,
    )  # fmt: skip


class _Adder(nn.Module):
    """Adds the marked numbers of a row ``(batch, time, 2)``."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.read, self.head = nn.LSTM(2, width, batch_first=True), nn.Linear(width, 1)

    def forward(self, row: torch.Tensor) -> torch.Tensor:
        return self.head(self.read(row)[0][:, -1])[:, 0]


def longer_and_longer_rows(lab: Lab) -> None:
    """A recurrent net adds the marked numbers of rows of four, then seven, then ten: the loss jumps, and falls."""
    model = _Adder()

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(number)
        length = 4 if number < 80 else 7 if number < 160 else 10
        row = torch.rand(48, length, generator=generator)
        marks = (torch.rand(48, length, generator=generator) < 0.5).float()
        return torch.stack([row, marks], dim=2), (row * marks).sum(1)

    replace(lab, steps=240).fit(model, batches, lambda row, total: F.mse_loss(model(row), total), lr=1e-2)


def views_against_a_queue(lab: Lab) -> None:
    """Noisy views of a digit shall be alike, and unlike a queue of 512 earlier ones, made by a slow copy of the net."""
    net = mlp(64, 48, 24)
    slow = deepcopy(net).requires_grad_(False)
    queue = F.normalize(torch.randn(512, 24), dim=1)
    draw = data.draw(data.pixels())

    def loss_of(view: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        nonlocal queue
        code, key = F.normalize(net(view), dim=1), F.normalize(slow(other), dim=1)
        scores = torch.cat([(code * key).sum(1, keepdim=True), code @ queue.T], dim=1)
        queue = torch.cat([key, queue])[:512]
        return F.cross_entropy(scores / 0.2, torch.zeros(len(view), dtype=torch.long))

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        x, _ = draw(number)
        return x + 0.3 * torch.randn_like(x), x + 0.3 * torch.randn_like(x)

    def follow(_: int) -> None:
        with torch.no_grad():
            for copy, weight in zip(slow.parameters(), net.parameters(), strict=True):
                copy.lerp_(weight, 0.05)

    model = nn.ModuleDict({"net": net, "slow": slow})
    lab.fit(model, batches, loss_of, torch.optim.Adam(net.parameters(), 3e-3), after=follow)


class _Duel(nn.Module):
    """How good a place is, and how much better or worse than that each of four pushes."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.place, self.push = nn.Linear(width, 1), nn.Linear(width, 4)

    def forward(self, place: torch.Tensor) -> torch.Tensor:
        x = self.trunk(place)
        gain = self.push(x)
        return self.place(x) + gain - gain.mean(1, keepdim=True)


PUSHES = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])


def duelling_values_and_a_slow_copy(lab: Lab) -> None:
    """Double Q-learning with duelling heads: a slow copy judges the push that the net would choose next."""
    net = _Duel()
    slow = deepcopy(net).requires_grad_(False)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    lab.recorder.watch({"net": net, "slow": slow}, optimizer)
    for number in range(200):
        generator = torch.Generator().manual_seed(number)
        place = 2 * torch.rand(96, 2, generator=generator) - 1
        push = torch.randint(4, (96, 1), generator=generator)
        onwards = (place + 0.4 * PUSHES[push[:, 0]]).clamp(-1, 1)
        there = (onwards.norm(dim=1) < 0.3).float()
        with lab.recorder.step("train"):
            with torch.no_grad():
                next_push = net(onwards).argmax(1, keepdim=True)
                wanted = there - 0.1 + 0.9 * slow(onwards).gather(1, next_push)[:, 0] * (1 - there)
            descend(F.smooth_l1_loss(net(place).gather(1, push)[:, 0], wanted), optimizer)
        with torch.no_grad():
            for copy, weight in zip(slow.parameters(), net.parameters(), strict=True):
                copy.lerp_(weight, 0.1)


class _Dictation(nn.Module):
    """Writes the letters of a word in alphabetical order, from what it wrote or what it should have written."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.embed, self.read = nn.Embedding(12, 24), nn.GRU(24, width, batch_first=True)
        self.write, self.head = nn.GRUCell(24, width), nn.Linear(width, 12)

    def forward(self, word: torch.Tensor, wanted: torch.Tensor, own: float) -> torch.Tensor:
        _, last = self.read(self.embed(word))
        state, letter = last[0], torch.full((len(word),), 11)
        scores = []
        for right in wanted.unbind(1):
            state = self.write(self.embed(letter), state)
            scores.append(self.head(state))
            guess = torch.rand(len(word)) < own
            letter = torch.where(guess, scores[-1].detach().argmax(1), right)
        return torch.stack(scores, dim=1)


def sorted_letters_with_ends_and_padding(lab: Lab) -> None:
    """Words of two to six letters are sorted; the end is learned, padding is not; guesses slowly replace the truth."""
    model = _Dictation()

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(number)
        length = torch.randint(2, 7, (32, 1), generator=generator)
        word = torch.randint(1, 10, (32, 6), generator=generator).masked_fill(torch.arange(6) >= length, 10)
        order = F.pad(word.sort(1).values, (0, 1), value=10)  # 10 is the end, and 0 is padding
        return word, order.masked_fill(torch.arange(7) > length, 0), torch.tensor(min(number / 400, 0.5))

    def loss_of(word: torch.Tensor, wanted: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        scores = model(word, wanted, float(own))
        return F.cross_entropy(scores.flatten(0, 1), wanted.flatten(), ignore_index=0)

    replace(lab, steps=220).fit(model, batches, loss_of, lr=1e-2)
