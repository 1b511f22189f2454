"""Small networks on vectors, pictures and graphs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from support.training import Training, simple


def mlp() -> Training:
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))
    return simple(model, lambda: F.cross_entropy(model(torch.randn(8, 6)), torch.randint(3, (8,))))


def cnn_with_in_place_relu() -> Training:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 2), nn.LeakyReLU(0.1, inplace=True), nn.Dropout2d(0.1),
        nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    return simple(model, lambda: F.cross_entropy(model(torch.randn(8, 1, 8, 8)), torch.randint(3, (8,))), optimizer)


class ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
        self.norm, self.second_norm = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.relu(self.norm(self.first(x)))
        inner = self.second_norm(self.second(inner))
        inner += x
        return self.relu(inner)


def resnet() -> Training:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), ResidualBlock(4), ResidualBlock(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    return simple(model, lambda: F.cross_entropy(model(torch.randn(6, 3, 8, 8)), torch.randint(2, (6,))))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.middle = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
        self.up, self.out = nn.ConvTranspose2d(8, 4, 2, stride=2), nn.Conv2d(8, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = F.relu(self.down(x))
        inner = F.relu_(self.middle(F.max_pool2d(skip, 2)))
        return self.out(torch.cat([skip, self.up(inner)], dim=1))


def unet() -> Training:
    model = UNet()

    def loss() -> torch.Tensor:
        picture = torch.randn(3, 1, 8, 8)
        return F.binary_cross_entropy_with_logits(model(picture), (picture > 0).float())

    return simple(model, loss)


class Patches(nn.Module):
    """A vision transformer: patches, a class token, positions, one encoder layer."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 4, stride=4)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, 5, width) * 0.02)
        self.layer = nn.TransformerEncoderLayer(width, 2, 16, batch_first=True, norm_first=True)
        self.head = nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], dim=1) + self.positions
        return self.head(self.layer(tokens)[:, 0])


def vit() -> Training:
    model = Patches()
    return simple(model, lambda: F.cross_entropy(model(torch.randn(5, 1, 8, 8)), torch.randint(3, (5,))))


class VAE(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(6, 8), nn.Linear(4, 6)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        mean, log_variance = self.encoder(x).chunk(2, dim=-1)
        noise = torch.randn_like(mean)
        return {
            "mean": mean,
            "log_variance": log_variance,
            "x": self.decoder(mean + noise * (0.5 * log_variance).exp()),
        }


def vae() -> Training:
    model = VAE()

    def loss() -> torch.Tensor:
        x = torch.randn(8, 6)
        out = model(x)
        divergence = -0.5 * (1 + out["log_variance"] - out["mean"] ** 2 - out["log_variance"].exp()).sum(1).mean()
        return F.mse_loss(out["x"], x) + 0.1 * divergence

    return simple(model, loss)


def gan() -> Training:
    generator = nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(0.2), nn.Linear(8, 4))
    critic = nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
    generator_optimizer = torch.optim.Adam(generator.parameters(), lr=1e-2, betas=(0.5, 0.9))
    critic_optimizer = torch.optim.RMSprop(critic.parameters(), lr=1e-2)

    def step(number: int) -> list[torch.Tensor]:
        real, fake = torch.randn(8, 4) + 1, generator(torch.randn(8, 2))
        critic_optimizer.zero_grad()
        critic_loss = F.softplus(-critic(real)).mean() + F.softplus(critic(fake.detach())).mean()
        critic_loss.backward()
        critic_optimizer.step()
        generator_optimizer.zero_grad()
        generator_loss = F.softplus(-critic(fake)).mean()
        generator_loss.backward()
        generator_optimizer.step()
        return [critic_loss, generator_loss]

    models = {"generator": generator, "critic": critic}
    return Training(models, {"generator_optimizer": generator_optimizer, "critic_optimizer": critic_optimizer}, step)


def siamese() -> Training:
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))

    def loss() -> torch.Tensor:
        left, right = model(torch.randn(8, 6)), model(torch.randn(8, 6))
        return F.cosine_embedding_loss(left, right, torch.randint(2, (8,)) * 2 - 1)

    return simple(model, loss)


class MixtureOfExperts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(6, 3)
        self.experts = nn.ModuleList(nn.Linear(6, 2) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights, chosen = self.gate(x).softmax(-1).topk(2)
        out = torch.zeros(len(x), 2)
        for number, expert in enumerate(self.experts):
            rows, slot = torch.where(chosen == number)
            out = out.index_add(0, rows, weights[rows, slot, None] * expert(x[rows]))
        return out


def mixture_of_experts() -> Training:
    model = MixtureOfExperts()
    return simple(model, lambda: F.mse_loss(model(torch.randn(5, 6)), torch.randn(5, 2)))


class GraphNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.message, self.update = nn.Linear(8, 4), nn.GRUCell(4, 4)

    def forward(self, nodes: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        for _ in range(2):
            pairs = torch.cat([nodes[edges[0]], nodes[edges[1]]], dim=-1)
            gathered = torch.zeros_like(nodes).index_add_(0, edges[1], self.message(pairs))
            nodes = self.update(gathered, nodes)
        return nodes.mean(0)


def graph_network() -> Training:
    model = GraphNetwork()

    def loss() -> torch.Tensor:
        size = int(torch.randint(4, 9, ()))
        return model(torch.randn(size, 4), torch.randint(size, (2, 12))).square().sum()

    return simple(model, loss)
