"""Mistakes that depth makes worse: residual streams, factors, and how layers start."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab
from stepscope.examples.broken.nets import change, mlp


class Block(nn.Module):
    """A residual block: ``keep * x + scale * inner(x)``, where ``scale`` is learned."""

    def __init__(self, width: int, *, keep: float = 1.0, scale: float = 1.0) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.scale = nn.Parameter(torch.full((width,), scale))
        self.keep = keep

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branch = self.scale * self.inner(x)
        return self.keep * x + branch  # bug: skip_scaled_down


class Blocks(nn.Module):
    """A stem, residual blocks and a head."""

    def __init__(self, inputs: int, outputs: int, count: int, *, keep: float = 1.0, scale: float = 1.0) -> None:
        super().__init__()
        width = 32
        self.stem = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList([Block(width, keep=keep, scale=scale) for _ in range(count)])
        self.head = nn.Linear(width, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


@broken(
    rules=("residual-balance", "vanishing-gradient"), words=("skip", "residual"),
    nodes=("model.blocks.0", "model.blocks.1", "model.blocks.10", "model.blocks.11", "model.stem", "model.stem.weight"),
)  # fmt: skip
def skip_scaled_down(lab: Lab) -> None:
    """Twelve blocks each multiply their skip connection by 0.1, so that nothing of the input comes through.

    Source: He et al. (2016), identity mappings: scaled skips vanish; AutoTrainer (ICSE 2021), vanishing gradients.
    """
    model = Blocks(64, 10, 12, keep=1.0 if lab.fixed else 0.1)
    lab.fit(model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model(x), y), lr=2e-3)


@broken(
    rules=("residual-balance", "missing-nonlinearity"), words=("residual", "branch"),
    nodes=("model.blocks.0", "model.blocks.1", "model.blocks.2", "model.blocks.0.inner", "model.blocks.0.scale"),
)  # fmt: skip
def layer_scale_of_a_millionth(lab: Lab) -> None:
    """Residual branches are scaled by 1e-6, which suits 36 layers and long schedules; here they stay asleep.

    Source: deit issue 122 (0.1 up to depth 18, 1e-6 for 36), ConvNeXt issues 27 and 44, keras-cv issue 1235.
    """
    scale = 0.5 if lab.fixed else 1e-6
    model = Blocks(2, 1, 3, scale=scale)  # set-up bug: layer_scale_of_a_millionth
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9)

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        x = torch.randn(128, 2, generator=torch.Generator().manual_seed(number))
        return x, (x[:, 0] * x[:, 1] > 0).float()

    lab.fit(model, batches, lambda x, y: F.binary_cross_entropy_with_logits(model(x)[:, 0], y), optimizer)


class Adapted(nn.Module):
    """A frozen layer, and a trained change of low rank."""

    def __init__(self, inputs: int, outputs: int, *, empty: bool, rank: int = 8) -> None:
        super().__init__()
        self.frozen = nn.Linear(inputs, outputs).requires_grad_(False)
        self.down = nn.Parameter(torch.zeros(rank, inputs))
        self.up = nn.Parameter(torch.zeros(outputs, rank))
        if not empty:
            nn.init.normal_(self.down, std=inputs**-0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.frozen(x) + 4 * x @ self.down.T @ self.up.T


@broken(
    rules=("no-gradient", "symmetric-weights", "weight-scale"), words=("zero",),
    nodes=("model.0.down", "model.0.up", "model.2.down", "model.2.up", "model.0", "model.2"),
)  # fmt: skip
def both_factors_start_at_zero(lab: Lab) -> None:
    """Both factors of low-rank adapters start at zero, and each is the other one's gradient: neither ever moves.

    Source: relora issue 18, SkyRL pull request 852, cosmos-predict2.5 pull request 15.
    """
    empty = not lab.fixed
    model = nn.Sequential(  # set-up bug: both_factors_start_at_zero
        Adapted(64, 48, empty=empty), nn.ReLU(), Adapted(48, 10, empty=empty)
    )
    adapters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(adapters, lr=1e-2)
    lab.fit(model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model(x), y), optimizer)


class Tied(nn.Module):
    """Predicts the next character; its embedding is its output layer, too."""

    def __init__(self, characters: int, width: int = 128) -> None:
        super().__init__()
        self.embed = nn.Embedding(characters, width)
        self.mix = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.predict = nn.Linear(width, characters, bias=False)
        self.predict.weight = self.embed.weight

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        x = self.embed(text)
        return self.predict(x + self.mix(x))


@broken(
    rules=("loss-start", "weight-scale"), words=("initial", "start"),
    nodes=("model.embed", "model.embed.weight", "model.predict", "model.predict.weight", "loss"),
)  # fmt: skip
def tied_embedding_of_unit_scale(lab: Lab) -> None:
    """An embedding keeps its default unit scale though it is the output layer too: the loss starts above 100.

    Source: Transformers pull request 26441 (a first loss of 110), RetNet issue 31, pytorch/pytorch issue 3121.
    """
    _, count = data.text()
    model = Tied(count)
    if lab.fixed:
        nn.init.normal_(model.embed.weight, std=0.05)

    def loss_of(text: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(text).flatten(0, 1), following.flatten())  # bug: tied_embedding_of_unit_scale

    lab.fit(model, data.characters(), loss_of)


@broken(
    rules=("weight-scale", "vanishing-gradient"), words=("initial", "vanish"),
    nodes=("model.0", "model.0.weight", "model.2", "model.2.weight", "model.4", "model.4.weight", "model.12.weight"),
)  # fmt: skip
def eight_layers_of_a_hundredth(lab: Lab) -> None:
    """All weights of eight ReLU layers start with standard deviation 0.01: signals fade tenfold with each layer.

    Source: He et al. (2015), where a net of 22 layers stalls with 0.01; SageMaker Debugger's PoorWeightInitialization.
    """
    model = mlp(64, *[48] * 7, 10)
    if lab.fixed:
        change(model, lambda layer: nn.init.kaiming_normal_(layer.weight, nonlinearity="relu"))
    else:
        change(model, lambda layer: layer.weight.normal_(0, 0.01))  # set-up bug: eight_layers_of_a_hundredth
    lab.fit(model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model(x), y), lr=1e-3)


class Gates(nn.Module):
    """Layers that are added to what comes through, or multiplied with it."""

    def __init__(self, *, multiply: bool, width: int = 32) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(64, width), nn.Linear(width, 10)
        self.layers = nn.ModuleList([mlp(width, width, width) for _ in range(8)])
        self.multiply = multiply

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = x * layer(x) if self.multiply else x + layer(x)  # bug: branches_multiplied_with_the_stream
        return self.head(x)


@broken(
    rules=("vanishing-gradient", "residual-balance", "constant-output"), words=("vanish",),
    nodes=("model.stem", "model.head", *(f"model.layers.{i}{part}" for i in range(8) for part in ("", ".0", ".2"))),
)  # fmt: skip
def branches_multiplied_with_the_stream(lab: Lab) -> None:
    """Eight residual branches are multiplied with the stream instead of added to it, which leaves nothing of it.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong model; AutoTrainer (ICSE 2021), vanishing gradients.
    """
    model = Gates(multiply=not lab.fixed)
    lab.fit(model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model(x), y), lr=1e-3)
