"""Mistakes in nets that tell what a picture shows: loaders, augmentation, transfer, and what changes on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Batches, Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _unseen() -> Batches:
    x, y = data.unseen_pixels()
    return data.draw((x.unflatten(1, (1, 8, 8)), y), 200)


def _validated(lab: Lab, model: nn.Module, *, unseen: Batches | None = None) -> Callable[[int], None]:
    """Validates a classifier in evaluation mode after a step, if it is time for that."""
    others = unseen or _unseen()

    return lab.validating(model, others, lambda x, y: F.cross_entropy(model(x), y))


class _Album:
    """Pictures, each of which is copied to one piece of memory, which is made but once."""

    def __init__(self, *, copied: bool) -> None:
        self.pictures, self.labels = data.images()
        self.memory = torch.empty(1, 8, 8)
        self.copied = copied

    def __getitem__(self, row: int) -> torch.Tensor:
        picture = self.memory.copy_(self.pictures[row])
        return picture.clone() if self.copied else picture  # set-up bug: one_buffer_for_all

    def batch(self, number: int) -> _Batch:
        rows = torch.randint(len(self.labels), (48,), generator=torch.Generator().manual_seed(number))
        return torch.stack([self[row] for row in rows.tolist()]), self.labels[rows]


@broken(
    rules=("duplicate-samples", "constant-data"), words=("same image", "same sample", "identical", "copies"),
    nodes=("input",),
)  # fmt: skip
def one_buffer_for_all(lab: Lab) -> None:
    """The data set reads each picture into the same buffer and returns that: a batch is 48 times its last picture.

    Source: PyTorch forum, data set returns a reused buffer; taxonomy of Humbatova et al. (ICSE 2020), wrong loading.
    """
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(12, 24, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(96, 10),
    )  # fmt: skip
    album = _Album(copied=lab.fixed)
    lab.fit(model, album.batch, lambda x, y: F.cross_entropy(model(x), y), after=_validated(lab, model))


@broken(words=("mixed", "mixup", "swapped", "other way round"), nodes=("loss", "cross_entropy"))
def shares_of_a_mixture_swapped(lab: Lab) -> None:
    """Pictures are mixed by ``share`` and ``1 - share``, and their losses by ``1 - share`` and ``share``.

    Source: VMT issue 1 and Fixup issue 5, mixup with other shares or pairs for labels than for images.
    """
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.SiLU(), nn.Conv2d(16, 24, 3, stride=2, padding=1),
        nn.GroupNorm(4, 24), nn.SiLU(), nn.Flatten(), nn.Linear(384, 10),
    )  # fmt: skip
    shares = torch.distributions.Beta(0.3, 0.3)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        share, other = shares.sample(), torch.randperm(len(x))
        scores = model(share * x + (1 - share) * x[other])
        first = share if lab.fixed else 1 - share
        one, two = F.cross_entropy(scores, y), F.cross_entropy(scores, y[other])
        return first * one + (1 - first) * two  # bug: shares_of_a_mixture_swapped

    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0.05)
    lab.fit(model, data.draw(data.images()), loss_of, optimizer, after=_validated(lab, model))


class _Feed:
    """Batches one after the other; at the end of an epoch it should begin anew."""

    def __init__(self, *, anew: bool) -> None:
        x, y = data.images()
        order = torch.Generator().manual_seed(3)
        self.loader = DataLoader(TensorDataset(x, y), 14, shuffle=True, drop_last=True, generator=order)
        self.rest: Iterator[_Batch] = iter(self.loader)
        self.batch: _Batch = ()
        self.anew = anew

    def __call__(self, _: int) -> _Batch:
        try:
            self.batch = tuple(next(self.rest))
        except StopIteration:  # set-up bug: last_batch_for_ever
            if self.anew:
                self.rest = iter(self.loader)
                self.batch = tuple(next(self.rest))
        return self.batch


@broken(
    rules=("repeated-batch",), words=("same batch", "same in every", "repeat"), nodes=("input", "target"), onset=105
)
def last_batch_for_ever(lab: Lab) -> None:
    """The end of the loader is caught and ignored, so that after the first epoch its last batch comes again for ever.

    Source: ssd.pytorch issues 214 and 393, StopIteration in the training loop; Humbatova et al. (ICSE 2020), loading.
    """
    model = nn.Sequential(
        nn.Conv2d(1, 24, 3), nn.Softplus(), nn.Conv2d(24, 32, 3, stride=2), nn.Softplus(), nn.Flatten(),
        nn.Linear(128, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    longer = replace(lab, steps=240)
    feed = _Feed(anew=lab.fixed)
    longer.fit(model, feed, lambda x, y: F.cross_entropy(model(x), y), optimizer, after=_validated(longer, model))


def _knowing_backbone() -> nn.Sequential:
    """Convolutions that learned to read digits."""
    body = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(512, 32), nn.ReLU()
    )
    model = nn.Sequential(body, nn.Linear(32, 10))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    batches = data.draw(data.images())
    for number in range(80):
        x, y = batches(2000 + number)
        descend(F.cross_entropy(model(x), y), optimizer)
    return body


@broken(
    rules=("learning-rate", "settings-change"), words=("learning rate", "unfrozen", "unfreez"),
    nodes=("model.body", "model.body.0.weight", "model.body.2.weight", "model.body.5.weight"), onset=100,
)  # fmt: skip
def unfrozen_with_the_rate_of_the_head(lab: Lab) -> None:
    """At step 100 the pretrained body is unfrozen and given to the optimizer with the rate of the head: it forgets all.

    Source: Howard and Ruder (2018), discriminative fine-tuning; PyTorch forum, loss explodes after unfreezing layers.
    """
    model = nn.ModuleDict({"body": _knowing_backbone(), "head": nn.Linear(32, 10)})
    model["body"].requires_grad_(False)
    optimizer = torch.optim.Adam(model["head"].parameters(), 3e-2)
    x, y = data.images()

    def after(number: int) -> None:
        if number == 99:
            model["body"].requires_grad_(True)
            rate = 3e-4 if lab.fixed else 3e-2  # set-up bug: unfrozen_with_the_rate_of_the_head
            optimizer.add_param_group({"params": list(model["body"].parameters()), "lr": rate})

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model["head"](model["body"](x)), y)

    replace(lab, steps=220).fit(model, data.draw((x[:120].flip(-1), y[:120]), 32), loss_of, optimizer, after=after)


@broken(
    rules=("data-shift",), words=("labels change", "targets change", "other labels", "numbered otherwise"),
    nodes=("target", "loss"), onset=124,
)  # fmt: skip
def second_shard_numbers_classes_otherwise(lab: Lab) -> None:
    """The shard that begins at step 120 numbers its classes by the alphabet: eight is 0, five is 1, and so on.

    Source: ultralytics issue 13936, timm issue 957, class indices that differ between data sets; Humbatova et al.
    """
    model = nn.Sequential(
        nn.Conv2d(1, 20, 5, padding=2), nn.LeakyReLU(0.1), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(320, 40),
        nn.LeakyReLU(0.1), nn.Linear(40, 10),
    )  # fmt: skip
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    place = torch.tensor([sorted(names).index(name) for name in names])
    draw = data.draw(data.images(), 40)

    def batches(number: int) -> _Batch:
        x, y = draw(number)
        alphabetical = number >= 120 and not lab.fixed  # that is step 124, after four validations
        return x, place[y] if alphabetical else y  # set-up bug: second_shard_numbers_classes_otherwise

    longer = replace(lab, steps=210)
    longer.fit(model, batches, lambda x, y: F.cross_entropy(model(x), y), after=_validated(longer, model))


class _Residual(nn.Module):
    """Adds two convolutions to what comes in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.two(F.relu(self.one(F.relu(x))))


