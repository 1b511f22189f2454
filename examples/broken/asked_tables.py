"""Mistakes in trainings on clicks, facts, molecules and series that somebody asked about."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]
_INCOME, _SECONDS = (30_000.0, 9_000.0), (250.0, 90.0)


def _visits(number: int) -> _Batch:
    """What is known of visits: three categories ``(128, 3)``, age, income and seconds ``(128, 3)``; and who clicked."""
    generator = torch.Generator().manual_seed(number)
    tastes = torch.randn(3, 8, generator=torch.Generator().manual_seed(8))
    kinds = torch.randint(8, (128, 3), generator=generator)
    numbers = torch.randn(128, 3, generator=generator)
    liking = tastes[torch.arange(3), kinds].sum(1) + numbers[:, 0] * tastes[0, kinds[:, 0]] + numbers[:, 2]
    age = 40 + 12 * numbers[:, 0]
    raw = torch.stack([age, _INCOME[0] + _INCOME[1] * numbers[:, 1], _SECONDS[0] + _SECONDS[1] * numbers[:, 2]], 1)
    return kinds, raw, (torch.rand(128, generator=generator) < torch.sigmoid(2 * liking)).float()


class _DeepFM(nn.Module):
    """Factorisation machine and layers over one table of vectors; numbers multiply the vectors of their fields."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.vectors, self.weights = nn.Embedding(27, width), nn.Embedding(27, 1)
        nn.init.normal_(self.vectors.weight, std=0.1)
        nn.init.zeros_(self.weights.weight)
        self.deep = nn.Sequential(nn.Linear(6 * width, 48), nn.ReLU(), nn.Linear(48, 24), nn.ReLU(), nn.Linear(24, 1))

    def forward(self, kinds: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        fields = torch.cat([kinds + 8 * torch.arange(3), torch.arange(24, 27).expand(len(kinds), 3)], dim=1)
        values = torch.cat([torch.ones_like(numbers), numbers], dim=1)[:, :, None]
        vectors = self.vectors(fields) * values
        linear = (self.weights(fields) * values).sum((1, 2))
        pairs = 0.5 * (vectors.sum(1).square() - vectors.square().sum(1)).sum(1)
        return linear + pairs + self.deep(vectors.flatten(1)).squeeze(1)


@broken(
    rules=("extreme-features", "input-scale"), words=("standardis", "normalis", "scale of the input", "scaled"),
    nodes=("input", "model.vectors", "model"),
)  # fmt: skip
def incomes_beside_categories(lab: Lab) -> None:
    """The numeric fields of a click model, of which income is in the ten thousands, go in as they are, not normalised.

    Source: ChenglongChen/tensorflow-DeepFM issue 47, AUC is always 0.5, continuous features need normalising.
    """
    model = _DeepFM()
    mean, deviation = torch.tensor([40.0, _INCOME[0], _SECONDS[0]]), torch.tensor([12.0, _INCOME[1], _SECONDS[1]])

    def batches(number: int) -> _Batch:
        kinds, numbers, clicked = _visits(number)
        if lab.fixed:
            numbers = (numbers - mean) / deviation  # set-up bug: incomes_beside_categories
        return kinds, numbers, clicked

    def loss_of(kinds: torch.Tensor, numbers: torch.Tensor, clicked: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(model(kinds, numbers), clicked)

    after = lab.validating(model, lambda number: batches(9000 + number), loss_of)
    lab.fit(model, batches, loss_of, lr=1e-2, after=after)


class _TransE(nn.Module):
    """Entities and relations as vectors: head plus relation shall be near tail."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.entities, self.relations = nn.Embedding(64, width), nn.Embedding(4, width)
        for table in (self.entities, self.relations):
            nn.init.uniform_(table.weight, -6 / width**0.5, 6 / width**0.5)
        self.normalise()

    @torch.no_grad()
    def normalise(self) -> None:
        self.entities.weight.copy_(F.normalize(self.entities.weight))

    def forward(self, head: torch.Tensor, relation: torch.Tensor, tail: torch.Tensor) -> torch.Tensor:
        return (self.entities(head) + self.relations(relation) - self.entities(tail)).abs().sum(1)


def _facts(number: int) -> _Batch:
    """Who is a neighbour of whom, and on which side, on a ring of 8 times 8 places; and a wrong neighbour of each."""
    generator = torch.Generator().manual_seed(number)
    head, relation = torch.randint(64, (64,), generator=generator), torch.randint(4, (64,), generator=generator)
    row, column = head // 8, head % 8
    down, right = torch.tensor([1, -1, 0, 0])[relation], torch.tensor([0, 0, 1, -1])[relation]
    tail = (row + down) % 8 * 8 + (column + right) % 8
    wrong = (tail + torch.randint(1, 64, (64,), generator=generator)) % 64
    return head, relation, tail, wrong


@broken(
    rules=("learning-rate",), words=("learning rate", "step size"),
    nodes=("model.entities.weight", "model.relations.weight"),
)  # fmt: skip
def updates_not_multiplied_by_the_rate(lab: Lab) -> None:
    """The updates of a hand-written TransE subtract the gradients as they are, not multiplied by the learning rate.

    Source: wuxiyu/transE issue 15, loss does not decrease, multiply by the learning rate when vectors are updated.
    """
    model, rate = _TransE(), 0.01
    lab.recorder.watch(model)

    def loss_of(head: torch.Tensor, relation: torch.Tensor, tail: torch.Tensor, wrong: torch.Tensor) -> torch.Tensor:
        return F.relu(1 + model(head, relation, tail) - model(head, relation, wrong)).sum()

    for number in range(200):
        facts = _facts(number)
        with lab.recorder.step("train"):
            model.zero_grad()
            loss = loss_of(*facts)
            loss.backward()
            with torch.no_grad():
                for vectors in model.parameters():
                    assert vectors.grad is not None
                    change = rate * vectors.grad if lab.fixed else vectors.grad
                    vectors.sub_(change)  # bug: updates_not_multiplied_by_the_rate
            model.normalise()
        lab.validate(lambda n: _facts(9000 + n), loss_of, number)


_REFERENCE = torch.tensor([-13.6, -1029.0, -1485.0, -2042.0])
"""The energies of single atoms: hydrogen, carbon, nitrogen, oxygen, in electron volts."""


def _molecules(number: int, *, total: bool) -> _Batch:
    """Kinds ``(32, 9)`` and places ``(32, 9, 3)`` of atoms, and the energies of the molecules ``(32,)``."""
    generator = torch.Generator().manual_seed(number)
    kinds = torch.randint(4, (32, 9), generator=generator)
    places = 1.5 * torch.randn(32, 9, 3, generator=generator)
    strength = torch.tensor([0.2, 0.6, 1.0, 0.4])[kinds]
    near = torch.exp(-torch.cdist(places, places).square() / 2) * (1 - torch.eye(9))
    energy = -(strength[:, :, None] * strength[:, None] * near).sum((1, 2))
    return kinds, places, energy + _REFERENCE[kinds].sum(1) if total else energy


class _Messages(nn.Module):
    """Atoms tell each other what they are, by their distance; each adds its energy."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.atoms = nn.Embedding(4, width)
        self.filters = nn.ModuleList(
            nn.Sequential(nn.Linear(8, width), nn.SiLU(), nn.Linear(width, width)) for _ in "ab"
        )
        self.updates = nn.ModuleList(nn.Sequential(nn.Linear(width, width), nn.SiLU()) for _ in "ab")
        self.energy = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))

    def forward(self, kinds: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        apart = torch.cdist(places, places)[..., None]
        shells = torch.exp(-2 * (apart - torch.linspace(0, 4, 8)).square()) * (1 - torch.eye(9))[..., None]
        x = self.atoms(kinds)
        for weigh, update in zip(self.filters, self.updates, strict=True):
            x = x + update((weigh(shells) * x[:, None]).sum(2) / 3)
        return self.energy(x).sum((1, 2))


@broken(
    rules=("target-scale",), words=("reference", "offset", "scale of the target", "mean of the target", "standardis"),
    nodes=("target", "loss"),
)  # fmt: skip
def energies_of_single_atoms_left_in(lab: Lab) -> None:
    """The net shall tell total energies, ten thousands in which the atoms' own, that are known, were not subtracted.

    Source: torchmd/torchmd-net issue 344, MACEOFF contains total energies, needs ``remove_ref_energy``, losses diverge.
    """
    model = _Messages()
    total = not lab.fixed  # set-up bug: energies_of_single_atoms_left_in

    def loss_of(kinds: torch.Tensor, places: torch.Tensor, energy: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(kinds, places), energy)

    after = lab.validating(model, lambda number: _molecules(9000 + number, total=total), loss_of)
    lab.fit(model, lambda number: _molecules(number, total=total), loss_of, lr=3e-3, after=after)


_CARS = (310.0, 140.0)


def _traffic(number: int) -> _Batch:
    """Cars an hour at a crossing: sixteen hours ``(32, 16)``, and the four that follow ``(32, 4)``, as counted."""
    generator = torch.Generator().manual_seed(number)
    begin, weekly = 24 * torch.rand(32, 1, generator=generator), torch.rand(32, 1, generator=generator)
    hour = begin + torch.arange(20.0)
    wave = (0.26 * hour).sin() + (0.6 * weekly + 0.3) * (0.52 * hour + 3 * weekly).cos()
    cars = _CARS[0] + _CARS[1] * (wave + 0.1 * torch.randn(32, 20, generator=generator))
    return cars[:, :16], cars[:, 16:]


@broken(
    rules=("target-scale",), words=("scale", "unscaled", "units", "validation target", "normalis"),
    nodes=("target", "loss", "prediction"),
)  # fmt: skip
def scaled_forecast_against_real_counts(lab: Lab) -> None:
    """The validation compares scaled forecasts with counts as they are, hardly changes, and stops the training early.

    Source: Nixtla/neuralforecast pull request 720, validation loss compared scaled predictions with real values.
    """
    model = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)
    lab.recorder.watch(model, optimizer)

    def scaled(cars: torch.Tensor) -> torch.Tensor:
        return (cars - _CARS[0]) / _CARS[1]

    best, since = float("inf"), 0
    for number in range(280):
        past, following = _traffic(number)
        with lab.recorder.step("train"):
            descend(F.mse_loss(model(scaled(past)), scaled(following)), optimizer)
        if number % 10 == 9:
            past, following = _traffic(9000)
            with torch.no_grad(), lab.recorder.step("validation") as step:
                truth = scaled(following) if lab.fixed else following
                error = F.mse_loss(model(scaled(past)), truth)  # set-up bug: scaled_forecast_against_real_counts
                step.record("loss", error, type="loss")
            best, since = (error.item(), 0) if error < 0.99 * best else (best, since + 1)
            if since == 3:
                break


