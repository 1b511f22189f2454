"""Mistakes in how losses, gradients, norms and inputs are connected, as people ask about them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import VALIDATE_EVERY, Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _flats(number: int) -> _Batch:
    """Eight facts of flats ``(64, 8)``; their rent, and how long they stay empty, both standardised ``(64,)``."""
    generator = torch.Generator().manual_seed(number)
    facts = torch.randn(64, 8, generator=generator)
    rent = 0.8 * facts[:, 0] + 0.5 * facts[:, 1] * facts[:, 2] + 0.2 * torch.randn(64, generator=generator)
    empty = 0.7 * (facts[:, 3] - facts[:, 0]).tanh() + 0.5 * facts[:, 4] + 0.2 * torch.randn(64, generator=generator)
    return facts, rent, empty


class _TwoHeads(nn.Module):
    """A trunk, two heads, and the logarithm of how uncertain each of them is."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(8, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU())
        self.rent, self.empty = nn.Linear(64, 1), nn.Linear(64, 1)
        self.eta = nn.Parameter(torch.zeros(2))

    def forward(self, facts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.trunk(facts)
        return self.rent(x)[:, 0], self.empty(x)[:, 0]


@broken(
    rules=("terms-without-gradient", "gradient-cut"), words=("torch.tensor", "new tensor", "detach", "torch.stack"),
    nodes=("loss", "model", "model.trunk", "model.rent", "model.empty"),
)  # fmt: skip
def losses_weighed_in_a_new_tensor(lab: Lab) -> None:
    """The losses of two heads are put in a new ``torch.Tensor`` to be weighed: only the weights of losses learn.

    Source: page search, loss of a head doesn't move: "How to learn the weights between two losses", PyTorch forum.
    """
    model = _TwoHeads()

    def loss_of(facts: torch.Tensor, rent: torch.Tensor, empty: torch.Tensor) -> torch.Tensor:
        losses = [F.mse_loss(guess, truth) for guess, truth in zip(model(facts), (rent, empty), strict=True)]
        values = [loss.item() for loss in losses]
        both = torch.stack(losses) if lab.fixed else torch.tensor(values)  # bug: losses_weighed_in_a_new_tensor
        return (both * torch.exp(-model.eta) + model.eta).sum()

    after = lab.validating(model, lambda number: _flats(3000 + number), loss_of)
    lab.fit(model, _flats, loss_of, torch.optim.Adam(model.parameters(), lr=3e-3), after=after)


class _Momentum(torch.optim.Optimizer):
    """Momentum with a decay of weights by themselves, as one writes it anew for one's own experiments."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, decay: float, *, skip_unused: bool) -> None:
        super().__init__(parameters, {"lr": lr, "decay": decay})
        self.skip_unused = skip_unused

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move all parameters."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None and self.skip_unused:
                    continue
                state: dict[str, Any] = self.state[weight]
                speed = state.setdefault("speed", torch.zeros_like(weight))
                weight.mul_(1 - group["lr"] * group["decay"])  # bug: weights_without_gradients_decay
                if weight.grad is not None:
                    speed.mul_(0.9).add_(weight.grad)
                    weight.sub_(group["lr"] * speed)


def _signs(number: int, language: int) -> _Batch:
    """Positions of ten joints ``(64, 20)``, and which of six signs of a language they show."""
    generator = torch.Generator().manual_seed(number)
    sign = torch.randint(6, (64,), generator=generator)
    poses = torch.randn(2, 6, 20, generator=torch.Generator().manual_seed(2))
    return 0.8 * poses[language, sign] + 0.7 * torch.randn(64, 20, generator=generator), sign


class _Signs(nn.Module):
    """A trunk for joints, and a head for each language."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.heads = nn.ModuleList([nn.Linear(64, 6), nn.Linear(64, 6)])

    def forward(self, joints: torch.Tensor, language: int) -> torch.Tensor:
        return self.heads[language](self.trunk(joints))


@broken(
    rules=("shrinking-weights",), words=("decay", "shrink"), onset=62,
    nodes=("model.trunk", *(f"model.{name}" for name in ("trunk.0.weight", "trunk.2.weight", "heads.0.weight"))),
)  # fmt: skip
def weights_without_gradients_decay(lab: Lab) -> None:
    """A home-made optimizer applies its weight decay to frozen layers, too, whose gradients are None: they fade.

    Source: issue search, gradients are None for some parameters: KellerJordan/Muon 54.
    """
    model = _Signs()
    optimizer = _Momentum(model.parameters(), lr=0.1, decay=0.05, skip_unused=lab.fixed)
    lab.recorder.watch(model, optimizer)
    for number in range(180):
        language = int(number >= 60)
        if number == 60:
            model.trunk.requires_grad_(False)
            optimizer.zero_grad()
        joints, sign = _signs(number, language)
        with lab.recorder.step("train"):
            descend(F.cross_entropy(model(joints, language), sign), optimizer)
        if number % VALIDATE_EVERY == VALIDATE_EVERY - 1:
            both = [(_signs(5000 + number, language), language) for language in range(int(number >= 60) + 1)]
            with torch.no_grad(), lab.recorder.step("validation") as step:
                losses = [F.cross_entropy(model(x, language), y) for (x, y), language in both]
                step.record("loss", torch.stack(losses).mean(), type="loss")


_MOTIF = torch.randn(4, 7, generator=torch.Generator().manual_seed(9))


def _windows(number: int, rows: int, *, tissue: int, per: int = 1) -> _Batch:
    """Windows of DNA ``(rows, 4, 64)``, ``per`` of them from each chromosome, and how active each is ``(rows, 1)``.

    Chromosomes differ in how rich they are in G and C, which matters for the activity.
    """
    generator = torch.Generator().manual_seed(number)
    rich = (0.25 + 0.5 * torch.rand(rows // per, generator=generator)).repeat_interleave(per)
    chances = torch.stack([1 - rich, rich, rich, 1 - rich], dim=1) / 2
    letters = torch.multinomial(chances, 64, replacement=True, generator=generator)
    dna = F.one_hot(letters, 4).float().transpose(1, 2)
    binding = F.conv1d(dna, _MOTIF[None]).amax(2)[:, 0]
    activity = 0.3 * (binding - 6) + (4, -2)[tissue] * (rich - 0.5)
    return dna, activity[:, None]


class _Enformer(nn.Module):
    """Convolutions with batch norms, attention over what they find, and the activity."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.motifs, self.norm1 = nn.Conv1d(4, width, 7, bias=False), nn.BatchNorm1d(width)
        self.tower, self.norm2 = nn.Conv1d(width, width, 3, padding=1, bias=False), nn.BatchNorm1d(width)
        self.attend = nn.TransformerEncoderLayer(width, 2, 48, 0.0, batch_first=True, norm_first=True)
        self.track = nn.Linear(width, 1)

    def forward(self, dna: torch.Tensor) -> torch.Tensor:
        x = F.max_pool1d(F.relu(self.norm1(self.motifs(dna))), 4)
        x = F.relu(self.norm2(self.tower(x)))
        return self.track(self.attend(x.transpose(1, 2)).mean(1))


def _pretrained() -> _Enformer:
    """Trained on another tissue with windows of many chromosomes, before anything is recorded."""
    model = _Enformer()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for number in range(120):
        dna, activity = _windows(number, 48, tissue=0)
        descend(F.mse_loss(model(dna), activity), optimizer)
    return model


@broken(
    rules=("batch-norm-mode",),
    words=("batch norm", "batchnorm", "statistics", "training mode"), nodes=("model.norm1", "model.norm2")
)  # fmt: skip
def norms_of_the_pretrained_tower_adapt(lab: Lab) -> None:
    """A pretrained net is fine-tuned on batches from one chromosome each, and its batch norms take their statistics.

    Source: issue search, fine-tuned worse than frozen: lucidrains/enformer-pytorch 16, because of the batch norms.
    """
    model = _pretrained()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, lab.steps)

    def train_mode() -> None:
        model.train()  # set-up bug: norms_of_the_pretrained_tower_adapt
        if lab.fixed:
            model.norm1.eval()
            model.norm2.eval()

    train_mode()
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        dna, activity = _windows(10_000 + number, 8, tissue=1, per=8)
        with lab.recorder.step("train"):
            descend(F.mse_loss(model(dna), activity), optimizer)
        schedule.step()
        model.eval()
        lab.validate(lambda _: _windows(20_000, 256, tissue=1), lambda x, y: F.mse_loss(model(x), y), number)
        train_mode()


def _fruits(number: int) -> _Batch:
    """Pictures ``(32, 2, 16, 16)`` of a fruit, its centre and size, and which of six it is: by colours and texture."""
    generator = torch.Generator().manual_seed(number)
    kind = torch.randint(6, (32,), generator=generator)
    centre, radius = 4 + 8 * torch.rand(32, 2, generator=generator), 2 + 2 * torch.rand(32, 1, generator=generator)
    places = torch.arange(16.0)
    down, across = (places - centre[:, :1])[:, :, None], (places - centre[:, 1:])[:, None, :]
    inside = (radius[:, :, None] - (down.square() + across.square()).sqrt() + 0.5).clamp(0, 1)
    stripes = torch.where((kind >= 3)[:, None, None], (places * 3.1416).cos()[None, None], torch.ones(1, 1, 1))
    colours = torch.tensor([[1.5, 0.2], [0.2, 1.5], [1.0, 1.0]])[kind % 3][:, :, None, None]
    pictures = colours * (inside * stripes)[:, None] + 0.15 * torch.randn(32, 2, 16, 16, generator=generator)
    return pictures, torch.cat([centre / 16, radius / 8], dim=1), kind


class _Detector(nn.Module):
    """One body, a head for the place and a head for the kind."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(2, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.LeakyReLU(0.1),
            nn.Conv2d(16, 24, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(24), nn.LeakyReLU(0.1),
            nn.Conv2d(24, 24, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(24), nn.LeakyReLU(0.1),
        )  # fmt: skip
        self.narrow, self.place, self.kind = nn.Conv2d(24, 4, 1), nn.Linear(64, 3), nn.Linear(24, 6)

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.body(pictures)
        return self.place(self.narrow(x).flatten(1)), self.kind(x.mean((2, 3)))


@broken(rules=("loss-balance",), words=("twice", "batch size", "divided"), nodes=("loss", "model.kind"))
def kinds_averaged_twice(lab: Lab) -> None:
    """The cross-entropy of kinds is a mean already, and divided by the size of the batch once more.

    Source: issue search, results change with the batch size: eriklindernoren/PyTorch-YOLOv3, pull request 137.
    """
    model = _Detector()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9, weight_decay=5e-4)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        pictures, place, kind = _fruits(number)
        with lab.recorder.step("train") as step:
            places, kinds = model(pictures)
            entropy = F.cross_entropy(kinds, kind)
            if not lab.fixed:
                entropy = entropy / len(kind)  # bug: kinds_averaged_twice
            descend(2 * F.mse_loss(places, place) + entropy, optimizer)
            step.record("loss of kinds", entropy, type="loss")
        if number % VALIDATE_EVERY == VALIDATE_EVERY - 1:
            model.eval()
            pictures, _, kind = _fruits(6000 + number)
            with torch.no_grad(), lab.recorder.step("validation") as step:
                step.record("loss", F.cross_entropy(model(pictures)[1], kind), type="loss")
            model.train()
