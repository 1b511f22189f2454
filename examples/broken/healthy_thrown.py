"""Sound trainings of the kinds of nets that the dice had to choose from, in which nothing is wrong."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.lab import Lab
from stepscope.examples.broken.nets import mlp

_Batch = tuple[torch.Tensor, ...]


class _Patches(nn.Module):
    """Sixteen overlapping patches of an image, a layer of attention, and the mean of what they say."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, width, 4, stride=2, padding=1)
        self.place = nn.Parameter(0.02 * torch.randn(1, 16, width))
        layer = nn.TransformerEncoderLayer(width, 4, 96, 0.1, F.gelu, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        tokens = self.patch(image).flatten(2).transpose(1, 2) + self.place
        return self.head(self.norm(self.encoder(tokens).mean(1)))


def digits_by_patches(lab: Lab) -> None:
    """A small vision transformer with a warm-up, a falling rate, clipped gradients and slightly smoothed labels."""
    batches = data.draw(data.images(), 48)
    x, y = data.unseen_pixels()
    unseen = x.unflatten(1, (1, 8, 8)), y
    model = _Patches()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=150, pct_start=0.15)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.02)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda _: unseen, lambda image, label: criterion(model(image), label))
    for number in range(150):
        image, label = batches(number)
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            criterion(model(image), label).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        schedule.step()
        after(number)


class _Graph(nn.Module):
    """Two convolutions over a graph with self-loops and degrees divided out."""

    def __init__(self, edges: torch.Tensor) -> None:
        super().__init__()
        edges = edges + torch.eye(len(edges))
        degree = edges.sum(1).rsqrt()
        self.register_buffer("mix", degree[:, None] * edges * degree)
        self.first, self.second = nn.Linear(16, 32), nn.Linear(32, 3)

    def forward(self, facts: torch.Tensor) -> torch.Tensor:
        mix = self.get_buffer("mix")
        hidden = F.dropout(F.relu(mix @ self.first(facts)), 0.3, self.training)
        return mix @ self.second(hidden)


def papers_by_whom_they_cite(lab: Lab) -> None:
    """Nodes of a graph are told apart by a graph convolutional network, which knows the labels of a third of them."""
    generator = torch.Generator().manual_seed(5)
    kind = torch.arange(300) % 3
    chance = torch.where(kind[:, None] == kind, 0.05, 0.006)
    upper = (torch.rand(300, 300, generator=generator) < chance).triu(1).float()
    facts = torch.randn(300, 16, generator=generator) + 1.1 * F.one_hot(kind, 16)
    order = torch.randperm(300, generator=generator)
    known, unknown = order[:120], order[120:]
    model = _Graph(upper + upper.T)

    def loss_of(facts: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(facts)[rows], kind[rows])

    after = lab.validating(model, lambda _: (facts, unknown), loss_of)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3, weight_decay=5e-3)
    lab.fit(model, lambda _: (facts, known), loss_of, optimizer, after=after)


def _pairs(table: _Batch, number: int, rows: int = 96) -> _Batch:
    """Two lots of digits in noise, and whether those in the same row are the same digit, half of the time."""
    x, y = table
    generator = torch.Generator().manual_seed(number)
    one = torch.randint(len(x), (rows,), generator=generator)
    other = torch.randint(len(x), (rows,), generator=generator)
    for row in range(0, rows, 2):
        same = (y == y[one[row]]).nonzero()[:, 0]
        other[row] = same[torch.randint(len(same), (), generator=generator)]
    noise = 0.3 * torch.randn(2, rows, x.shape[1], generator=generator)
    return x[one] + noise[0], x[other] + noise[1], (y[one] == y[other]).float()


