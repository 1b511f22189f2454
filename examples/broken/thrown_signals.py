"""Mistakes in nets for tables, signals and series, drawn by dice from published collections."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _mixtures(rows: int, seed: int) -> _Batch:
    """Eight standardised shares of a concrete ``(rows, 8)`` and its standardised strength ``(rows, 1)``."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 8, generator=generator)
    strength = x[:, 0] - 0.8 * x[:, 1] + 0.7 * x[:, 2] * x[:, 3] + 0.5 * x[:, 4].abs() - 0.4 + 0.3 * x[:, 5]
    strength = strength + 0.8 * torch.randn(rows, generator=generator)
    return x, strength[:, None] / 1.75


@broken(
    rules=("tiny-batch",),
    words=("batch size", "batch of one", "small batch", "single sample", "tiny batch"),
    nodes=("input", "target", "model"),
)
def strength_from_one_sample_at_a_time(lab: Lab) -> None:
    """Each step of SGD with momentum sees a single row of a noisy table, so that the weights are thrown about.

    Source: AutoTrainer (ICSE 2021), oscillating loss, batch size too small.
    """
    table = TensorDataset(*_mixtures(4800, 1))
    size = 32 if lab.fixed else 1
    loader = DataLoader(table, batch_size=size, shuffle=True)  # set-up bug: strength_from_one_sample_at_a_time
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    criterion = nn.MSELoss()
    lab.recorder.watch(model, optimizer)
    for number, (mixture, strength) in enumerate(loader):
        if number == 150:
            break
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            loss = criterion(model(mixture), strength)
            loss.backward()
            optimizer.step()
        lab.validate(lambda _: _mixtures(1000, 2), lambda x, y: criterion(model(x), y), number)


class _TwoAnswers(nn.Module):
    """One trunk; a head says how large the tumour is, the other whether it is harmless."""

    def __init__(self, *, squash: nn.Module) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(26, 48), nn.ReLU(), nn.Dropout(0.2), nn.Linear(48, 32), nn.ReLU())
        self.size = nn.Linear(32, 1)
        self.harmless = nn.Sequential(nn.Linear(32, 1), squash)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        shared = self.trunk(x)
        return self.size(shared), self.harmless(shared)


@broken(rules=("unreachable-targets", "single-class"), words=("softmax",), nodes=("model.harmless.1", "model.harmless"))
def second_task_answers_with_certainty(lab: Lab) -> None:
    """The head for the yes-or-no task ends with a softmax over its one unit, whose value is one for every patient.

    Source: DeepLocalize's benchmark (ICSE 2021), Stack Overflow 31880720, softmax behind one unit.
    """
    squash = nn.Sigmoid() if lab.fixed else nn.Softmax(dim=1)  # set-up bug: second_task_answers_with_certainty
    model = _TwoAnswers(squash=squash)
    x, y = data.tumours()
    sizes = (0, 2, 3, 23)
    others = [column for column in range(30) if column not in sizes]
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(3))
    facts, size, label = x[order][:, others], x[order, 3:4], y[order, None]
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    lab.recorder.watch(model, optimizer)
    loader = DataLoader(TensorDataset(facts[:440], size[:440], label[:440]), 32, shuffle=True, drop_last=True)
    for _epoch in range(11):
        model.train()
        for facts_now, size_now, label_now in loader:
            with lab.recorder.step("train"):
                guessed, chance = model(facts_now)
                loss = F.mse_loss(guessed, size_now) + F.binary_cross_entropy(chance, label_now)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        model.eval()
        with torch.no_grad(), lab.recorder.step("validation") as step:
            guessed, chance = model(facts[440:])
            both = F.mse_loss(guessed, size[440:]) + F.binary_cross_entropy(chance, label[440:])
            step.record("loss", both, type="loss")


def _vibrations(number: int, rows: int = 32) -> _Batch:
    """Noisy vibrations of a bearing ``(rows, 1, 64)``: smooth, angular or chirping, and which ``(rows,)``."""
    generator = torch.Generator().manual_seed(number)
    kind = torch.randint(3, (rows,), generator=generator)
    speed, phase = torch.rand(2, rows, 1, generator=generator)
    turn = torch.arange(64.0) / 64
    angle = 6.2832 * ((3 + 2 * speed) * turn + phase)
    wave = torch.stack([1.4 * angle.sin(), angle.sin().sign(), 1.4 * (angle + 24 * turn**2).sin()], 1)
    wave = wave[torch.arange(rows), kind]
    return (wave + 0.4 * torch.randn(rows, 64, generator=generator))[:, None], kind


@broken(
    rules=("vanishing-gradient", "fading-signal"),
    words=("batch norm", "batchnorm", "normalisation layer"),
    nodes=("model", "model.0.weight", "model.2.weight", *(f"model.{2 * place}" for place in range(13))),
)
def thirteen_convolutions_bare(lab: Lab) -> None:
    """Thirteen convolutions follow each other without any batch normalisation, so that signals and gradients fade.

    Source: DeepDiagnosis (ICSE 2022), vanishing gradient, missing batch normalisation.
    """
    layers: list[nn.Module] = [nn.Conv1d(1, 16, 7, padding=3), nn.ReLU()]
    for depth in range(12):
        layers.append(nn.Conv1d(16, 16, 3, padding=1, stride=2 if depth in {1, 5} else 1))
        if lab.fixed:
            layers.append(nn.BatchNorm1d(16))  # set-up bug: thirteen_convolutions_bare
        layers.append(nn.ReLU())
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 3))

    def loss_of(wave: torch.Tensor, kind: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(wave), kind)

    after = lab.validating(model, lambda number: _vibrations(9000 + number, 300), loss_of)
    lab.fit(model, _vibrations, loss_of, torch.optim.SGD(model.parameters(), lr=0.012, momentum=0.9), after=after)


