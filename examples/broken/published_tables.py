"""Mistakes in nets for rows of numbers, from the published collections of faulty training programs."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]
_Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _epochs(lab: Lab, model: nn.Module, train: _Batch, unseen: _Batch, criterion: _Loss, rate: float) -> None:
    """Shuffled epochs with Adam until the steps are done, and validations on what is unseen."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda _: unseen, lambda x, y: criterion(model(x), y))
    loader = DataLoader(TensorDataset(*train), batch_size=64, shuffle=True, drop_last=True)
    number = 0
    while number < lab.steps:
        for x, y in loader:
            if number == lab.steps:
                break
            with lab.recorder.step("train"):
                loss = criterion(model(x), y)
                descend(loss, optimizer)
            after(number)
            number += 1


def _transmissions(rows: int, seed: int) -> _Batch:
    """Words of eight bits, each sent three times, as they arrive with noise ``(rows, 24)``, and as they were sent."""
    generator = torch.Generator().manual_seed(seed)
    sent = torch.randint(2, (rows, 8), generator=generator).float()
    arrived = (2 * sent - 1).repeat(1, 3) + 0.8 * torch.randn(rows, 24, generator=generator)
    return arrived, sent


@broken(
    rules=("unrelated-targets",),
    words=("shuffled", "mismatch", "nothing to do with", "do not belong", "permut"),
    nodes=("target",),
)
def words_shuffled_after_they_were_sent(lab: Lab) -> None:
    """The words that were sent are shuffled by themselves, so that they no longer belong to what arrived.

    Source: DeepLocalize's benchmark (ICSE 2021), Stack Overflow 39217567, whose patch takes the shuffle of y away.
    """
    arrived, sent = _transmissions(3000, 0)
    if not lab.fixed:
        sent = sent[torch.randperm(len(sent))]  # set-up bug: words_shuffled_after_they_were_sent
    model = nn.Sequential(nn.Linear(24, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8))
    _epochs(lab, model, (arrived, sent), _transmissions(500, 1), nn.BCEWithLogitsLoss(), 3e-3)


def _pushes(number: int) -> _Batch:
    """What six load cells say ``(32, 6)``, and the three forces that act on the plate ``(32, 3)``; all standardised."""
    generator = torch.Generator().manual_seed(number)
    mixing = torch.randn(6, 3, generator=torch.Generator().manual_seed(77))
    cells = torch.randn(32, 6, generator=generator)
    forces = cells @ (mixing / mixing.norm(dim=0)) + 0.1 * torch.randn(32, 3, generator=generator)
    return cells, forces


@broken(rules=("learning-rate",), words=("learning rate",), nodes=("model", "model.weight", "model.bias"))
def load_cells_at_the_default_rate(lab: Lab) -> None:
    """A linear calibration is trained briefly by RMSprop at its default of a thousandth, at which it hardly moves.

    Source: DeepFD's benchmark (ICSE 2022), Stack Overflow 51181393, a linear model and the default learning rate.
    """
    model = nn.Linear(6, 3)
    rate = 0.02 if lab.fixed else 0.001  # set-up bug: load_cells_at_the_default_rate
    optimizer = torch.optim.RMSprop(model.parameters(), lr=rate)
    lab.recorder.watch(model, optimizer)
    for number in range(120):
        cells, forces = _pushes(number)
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            loss = F.mse_loss(model(cells), forces)
            loss.backward()
            optimizer.step()
        lab.validate(lambda number: _pushes(5000 + number), lambda x, y: F.mse_loss(model(x), y), number)


def _hillsides(rows: int, seed: int) -> _Batch:
    """Height in metres, rain in millimetres and slope as a ratio ``(rows, 3)``, and whether the ground slid."""
    generator = torch.Generator().manual_seed(seed)
    height, rain, slope = torch.randn(3, rows, generator=generator)
    risk = 3 * slope + 2 * rain * slope - 1.5 * rain.square() + 0.7 * height + 0.5
    slid = torch.rand(rows, generator=generator) < (2 * risk).sigmoid()
    return torch.stack([1800 + 600 * height, 90 + 25 * rain, 0.4 + 0.12 * slope], dim=1), slid.float()[:, None]


@broken(
    rules=("input-scale", "extreme-features"),
    words=("standardis", "different scale", "not scaled", "unscaled", "different size"),
    nodes=("input", "model.hidden"),
)
def hillsides_without_a_scaler(lab: Lab) -> None:
    """The lines that standardise were commented out: heights of thousands of metres stand beside slopes below one.

    Source: DeepLocalize's benchmark (ICSE 2021), Stack Overflow 39525358, whose patch puts the scaler back in.
    """
    x, y = _hillsides(2400, 0)
    unseen_x, unseen_y = _hillsides(600, 1)
    if lab.fixed:
        mean, deviation = x.mean(0), x.std(0)
        x, unseen_x = (x - mean) / deviation, (unseen_x - mean) / deviation  # set-up bug: hillsides_without_a_scaler
    model = nn.Sequential()
    model.add_module("hidden", nn.Linear(3, 24))
    model.add_module("first", nn.ReLU())
    model.add_module("narrow", nn.Linear(24, 12))
    model.add_module("second", nn.ReLU())
    model.add_module("out", nn.Linear(12, 1))
    _epochs(lab, model, (x, y), (unseen_x, unseen_y), nn.BCEWithLogitsLoss(), 8e-3)


