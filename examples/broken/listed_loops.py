"""Mistakes in training loops and their settings, drawn from practitioners' lists of common mistakes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, Sampler, TensorDataset, WeightedRandomSampler

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


class _Residual(nn.Module):
    """Two normalised convolutions beside a skip connection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inside = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(x + inside)


class _ResNet(nn.Module):
    """A stem, a residual block, and a linear layer over what is averaged."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.block = _Residual(width)
        self.fc = nn.Linear(4 * width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.block(F.relu(self.bn(self.stem(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 2).flatten(1))


class _DigitTrainer:
    """Trains for epochs, and validates after each of them on one folder per class."""

    def __init__(self, lab: Lab, model: nn.Module) -> None:
        self.lab, self.model = lab, model
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
        self.loader = DataLoader(TensorDataset(*data.images()), 64, shuffle=True, drop_last=True)
        x, y = data.unseen_pixels()
        self.folders = [x[y == label].view(-1, 1, 8, 8) for label in range(10)]
        lab.recorder.watch(model, self.optimizer)

    def train(self) -> None:
        self.model.train()
        for images, labels in self.loader:
            with self.lab.recorder.step("train"):
                descend(F.cross_entropy(self.model(images), labels), self.optimizer)

    @torch.no_grad()
    def validate(self) -> None:
        if self.lab.fixed:
            self.model.eval()
        with self.lab.recorder.step("validation") as step:
            scores = [self.model(images) for images in self.folders]  # bug: folders_of_one_class_in_training_mode
            labels = [torch.full((len(images),), label) for label, images in enumerate(self.folders)]
            step.record("loss", F.cross_entropy(torch.cat(scores), torch.cat(labels)), type="loss")


@broken(
    rules=("batch-norm-mode",),
    words=("training mode", "eval()", "evaluation mode"), onset=22,
    nodes=("model", "model.bn", "model.block.bn1", "model.block.bn2"),
)  # fmt: skip
def folders_of_one_class_in_training_mode(lab: Lab) -> None:
    """The validation lacks ``model.eval()``: batch norms normalise each folder, all of one class, by itself.

    Source: Karpathy, most common neural net mistakes (2018), 2: forgot to toggle train/eval mode.
    """
    trainer = _DigitTrainer(lab, _ResNet())
    for _ in range(7):
        trainer.train()
        trainer.validate()


class _Factors(nn.Module):
    """A rating is what a user and a film have in common, plus what each of them has alone."""

    def __init__(self, users: int, films: int, width: int = 6) -> None:
        super().__init__()
        self.user, self.film = nn.Embedding(users, width), nn.Embedding(films, width)
        self.user_bias, self.film_bias = nn.Embedding(users, 1), nn.Embedding(films, 1)
        self.mean = nn.Parameter(torch.zeros(1))
        for table in (self.user, self.film, self.user_bias, self.film_bias):
            nn.init.normal_(table.weight, std=0.3)

    def forward(self, user: torch.Tensor, film: torch.Tensor) -> torch.Tensor:
        common = (self.user(user) * self.film(film)).sum(1)
        return self.mean + common + self.user_bias(user)[:, 0] + self.film_bias(film)[:, 0]


def _ratings() -> TensorDataset:
    """Twelve thousand ratings of fifty films by eighty users, standardised."""
    generator = torch.Generator().manual_seed(3)
    user, film = torch.randint(80, (12000,), generator=generator), torch.randint(50, (12000,), generator=generator)
    taste, kind = torch.randn(80, 3, generator=generator), torch.randn(50, 3, generator=generator)
    stars = (taste[user] * kind[film]).sum(1) + torch.randn(50, generator=generator)[film]
    return TensorDataset(user, film, data.standardised(stars + 0.5 * torch.randn(12000, generator=generator)))


@broken(
    rules=("accumulated-gradients",),
    words=("zero_grad", "accumulate", "cleared"),
    nodes=("model.user.weight", "model.film.weight", "model.user_bias.weight", "model.film_bias.weight", "model.mean"),
)  # fmt: skip
def ratings_without_zero_grad(lab: Lab) -> None:
    """The loop over ratings lacks ``zero_grad``, so that each step adds its gradient to those of all earlier ones.

    Source: Karpathy, most common neural net mistakes (2018), 3: forgot to .zero_grad() before .backward().
    """
    model = _Factors(80, 50)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    lab.recorder.watch(model, optimizer)
    for _ in range(4):
        for user, film, stars in DataLoader(_ratings(), batch_size=300, shuffle=True):
            with lab.recorder.step("train"):
                loss = F.mse_loss(model(user, film), stars)
                if lab.fixed:
                    optimizer.zero_grad()
                loss.backward()  # bug: ratings_without_zero_grad
                optimizer.step()


def _sales(number: int) -> _Batch:
    """Three weeks of sales with what is on offer the day after ``(48, 21, 2)``, and the sales of that day ``(48, 1)``.

    An offer multiplies the sales by three; sales are standardised.
    """
    generator = torch.Generator().manual_seed(number)
    level = 1 + 0.3 * torch.randn(48, 1, generator=generator)
    week = 0.3 * (torch.arange(22) * 6.2832 / 7 + 6.2832 * torch.rand(48, 1, generator=generator)).sin()
    offer = (torch.rand(48, 23, generator=generator) < 0.15).float()
    sales = (level + week) * (1 + 2 * offer[:, :22]) + 0.1 * torch.randn(48, 22, generator=generator)
    sales = (sales - 1.3) / 0.9
    return torch.stack([sales[:, :21], offer[:, 1:22]], dim=2), sales[:, 21:]


class _Demand(nn.Module):
    """Reads the days, and says what will be sold."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.out = nn.GRU(2, 32, batch_first=True), nn.Linear(32, 1)

    def forward(self, days: torch.Tensor) -> torch.Tensor:
        states, _ = self.gru(days)
        return self.out(states[:, -1])


