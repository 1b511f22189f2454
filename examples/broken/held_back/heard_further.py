"""Mistakes in agents, validations, borrowed nets and detectors, as users told of them."""

from __future__ import annotations

import copy
import random
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]
_Move = tuple[int, int, float, int, bool]
_MOVES = ((1, 0), (-1, 0), (0, 1), (0, -1))
_GOAL = 24


class _Maze:
    """Five by five fields with six blocks, a goal in the corner, and a start anywhere."""

    def __init__(self, *, fixed: bool) -> None:
        self.dice, self.fixed = random.Random(4), fixed
        self.blocks = self.build()
        self.reset()

    def build(self) -> list[int]:
        """Where the blocks are."""
        return self.dice.sample(range(_GOAL), 6)

    def reset(self) -> None:
        """Begin an episode."""
        self.blocks = self.blocks if self.fixed else self.build()  # bug: maze_rebuilt_at_each_reset
        self.place, self.moves = self.dice.choice([at for at in range(_GOAL) if at not in self.blocks]), 0

    def target(self, place: int, action: int) -> int:
        """Where an action leads: nowhere, if there is a block or the wall."""
        down, right = place // 5 + _MOVES[action][0], place % 5 + _MOVES[action][1]
        inside = 0 <= down < 5 and 0 <= right < 5
        return 5 * down + right if inside and 5 * down + right not in self.blocks else place

    def act(self, action: int) -> _Move:
        """Go on by an action; the episode ends at the goal, or after twenty moves."""
        place, self.place, self.moves = self.place, self.target(self.place, action), self.moves + 1
        done = self.place == _GOAL
        move = (place, action, 1.0 if done else -0.02, self.place, done)
        if done or self.moves == 20:
            self.reset()
        return move


def _missed(net: nn.Module, maze: _Maze, blocks: list[int]) -> torch.Tensor:
    """From which share of the places the greedy agent does not reach the goal in sixteen moves."""
    maze = copy.deepcopy(maze)
    maze.blocks = blocks
    best = net(torch.eye(25)).argmax(1).tolist()
    starts = [place for place in range(_GOAL) if place not in blocks]
    ends = []
    for place in starts:
        for _ in range(16):
            place = place if place == _GOAL else maze.target(place, best[place])
        ends.append(place)
    return torch.tensor([float(end != _GOAL) for end in ends]).mean()


@broken(
    words=("environment", "non-stationary", "transition"),
    nodes=("model", "loss", "input.input"),
)
def maze_rebuilt_at_each_reset(lab: Lab) -> None:
    """The reset of the environment builds another maze, so that no episode's moves lead where they led before.

    Source: myintmyatthein.dev, why my Q-learning agent failed to learn (reset made a new, random GridWorld).
    """
    net = nn.Sequential(nn.Linear(25, 64), nn.ReLU(), nn.Linear(64, 4))
    maze, memory, choice = _Maze(fixed=lab.fixed), list[_Move](), random.Random(1)
    home = _Maze(fixed=True).blocks
    slow, optimizer = copy.deepcopy(net), torch.optim.Adam(net.parameters(), lr=5e-3)
    lab.recorder.watch(net, optimizer)
    for number in range(300):
        with lab.recorder.step("train"):
            greedy = net(torch.eye(25)).argmax(1).tolist()
            for _ in range(24):
                action = choice.randrange(4) if choice.random() < max(0.3, 1 - number / 150) else greedy[maze.place]
                memory.append(maze.act(action))
            here, actions, rewards, there, done = zip(*choice.choices(memory, k=128), strict=True)
            with torch.no_grad():
                future = slow(torch.eye(25)[list(there)]).amax(1) * (1 - torch.tensor(done, dtype=torch.float32))
            values = net(torch.eye(25)[list(here)]).gather(1, torch.tensor(actions)[:, None]).squeeze(1)
            descend(F.smooth_l1_loss(values, torch.tensor(rewards) + 0.9 * future), optimizer)
        with torch.no_grad():
            for kept, new in zip(slow.parameters(), net.parameters(), strict=True):
                kept.lerp_(new, 0.15)
        lab.validate(lambda _: (), lambda: _missed(net, maze, home), number)


@broken(
    rules=("dropout-mode",),
    words=("eval()", "evaluation mode", "training mode", "train mode", "model.eval"),
    nodes=("model", "model.2", "model.5"),
)
def back_to_training_too_soon(lab: Lab) -> None:
    """The model is set back to training before the validation has run, so that units drop out while it is judged.

    Source: pliang279/MultiBench 26, did you forget switch model train/eval state?
    """
    model = nn.Sequential(
        nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 48), nn.ReLU(), nn.Dropout(0.5), nn.Linear(48, 10)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    criterion, batches = nn.CrossEntropyLoss(), data.draw(data.pixels())
    unseen, classes = data.unseen_pixels()
    lab.recorder.watch(model, optimizer)
    for number in range(180):
        x, y = batches(number)
        with lab.recorder.step("train"):
            descend(criterion(model(x), y), optimizer)
        if number % 20 == 19:
            model.eval()
            with torch.no_grad(), lab.recorder.step("validation") as step:
                model.train(not lab.fixed)  # bug: back_to_training_too_soon
                step.record("loss", criterion(model(unseen), classes), type="loss")
            model.train()


def _encoder() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(24, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
    )  # fmt: skip


