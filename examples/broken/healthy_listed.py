"""Sound training runs of the kinds that practitioners' lists of mistakes are about."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken import data
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


class _Vgg(nn.Module):
    """Two convolutions with batch norms, pooled, and a linear layer behind dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.conv2, self.bn2 = nn.Conv2d(12, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24)
        self.drop, self.fc = nn.Dropout(0.2), nn.Linear(24 * 16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        return self.fc(self.drop(F.relu(self.bn2(self.conv2(x))).flatten(1)))


def digits_with_a_one_cycle_schedule(lab: Lab) -> None:
    """A convolutional net is trained for seven epochs by SGD with OneCycleLR, stepped after each batch."""
    model, epochs = _Vgg(), 7
    loader = DataLoader(TensorDataset(*data.images()), 64, shuffle=True, drop_last=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, epochs=epochs, steps_per_epoch=len(loader))
    x, y = data.unseen_pixels()
    lab.recorder.watch(model, optimizer)
    for _ in range(epochs):
        model.train()
        for images, labels in loader:
            with lab.recorder.step("train"):
                descend(F.cross_entropy(model(images), labels), optimizer)
            schedule.step()
        model.eval()
        with torch.no_grad(), lab.recorder.step("validation") as step:
            step.record("loss", F.cross_entropy(model(x.view(-1, 1, 8, 8)), y), type="loss")


def _shifted_copy(number: int) -> _Batch:
    """Rows of twelve letters out of ten ``(32, 12)``, and the same rows two places later, which begin with two 0."""
    letters = torch.randint(1, 10, (32, 12), generator=torch.Generator().manual_seed(number))
    return letters, F.pad(letters[:, :-2], (2, 0))


class _Reader(nn.Module):
    """Letters through an LSTM, and a score for each letter at each place."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lstm = nn.Embedding(10, 16), nn.LSTM(16, 48, batch_first=True)
        self.out = nn.Linear(48, 10)

    def forward(self, letters: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(self.embed(letters))
        return self.out(states)


def letters_remembered_for_two_places(lab: Lab) -> None:
    """An LSTM repeats each letter two places later; gradients are clipped to a norm of 1."""
    model = _Reader()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        letters, earlier = _shifted_copy(number)
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(letters).transpose(1, 2), earlier)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()


def tumours_in_half_batches(lab: Lab) -> None:
    """Tumours are classified with gradients accumulated over two half batches, each loss divided by two."""
    x, y = data.tumours()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(3))
    x, y = x[order], y[order]
    model = nn.Sequential(nn.Linear(30, 32), nn.LayerNorm(32), nn.GELU(), nn.Linear(32, 1), nn.Flatten(0))
    criterion = nn.BCEWithLogitsLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    draw = data.draw((x[:450], y[:450]), 32)
    after = lab.validating(model, lambda _: (x[450:], y[450:]), lambda x, y: criterion(model(x), y))
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            for half in range(2):
                rows, labels = draw(2 * number + half)
                (criterion(model(rows), labels) / 2).backward()
            optimizer.step()
        after(number)


def _dunes(number: int) -> _Batch:
    """Places ``(64, 2)`` on a plane, and the height of the dunes there ``(64, 1)``, with a little noise."""
    generator = torch.Generator().manual_seed(number)
    place = 2 * torch.rand(64, 2, generator=generator) - 1
    height = (2 * place[:, 0]).sin() * 1.2 + (2.5 * place[:, 1]).cos() + 0.05 * torch.randn(64, generator=generator)
    return place / 0.58, (height - 0.25)[:, None]


def heights_of_dunes_with_a_warm_up(lab: Lab) -> None:
    """A field of heights is learned by a residual net with a short warm-up and a cosine afterwards."""
    model = nn.ModuleDict({"enter": nn.Linear(2, 48), "block": nn.Linear(48, 48), "out": nn.Linear(48, 1)})
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=10)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, lab.steps - 10, eta_min=2e-4)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, cosine], milestones=[10])

    def loss_of(place: torch.Tensor, height: torch.Tensor) -> torch.Tensor:
        hidden = F.silu(model["enter"](place))
        return F.mse_loss(model["out"](hidden + F.silu(model["block"](hidden))), height)

    validate = lab.validating(model, lambda number: _dunes(9000 + number), loss_of)

    def after(number: int) -> None:
        schedule.step()
        validate(number)

    lab.fit(model, _dunes, loss_of, optimizer, after=after)


class _Scorer(nn.Module):
    """Two hidden layers, and a score."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.again, self.out = nn.Linear(2, 48), nn.Linear(48, 48), nn.Linear(48, 1)

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        hidden = F.leaky_relu(self.hidden(points), 0.2)
        return self.out(F.leaky_relu(self.again(hidden), 0.2))


def _square(number: int) -> data.Table:
    """Points ``(64, 2)`` around four corners, and which of two diagonals each is on."""
    generator = torch.Generator().manual_seed(number)
    corner = 2.0 * torch.randint(2, (64, 2), generator=generator) - 1
    return corner + 0.35 * torch.randn(64, 2, generator=generator), (corner.prod(1, keepdim=True) > 0).float()


def diagonals_with_averaged_weights(lab: Lab) -> None:
    """Points on two diagonals are told apart by RMSprop; an exponential average of the weights is validated."""
    model = _Scorer()
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.95))
    optimizer = torch.optim.RMSprop(model.parameters(), lr=2e-3)
    criterion = nn.BCEWithLogitsLoss()

    def after(number: int) -> None:
        average.update_parameters(model)
        lab.validate(lambda number: _square(8000 + number), lambda x, y: criterion(average(x), y), number)

    lab.fit(model, _square, lambda x, y: criterion(model(x), y), optimizer, after=after)
