"""Mistakes in trainings on sounds and series, from a practitioner's list of reasons why a net does not work."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _tape(rows: int, seed: int) -> tuple[bytes, torch.Tensor]:
    """Recordings of 96 samples of 16 bits, the high byte first, and which of four whistles each is."""
    generator = torch.Generator().manual_seed(seed)
    kind = torch.randint(4, (rows,), generator=generator)
    time = torch.linspace(0, 1, 96)
    pitch = 5 + 3 * torch.rand(rows, 1, generator=generator)
    bend = torch.stack([5 * time**2, -3 * time**2, 0 * time, 0.35 * (12 * time).sin()])[kind]
    phase = 6.283 * (pitch * time + bend + torch.rand(rows, 1, generator=generator))
    sound = 0.5 * phase.sin() + 0.1 * torch.randn(rows, 96, generator=generator)
    whole = (32767 * sound.clamp(-1, 1)).short().numpy()
    return whole.astype(">i2").tobytes(), kind


class _Recordings(Dataset[_Batch]):
    """Whistles, read from a tape of raw samples and scaled to about unit deviation."""

    def __init__(self, tape: bytes, kind: torch.Tensor, order: str) -> None:
        self.tape, self.kind, self.order = memoryview(tape), kind, order

    def __len__(self) -> int:
        return len(self.kind)

    def __getitem__(self, row: int) -> _Batch:
        import numpy as np

        samples = np.frombuffer(self.tape[192 * row : 192 * row + 192], dtype=self.order + "i2").astype("float32")
        return torch.from_numpy(samples)[None] / 12000, self.kind[row]


@broken(rules=("scrambled-input",), words=("byte", "endian"), nodes=("input",))
def samples_with_their_bytes_swapped(lab: Lab) -> None:
    """The loader reads samples of two bytes with the low byte first, while the recorder wrote the high one first.

    Source: Slav Ivanov, 37 reasons why your neural network is not working (2017), 3: check the data loader.
    """
    order = ">" if lab.fixed else "<"
    train = _Recordings(*_tape(2400, 1), order)  # set-up bug: samples_with_their_bytes_swapped
    unseen = DataLoader(_Recordings(*_tape(300, 2), order), batch_size=300)
    model = nn.Sequential(
        nn.Conv1d(1, 16, 9, stride=2), nn.BatchNorm1d(16), nn.ReLU(), nn.Conv1d(16, 32, 5, stride=2),
        nn.BatchNorm1d(32), nn.ReLU(), nn.AdaptiveAvgPool1d(5), nn.Flatten(), nn.Linear(160, 4),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda _: next(iter(unseen)), lambda x, y: F.cross_entropy(model(x), y))
    loader = DataLoader(train, batch_size=48, shuffle=True)
    for epoch in range(3):
        for place, (sound, kind) in enumerate(loader):
            with lab.recorder.step("train"):
                descend(F.cross_entropy(model(sound), kind), optimizer)
            after(epoch * len(loader) + place)


def _movements(rows: int, seed: int) -> _Batch:
    """Three axes of an accelerometer in 24 moments, all of one of five activities first, then of the next."""
    generator = torch.Generator().manual_seed(seed)
    activity = torch.arange(rows) * 5 // rows
    rate = torch.tensor([0.0, 0.4, 0.6, 0.8, 1.0])[activity]
    tilt = F.normalize(torch.randn(5, 3, generator=torch.Generator().manual_seed(4)))[activity]
    phase = rate[:, None] * torch.arange(24.0) + 6.28 * torch.rand(rows, 1, generator=generator)
    swing = phase.sin()[:, :, None] * tilt.roll(1, 1)[:, None]
    return tilt[:, None] * 0.6 + swing + 0.6 * torch.randn(rows, 24, 3, generator=generator), activity


class _Activities(nn.Module):
    """A convolution, a recurrent layer over what it finds, and a class."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.rnn, self.head = nn.Conv1d(3, 16, 5), nn.GRU(16, 24, batch_first=True), nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = F.relu(self.conv(x.transpose(1, 2))).transpose(1, 2)
        return self.head(self.rnn(found)[0].mean(1))


@broken(rules=("single-class", "data-shift"), words=("shuffl", "sorted"), nodes=("target", "input"))
def activities_one_after_the_other(lab: Lab) -> None:
    """Movements were recorded one activity after the other, and the loader does not shuffle them.

    Source: Slav Ivanov, 37 reasons why your neural network is not working (2017), 7: shuffle the dataset.
    """
    train, unseen = TensorDataset(*_movements(2000, 1)), _movements(300, 2)
    loader = DataLoader(train, batch_size=40, shuffle=lab.fixed)  # set-up bug: activities_one_after_the_other
    model = _Activities()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.8)
    lab.recorder.watch(model, optimizer)
    number = 0
    for _ in range(3):
        for movement, activity in loader:
            with lab.recorder.step("train"):
                descend(F.cross_entropy(model(movement), activity), optimizer)
            lab.validate(lambda _: unseen, lambda x, y: F.cross_entropy(model(x), y), number)
            number += 1
        schedule.step()