def _pretrained() -> nn.Sequential:
    """An encoder that has learned to tell digits."""
    encoder, batches = _encoder(), data.draw(data.images())
    model = nn.Sequential(encoder, nn.Linear(128, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for number in range(150):
        x, y = batches(number)
        descend(F.cross_entropy(model(x), y), optimizer)
    return encoder


@broken(
    words=("pretrained", "pre-trained", "checkpoint", "not loaded"),
    nodes=("model.encoder", "model.encoder.0", "model.encoder.2", "model.encoder.5"),
)
def encoder_that_was_never_loaded(lab: Lab) -> None:
    """The encoder is to be finetuned at a low rate, but starts from random weights, as the trained ones are not loaded.

    Source: pkuCactus/BDCN 42, output pure gray image (the pretrained VGG16 was not loaded).
    """
    trained, head = _pretrained(), nn.Linear(128, 1)
    encoder = trained if lab.fixed else _encoder()  # set-up bug: encoder_that_was_never_loaded
    model = nn.Sequential(OrderedDict(encoder=encoder, head=head))
    loops = torch.tensor([1.0, 0, 0, 0, 0, 0, 1, 0, 1, 1])
    pictures, labels = data.images()
    known, (unseen, others) = (pictures[:80], loops[labels[:80]]), data.unseen_pixels()

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(model(x).squeeze(1), y)

    rates = [{"params": encoder.parameters(), "lr": 1e-4}, {"params": head.parameters(), "lr": 3e-3}]
    after = lab.validating(model, lambda _: (unseen.view(-1, 1, 8, 8), loops[others]), loss_of)
    lab.fit(model, data.draw(known, 32), loss_of, torch.optim.Adam(rates), after=after)


def _traces(number: int) -> _Batch:
    """Traces ``(48, 1, 64)`` with a bump each, and its middle and width as shares of the trace ``(48,)``."""
    generator = torch.Generator().manual_seed(number)
    middle, width = 0.1 + 0.8 * torch.rand(48, generator=generator), 0.08 + 0.17 * torch.rand(48, generator=generator)
    places = (torch.arange(64.0) + 0.5) / 64
    inside = ((places - middle[:, None]).abs() < width[:, None] / 2).float()
    return (1.5 * inside - 0.25 + 0.2 * torch.randn(48, 64, generator=generator))[:, None], middle, width


def _overlap(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Intersection over union of intervals ``(..., 2)``, given as middle and width."""
    low = torch.maximum(one[..., 0] - one[..., 1] / 2, other[..., 0] - other[..., 1] / 2)
    high = torch.minimum(one[..., 0] + one[..., 1] / 2, other[..., 0] + other[..., 1] / 2)
    shared = (high - low).clamp(min=0)
    return shared / (one[..., 1] + other[..., 1] - shared)


def _detector() -> nn.Sequential:
    """Gives each of eight cells the logit of an object, where its middle is, and its width."""
    return nn.Sequential(
        nn.Conv1d(1, 16, 7, stride=2, padding=3), nn.ReLU(), nn.Conv1d(16, 32, 7, stride=2, padding=3), nn.ReLU(),
        nn.Conv1d(32, 32, 7, stride=2, padding=3), nn.ReLU(), nn.Conv1d(32, 3, 3, padding=1),
    )  # fmt: skip


@broken(
    words=("index", "column", "overlap", "intersection over union"),
    nodes=("loss", "objectness_loss", "model.6", "input.target"),
)
def overlap_of_the_wrong_columns(lab: Lab) -> None:
    """The overlap that the objectness is to learn takes score and middle for a box, in the place of middle and width.

    Source: ljbkusters/YOLOv3-1D 42, fix loss function (an indexation error for the box predictions).
    """
    model = _detector()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    lab.recorder.watch(model, optimizer)

    def missed(trace: torch.Tensor, middle: torch.Tensor, width: torch.Tensor) -> torch.Tensor:
        cells = model(trace).sigmoid().transpose(1, 2)
        score, best = cells[..., 0].max(1)
        box = cells[torch.arange(len(trace)), best, 1:]
        box = torch.stack([(best + box[:, 0]) / 8, box[:, 1]], 1)
        return 1 - ((score > 0.5) & (_overlap(box, torch.stack([middle, width], 1)) > 0.5)).float().mean()

    for number in range(240):
        trace, middle, width = _traces(number)
        cell = (8 * middle).long()
        wanted = torch.stack([8 * middle - cell, width], 1)
        with lab.recorder.step("train") as step:
            raw = model(trace).transpose(1, 2)
            there = raw[torch.arange(len(trace)), cell].sigmoid()
            box = there[:, 1:3] if lab.fixed else there[:, 0:2]  # bug: overlap_of_the_wrong_columns
            ends = torch.tensor([1 / 8, 1.0])
            objectness = torch.zeros_like(raw[..., 0])
            objectness[torch.arange(len(trace)), cell] = _overlap(box * ends, wanted * ends).detach()
            first = F.binary_cross_entropy_with_logits(raw[..., 0], objectness)
            second = 5 * (there[:, 1:3] - wanted).square().sum(1).mean()
            step.record("objectness_loss", first, type="loss")
            step.record("box_loss", second, type="loss")
            descend(first + second, optimizer)
        lab.validate(lambda n: _traces(9000 + n), missed, number)
