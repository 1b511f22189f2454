"""Mistakes with moving averages of weights, drawn from reports."""

from __future__ import annotations

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Batches, Lab, descend

_Two = tuple[torch.Tensor, torch.Tensor]


def _unseen() -> Batches:
    x, y = data.unseen_pixels()
    return data.draw((x.unflatten(1, (1, 8, 8)), y), 200)


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module, decay: float, *, statistics: bool) -> None:
    """Move the average towards the model; its statistics are copied, if they are."""
    for old, new in zip(average.parameters(), model.parameters(), strict=True):
        old.mul_(decay).add_(new, alpha=1 - decay)
    if statistics:
        for was, now in zip(average.buffers(), model.buffers(), strict=True):
            was.copy_(now)


def _sounds(number: int) -> tuple[torch.Tensor, ...]:
    """Noisy sounds ``(64, 1, 32)`` of four kinds, weaker and stronger copies of them, and the kinds of the first 12."""
    chance = torch.Generator().manual_seed(number)
    kind = torch.randint(4, (64,), generator=chance)
    phase = 6.3 * torch.rand(64, 1, generator=chance)
    wave = (phase + torch.arange(32.0) * (0.3 + 0.25 * kind)[:, None]).sin()[:, None] * 3 + 2
    views = (wave + 1.2 * torch.randn(wave.shape, generator=chance) for _ in range(2))
    return *views, kind


