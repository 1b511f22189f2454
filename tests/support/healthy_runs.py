"""Training runs of many kinds in which nothing is wrong; no rule may raise an alarm on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.recorder import Every, Recorder
from stepscope.store import Trial, open_trial
from support.adversarial import adversarial_step
from support.short_runs import blob_batches, blobs, curve_batches, images, mlp, record


def yes_or_no(number: int) -> tuple[torch.Tensor, ...]:
    return blobs(classes=2, seed=number)


def classifier(folder: Path) -> Trial:
    model = mlp(8, 32, 32, 4)
    return record(folder, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, steps=60)


def regression_sgd(folder: Path) -> Trial:
    model = mlp(6, 32, 32, 2, activation=nn.Tanh)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    return record(folder, model, lambda x, y: F.mse_loss(model(x), y), curve_batches, optimizer=optimizer, steps=80)


def binary(folder: Path) -> Trial:
    model = mlp(8, 24, 1, last=(nn.Flatten(0),))

    return record(
        folder, model, lambda x, y: F.binary_cross_entropy_with_logits(model(x), y.float()), yes_or_no, steps=40
    )


def sigmoid_output(folder: Path) -> Trial:
    model = mlp(8, 24, 1, last=(nn.Sigmoid(), nn.Flatten(0)))

    return record(folder, model, lambda x, y: F.binary_cross_entropy(model(x), y.float()), yes_or_no, steps=40)


class ConvNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 16, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(16)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(16 * 4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        return self.head(self.dropout(x.flatten(1)))


def conv_net(folder: Path) -> Trial:
    model = ConvNet()

    def evaluate(recorder: Recorder) -> None:
        model.eval()
        for n in range(5):
            with recorder.step(kind="validation"), torch.no_grad():
                F.cross_entropy(model(images(1000 + n)[0]), images(1000 + n)[1])

    return record(folder, model, lambda x, y: F.cross_entropy(model(x), y), images, steps=40, after=evaluate)


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(12, 16)
        self.lstm = nn.LSTM(16, 24, batch_first=True)
        self.head = nn.Linear(24, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(self.embedding(tokens))
        return self.head(states[:, -1])


def lstm(folder: Path) -> Trial:
    model = Reader()

    def loss(n: int, _: object) -> torch.Tensor:
        tokens = torch.randint(12, (32, 7), generator=torch.Generator().manual_seed(n))
        return F.cross_entropy(model(tokens), tokens[:, -2] % 3)

    return record(folder, model, loss, steps=60)


class Writer(nn.Module):
    """A small causal transformer."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.tokens = nn.Embedding(10, width)
        self.places = nn.Embedding(12, width)
        layer = nn.TransformerEncoderLayer(width, 4, 64, dropout=0.1, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        length = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        x = self.tokens(tokens) + self.places(torch.arange(length))
        return self.head(self.norm(self.body(x, mask=mask, is_causal=True)))


def transformer(folder: Path) -> Trial:
    model = Writer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)

    def loss(n: int, _: object) -> torch.Tensor:
        start = torch.randint(10, (16, 1), generator=torch.Generator().manual_seed(n))
        tokens = (start + torch.arange(13) * (1 + start % 3)) % 10
        return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())

    return record(folder, model, loss, optimizer=optimizer, steps=60)


def autoencoder(folder: Path) -> Trial:
    encoder, decoder = mlp(8, 24, 3), mlp(3, 24, 8)
    model = nn.ModuleDict({"encoder": encoder, "decoder": decoder})

    def loss(n: int, _: object) -> torch.Tensor:
        inputs, _labels = blobs(seed=n)
        return F.mse_loss(decoder(encoder(inputs)), inputs)

    return record(folder, model, loss, steps=60)


def gan(folder: Path) -> Trial:
    torch.manual_seed(0)
    generator, critic = mlp(4, 24, 2), mlp(2, 24, 1, activation=lambda: nn.LeakyReLU(0.2))
    optimizers = {
        "generator": torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.999)),
        "critic": torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.5, 0.999)),
    }
    with Recorder(folder, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch({"generator": generator, "critic": critic}, optimizers)
        for _ in range(60):
            with recorder.step() as step:
                adversarial_step(step, generator, critic, optimizers, 1.0)
    return open_trial(folder / "trial")


def frozen_backbone(folder: Path) -> Trial:
    model = nn.ModuleDict({"backbone": mlp(8, 32, 16).requires_grad_(False), "head": mlp(16, 16, 4)})

    def loss(n: int, _: object) -> torch.Tensor:
        inputs, labels = blobs(seed=n)
        return F.cross_entropy(model["head"](F.relu(model["backbone"](inputs))), labels)

    return record(folder, model, loss, steps=50)


def clipped(folder: Path) -> Trial:
    model = mlp(6, 32, 32, 32, 2, activation=nn.GELU)

    def train(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return record(folder, model, lambda x, y: F.smooth_l1_loss(model(x), y), curve_batches, steps=50, train=train)


class Residual(nn.Module):
    def __init__(self, width: int = 24, blocks: int = 6) -> None:
        super().__init__()
        self.start = nn.Linear(6, width)
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(blocks)])
        self.blocks = nn.ModuleList([mlp(width, 48, width, activation=nn.SiLU) for _ in range(blocks)])
        self.end = nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.start(x)
        for norm, block in zip(self.norms, self.blocks, strict=True):
            x = x + block(norm(x))
        return self.end(x)


def residual(folder: Path) -> Trial:
    model = Residual()
    return record(folder, model, lambda x, y: F.mse_loss(model(x), y), curve_batches, lr=3e-3, steps=50)


def recurrent_iterations(folder: Path) -> Trial:
    cell, head = nn.GRUCell(4, 24), nn.Linear(24, 4)
    model = nn.ModuleDict({"cell": cell, "head": head})

    def loss(n: int, step: object) -> torch.Tensor:
        numbers = torch.rand(5, 32, 4, generator=torch.Generator().manual_seed(n)) * 2 - 1
        state = torch.zeros(32, 24)
        for number in numbers:
            with step.iteration():  # type: ignore[attr-defined]
                state = cell(number, state)
                answer = head(state)
        return F.mse_loss(answer, numbers.sum(0))

    return record(folder, model, loss, steps=60)


HEALTHY: dict[str, Callable[[Path], Trial]] = {
    make.__name__: make
    for make in (
        classifier, regression_sgd, binary, sigmoid_output, conv_net, lstm, transformer, autoencoder, gan,
        frozen_backbone, clipped, residual, recurrent_iterations,
    )
}  # fmt: skip
"""Recorded training runs by name; each takes a folder and gives the trial."""