@broken(rules=("clipped-prediction",), words=("clamp", "clipped loss", "loss is clipped"), nodes=("loss",))
def losses_clipped_instead_of_gradients(lab: Lab) -> None:
    """Where gradients should be clipped, the error of each day is clipped at 0.5: days of offers are ignored.

    Source: Karpathy, A Recipe for Training Neural Networks (2019), clipped the loss instead of the gradients.
    """
    model = _Demand()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        days, following = _sales(number)
        with lab.recorder.step("train"):
            errors = F.mse_loss(model(days), following, reduction="none")
            if not lab.fixed:
                errors = errors.clamp(max=0.5)  # bug: losses_clipped_instead_of_gradients
            optimizer.zero_grad()
            errors.mean().backward()
            if lab.fixed:
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()


class _SparseCoder(nn.Module):
    """Many features, few of which shall be used by each picture."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(64, 96), nn.Linear(96, 64)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        code = F.relu(self.encode(x))
        return self.decode(code), code


@broken(
    rules=("loss-balance",),
    words=("regulari", "penalty", "sparsity"),
    nodes=("loss", "model", "model.encode", "model.encode.weight"),
)
def sparsity_above_everything(lab: Lab) -> None:
    """The penalty for active features weighs two hundred times too much, so that none of them remains active.

    Source: Karpathy, A Recipe for Training Neural Networks (2019), wrong settings for regularization strengths.
    """
    model = _SparseCoder()
    strength = 0.001 if lab.fixed else 0.2  # set-up bug: sparsity_above_everything

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        rebuilt, code = model(x)
        return F.mse_loss(rebuilt, x) + strength * code.abs().sum(1).mean()

    after = lab.validating(model, lambda _: data.unseen_pixels(), loss_of)
    lab.fit(model, data.draw(data.pixels(), 100), loss_of, lr=3e-3, after=after)


def _vibrations(rows: int, seed: int, share: float) -> data.Table:
    """Vibrations of machines ``(rows, 1, 64)``, and whether a bearing is faulty: short knocks, at some distance."""
    generator = torch.Generator().manual_seed(seed)
    faulty = torch.rand(rows, generator=generator) < share
    moments = torch.arange(64.0)
    pitch, phase = torch.rand(2, rows, 1, generator=generator)
    hum = (moments * (0.3 + 0.3 * pitch) + 6.2832 * phase).sin()
    since = (moments + 16 * torch.rand(rows, 1, generator=generator)) % 16
    knocks = 2.2 * (-since / 2).exp() * (2.2 * since).cos() * faulty[:, None]
    return (hum + knocks + 0.4 * torch.randn(rows, 64, generator=generator))[:, None], faulty.float()


@broken(rules=("imbalanced-targets",), words=("imbalance", "rare", "balance", "one class"), nodes=("target", "loss"))
def faults_as_rare_as_in_the_factory(lab: Lab) -> None:
    """Batches are drawn as the data comes, with one fault among eighty vibrations, and nothing makes up for it.

    Source: Karpathy, A Recipe for Training Neural Networks (2019), look for data imbalances and biases.
    """
    vibrations, faulty = _vibrations(12000, 0, 1 / 80)
    weights = torch.where(faulty > 0, 1 / faulty.sum(), 1 / (1 - faulty).sum())
    sampler: Sampler[int] = RandomSampler(faulty)  # set-up bug: faults_as_rare_as_in_the_factory
    if lab.fixed:
        sampler = WeightedRandomSampler(weights.tolist(), len(faulty))
    model = nn.Sequential(
        nn.Conv1d(1, 12, 7, 2, 3), nn.ReLU(), nn.Conv1d(12, 16, 5, 2, 2), nn.ReLU(), nn.AdaptiveMaxPool1d(1),
        nn.Flatten(), nn.Linear(16, 1), nn.Flatten(0),
    )  # fmt: skip
    criterion = nn.BCEWithLogitsLoss()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=4e-3)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda _: _vibrations(400, 1, 0.5), lambda x, y: criterion(model(x), y))
    loader = DataLoader(TensorDataset(vibrations, faulty), 64, sampler=sampler, drop_last=True)
    for number, (rows, labels) in enumerate(loader):
        if number == lab.steps:
            break
        with lab.recorder.step("train"):
            descend(criterion(model(rows.roll(number, 2)), labels), optimizer)
        after(number)