@broken(
    rules=("learning-rate", "settings-change"), words=("learning rate", "warm"),
    nodes=("model", "model.0.weight", "loss"), onset=40,
)  # fmt: skip
def warm_up_never_ends(lab: Lab) -> None:
    """The warm-up lacks its ``min(1, ...)``: after 40 steps the learning rate goes on rising, until it is far too high.

    Source: PyTorch forum and Stack Overflow, warm-up by LambdaLR; taxonomy of Humbatova et al., wrong learning rate.
    """
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), _Residual(12), _Residual(12), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
        nn.Linear(192, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), 0.08, momentum=0.9)

    def warm_up(step: int) -> float:
        share = (step + 1) / 40
        return min(1.0, share) if lab.fixed else share  # set-up bug: warm_up_never_ends

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warm_up)
    replace(lab, steps=240).fit(
        model, data.draw(data.images(), 32), lambda x, y: F.cross_entropy(model(x), y), optimizer,
        after=lambda number: schedule.step(),
    )  # fmt: skip


_COLOURS = torch.tensor([[0.85, 0.2, 0.1], [0.2, 0.7, 0.25], [0.9, 0.75, 0.1], [0.55, 0.3, 0.1]])


def _fruits(number: int, seed: int = 0) -> _Batch:
    """Photos ``(32, 3, 12, 12)`` of a round or a long fruit of one of four colours, and which of eight it is."""
    generator = torch.Generator().manual_seed(1000 * seed + number)
    colour = torch.randint(4, (32,), generator=generator)
    long = torch.randint(2, (32,), generator=generator)
    centre = 4 + 3 * torch.rand(32, 2, 1, 1, generator=generator)
    line = torch.arange(12.0)
    width = torch.where(long > 0, 0.3, 1.0)[:, None, None]
    inside = (line[:, None] - centre[:, 0]).square() * width + (line - centre[:, 1]).square() / width < 9
    sky = torch.tensor([0.5, 0.65, 0.85])[:, None, None]
    photo = torch.where(inside[:, None], _COLOURS[colour][:, :, None, None], sky)
    return photo + 0.1 * torch.randn(photo.shape, generator=generator) - 0.5, 2 * colour + long


