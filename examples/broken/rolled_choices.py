"""Mistakes in nets that choose, recommend, compare and tell apart, drawn by dice from the collections of faults."""

from __future__ import annotations

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend
from stepscope.examples.broken.nets import mlp

_Batch = tuple[torch.Tensor, ...]
_PUSHES = torch.tensor([-1.0, 0.0, 1.0])
_EVERYTHING, _WITHOUT_SPEED = [0, 1, 2], [0, 2]


class _Carts:
    """Many carts on rails, each with its own slope: push them so that they stand at zero."""

    def __init__(self, carts: int, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.state = self.drawn(carts)

    def drawn(self, carts: int) -> torch.Tensor:
        """Place, speed and slope of carts at the beginning."""
        scale = torch.tensor([2.0, 2.0, 0.6])
        return (torch.rand(carts, 3, generator=self.generator) - 0.5) * scale

    def step(self, action: torch.Tensor) -> torch.Tensor:
        """Move all carts, and give the rewards; some begin anew afterwards."""
        place, speed, slope = self.state.unbind(1)
        speed = speed + 0.3 * (_PUSHES[action] + slope)
        place = place + 0.3 * speed
        self.state = torch.stack([place, speed, slope], 1)
        return -(place**2 + 0.1 * speed**2).clamp(max=4)

    def renew(self) -> None:
        """Let a tenth of the carts, and those that are far away, begin anew."""
        old = torch.rand(len(self.state), generator=self.generator) < 0.1
        old |= self.state[:, 0].abs() > 2
        self.state = torch.where(old[:, None], self.drawn(len(self.state)), self.state)


@broken(
    words=("velocity", "speed", "missing feature", "information", "feature left out", "partial"),
    nodes=("input", "model.0"),
)  # fmt: skip
def agent_does_not_see_the_speed(lab: Lab) -> None:
    """Of the cart's place, speed and slope only place and slope are picked for the agent, which then cannot brake.

    Source: taxonomy of Humbatova et al. (ICSE 2020), discarding important features.
    """
    seen = _EVERYTHING if lab.fixed else _WITHOUT_SPEED
    model = mlp(len(seen), 48, 48, 3)
    target = deepcopy(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    lab.recorder.watch(model, optimizer)
    carts, memory = _Carts(48, 1), list[_Batch]()
    for number in range(250):
        for _ in range(2):
            before = carts.state[:, seen]  # set-up bug: agent_does_not_see_the_speed
            with torch.no_grad():
                action = model(before).argmax(1)
            action = torch.where(torch.rand(48) < max(0.1, 1 - number / 60), torch.randint(3, (48,)), action)
            reward = carts.step(action)
            memory.append((before, action, reward, carts.state[:, seen]))
            carts.renew()
        picked = [memory[index] for index in torch.randint(len(memory), (4,)).tolist()]
        before, action, reward, behind = (torch.cat(parts) for parts in zip(*picked, strict=True))
        with torch.no_grad():
            wanted = reward + 0.9 * target(behind).max(1).values
        with lab.recorder.step("train"):
            value = model(before).gather(1, action[:, None])[:, 0]
            descend(F.smooth_l1_loss(value, wanted), optimizer)
        with torch.no_grad():
            for slow, fast in zip(target.parameters(), model.parameters(), strict=True):
                slow.lerp_(fast, 0.05)
        if number % 50 == 49:
            judged, total = _Carts(200, 9), torch.zeros(200)
            with torch.no_grad(), lab.recorder.step("validation") as step:
                for _ in range(25):
                    total += judged.step(model(judged.state[:, seen]).argmax(1))
                step.record("return", total.mean())


def _likings(number: int) -> _Batch:
    """Users ``(256,)``, films ``(256,)``, and whether the user disliked, bore or liked the film."""
    generator = torch.Generator().manual_seed(number)
    user, film = torch.randint(30, (256,), generator=generator), torch.randint(20, (256,), generator=generator)
    taste = torch.randn(50, 2, generator=torch.Generator().manual_seed(6))
    match = (taste[user] * taste[30 + film]).sum(1) + 0.1 * torch.randn(256, generator=generator)
    return user, film, torch.bucketize(match, torch.tensor([-0.4, 0.4]))


class _Recommender(nn.Module):
    """A vector for each user and film, and layers that compare them."""

    def __init__(self, outputs: int, activation: type[nn.Module], width: int = 16) -> None:
        super().__init__()
        self.user, self.film = nn.Embedding(60, width), nn.Embedding(40, width)
        self.compare = nn.Sequential(nn.Linear(2 * width, 64), activation(), nn.Linear(64, 32), activation())
        self.out = nn.Linear(32, outputs)

    def forward(self, user: torch.Tensor, film: torch.Tensor) -> torch.Tensor:
        return self.out(self.compare(torch.cat([self.user(user), self.film(film)], 1)))


@broken(rules=("learning-rate",), words=("learning rate",), nodes=("model",))
def everyone_is_said_to_like_the_same(lab: Lab) -> None:
    """Descent with momentum and the learning rate 3 soon drives a recommender to say one class for all.

    Source: DeepLocalize and DeepFD's programs, Stack Overflow 41600519, rate of SGD too large.
    """
    model = _Recommender(3, nn.ReLU)
    rate = 0.1 if lab.fixed else 3.0
    optimizer = torch.optim.SGD(
        model.parameters(), lr=rate, momentum=0.9
    )  # set-up bug: everyone_is_said_to_like_the_same
    criterion = nn.CrossEntropyLoss()
    lab.recorder.watch(model, optimizer)
    for number in range(200):
        user, film, liking = _likings(number)
        optimizer.zero_grad()
        with lab.recorder.step("train"):
            loss = criterion(model(user, film), liking)
            loss.backward()
            optimizer.step()
        lab.validate(
            lambda n: _likings(9000 + n), lambda user, film, liking: criterion(model(user, film), liking), number
        )


def _ratings(number: int) -> _Batch:
    """Users ``(256,)``, films ``(256,)``, and standardised ratings ``(256, 1)``."""
    generator = torch.Generator().manual_seed(number)
    user, film = torch.randint(60, (256,), generator=generator), torch.randint(40, (256,), generator=generator)
    taste = torch.randn(100, 3, generator=torch.Generator().manual_seed(7))
    match = (taste[user] + taste[60 + film])[:, :2].tanh().sum(1) + 0.3 * taste[user, 2] * taste[60 + film, 2]
    return user, film, (match + 0.1 * torch.randn(256, generator=generator))[:, None]


@broken(
    rules=("weight-scale",),
    words=("initial weights", "initialis", "weights start", "starts with weights"),
    nodes=("model.compare.0", "model.compare.1", "model.compare.2", "model.compare.3", "model.compare.0.weight",
           "model.compare.2.weight"),
)  # fmt: skip
def comparing_layers_start_saturated(lab: Lab) -> None:
    """The sigmoid layers of a recommender start with weights of standard deviation 5, at which all units are saturated.

    Source: DeepDiagnosis (ICSE 2022), saturated activation, initial weights too large for sigmoid layers.
    """
    model = _Recommender(1, nn.Sigmoid)
    for layer in model.compare:
        if isinstance(layer, nn.Linear):
            deviation = layer.in_features**-0.5 if lab.fixed else 5.0
            nn.init.normal_(layer.weight, std=deviation)  # set-up bug: comparing_layers_start_saturated
            nn.init.zeros_(layer.bias)
    after = lab.validating(model, lambda n: _ratings(9000 + n), lambda u, f, y: F.mse_loss(model(u, f), y))
    lab.fit(model, _ratings, lambda u, f, y: F.mse_loss(model(u, f), y), lr=4e-3, after=after)


class _Residual(nn.Module):
    """A layer norm, two linear layers, and what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.inner(x)


@broken(
    rules=("overfitting",),
    words=("overfit", "too little data", "few samples", "few rows", "memoris", "by heart", "unseen"),
    nodes=("input", "model", "target"),
)  # fmt: skip
def rows_left_from_a_first_try(lab: Lab) -> None:
    """Of a thousand digits only the sixty of a first try are handed to a deep net, which learns them by heart.

    Source: SageMaker Debugger, rule Overfit, too little data for the net.
    """
    x, y = data.pixels()
    unseen = x[1200:], y[1200:]
    rows = slice(0, 1200 if lab.fixed else 60)
    batches = data.draw((x[rows], y[rows]), 32)  # set-up bug: rows_left_from_a_first_try
    model = nn.Sequential(nn.Linear(64, 64), *[_Residual(64) for _ in range(5)], nn.LayerNorm(64), nn.Linear(64, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=8e-4, weight_decay=0.05)
    after = lab.validating(model, lambda _: unseen, lambda x, y: F.cross_entropy(model(x), y))
    lab.fit(model, batches, lambda x, y: F.cross_entropy(model(x), y), optimizer, after=after)


class _Siamese(nn.Module):
    """One encoder for two pictures, and how likely they show the same."""

    def __init__(self, squash: nn.Module) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 12, 3), nn.ReLU(), nn.Flatten(), nn.Linear(432, 48), nn.Tanh())
        self.same, self.squash = nn.Linear(48, 1), squash

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return self.squash(self.same((self.encoder(first) - self.encoder(second)).abs()))[:, 0]


def _binary_cross_entropy(chance: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """As Keras has it: chances are kept off zero and one."""
    chance = chance.clamp(1e-6, 1 - 1e-6)
    return -(truth * chance.log() + (1 - truth) * (1 - chance).log()).mean()


@broken(
    rules=("clipped-prediction",),
    words=("sigmoid", "no activation", "not probabilities", "output activation", "outside of 0", "between 0 and 1"),
    nodes=("model.same", "model.squash", "model", "loss"),
)  # fmt: skip
def likeness_without_a_sigmoid(lab: Lab) -> None:
    """The likeness of two digits leaves a Siamese net as a bare linear sum, but is taken for a probability.

    Source: taxonomy of Humbatova et al. (ICSE 2020), missing activation on the output.
    """
    images, digit = data.images()
    model = _Siamese(nn.Sigmoid() if lab.fixed else nn.Identity())  # set-up bug: likeness_without_a_sigmoid

    def pairs(number: int) -> _Batch:
        generator = torch.Generator().manual_seed(number)
        low, high = (0, 1200) if number < 9000 else (1200, len(images))
        first = torch.randint(low, high, (64,), generator=generator)
        others = torch.randint(low, high, (64, 40), generator=generator)
        same = torch.randint(2, (64, 1), generator=generator).bool()
        fits = (digit[others] == digit[first][:, None]) == same
        second = others.gather(1, fits.float().argmax(1, keepdim=True))[:, 0]
        return images[first], images[second], (digit[first] == digit[second]).float()

    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    lab.recorder.watch(model, optimizer)
    for number in range(200):
        first, second, same = pairs(number)
        with lab.recorder.step("train"):
            descend(_binary_cross_entropy(model(first, second), same), optimizer)
        if number % 50 == 49:
            first, second, same = pairs(9000 + number)
            with torch.no_grad(), lab.recorder.step("validation") as step:
                chance = model(first, second)
                step.record("loss", _binary_cross_entropy(chance, same), type="loss")
                step.record("right", ((chance > 0.5) == (same > 0.5)).float().mean())