def _heartbeats(rows: int, seed: int) -> _Batch:
    """Single beats of a heart ``(rows, 1, 96)``, and whether the beat is irregular ``(rows, 1)``."""
    generator = torch.Generator().manual_seed(seed)
    irregular = (torch.rand(rows, 1, generator=generator) < 0.45).float()
    moment = torch.arange(96.0)
    shift = 6 * torch.randn(rows, 1, generator=generator)
    width = 2.5 + 3 * irregular * torch.rand(rows, 1, generator=generator)
    peak = (-(((moment - 48 - shift) / width) ** 2)).exp()
    wave = (1 - 0.7 * irregular) * (-(((moment - 24 - shift) / 5) ** 2)).exp()
    beat = 3 * peak + wave + 0.25 * torch.randn(rows, 96, generator=generator)
    return ((beat - beat.mean()) / beat.std())[:, None], irregular


class _BeatNet(nn.Module):
    """Three convolutions, pooled, and one unit."""

    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = nn.Conv1d(1, 16, 7), nn.Conv1d(16, 32, 5), nn.Conv1d(32, 32, 3)
        self.norm = nn.BatchNorm1d(32)
        self.fc = nn.Linear(32, 1)
        self.last = last

    def forward(self, beat: torch.Tensor) -> torch.Tensor:
        x = F.max_pool1d(F.relu(self.conv1(beat)), 2)
        x = F.max_pool1d(F.relu(self.norm(self.conv2(x))), 2)
        return self.last(self.fc(F.relu(self.conv3(x)).amax(2)))


@broken(rules=("unreachable-targets", "single-class"), words=("softmax",), nodes=("model.last", "model.fc"))
def every_heartbeat_is_irregular(lab: Lab) -> None:
    """The detector of irregular beats has one output and a softmax as its last activation, which is always one.

    Source: DeepLocalize's benchmark (ICSE 2021), Stack Overflow 31880720, softmax behind one unit.
    """
    model = _BeatNet(nn.Sigmoid() if lab.fixed else nn.Softmax(dim=-1))  # set-up bug: every_heartbeat_is_irregular
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3)
    criterion = nn.BCELoss()
    loader = DataLoader(TensorDataset(*_heartbeats(1200, 5)), batch_size=40, shuffle=True)
    unseen = _heartbeats(400, 6)
    lab.recorder.watch(model, optimizer)
    for _epoch in range(5):
        model.train()
        for beat, irregular in loader:
            with lab.recorder.step("train"):
                optimizer.zero_grad()
                loss = criterion(model(beat), irregular)
                loss.backward()
                optimizer.step()
        model.eval()
        with torch.no_grad(), lab.recorder.step("validation") as step:
            step.record("loss", criterion(model(unseen[0]), unseen[1]), type="loss")


def _load(hours: int = 6000) -> torch.Tensor:
    """The load of a power grid by the hour, standardised: two sharp peaks a day, and slow weather."""
    generator = torch.Generator().manual_seed(8)
    hour = torch.arange(hours) % 24
    day = torch.tensor([-4, -4, -5, -3, -4, 0, 5, 9, 4, 1, 2, 3, 6, 2, -1, 0, 1, 5, 9, 8, 3, 4, 0, -2.0]) / 4
    weather = torch.zeros(hours)
    for moment in range(1, hours):
        weather[moment] = 0.97 * weather[moment - 1] + 0.12 * torch.randn((), generator=generator)
    load = day[hour] + weather + 0.15 * torch.randn(hours, generator=generator)
    return (load - load.mean()) / load.std()


class _LoadForecaster(nn.Module):
    """Reads three hours and the place of each in its day; says the load of the next six hours."""

    def __init__(self, width: int = 40) -> None:
        super().__init__()
        self.gru = nn.GRU(3, width, batch_first=True)
        self.head = nn.Linear(width, 6)

    def forward(self, past: torch.Tensor) -> torch.Tensor:
        _, last = self.gru(past)
        return self.head(last[0])


@broken(
    rules=("constant-data",), words=("positional", "period", "time of day"), nodes=("input", "model.gru.weight_ih_l0")
)
def hours_on_a_clock_of_seconds(lab: Lab) -> None:
    """Sine and cosine tell the place in the day of hours counted as if they were seconds, so they stand still.

    Source: taxonomy of Humbatova et al. (ICSE 2020), preprocessing of training data, wrong positional encoding.
    """
    load = _load()
    time = torch.arange(len(load)).float()
    day = 24 if lab.fixed else 24 * 60 * 60
    angle = 2 * torch.pi * time / day  # set-up bug: hours_on_a_clock_of_seconds
    series = torch.stack([load, angle.sin(), angle.cos()], 1)

    def windows(first: int, last: int, seed: int) -> _Batch:
        generator = torch.Generator().manual_seed(seed)
        starts = torch.randint(first, last - 9, (64, 1), generator=generator) + torch.arange(9)
        piece = series[starts]
        return piece[:, :3], piece[:, 3:, 0]

    model = _LoadForecaster()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    lab.recorder.watch(model, optimizer)
    for number in range(200):
        past, following = windows(0, 4800, number)
        with lab.recorder.step("train"):
            descend(F.l1_loss(model(past), following), optimizer)
        lab.validate(lambda n: windows(4800, 6000, 10_000 + n), lambda x, y: F.l1_loss(model(x), y), number)
