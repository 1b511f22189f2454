"""Training runs on vectors and images in which nothing is wrong."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.lab import Lab
from stepscope.examples.broken.nets import mlp
from stepscope.examples.digits_cnn import DigitsCNN


def digits_with_cosine_annealing(lab: Lab) -> None:
    """SGD with momentum, weight decay and an annealed learning rate."""
    model = mlp(64, 64, 64, 10)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, lab.steps)
    lab.fit(
        model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model(x), y), optimizer,
        after=lambda _: schedule.step(),
    )  # fmt: skip


def convolutions_with_validation(lab: Lab) -> None:
    """A convolutional net with batch normalisation, validated in evaluation mode."""
    model = DigitsCNN()
    _, unseen_labels = data.unseen_pixels()
    unseen = data.unseen_pixels()[0].unflatten(1, (1, 8, 8)), unseen_labels

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x), y)

    lab.fit(model, data.draw(data.images()), loss_of, after=lab.validating(model, data.draw(unseen), loss_of))


class Residual(nn.Module):
    """Two convolutions with group normalisation, added to what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.GroupNorm(4, width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(4, width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.inner(x)


def residual_convolutions(lab: Lab) -> None:
    """Three residual blocks with group normalisation."""
    blocks = [Residual(16) for _ in range(3)]
    model = nn.Sequential(nn.Conv2d(1, 16, 3), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    lab.fit(model, data.draw(data.images(), 32), lambda x, y: F.cross_entropy(model(x), y), lr=5e-3)


class Patches(nn.Module):
    """A small vision transformer over patches of two by two pixels."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.cut = nn.Conv2d(1, width, 2, stride=2)
        self.place = nn.Parameter(0.02 * torch.randn(16, width))
        layer = nn.TransformerEncoderLayer(width, 4, 64, dropout=0.0, batch_first=True, norm_first=True)
        self.encode = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = self.cut(x).flatten(2).transpose(1, 2) + self.place
        return self.head(self.encode(patches).mean(1))


def vision_transformer(lab: Lab) -> None:
    """Two blocks of a transformer over image patches, with AdamW."""
    model = Patches()
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.05)
    lab.fit(model, data.draw(data.images(), 32), lambda x, y: F.cross_entropy(model(x), y), optimizer)


def denoising_convolutions(lab: Lab) -> None:
    """A net with a skip connection takes noise out of images."""
    down = nn.Sequential(nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.SiLU())
    up = nn.Sequential(nn.ConvTranspose2d(16, 8, 2, stride=2), nn.SiLU())
    model = nn.ModuleDict({"down": down, "up": up, "last": nn.Conv2d(9, 1, 3, padding=1)})

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        noisy = x + 0.5 * torch.randn_like(x)
        return F.mse_loss(model["last"](torch.cat([up(down(noisy)), noisy], dim=1)), x)

    lab.fit(model, data.draw(data.images(), 32), loss_of)


def mixture_of_experts(lab: Lab) -> None:
    """Four experts behind a softmax gate."""
    gate, experts = nn.Linear(64, 4), nn.ModuleList([mlp(64, 24, 10) for _ in range(4)])
    model = nn.ModuleDict({"gate": gate, "experts": experts})

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        answers = torch.stack([expert(x) for expert in experts], dim=1)
        return F.cross_entropy((gate(x).softmax(1)[:, :, None] * answers).sum(1), y)

    lab.fit(model, data.draw(data.pixels()), loss_of)


def contrastive_pairs(lab: Lab) -> None:
    """Two noisy views of an image shall have similar codes."""
    model = mlp(64, 64, 32, activation=nn.GELU)

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        one, two = (F.normalize(model(x + 0.3 * torch.randn_like(x)), dim=1) for _ in range(2))
        return F.cross_entropy(one @ two.T / 0.2, torch.arange(len(x)))

    lab.fit(model, data.draw(data.pixels()), loss_of, lr=2e-3)


def robust_regression(lab: Lab) -> None:
    """A regression with Huber's loss, dropout and layer normalisation."""
    model = nn.Sequential(nn.Linear(10, 32), nn.LayerNorm(32), nn.ELU(), nn.Dropout(0.1), nn.Linear(32, 1))
    lab.fit(model, data.draw(data.diabetes()), lambda x, y: F.huber_loss(model(x), y))


def mixture_density(lab: Lab) -> None:
    """The likelihood of a mixture of three normal distributions."""
    model = mlp(10, 32, 9, activation=nn.Tanh)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        weight, mean, log_scale = model(x).chunk(3, dim=1)
        parts = torch.distributions.Normal(mean, log_scale.exp()).log_prob(y)
        return -torch.logsumexp(weight.log_softmax(1) + parts, dim=1).mean()

    lab.fit(model, data.draw(data.diabetes()), loss_of)


def quantile_regression(lab: Lab) -> None:
    """Three quantiles at once, by the pinball loss."""
    model = mlp(10, 32, 3)
    levels = torch.tensor([0.1, 0.5, 0.9])

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        error = y - model(x)
        return torch.maximum(levels * error, (levels - 1) * error).mean()

    lab.fit(model, data.draw(data.diabetes()), loss_of)


def logistic_regression(lab: Lab) -> None:
    """One linear layer on tumours, with plain SGD."""
    model = nn.Linear(30, 1)
    lab.fit(
        model, data.draw(data.tumours()), lambda x, y: F.binary_cross_entropy_with_logits(model(x)[:, 0], y),
        torch.optim.SGD(model.parameters(), 0.1),
    )  # fmt: skip


def two_heads(lab: Lab) -> None:
    """One trunk learns the digit and whether it is even."""
    trunk, digit, even = mlp(64, 64, 32), nn.Linear(32, 10), nn.Linear(32, 1)
    model = nn.ModuleDict({"trunk": trunk, "digit": digit, "even": even})

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        code = F.relu(trunk(x))
        binary = F.binary_cross_entropy_with_logits(even(code)[:, 0], (y % 2 == 0).float())
        return F.cross_entropy(digit(code), y) + 0.5 * binary

    lab.fit(model, data.draw(data.pixels()), loss_of)


def fine_tuned_head(lab: Lab) -> None:
    """A frozen, normalised backbone, and a head that trains on it."""
    backbone = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.LayerNorm(128)).requires_grad_(False)
    model = nn.ModuleDict({"backbone": backbone, "head": nn.Linear(128, 10)})
    optimizer = torch.optim.Adam(model["head"].parameters(), 1e-2)
    lab.fit(model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model["head"](backbone(x)), y), optimizer)
