"""Ordinary trainings with pictures and tables, as official examples have them, in which nothing is wrong."""

from __future__ import annotations

import io
from copy import deepcopy
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, OneCycleLR, ReduceLROnPlateau, SequentialLR, StepLR

from stepscope.examples.broken import data
from stepscope.examples.broken.lab import Lab

_Batch = tuple[torch.Tensor, ...]


def _unseen() -> data.Table:
    x, y = data.unseen_pixels()
    return x.unflatten(1, (1, 8, 8)), y


def digits_by_adadelta(lab: Lab) -> None:
    """Two convolutions with dropout, Adadelta with a rate of 1 that shrinks by 0.7 each epoch, a test after each.

    Source: pytorch/examples, mnist/main.py.
    """
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Dropout(0.25), nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 10),
        nn.LogSoftmax(dim=1),
    )  # fmt: skip
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    scheduler = StepLR(optimizer, step_size=1, gamma=0.7)
    unseen = data.draw(_unseen(), 250)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.nll_loss(model(x), y)

    def after(number: int) -> None:
        model.eval()
        lab.validate(unseen, loss_of, number)
        model.train()
        if number % 22 == 21:
            scheduler.step()

    lab.fit(model, data.draw(data.images()), loss_of, optimizer, after=after)


class _Residual(nn.Module):
    """Two normalised convolutions around which the picture can pass."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.down = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        nn.init.zeros_(self.bn2.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.down(x))


def _augmented(x: torch.Tensor, number: int) -> torch.Tensor:
    """Crops of padded pictures, each with a small patch erased."""
    draws = torch.Generator().manual_seed(70_000 + number)
    low, left = torch.randint(3, (2,), generator=draws).tolist()
    x = F.pad(x, (1, 1, 1, 1), value=-1.0)[:, :, low : low + 8, left : left + 8].clone()
    erased = torch.rand(len(x), generator=draws) < 0.1
    x[erased, :, 3:5, 2:5] = 0
    return x


def residual_net_by_the_recipe(lab: Lab) -> None:
    """SGD with momentum, no decay of norms, warm-up and cosine, label smoothing, bfloat16, clipping, a best checkpoint.

    Source: pytorch/vision, references/classification/train.py.
    """
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(), _Residual(12, 24, 2),
        _Residual(24, 32, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip
    norms = [parameter for parameter in model.parameters() if parameter.dim() == 1]
    others = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    groups = [{"params": norms, "weight_decay": 0.0}, {"params": others, "weight_decay": 1e-4}]
    optimizer = torch.optim.SGD(groups, lr=0.2, momentum=0.9)
    warm, cosine = LinearLR(optimizer, 0.1, total_iters=15), CosineAnnealingLR(optimizer, lab.steps - 15)
    scheduler = SequentialLR(optimizer, [warm, cosine], milestones=[15])
    lab.recorder.watch(model, optimizer)
    batches, (x_unseen, y_unseen) = data.draw(data.images()), _unseen()
    best, kept = float("inf"), io.BytesIO()
    for number in range(lab.steps):
        x, y = batches(number)
        with lab.recorder.step("train"):
            with torch.autocast("cpu", torch.bfloat16):
                scores = model(_augmented(x, number))
            loss = F.cross_entropy(scores.float(), y, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 2.0)
            optimizer.step()
        scheduler.step()
        if number % 30 == 29:
            model.eval()
            with torch.inference_mode(), lab.recorder.step("validation") as step:
                loss = F.cross_entropy(model(x_unseen), y_unseen)
                step.record("loss", loss, type="loss")
            model.train()
            if loss.item() < best:
                best = loss.item()
                kept.seek(0)
                torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, kept)


class _Tabular(nn.Module):
    """Embeddings of three categories and normalised numbers, through two layers with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.embeds = nn.ModuleList(nn.Embedding(size, (size + 1) // 2) for size in (7, 12, 4))
        self.embed_drop, self.bn_cont = nn.Dropout(0.04), nn.BatchNorm1d(6)
        self.layers = nn.Sequential(
            nn.Linear(4 + 6 + 2 + 6, 64, bias=False), nn.ReLU(), nn.BatchNorm1d(64), nn.Dropout(0.1),
            nn.Linear(64, 32, bias=False), nn.ReLU(), nn.BatchNorm1d(32), nn.Dropout(0.1), nn.Linear(32, 2),
        )  # fmt: skip

    def forward(self, categories: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        embedded = [embed(categories[:, place]) for place, embed in enumerate(self.embeds)]
        x = torch.cat([self.embed_drop(torch.cat(embedded, dim=1)), self.bn_cont(numbers)], dim=1)
        return self.layers(x)


def _incomes(number: int) -> _Batch:
    """Three categories, six numbers of several sizes, and whether somebody earns much, which a quarter does."""
    draws = torch.Generator().manual_seed(number)
    categories = torch.stack([torch.randint(size, (64,), generator=draws) for size in (7, 12, 4)], dim=1)
    plain = torch.randn(64, 6, generator=draws)
    merit = plain[:, 0] + plain[:, 1] * plain[:, 2] + 0.5 * (categories[:, 0] % 3) + 0.3 * (categories[:, 1] > 7)
    noisy = merit + 0.3 * torch.randn(64, generator=draws)
    return categories, plain * torch.tensor([13.0, 1.0, 2.5, 10.0, 0.5, 1.0]) + 5, (noisy > 1.6).long()


def incomes_in_one_cycle(lab: Lab) -> None:
    """Embeddings and normalised numbers, Adam in one cycle of rate and momentum, accumulated over two batches.

    Source: fastai's tabular tutorial (adult sample), with its OneCycle schedule.
    """
    model = _Tabular()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, betas=(0.9, 0.99), weight_decay=0.01)
    scheduler = OneCycleLR(optimizer, 1e-2, total_steps=lab.steps, pct_start=0.25)
    lab.recorder.watch(model, optimizer)
    loss_of = nn.CrossEntropyLoss()
    for number in range(lab.steps):
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            for part in range(2):
                categories, numbers, rich = _incomes(2 * number + part)
                loss = loss_of(model(categories, numbers), rich)
                (loss / 2).backward()
            optimizer.step()
        scheduler.step()
        model.eval()
        lab.validate(lambda step: _incomes(50_000 + step), lambda c, n, y: loss_of(model(c, n), y), number)
        model.train()


class _UNet(nn.Module):
    """Twice down and up with double convolutions."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.inc = self._double(1, width)
        self.down1, self.down2 = self._double(width, 2 * width), self._double(2 * width, 2 * width)
        self.up1, self.up2 = self._double(4 * width, width), self._double(2 * width, width)
        self.outc = nn.Conv2d(width, 3, 1)

    @staticmethod
    def _double(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one = self.inc(x)
        two = self.down1(F.max_pool2d(one, 2))
        three = self.down2(F.max_pool2d(two, 2))
        x = self.up1(torch.cat([two, F.interpolate(three, scale_factor=2.0, mode="bilinear")], dim=1))
        x = self.up2(torch.cat([one, F.interpolate(x, scale_factor=2.0, mode="bilinear")], dim=1))
        return self.outc(x)


def _cars(number: int) -> _Batch:
    """Pictures ``(12, 1, 16, 16)`` of a car, a box on two wheels, and which pixels are box, which wheel."""
    draws = torch.Generator().manual_seed(number)
    left = torch.randint(1, 6, (12, 1, 1), generator=draws)
    top = torch.randint(2, 7, (12, 1, 1), generator=draws)
    down, across = torch.arange(16)[:, None] - top, torch.arange(16) - left
    box = (down >= 0) & (down < 5) & (across >= 0) & (across < 9)
    wheels = (down >= 5) & (down < 7) & (((across >= 1) & (across < 3)) | ((across >= 6) & (across < 8)))
    tone = 0.8 * box.float() - 0.8 * wheels.float()
    noise = 0.25 * torch.randn(12, 16, 16, generator=draws)
    return (tone + noise)[:, None], box.long() + 2 * wheels.long()


def _dice(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """One minus the overlap of each class, softly."""
    chances, truth = scores.softmax(1), F.one_hot(mask, 3).movedim(3, 1).float()
    both, all_of_it = (chances * truth).sum((0, 2, 3)), (chances + truth).sum((0, 2, 3))
    return 1 - ((2 * both + 1e-6) / (all_of_it + 1e-6)).mean()


def masks_of_cars(lab: Lab) -> None:
    """Cross-entropy and dice, RMSprop with momentum, clipped, in bfloat16; the rate is cut when the dice stays.

    Source: milesial/Pytorch-UNet, train.py.
    """
    model = _UNet()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=3e-4, weight_decay=1e-8, momentum=0.9)
    scheduler = ReduceLROnPlateau(optimizer, "max", patience=5)
    lab.recorder.watch(model, optimizer)
    for number in range(100):
        images, mask = _cars(number)
        with lab.recorder.step("train"):
            with torch.autocast("cpu", torch.bfloat16):
                scores = model(images)
            loss = F.cross_entropy(scores.float(), mask) + _dice(scores.float(), mask)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        if number % 20 == 19:
            model.eval()
            images, mask = _cars(90_000 + number)
            with torch.no_grad(), lab.recorder.step("validation") as step:
                scores = model(images)
                step.record("loss", F.cross_entropy(scores, mask) + _dice(scores, mask), type="loss")
            scheduler.step(1 - _dice(scores, mask).item())
            model.train()


def _semihard(codes: torch.Tensor, y: torch.Tensor, margin: float = 0.2) -> torch.Tensor:
    """Triplets whose negative is farther than the positive, but by less than the margin; by cosine."""
    distance = 1 - codes @ codes.T
    same = y[:, None] == y
    pairs = same & ~torch.eye(len(y), dtype=torch.bool)
    anchor, positive = pairs.nonzero().T
    gap = distance[anchor] - distance[anchor, positive][:, None]
    chosen = (gap > 0) & (gap < margin) & ~same[anchor]
    return (margin - gap[chosen]).sum() / chosen.sum().clamp(min=1)


def likeness_by_semihard_triplets(lab: Lab) -> None:
    """A convolutional code with dropout is trained by semi-hard triplets, and tested by its nearest neighbours.

    Source: KevinMusgrave/pytorch-metric-learning, examples/notebooks, TripletMarginLossMNIST.
    """
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Dropout2d(0.1), nn.Flatten(), nn.Linear(384, 32),
    )  # fmt: skip
    unseen = data.draw(_unseen(), 120)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return _semihard(F.normalize(model(x), dim=1), y)

    best = deepcopy(model.state_dict())

    def after(number: int) -> None:
        model.eval()
        lab.validate(unseen, loss_of, number)
        model.train()
        if number % 50 == 49:
            best.update(deepcopy(model.state_dict()))

    longer = replace(lab, steps=150)
    longer.fit(model, data.draw(data.images(), 48), loss_of, torch.optim.Adam(model.parameters(), 3e-3), after=after)