def _prices(number: int) -> _Batch:
    """Prices of shares, standardised: those of twelve days and those of the next four ``(32, 16, 1)``."""
    generator = torch.Generator().manual_seed(number)
    season, phase = 0.3 + 0.3 * torch.rand(32, 1, generator=generator), 6.3 * torch.rand(32, 1, generator=generator)
    days = torch.arange(16.0)
    trend = 0.1 * torch.randn(32, 1, generator=generator) * (days - 8)
    return ((season * days + phase).sin() + trend)[:, :12, None], ((season * days + phase).sin() + trend)[:, 11:, None]


class _Series(nn.Module):
    """A transformer that reads the past, and is given the days before the one that it shall say."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.enter, self.places = nn.Linear(1, width), nn.Parameter(0.2 * torch.randn(16, width))
        self.body = nn.Transformer(width, 4, 1, 1, 64, dropout=0.0, batch_first=True)
        self.leave = nn.Linear(width, 1)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(4))

    def forward(self, past: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        source, target = self.enter(past) + self.places[:12], self.enter(before) + self.places[12:]
        return self.leave(self.body(source, target, tgt_mask=self.mask))


@broken(
    rules=("accumulated-gradients",), words=("zero_grad", "cleared", "accumulat"),
    nodes=("model.enter.weight", "model.leave.weight", "model.body"),
)  # fmt: skip
def gradients_of_all_days_add_up(lab: Lab) -> None:
    """The loop around a transformer for prices has no ``zero_grad``, so that each step adds to all gradients before.

    Source: KasperGroesLudvigsen/influenza_transformer issue 13, does not converge, clear the gradients of each step.
    """
    model = _Series()
    criterion, optimizer = nn.MSELoss(), torch.optim.Adam(model.parameters(), lr=3e-3)
    lab.recorder.watch(model, optimizer)

    def loss_of(past: torch.Tensor, days: torch.Tensor) -> torch.Tensor:
        return criterion(model(past, days[:, :-1]), days[:, 1:])

    for number in range(150):
        past, days = _prices(number)
        with lab.recorder.step("train"):
            if lab.fixed:
                optimizer.zero_grad()
            loss = loss_of(past, days)
            loss.backward()  # bug: gradients_of_all_days_add_up
            optimizer.step()
        lab.validate(lambda n: _prices(9000 + n), loss_of, number)
