"""Mistakes that projects have mended in modes, weights that are loaded, adapters, and pairs of optimizers."""

from __future__ import annotations

import logging

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import lr_scheduler

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Batches, Lab, descend

_Batch = tuple[torch.Tensor, ...]
_LOG = logging.getLogger(__name__)


def _frames(rows: torch.Tensor) -> _Batch:
    """Distances between six beads of a chain ``(n, 15)``, and its energy; the chain slowly unfolds, row by row."""
    generator = torch.Generator().manual_seed(6)
    unfolded = torch.linspace(-1.5, 1.5, 2400)[:, None]
    loading = torch.randn(1, 15, generator=generator).abs()
    distances = 3 + loading * unfolded + 0.7 * torch.randn(2400, 15, generator=generator)
    weights = torch.randn(15, generator=generator) / 4
    energy = ((distances - 3) @ weights).tanh() + 0.5 * unfolded[:, 0] ** 2
    return distances[rows], energy[rows, None]


class _CgNet(nn.Module):
    """Normalised features of a coarse-grained molecule, and a net for its energy."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.BatchNorm1d(15)
        self.arch = nn.Sequential(nn.Linear(15, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh(), nn.Linear(48, 1))

    def forward(self, distances: torch.Tensor) -> torch.Tensor:
        return self.arch(self.features(distances))


@broken(
    rules=("batch-norm-mode",),
    words=("training mode", "eval()", "evaluation mode"),
    nodes=("model", "model.features"),
    onset=25,
)
def loss_of_a_data_set_in_training_mode(lab: Lab) -> None:
    """The function for the loss of a test set leaves the net in training mode, with each batch normalised by itself.

    Source: github.com/coarse-graining/cgnet/issues/157, eval/training_mode in dataset_loss.
    """
    model = _CgNet()
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    lab.recorder.watch(model, optimizer)
    order = torch.randperm(2400, generator=torch.Generator().manual_seed(7))
    trained, tested = order[:1600], order[1600:].sort().values

    def dataset_loss() -> None:
        if lab.fixed:
            model.eval()
        with torch.no_grad(), lab.recorder.step("test") as step:
            errors = []
            for rows in tested.split(100):
                distances, energy = _frames(rows)
                errors.append(F.mse_loss(model(distances), energy))  # bug: loss_of_a_data_set_in_training_mode
            step.record("loss", torch.stack(errors).mean(), type="loss")
        model.train()

    for epoch in range(6):
        shuffled = trained[torch.randperm(1600, generator=torch.Generator().manual_seed(epoch))]
        for rows in shuffled.split(64):
            distances, energy = _frames(rows)
            with lab.recorder.step("train"):
                descend(F.mse_loss(model(distances), energy), optimizer)
        dataset_loss()


def _tiles(number: int) -> _Batch:
    """Pictures ``(32, 1, 8, 8)`` of digits on noisy ground, and which of ten digits each shows."""
    x, y = data.images()
    generator = torch.Generator().manual_seed(number)
    rows = torch.randint(len(x) * 3 // 4, (32,), generator=generator)
    return x[rows] + 0.3 * torch.randn(32, 1, 8, 8, generator=generator), y[rows]


def _encoder() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 24, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(96, 12),
        nn.Tanh(),
    )  # fmt: skip


def _pretrained() -> dict[str, torch.Tensor]:
    """Weights of an encoder that knows digits, named as in the model in which it learned."""
    model = nn.Sequential()
    model.add_module("encoder", _encoder())
    model.add_module("head", nn.Linear(12, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for number in range(150):
        x, y = _tiles(5000 + number)
        descend(F.cross_entropy(model(x), y), optimizer)
    return model.get_submodule("encoder").state_dict(prefix="encoder.")


@broken(words=("pretrained", "pre-trained", "random weights", "not loaded"), nodes=("model.encoder", "model.encoder.0",
        "model.encoder.2", "model.encoder.5"))  # fmt: skip
def random_weights_after_a_warning(lab: Lab) -> None:
    """The pretrained weights do not fit by their names, and after a warning the frozen encoder stays at random ones.

    Source: github.com/torchgeo/terratorch/pull/320, remove fallback by error with pretrained weights.
    """
    weights = _pretrained()
    if lab.fixed:
        weights = {name.removeprefix("encoder."): weight for name, weight in weights.items()}
    model = nn.Sequential()
    model.add_module("encoder", _encoder())
    model.add_module("decoder", nn.Linear(12, 10))
    try:
        model.get_submodule("encoder").load_state_dict(weights)
    except RuntimeError:
        _LOG.info("weights do not fit, go on with random ones")  # set-up bug: random_weights_after_a_warning
    model.get_submodule("encoder").requires_grad_(requires_grad=False)
    optimizer = torch.optim.AdamW(model.get_submodule("decoder").parameters(), lr=1e-2)
    x, y = data.unseen_pixels()
    after = lab.validating(model, lambda _: (x.view(-1, 1, 8, 8), y), lambda x, y: F.cross_entropy(model(x), y))
    lab.fit(model, _tiles, lambda x, y: F.cross_entropy(model(x), y), optimizer, after=after)


class _Lora(nn.Module):
    """A frozen linear layer, and what is learned beside it."""

    def __init__(self, base: nn.Linear, rank: int = 8) -> None:
        super().__init__()
        self.base = base.requires_grad_(requires_grad=False)
        self.lora_a = nn.Parameter(torch.randn(rank, base.in_features) / base.in_features**0.5)
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + 2 * (x @ self.lora_a.T) @ self.lora_b.T


class _NextLetter(nn.Module):
    """Three letters, two layers, the scores of the next letter."""

    def __init__(self, letters: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(letters, 24)
        self.up_proj, self.down_proj = nn.Linear(72, 96), nn.Linear(96, 48)
        self.lm_head = nn.Linear(48, letters)

    def forward(self, context: torch.Tensor) -> torch.Tensor:
        x = F.silu(self.up_proj(self.embed(context).flatten(1)))
        return self.lm_head(F.silu(self.down_proj(x)))


@broken(
    rules=("accumulated-gradients",),
    words=("zero_grad", "cleared", "accumulat"),
    nodes=(
        "model.up_proj.lora_a",
        "model.up_proj.lora_b",
        "model.down_proj.lora_a",
        "model.down_proj.lora_b",
        "model.lm_head.lora_a",
        "model.lm_head.lora_b",
    ),
)
def adapters_without_zero_grad(lab: Lab) -> None:
    """The trainer of low-rank adapters forgets ``zero_grad`` after a step, and all earlier gradients are used again.

    Source: github.com/tenstorrent/tt-blacksmith/pull/711, fix bug where zero grad was left out.
    """
    letters, kinds = data.text()
    model = _NextLetter(kinds)
    learning = torch.optim.Adam(model.parameters(), lr=5e-3)

    def windows(number: int, first: int, last: int) -> _Batch:
        places = torch.randint(first, last, (64, 1), generator=torch.Generator().manual_seed(number))
        window = letters[places + torch.arange(4)]
        return window[:, :3], window[:, 3]

    for number in range(150):
        context, following = windows(number, 0, 100_000)
        descend(F.cross_entropy(model(context), following), learning)
    letters = letters.flip(0)
    model.requires_grad_(requires_grad=False)
    for name, child in list(model.named_children()):
        if isinstance(child, nn.Linear):
            setattr(model, name, _Lora(child))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        context, following = windows(number, 0, 150_000)
        with lab.recorder.step("train"):
            loss = F.cross_entropy(model(context), following)
            loss.backward()
            optimizer.step()  # bug: adapters_without_zero_grad
            if lab.fixed:
                optimizer.zero_grad()
        lab.validate(lambda _: windows(9000, 0, 150_000), lambda x, y: F.cross_entropy(model(x), y), number)


class _Generator(nn.Module):
    """Makes images of four times the size: residual convolutions, and each place becomes four."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.body = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.up, self.tail = nn.Conv2d(16, 32, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, small: torch.Tensor) -> torch.Tensor:
        x = F.leaky_relu(self.head(small), 0.2)
        x = x + 0.5 * self.body(F.leaky_relu(x, 0.2))
        return self.tail(F.leaky_relu(F.pixel_shuffle(self.up(x), 2), 0.2)) + F.interpolate(small, scale_factor=2)