def _packets(rows: int, seed: int) -> _Batch:
    """Eleven standardised facts of packets ``(rows, 11)``, and whether they belong to an attack, a third of them."""
    generator = torch.Generator().manual_seed(seed)
    attack = torch.rand(rows, 1, generator=generator) < 1 / 3
    pattern = torch.randn(11, generator=torch.Generator().manual_seed(9))
    facts = torch.randn(rows, 11, generator=generator) + attack * pattern
    facts[:, 0] *= torch.where(attack[:, 0], 2.0, 1.0)
    return facts, attack.float()


class _Watchman(nn.Module):
    """Two hidden layers beside a linear path, which add up to one score."""

    def __init__(self) -> None:
        super().__init__()
        self.deep = nn.Sequential(nn.Linear(11, 24), nn.ReLU(), nn.Linear(24, 12), nn.ReLU(), nn.Linear(12, 1))
        self.wide = nn.Linear(11, 1)
        self.score: nn.Module = nn.Identity()

    def forward(self, facts: torch.Tensor) -> torch.Tensor:
        return self.score(self.deep(facts) + self.wide(facts))


@broken(
    rules=("half-sigmoid", "unreachable-targets", "activation-before-loss"),
    words=("rectif", "below zero", "cannot be negative", "never negative"),
    nodes=("model.score", "model", "prediction"),
)
def attacks_scored_through_a_rectifier(lab: Lab) -> None:
    """The score of an attack goes through a ReLU, so that nothing can be less likely an attack than one half.

    Source: DeepLocalize's benchmark (ICSE 2021), Stack Overflow 44066044, ReLU behind the last layer.
    """
    model = _Watchman()
    if not lab.fixed:
        model.score = nn.ReLU()  # set-up bug: attacks_scored_through_a_rectifier
    _epochs(lab, model, _packets(3000, 0), _packets(600, 1), nn.BCEWithLogitsLoss(), 5e-3)


def _sums(number: int) -> _Batch:
    """Two numbers of four bits, with a little noise ``(64, 8)``, and the five bits of their sum ``(64, 5)``."""
    generator = torch.Generator().manual_seed(number)
    numbers = torch.randint(16, (2, 64), generator=generator)
    bits = torch.cat([numbers[0, :, None] >> torch.arange(4), numbers[1, :, None] >> torch.arange(4)], dim=1) & 1
    total = (numbers.sum(0)[:, None] >> torch.arange(5)) & 1
    return 2.0 * bits - 1 + 0.05 * torch.randn(64, 8, generator=generator), total.float()


@broken(
    rules=("several-labels",),
    words=("softmax", "several labels", "one class", "exclu"),
    nodes=("target", "loss", "prediction"),
)
def bits_of_a_sum_compete(lab: Lab) -> None:
    """Any of the five bits of a sum can be one, yet the cross-entropy puts a softmax over them, as over classes.

    Source: DeepFD's benchmark (ICSE 2022), Stack Overflow 56380303, softmax and cross-entropy for a row of bits.
    """
    model = nn.Sequential(nn.Linear(8, 128), nn.Tanh(), nn.Linear(128, 128), nn.Tanh(), nn.Linear(128, 5))
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200)
    lab.recorder.watch(model, optimizer)
    for number in range(200):
        numbers, total = _sums(number)
        with lab.recorder.step("train"):
            scores = model(numbers)
            judge = F.binary_cross_entropy_with_logits if lab.fixed else F.cross_entropy
            loss = judge(scores, total)  # bug: bits_of_a_sum_compete
            descend(loss, optimizer)
        schedule.step()


def _offers(number: int) -> _Batch:
    """Facts of visitors ``(96, 10)`` and of offers ``(96, 8)``, and whether the one took the other ``(96,)``."""
    generator, taste = torch.Generator().manual_seed(number), torch.Generator().manual_seed(31)
    visitors, offers = torch.randn(96, 10, generator=generator), torch.randn(96, 8, generator=generator)
    likes, looks = torch.randn(10, 3, generator=taste) / 10**0.5, torch.randn(8, 3, generator=taste) / 8**0.5
    fit = 2.5 * ((visitors @ likes) * (offers @ looks)).sum(1)
    return visitors, offers, (torch.rand(96, generator=generator) < fit.sigmoid()).float()


class _Match(nn.Module):
    """The product of a visitor's vector and an offer's, each a linear map of its facts."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.visitor = nn.Parameter(torch.zeros(10, width))
        self.offer = nn.Parameter(torch.zeros(8, width))
        self.bias = nn.Parameter(torch.zeros(()))

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.visitor, gain=0.5)
        nn.init.xavier_uniform_(self.offer, gain=0.5)

    def forward(self, visitors: torch.Tensor, offers: torch.Tensor) -> torch.Tensor:
        return ((visitors @ self.visitor) * (offers @ self.offer)).sum(1) + self.bias


@broken(
    rules=("weight-scale",),
    words=("initialis", "start at zero", "starts at zero", "zero weights"),
    nodes=("model", "model.visitor", "model.offer"),
)
def match_that_nobody_initialised(lab: Lab) -> None:
    """Nobody calls ``reset_parameters``, and both matrices stay zero, as the gradient of each is a product with both.

    Source: NeuraLint's rules (TOSEM 2021), parameters should be initialised at the beginning (missing init).
    """
    model = _Match()
    if lab.fixed:
        model.reset_parameters()  # set-up bug: match_that_nobody_initialised
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    lab.recorder.watch(model, optimizer)
    for number in range(240):
        visitors, offers, taken = _offers(number)
        with lab.recorder.step("train"):
            descend(F.binary_cross_entropy_with_logits(model(visitors, offers), taken), optimizer)
