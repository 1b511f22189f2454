"""Training runs of flows, codebooks, adapters and moving averages in which nothing is wrong."""

from __future__ import annotations

import math
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.lab import Lab, descend
from stepscope.examples.broken.nets import change, mlp


class Coupling(nn.Module):
    """Moves and stretches one half of a point by what the other half says, and gives the logarithm of the stretch."""

    def __init__(self, *, second: bool) -> None:
        super().__init__()
        self.net = mlp(1, 32, 2, activation=nn.Tanh)
        change(self.net[2], lambda layer: layer.weight.mul_(0.1))
        self.second = second

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        kept, moved = x.chunk(2, dim=1) if self.second else reversed(x.chunk(2, dim=1))
        stretch, shift = self.net(kept).chunk(2, dim=1)
        stretch = stretch.tanh()
        moved = moved * stretch.exp() + shift
        return torch.cat([kept, moved] if self.second else [moved, kept], dim=1), stretch[:, 0]


def normalising_flow(lab: Lab) -> None:
    """Six coupling layers turn points on a circle into a normal distribution, by their likelihood."""
    layers = nn.ModuleList([Coupling(second=bool(number % 2)) for number in range(6)])

    def loss_of(x: torch.Tensor) -> torch.Tensor:
        volume = torch.zeros(len(x))
        for layer in layers:
            x, stretch = layer(x)
            volume = volume + stretch
        return (x.square().sum(1) / 2 - volume).mean() + math.log(2 * math.pi)

    lab.fit(layers, data.circles, loss_of)


class Codebook(nn.Module):
    """Replaces each vector by the nearest of some; gradients pass as if it had not."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.entries = nn.Embedding(size, width)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        nearest = torch.cdist(x.detach(), self.entries.weight.detach()).argmin(-1)
        entry = self.entries(nearest)
        toll = F.mse_loss(entry, x.detach()) + 0.25 * F.mse_loss(x, entry.detach())
        return x + (entry - x).detach(), toll


def vector_quantisation(lab: Lab) -> None:
    """An autoencoder whose eight-part code is chosen from 24 vectors, with gradients passed straight through."""
    encoder, codebook, decoder = mlp(64, 64, 32), Codebook(24, 4), mlp(32, 64, 64)
    model = nn.ModuleDict({"encoder": encoder, "codebook": codebook, "decoder": decoder})

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        code, toll = codebook(encoder(x).unflatten(1, (8, 4)))
        return F.mse_loss(decoder(code.flatten(1)), x) + toll

    lab.fit(model, data.draw(data.pixels()), loss_of)


class LowRank(nn.Module):
    """A frozen layer and a trained change of low rank, whose second factor starts at zero."""

    def __init__(self, layer: nn.Linear, rank: int = 4) -> None:
        super().__init__()
        self.layer = layer
        self.down = nn.Linear(layer.in_features, rank, bias=False)
        self.up = nn.Linear(rank, layer.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + 2 * self.up(self.down(x))


def low_rank_adapters(lab: Lab) -> None:
    """A net that knows the digits upright learns them upside down, with adapters of low rank on frozen layers."""
    base = mlp(64, 64, 64, 10)
    optimizer = torch.optim.Adam(base.parameters(), 3e-3)
    batches = data.draw(data.pixels())
    for number in range(60):
        x, y = batches(number)
        descend(F.cross_entropy(base(x), y), optimizer)
    base.requires_grad_(False)
    model = nn.Sequential(*(LowRank(layer) if isinstance(layer, nn.Linear) else layer for layer in base))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    lab.fit(
        model, batches, lambda x, y: F.cross_entropy(model(x.flip(1)), y), torch.optim.Adam(trained, 5e-3)
    )  # fmt: skip


def bootstrapped_codes(lab: Lab) -> None:
    """A net predicts the code of another view, made by its own moving average, which no optimizer trains."""

    def encoder() -> nn.Sequential:
        return nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 16), nn.BatchNorm1d(16))

    online, predictor = encoder(), mlp(16, 32, 16)
    average = deepcopy(online).requires_grad_(False)
    model = nn.ModuleDict({"online": online, "predictor": predictor, "average": average})
    optimizer = torch.optim.Adam([*online.parameters(), *predictor.parameters()], 2e-3)

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        one, two = (x + 0.4 * torch.randn_like(x) for _ in range(2))
        return 1 - F.cosine_similarity(predictor(online(one)), average(two)).mean()

    @torch.no_grad()
    def after(_: int) -> None:
        for slow, fast in zip(average.parameters(), online.parameters(), strict=True):
            slow.lerp_(fast, 0.05)

    lab.fit(model, data.draw(data.pixels()), loss_of, optimizer, after=after)
