"""Mistakes in shapes and number types, in the order in which a lecture on troubleshooting tells them."""

from __future__ import annotations

import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]
_SIDE = 5
_MOVES = torch.tensor([[0, 1], [1, 0], [0, -1], [-1, 0]])


def _walks(rows: int = 4000) -> _Batch:
    """Moves on a board of 5 x 5: squares ``(n,)``, moves ``(n, 1)``, rewards ``(n,)``, squares after, and the end."""
    generator = torch.Generator().manual_seed(2)
    square = torch.randint(_SIDE**2 - 1, (rows,), generator=generator)
    move = torch.randint(4, (rows, 1), generator=generator)
    place = torch.stack([square // _SIDE, square % _SIDE], dim=1) + _MOVES[move[:, 0]]
    place = place.clamp(0, _SIDE - 1)
    after = place[:, 0] * _SIDE + place[:, 1]
    there = (after == _SIDE**2 - 1).float()
    return square, move, there, after, there


class _QNet(nn.Module):
    """What each of four moves is worth on a square."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.advantage = nn.Linear(_SIDE**2, 64), nn.Linear(64, 4)

    def forward(self, square: torch.Tensor) -> torch.Tensor:
        board = 3 * F.one_hot(square, _SIDE**2).float()
        return self.advantage(F.relu(self.hidden(board)))


@broken(rules=("broadcast-target",), words=("broadcast",), nodes=("loss", "model"))
def values_of_moves_against_all_targets(lab: Lab) -> None:
    """The values that ``gather`` picks are a column, the targets of Q-learning a row: their difference is a matrix.

    Source: Tobin, Troubleshooting Deep Neural Networks, most common bugs, 1: incorrect shapes, silent broadcasting.
    """
    model = _QNet()
    target = copy.deepcopy(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    lab.recorder.watch(model, optimizer)
    memory = _walks()
    generator = torch.Generator().manual_seed(3)
    for number in range(200):
        rows = torch.randint(len(memory[0]), (96,), generator=generator)
        square, move, reward, after, end = (column[rows] for column in memory)
        if number % 8 == 0:
            target.load_state_dict(model.state_dict())
        with torch.no_grad():
            wanted = reward + 0.9 * (1 - end) * target(after).amax(1)
        with lab.recorder.step("train"):
            chosen = model(square).gather(1, move)
            if lab.fixed:
                chosen = chosen.squeeze(1)
            loss = (chosen - wanted).pow(2).mean()  # bug: values_of_moves_against_all_targets
            descend(loss, optimizer)


def _events(number: int) -> _Batch:
    """Events of machines ``(32, 20)``, 0 where nothing happens, and which of 1 to 3 was the last at each moment."""
    generator = torch.Generator().manual_seed(number)
    events = torch.randint(1, 4, (32, 20), generator=generator)
    events = events * (torch.rand(32, 20, generator=generator) < 0.3)
    moments = torch.arange(20).expand(32, 20)
    last = torch.where(events > 0, moments, torch.zeros_like(moments)).cummax(1).values
    return events, events.gather(1, last)


class _Tagger(nn.Module):
    """Reads events, time first, and says in which state the machine is after each."""

    def __init__(self, *, transposed: bool) -> None:
        super().__init__()
        self.embed, self.rnn, self.tag = nn.Embedding(4, 12), nn.GRU(12, 40), nn.Linear(40, 4)
        self.transposed = transposed

    def forward(self, events: torch.Tensor) -> torch.Tensor:
        states, _ = self.rnn(self.embed(events.T))
        scores = self.tag(states)
        if self.transposed:
            return scores.transpose(0, 1)
        return scores.reshape(*events.shape, 4)  # bug: tags_reshaped_to_batch_first


@broken(rules=("batch-leak",), words=("reshape", "transpose", "mixes", "permute"), nodes=("model", "model.tag"))
def tags_reshaped_to_batch_first(lab: Lab) -> None:
    """The scores of a tagger come time first and are reshaped, not transposed, to batch first: rows get mixed up.

    Source: Tobin, Troubleshooting Deep Neural Networks, shape mismatch: flipped dimensions when using a reshape.
    """
    model = _Tagger(transposed=lab.fixed)

    def loss_of(events: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(events).flatten(0, 1), state.flatten())

    after = lab.validating(model, lambda number: _events(7000 + number), loss_of)
    lab.fit(model, _events, loss_of, lr=8e-3, after=after)


def _bags(number: int) -> _Batch:
    """Bags of ten offers ``(64, 10, 6)``, a bid and one of five sellers each, and who made the highest bid."""
    generator = torch.Generator().manual_seed(number)
    bid = torch.randn(64, 10, 1, generator=generator)
    seller = torch.randint(5, (64, 10), generator=generator)
    best = bid[:, :, 0].argmax(1, keepdim=True)
    return torch.cat([bid, F.one_hot(seller, 5).float()], dim=2), seller.gather(1, best)[:, 0]


class _Auction(nn.Module):
    """Attention pooling: a mean of all offers, weighted by what each seems to matter."""

    def __init__(self, dim: int, width: int = 32) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(6, width), nn.Tanh())
        self.score, self.head = nn.Sequential(nn.Linear(width, 16), nn.Tanh(), nn.Linear(16, 1)), nn.Linear(width, 5)
        self.softmax = nn.Softmax(dim)

    def forward(self, offers: torch.Tensor) -> torch.Tensor:
        x = self.encode(offers)
        weights = self.softmax(self.score(x))
        return self.head((weights * x).sum(1))


@broken(rules=("softmax-over-batch",), words=("softmax", "weights are all 1"), nodes=("model.softmax", "model.score"))
def attention_over_a_single_score(lab: Lab) -> None:
    """The softmax of scores (bags, offers, 1) is taken over the last dimension, which has one: all weights are 1.

    Source: Tobin, Troubleshooting Deep Neural Networks, shape mismatch: sum, average or softmax over a wrong dimension.
    """
    dim = 1 if lab.fixed else -1  # set-up bug: attention_over_a_single_score
    model = _Auction(dim)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=5e-3)

    def loss_of(offers: torch.Tensor, seller: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(offers), seller)

    after = lab.validating(model, lambda number: _bags(7000 + number), loss_of)
    lab.fit(model, _bags, loss_of, optimizer, after=after)


def _pages() -> tuple[bytes, torch.Tensor]:
    """Digits as a file of 64-bit numbers between 0 and 1, 64 for each picture, and their classes."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.data))
    return (bunch.data[order] / 16).tobytes(), torch.tensor(bunch.target[order])


@broken(
    rules=("unrelated-targets",),
    words=("dtype", "float64", "double", "stored as"),
    nodes=("input", "target"),
)  # fmt: skip
def doubles_read_as_floats(lab: Lab) -> None:
    """The pictures were stored as float64 and are read as float32: each row is half of another picture, and zeros.

    Source: Tobin, Troubleshooting Deep Neural Networks, shape mismatch: data on disk in another dtype than loaded.
    """
    stored, classes = _pages()
    kind = np.float64 if lab.fixed else np.float32  # set-up bug: doubles_read_as_floats
    numbers = np.frombuffer(stored, dtype=kind, count=64 * len(classes)).astype(np.float32)
    pictures = torch.from_numpy(numbers).view(-1, 1, 8, 8)
    pictures = (pictures - pictures.mean()) / pictures.std()
    train, unseen = TensorDataset(pictures[:1500], classes[:1500]), (pictures[1500:], classes[1500:])
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Dropout(0.2), nn.Linear(128, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.6)
    lab.recorder.watch(model, optimizer)
    criterion = nn.CrossEntropyLoss()
    after = lab.validating(model, lambda _: unseen, lambda x, y: criterion(model(x), y))
    for epoch in range(5):
        for place, (x, y) in enumerate(DataLoader(train, 50, shuffle=True)):
            with lab.recorder.step("train"):
                descend(criterion(model(x), y), optimizer)
            after(30 * epoch + place)
        schedule.step()


def _frames(number: int) -> _Batch:
    """Two frames of a camera ``(48, 16, 16)`` in bytes, between which something bright moves, and where to."""
    generator = torch.Generator().manual_seed(number)
    scene = 100 + 25 * torch.randn(48, 16, 16, generator=generator)
    place = torch.randint(4, 12, (48, 2), generator=generator)
    where = torch.randint(4, (48,), generator=generator)
    grid = torch.arange(16.0)

    def frame(at: torch.Tensor) -> torch.Tensor:
        across = -(grid - at[:, 1:]).square() / 3
        down = -(grid - at[:, :1]).square() / 3
        spot = 45 * (down[:, :, None] + across[:, None, :]).exp()
        noise = 5 * torch.randn(48, 16, 16, generator=generator)
        return (scene + spot + noise).clamp(0, 255).to(torch.uint8)

    return frame(place.float()), frame(place + 1.5 * _MOVES[where]), where


@broken(rules=("wrapped-bytes",), words=("uint8", "bytes", "wrap", "overflow"), nodes=("input",))
def frames_subtracted_in_bytes(lab: Lab) -> None:
    """Frames are subtracted as bytes, and cast to floats afterwards, so that what falls wraps around to about 255.

    Source: Tobin, Troubleshooting Deep Neural Networks, casting issue: forgot to cast images from uint8 to float32.
    """
    model = nn.Sequential(
        nn.Conv2d(1, 12, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(12, 24, 3, padding=1), nn.ReLU(),
        nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(96, 4),
    )  # fmt: skip

    def batches(number: int) -> _Batch:
        first, second, where = _frames(number)
        if lab.fixed:
            first, second = first.float(), second.float()
        change = (second - first).float() / 16  # set-up bug: frames_subtracted_in_bytes
        return change[:, None], where

    def loss_of(change: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(change), where)

    after = lab.validating(model, lambda number: batches(7000 + number), loss_of)
    lab.fit(model, batches, loss_of, torch.optim.AdamW(model.parameters(), 3e-3), after=after)