class _Tagger(nn.Module):
    """Says of which kind a sound is."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(1, 16, 5, padding=2), nn.BatchNorm1d(16), nn.ReLU(), nn.MaxPool1d(2),
            nn.Conv1d(16, 32, 5, padding=2), nn.BatchNorm1d(32), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
        )  # fmt: skip
        self.tag = nn.Linear(32, 4)

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        return self.tag(self.body(sound))


@broken(
    rules=("batch-norm-mode",), words=("statistic", "buffer"),
    nodes=("teacher", "teacher.body.1", "teacher.body.5"),
)  # fmt: skip
def teacher_in_evaluation_mode_without_statistics(lab: Lab) -> None:
    """The teacher is an average in evaluation mode, whose batch norms never learn any statistics: it teaches nonsense.

    Source: pytorch/ignite issue 2590, the buffers of the EMAHandler's model, in evaluation mode, are not updated.
    """
    student = _Tagger()
    teacher = deepcopy(student).requires_grad_(False).eval()
    optimizer = torch.optim.Adam(student.parameters(), 3e-3)
    lab.recorder.watch({"student": student, "teacher": teacher}, optimizer)
    for number in range(lab.steps):
        weak, strong, kind = _sounds(number)
        with lab.recorder.step("train"):
            found = student(strong)
            with torch.no_grad():
                wanted = teacher(weak).softmax(1)
            known = F.cross_entropy(found[:12], kind[:12])
            descend(known + 5 * F.mse_loss(found.softmax(1), wanted), optimizer)
        _follow(
            teacher, student, 0.95, statistics=lab.fixed
        )  # set-up bug: teacher_in_evaluation_mode_without_statistics
        lab.validate(_sounds, lambda weak, _, kind: F.cross_entropy(teacher(weak), kind), 6000 + number)


@broken(rules=("batch-norm-mode",), words=("statistic", "buffer"), nodes=("average", "average.1", "average.4"))
def average_without_the_statistics(lab: Lab) -> None:
    """The moving average takes in the parameters only: its batch norms keep mean 0 and variance 1 for ever.

    Source: FlyreelAI/sesemi issue 36, batch norm statistics are not included in the update of the EMA.
    """
    x, y = data.images()
    raw = 2 * (x - x.min())
    shift = float(x.min())
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.LeakyReLU(0.1), nn.Conv2d(16, 32, 3, 1, 1, groups=16),
        nn.BatchNorm2d(32), nn.LeakyReLU(0.1), nn.Conv2d(32, 32, 1), nn.BatchNorm2d(32), nn.LeakyReLU(0.1),
        nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip
    average = deepcopy(model).requires_grad_(False).eval()
    optimizer = torch.optim.SGD(model.parameters(), 0.03, momentum=0.9, weight_decay=5e-4, nesterov=True)
    lab.recorder.watch({"model": model, "average": average}, optimizer)
    batches, unseen = data.draw((raw, y), 48), _unseen()
    for number in range(lab.steps):
        pictures, labels = batches(number)
        with lab.recorder.step("train"):
            descend(F.cross_entropy(model(pictures), labels, label_smoothing=0.1), optimizer)
        _follow(average, model, 0.95, statistics=lab.fixed)  # set-up bug: average_without_the_statistics
        lab.validate(unseen, lambda x, y: F.cross_entropy(average(2 * (x - shift)), y), number)


class _Weather(nn.Module):
    """Tells the weather of the next hour at 24 places from that of this hour; every layer is spectrally normalised."""

    def __init__(self, depth: int = 4) -> None:
        super().__init__()
        self.into, self.out = (nn.utils.spectral_norm(nn.Conv1d(*sizes, 1)) for sizes in ((2, 24), (24, 2)))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.utils.spectral_norm(nn.Conv1d(24, 24, 3, padding=1, padding_mode="circular")), nn.GELU())
            for _ in range(depth)
        )
        self.scale = nn.Parameter(torch.full((1,), 3.0))

    def forward(self, now: torch.Tensor) -> torch.Tensor:
        x = self.into(now)
        for block in self.blocks:
            x = block(x)
        return now + self.scale * self.out(x)


def _hours(number: int) -> _Two:
    """Waves ``(16, 2, 24)`` at 24 places around the globe, and the same an hour later."""
    chance = torch.Generator().manual_seed(number)
    size, phase = torch.rand(2, 16, 2, 3, 1, generator=chance)
    angle = torch.arange(24.0) * 2 * torch.pi / 24
    wave = torch.arange(1.0, 4.0)[:, None]
    return tuple((size * (wave * angle + 6.3 * phase + wind * wave).sin()).sum(2) for wind in (0.0, 0.3))


@broken(
    words=("spectral", "power iteration", "weight_u", "buffer"),
    nodes=("average", "average.into", "average.blocks.0.0"),
)  # fmt: skip
def unit_vectors_averaged(lab: Lab) -> None:
    """The vectors of the power iteration, which are buffers, are averaged with the weights: they get shorter than one.

    Source: NCAR/miles-credit pull request 394, exclude spectral norm buffers from the EMA shadow.
    """
    model = _Weather()
    average = deepcopy(model).requires_grad_(False).eval()
    shadow = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    lab.recorder.watch({"model": model, "average": average}, optimizer)
    for number in range(lab.steps):
        now, later = _hours(number)
        with lab.recorder.step("train"):
            descend(F.mse_loss(model(now), later), optimizer)
        for name, tensor in model.state_dict().items():
            if lab.fixed and name.endswith(("weight_u", "weight_v")):
                shadow[name].copy_(tensor)
            else:
                shadow[name].lerp_(tensor, 0.03)  # set-up bug: unit_vectors_averaged
        average.load_state_dict(shadow)
        lab.validate(_hours, lambda now, later: F.mse_loss(average(now), later), 6000 + number)


class _Patches(nn.Module):
    """A small vision transformer for digits: four patches and a token for the class."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, width, 4, 4)
        self.token, self.place = (nn.Parameter(0.02 * torch.randn(count, width)) for count in (1, 5))
        self.layers = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(width, 4, 48, dropout=0.0, batch_first=True, norm_first=True), 1,
            enable_nested_tensor=False,
        )  # fmt: skip
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), 1, -1), patches], dim=1)
        return self.head(self.norm(self.layers(tokens + self.place)[:, 0]))


@broken(rules=("stale-copy",), words=("moving average", "never follows", "hardly follows"), nodes=("average",))
def momentum_of_the_hook_too_small(lab: Lab) -> None:
    """The hook's momentum is the share of the new weights, 0.0002: after a short training its average is the beginning.

    Source: open-mmlab/mmpretrain issue 870, EMAHook makes val acc 0.
    """
    model = _Patches()
    average = deepcopy(model).requires_grad_(False)
    momentum = 0.1 if lab.fixed else 0.0002  # set-up bug: momentum_of_the_hook_too_small
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=lab.steps)
    lab.recorder.watch({"model": model, "average": average}, optimizer)
    batches, unseen = data.draw(data.images(), 48), _unseen()
    for number in range(lab.steps):
        x, y = batches(number)
        with lab.recorder.step("train"):
            descend(F.cross_entropy(model(x), y), optimizer)
        schedule.step()
        _follow(average, model, 1 - momentum, statistics=True)
        lab.validate(unseen, lambda x, y: F.cross_entropy(average(x), y), number)