@broken(
    rules=("data-shift",), words=("validation input", "differ between", "than in training", "channels", "colour"),
    nodes=("input",), onset=30,
)  # fmt: skip
def validation_in_blue_green_red(lab: Lab) -> None:
    """The photos of the validation are read by another library, which gives blue first, then green, and red last.

    Source: Yet-Another-EfficientDet-Pytorch issue 325, YOLOv3 issue 22, modern-yolonas pull request 7.
    """
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.GELU(), nn.MaxPool2d(2), nn.Conv2d(16, 24, 3),
        nn.BatchNorm2d(24), nn.GELU(), nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(96, 8),
    )  # fmt: skip

    def unseen(number: int) -> _Batch:
        x, y = _fruits(number, seed=1)
        return x if lab.fixed else x.flip(1), y  # set-up bug: validation_in_blue_green_red

    after = _validated(lab, model, unseen=unseen)
    lab.fit(model, _fruits, lambda x, y: F.cross_entropy(model(x), y), lr=2e-3, after=after)


@broken(
    rules=("accumulated-gradients",), words=("zero_grad", "cleared", "accumulat"),
    nodes=("model", "model.0.weight", "model.3.weight", "model.7.weight"), onset=110,
)  # fmt: skip
def second_phase_never_clears_gradients(lab: Lab) -> None:
    """The loop of the second phase, on turned pictures, was written anew, and its ``zero_grad`` was forgotten.

    Source: TrainCheck (OSDI 2025), stackoverflow-60335387; taxonomy of Humbatova et al. (ICSE 2020), missing API call.
    """
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Flatten(),
        nn.Dropout(0.1), nn.Linear(32, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), 4e-3)
    lab.recorder.watch(model, optimizer)
    batches = data.draw(data.images())
    for number in range(110):
        x, y = batches(number)
        with lab.recorder.step("train"):
            descend(F.cross_entropy(model(x), y), optimizer)
    for number in range(110, 230):
        x, y = batches(number)
        with lab.recorder.step("train"):
            loss = F.cross_entropy(model(x.rot90(1, (2, 3))), y)
            if lab.fixed:
                optimizer.zero_grad()
            loss.backward()  # set-up bug: second_phase_never_clears_gradients
            optimizer.step()


@broken(
    rules=("stale-copy",), words=("moving average", "never follows", "hardly follows"),
    nodes=("average", "average.module"), onset=30,
)  # fmt: skip
def average_of_ten_thousand_steps(lab: Lab) -> None:
    """The moving average that is validated has a decay of 0.9999, as in long trainings: it still is what it began as.

    Source: mmpretrain issue 870, the accuracy with an EMA of 0.0001 is 0 in short trainings.
    """
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.PReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.PReLU(),
        nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip
    decay = 0.9 if lab.fixed else 0.9999  # set-up bug: average_of_ten_thousand_steps
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
    unseen, batches = _unseen(), data.draw(data.images())
    optimizer = torch.optim.RMSprop(model.parameters(), 1e-3)
    lab.recorder.watch({"model": model, "average": average}, optimizer)
    for number in range(lab.steps):
        x, y = batches(number)
        with lab.recorder.step("train"):
            descend(F.cross_entropy(model(x), y), optimizer)
        average.update_parameters(model)
        lab.validate(unseen, lambda x, y: F.cross_entropy(average(x), y), number)


def _stripes(number: int) -> _Batch:
    """Noisy textures ``(32, 1, 16, 16)`` in one of four directions, at any phase, and the direction ``(32,)``."""
    generator = torch.Generator().manual_seed(number)
    direction = torch.randint(4, (32,), generator=generator)
    angle = (direction * torch.pi / 4)[:, None, None]
    phase = 2 * torch.pi * torch.rand(32, 1, 1, generator=generator)
    line = torch.arange(16.0)
    wave = (1.6 * (angle.cos() * line[:, None] + angle.sin() * line) + phase).sin()
    return (wave + 0.7 * torch.randn(wave.shape, generator=generator))[:, None], direction


class _Textures(nn.Module):
    """Convolutions, an average, and a linear layer for four kinds of texture."""

    def __init__(self, *, over_places: bool) -> None:
        super().__init__()
        self.convolve = nn.Sequential(
            nn.Conv2d(1, 12, 5, stride=2, padding=2), nn.ReLU(), nn.Conv2d(12, 16, 3, stride=2, padding=1), nn.ReLU()
        )
        self.head = nn.Linear(16, 4)
        self.over_places = over_places

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.convolve(x)
        pooled = maps.mean((2, 3)) if self.over_places else maps.mean(1).flatten(1)  # bug: averaged_over_the_channels
        return self.head(pooled)


@broken(words=("mean over", "channels", "pool", "wrong dimension", "another dimension"), nodes=("model", "model.head"))
def averaged_over_the_channels(lab: Lab) -> None:
    """The 16 channels are averaged where the 16 places were meant, which leaves nothing but where there is something.

    Source: Zhang et al. (ISSTA 2018), unaligned tensor; PyTorch forum, global average pooling over the wrong dimension.
    """
    model = _Textures(over_places=lab.fixed)
    lab.fit(model, _stripes, lambda x, y: F.cross_entropy(model(x), y), lr=5e-3)