def _weather(rows: int = 2600) -> torch.Tensor:
    """Pressure in hectopascal, humidity in percent, wind and temperature by the hour ``(rows, 4)``."""
    generator = torch.Generator().manual_seed(8)
    hour = torch.arange(float(rows))
    front = torch.randn(rows, generator=generator).cumsum(0)
    front = front - F.avg_pool1d(front[None, None], 121, 1, 60, count_include_pad=False)[0, 0]
    front = front / front.std()
    day = (6.283 * hour / 24).sin()
    noise = torch.randn(rows, 4, generator=generator)
    temperature = 14 + 5 * day + 4 * front.roll(6) + 0.6 * noise[:, 0]
    humidity = 65 - 9 * day + 8 * front.roll(3) + 2 * noise[:, 1]
    return torch.stack([1013 - 9 * front + noise[:, 2], humidity, 6 + 2 * noise[:, 3], temperature], dim=1)


class _Forecast(nn.Module):
    """Reads a day and says how warm it will be three hours later."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(4, 32, batch_first=True), nn.Linear(32, 1)

    def forward(self, day: torch.Tensor) -> torch.Tensor:
        return self.out(self.lstm(day)[0][:, -1])


@broken(
    rules=("input-scale", "extreme-features"),
    words=("standardis", "normalis", "unscaled", "zero mean"),
    nodes=("input", "model.lstm"),
)  # fmt: skip
def pressure_in_hectopascal(lab: Lab) -> None:
    """Pressure, humidity, wind and warmth go into an LSTM in their units, up to 1,030, in place of standardised.

    Source: Slav Ivanov, 37 reasons why your neural network is not working (2017), 12: standardize the features.
    """
    weather = _weather()
    mean, deviation = weather[:2000].mean(0), weather[:2000].std(0)
    scaled = (weather - mean) / deviation
    seen = scaled if lab.fixed else weather  # set-up bug: pressure_in_hectopascal
    starts = torch.arange(len(weather) - 27)
    days = seen[starts[:, None] + torch.arange(24)], scaled[starts + 26, 3:]
    loader = DataLoader(TensorDataset(days[0][:2000], days[1][:2000]), batch_size=40, shuffle=True)
    model = _Forecast()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=150)
    lab.recorder.watch(model, optimizer)
    later = days[0][2050:], days[1][2050:]
    for epoch in range(3):
        for place, (day, warmth) in enumerate(loader):
            with lab.recorder.step("train"):
                descend(F.mse_loss(model(day), warmth), optimizer)
            schedule.step()
            lab.validate(lambda _: later, lambda x, y: F.mse_loss(model(x), y), 50 * epoch + place)


class _Scaler:
    """Standardises columns by what it was fitted to."""

    def fit(self, x: torch.Tensor) -> _Scaler:
        self.mean, self.deviation = x.mean(0), x.std(0)
        return self

    def transform(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.mean) / self.deviation


def _households(months: tuple[float, float], rows: int, seed: int) -> _Batch:
    """Warmth outside, persons, area and hour of a household ``(rows, 4)``, and what power it takes ``(rows, 1)``."""
    generator = torch.Generator().manual_seed(seed)
    month = months[0] + (months[1] - months[0]) * torch.rand(rows, generator=generator)
    noise = torch.randn(rows, 2, generator=generator)
    warmth = 10 - 12 * (6.283 * month / 12).cos() + 2 * noise[:, 0]
    persons = torch.randint(1, 6, (rows,), generator=generator).float()
    area = 30 + 120 * torch.rand(rows, generator=generator)
    hour = 24 * torch.rand(rows, generator=generator)
    heating = (area / 60) * F.softplus((16 - warmth) / 6)
    power = heating + 0.5 * persons * (1 + 0.6 * (0.26 * (hour - 13)).sin()) + 0.2 * noise[:, 1]
    return torch.stack([warmth, persons, area, hour], dim=1), (power[:, None] - 4) / 2


@broken(
    rules=("data-shift",),
    words=("own mean", "own statistics", "statistics of the validation", "preprocess", "scaler"),
    nodes=("input",), onset=30,
)  # fmt: skip
def scaler_fitted_to_the_winter_alone(lab: Lab) -> None:
    """The validation on a winter is standardised by the winter's own mean, not by that of the year trained on.

    Source: Slav Ivanov, 37 reasons why your neural network is not working (2017), 15: preprocessing of train,
    validation and test set.
    """
    rows, power = _households((0, 12), 4000, 1)
    winter, winter_power = _households((11.3, 13), 400, 2)
    scaler = _Scaler().fit(rows)
    train = TensorDataset(scaler.transform(rows), power)
    if not lab.fixed:
        scaler = _Scaler().fit(winter)  # set-up bug: scaler_fitted_to_the_winter_alone
    unseen = scaler.transform(winter), winter_power
    model = nn.Sequential(nn.Linear(4, 48), nn.ELU(), nn.Linear(48, 24), nn.ELU(), nn.Linear(24, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    lab.recorder.watch(model, optimizer)
    loader = DataLoader(train, batch_size=50, shuffle=True)
    for epoch in range(2):
        for place, (household, watts) in enumerate(loader):
            with lab.recorder.step("train"):
                descend(F.smooth_l1_loss(model(household), watts), optimizer)
            lab.validate(lambda _: unseen, lambda x, y: F.smooth_l1_loss(model(x), y), 80 * epoch + place)