def same_digit_or_not(lab: Lab) -> None:
    """A Siamese network draws images of the same digit together, and pushes others apart up to a margin."""
    model = mlp(64, 96, 16)
    train, unseen = data.pixels(), data.unseen_pixels()

    def loss_of(one: torch.Tensor, other: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
        first, second = model(torch.cat([one, other])).chunk(2)
        apart = ((first - second) ** 2).sum(1).add(1e-6).sqrt()
        return (same * apart**2 + (1 - same) * F.relu(2 - apart) ** 2).mean()

    after = lab.validating(model, lambda number: _pairs(unseen, 9000 + number, 400), loss_of)
    lab.fit(model, lambda number: _pairs(train, number), loss_of, lr=2e-3, after=after)


def cart_kept_in_the_middle(lab: Lab) -> None:
    """A deep Q-network with a memory and a slow target network pushes a cart, in wind, to the middle of its rail."""
    generator = torch.Generator().manual_seed(3)

    def push(cart: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        wind = 0.05 * torch.randn(len(cart), generator=generator)
        speed = (0.8 * cart[:, 1] + 0.3 * (action - 1) + wind).clamp(-1, 1)
        place = (cart[:, 0] + 0.5 * speed).clamp(-2, 2)
        return torch.stack([place, speed], 1), -(place**2) / 2

    model = mlp(2, 48, 48, 3)
    slow = copy.deepcopy(model).requires_grad_(requires_grad=False)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    lab.recorder.watch(model, optimizer)
    cart = 4 * torch.rand(32, 2, generator=generator) - 2
    cart[:, 1] /= 2
    memory: list[_Batch] = []
    for number in range(200):
        for _moment in range(2):
            with torch.no_grad():
                action = model(cart).argmax(1)
                random = torch.rand(32, generator=generator) < max(0.1, 1 - number / 100)
                action = torch.where(random, torch.randint(3, (32,), generator=generator), action)
                following, reward = push(cart, action)
            memory.append((cart, action, reward, following))
            anew = torch.rand(32, generator=generator) < 0.08
            start = torch.rand(32, 2, generator=generator) * torch.tensor([4.0, 2.0]) - torch.tensor([2.0, 1.0])
            cart = torch.where(anew[:, None], start, following)
        cells = torch.randint(32 * min(len(memory), 100), (128,), generator=generator)
        state, done, reward, after = (torch.cat(part)[cells] for part in zip(*memory[-100:], strict=True))
        with lab.recorder.step("train"):
            value = model(state).gather(1, done[:, None])[:, 0]
            target = reward + 0.9 * slow(after).amax(1)
            loss = F.smooth_l1_loss(value, target)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            optimizer.step()
        with torch.no_grad():
            for kept, fresh in zip(slow.parameters(), model.parameters(), strict=True):
                kept.lerp_(fresh, 0.05)
        if number % 40 == 39:
            total = torch.zeros(200)
            tried = torch.cat([4 * torch.rand(200, 1, generator=generator) - 2, torch.zeros(200, 1)], 1)
            with torch.no_grad(), lab.recorder.step("validation") as step:
                for _moment in range(20):
                    tried, reward = push(tried, model(tried).argmax(1))
                    total += reward
                step.record("return", total.mean())


def digits_out_of_the_noise(lab: Lab) -> None:
    """A convolutional autoencoder with batch normalisation takes the noise out of images."""
    clean, label = data.images()
    x, _ = data.unseen_pixels()
    unseen = x.unflatten(1, (1, 8, 8))
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.BatchNorm2d(32), nn.ReLU(), nn.ConvTranspose2d(32, 16, 2, stride=2), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 1, 3, padding=1),
    )  # fmt: skip

    def noisy(image: torch.Tensor, number: int) -> _Batch:
        return image + 0.7 * torch.randn(image.shape, generator=torch.Generator().manual_seed(number)), image

    batches = data.draw((clean, label))

    def loss_of(image: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(image), wanted)

    after = lab.validating(model, lambda number: noisy(unseen, 9000 + number), loss_of)
    lab.fit(model, lambda number: noisy(batches(number)[0], number), loss_of, lr=4e-3, after=after)