def _photos(batch: int = 16) -> Batches:
    """Digits at half their size ``(n, 1, 4, 4)``, and at their whole size."""
    digits = data.draw(data.images(), batch)
    return lambda number: (F.avg_pool2d(digits(number)[0], 2), digits(number)[0])


@broken(rules=("scheduler-rhythm", "learning-rate-decay"),
        words=("schedul",), nodes=("generator", "generator.head.weight", "generator.body.weight",
        "generator.up.weight", "generator.tail.weight"), onset=15)  # fmt: skip
def two_schedulers_for_the_generator(lab: Lab) -> None:
    """The scheduler of the discriminator is given the optimizer of the generator, whose rate is lowered twice.

    Source: github.com/Lornatang/ESRGAN-PyTorch/issues/39, lines 147 and 148 of train_gan.py are all g_optimizer.
    """
    generator = _Generator()
    discriminator = nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(16, 24, 3, stride=2, padding=1),
        nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(96, 1),
    )  # fmt: skip
    g_optimizer = torch.optim.Adam(generator.parameters(), lr=3e-3, betas=(0.9, 0.99))
    d_optimizer = torch.optim.Adam(discriminator.parameters(), lr=3e-3, betas=(0.9, 0.99))
    milestones = (1, 2, 4, 6)
    g_scheduler = lr_scheduler.MultiStepLR(g_optimizer, milestones, 0.5)
    judged = d_optimizer if lab.fixed else g_optimizer
    d_scheduler = lr_scheduler.MultiStepLR(judged, milestones, 0.5)  # set-up bug: two_schedulers_for_the_generator
    lab.recorder.watch(
        {"generator": generator, "discriminator": discriminator},
        {"generator": g_optimizer, "discriminator": d_optimizer},
    )
    batches, real, fake = _photos(), torch.ones(16, 1), torch.zeros(16, 1)
    x, _ = data.unseen_pixels()
    whole = x.view(-1, 1, 8, 8)
    for number in range(lab.steps):
        small, large = batches(number)
        with lab.recorder.step("train"):
            made = generator(small)
            adversarial = F.binary_cross_entropy_with_logits(discriminator(made), real)
            descend(F.l1_loss(made, large) + 5e-3 * adversarial, g_optimizer)
            judged_real = F.binary_cross_entropy_with_logits(discriminator(large), real)
            judged_fake = F.binary_cross_entropy_with_logits(discriminator(made.detach()), fake)
            descend(judged_real + judged_fake, d_optimizer)
        if number % 15 == 14:
            g_scheduler.step()
            d_scheduler.step()
        lab.validate(lambda _: (F.avg_pool2d(whole, 2), whole), lambda x, y: F.l1_loss(generator(x), y), number)
