"""Mistakes of those who play and paint: policies, values, densities, noise that is taken away, and rivals."""

from __future__ import annotations

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend
from stepscope.examples.broken.nets import mlp


class _Gardener(nn.Module):
    """Remembers the weather of the days so far, and decides for each day whether to water."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.remember, self.decide = nn.GRU(4, width, batch_first=True), nn.Linear(width, 2)

    def forward(self, weather: torch.Tensor) -> torch.Tensor:
        return self.decide(self.remember(weather)[0]).log_softmax(2)


def _harvest(weather: torch.Tensor, watered: torch.Tensor) -> torch.Tensor:
    """What each day brings ``(batch, days)``: it depends on the decision of the day before."""
    right = (watered == (weather[:, :, 0] > 0)).float() - 0.5
    return F.pad(right[:, :-1], (1, 0))


@broken(
    words=("minus", "wrong sign", "ascent", "negated", "flipped"), nodes=("loss", "model", "model.decide"),
)  # fmt: skip
def log_probability_without_its_minus(lab: Lab) -> None:
    """The policy's loss is the log-probability times the return, without the minus: it learns to avoid rewards.

    Source: spinningup issue 436 and pytorch-a3c issue 30, where the minus of the policy's loss comes from.
    """
    model = _Gardener()

    def loss_of(weather: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        chances = model(weather)
        watered = torch.distributions.Categorical(logits=chances.detach()).sample()
        reward = _harvest(weather, watered)
        lab.recorder.scalar("reward", reward.sum(1).mean())
        later = reward.flip(1).cumsum(1).flip(1)
        weight = (later - later.mean(0)) / (later.std(0) + 1e-3)
        taken = chances.gather(2, watered[:, :, None])[:, :, 0]
        sign = -1 if lab.fixed else 1
        return (sign * taken * weight).mean()  # bug: log_probability_without_its_minus

    lab.fit(model, data.sequences(6, batch=64), loss_of, lr=1e-2)


def _tries(number: int) -> tuple[torch.Tensor, ...]:
    """Places ``(64, 4)``, what was tried there at random ``(64, 2)``, and how good that was ``(64, 1)``."""
    generator = torch.Generator().manual_seed(number)
    place, tried = torch.randn(64, 4, generator=generator), 2 * torch.rand(64, 2, generator=generator) - 1
    return place, tried, _worth(place, tried)


def _worth(place: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    best = torch.stack([place[:, 0], place[:, 1] - place[:, 2]], dim=1).tanh()
    return 1 - (action - best).square().sum(1, keepdim=True)


@broken(
    rules=("no-gradient", "unchanged-parameters", "gradient-cut"),
    nodes=("actor", "actor.0.weight", "actor.2.weight", "actor.0.bias", "actor.2.bias", "critic input"),
)  # fmt: skip
def actor_judged_by_old_actions(lab: Lab) -> None:
    """The actor's loss is the value of the actions in the replay buffer instead of its own: it never learns.

    Source: Reinforcement-learning-with-tensorflow pull request 125: with those actions the gradient is always None.
    """
    actor, critic = nn.Sequential(*mlp(4, 32, 2), nn.Tanh()), mlp(6, 64, 1)
    improve, judge = torch.optim.Adam(actor.parameters(), 3e-3), torch.optim.Adam(critic.parameters(), 1e-2)
    lab.recorder.watch({"actor": actor, "critic": critic}, [improve, judge])
    for number in range(lab.steps):
        place, tried, worth = _tries(number)
        with lab.recorder.step("train") as step:
            with step.loss_group("critic"):
                descend(F.mse_loss(critic(torch.cat([place, tried], dim=1)), worth), judge)
            own = actor(place)
            action = own if lab.fixed else tried
            value = critic(torch.cat([place, action], dim=1))  # bug: actor_judged_by_old_actions
            with step.loss_group("actor"):
                descend(-value.mean(), improve)


SIDE = 4


def _moves(number: int) -> tuple[torch.Tensor, ...]:
    """Moves on a board of four by four: place (one-hot), move, place after it, and whether the last corner is there."""
    generator = torch.Generator().manual_seed(number)
    row, column, move = (torch.randint(high, (96,), generator=generator) for high in (SIDE, SIDE, 4))
    step = torch.tensor([[0, 1], [1, 0], [0, -1], [-1, 0]])[move]
    after = (row + step[:, 0]).clamp(0, SIDE - 1) * SIDE + (column + step[:, 1]).clamp(0, SIDE - 1)
    places = (F.one_hot(place, SIDE * SIDE).float() for place in (row * SIDE + column, after))
    here, there = places
    return here, move, there, (after == SIDE * SIDE - 1).float()


@broken(
    rules=("broadcast-target",), words=("whole batch", "broadcast", "one number for all"),
    nodes=("goal", "goal.2", "target", "loss"),
)  # fmt: skip
def greatest_value_of_the_whole_batch(lab: Lab) -> None:
    """``max()`` without a dimension gives one number for all: the best place of the batch lies ahead of everyone.

    Source: keras-rl pull request 239, a maximum over the whole batch; Deep_reinforcement_learning_Course issue 51.
    """
    values = mlp(SIDE * SIDE, 48, 4)
    goal = deepcopy(values).requires_grad_(False)
    optimizer = torch.optim.Adam(values.parameters(), 1e-2)
    lab.recorder.watch({"values": values, "goal": goal}, optimizer)
    for number in range(lab.steps):
        here, move, there, won = _moves(number)
        with lab.recorder.step("train"):
            later = goal(there)
            best = later.max(1).values if lab.fixed else later.max()  # bug: greatest_value_of_the_whole_batch
            wanted = won + 0.8 * (1 - won) * best
            found = values(here).gather(1, move[:, None])[:, 0]
            descend(F.smooth_l1_loss(found, wanted), optimizer)
        if number % 4 == 3:
            goal.load_state_dict(values.state_dict())


class _Painter(nn.Module):
    """Says what noise is in a picture, which it is told the share of."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.into = nn.Conv2d(2, width, 3, padding=1)
        self.inner = nn.Sequential(nn.GroupNorm(4, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1))
        self.out = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, x: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        x = self.into(torch.cat([x, share.expand_as(x)], dim=1))
        return self.out(F.silu(x + self.inner(x)))


@broken(
    rules=("unrelated-targets",), words=("nothing to do with", "unrelated", "independent"), nodes=("target", "loss"),
)  # fmt: skip
def asked_for_other_noise_than_was_added(lab: Lab) -> None:
    """The noise that the net shall find is drawn anew, and is not the one that was added to the picture.

    Source: WeatherGenerator pull request 2733, noise and loss from different draws; Ho et al. (2020).
    """
    model = _Painter()

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        share, noise = torch.rand(len(x), 1, 1, 1), torch.randn_like(x)
        mixed = (1 - share).sqrt() * x + share.sqrt() * noise
        wanted = noise if lab.fixed else torch.randn_like(x)  # bug: asked_for_other_noise_than_was_added
        return F.mse_loss(model(mixed, share), wanted)

    lab.fit(model, data.draw(data.images(), 32), loss_of, lr=5e-3)


class _Masked(nn.Linear):
    """A layer whose outputs see only inputs of a lower, or equal, rank."""

    mask: torch.Tensor

    def __init__(self, inputs: torch.Tensor, outputs: torch.Tensor, *, lower: bool) -> None:
        super().__init__(len(inputs), len(outputs))
        sees = outputs[:, None] > inputs if lower else outputs[:, None] >= inputs
        self.register_buffer("mask", sees.float())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.mask * self.weight, self.bias)


class _Autoregressive(nn.Module):
    """Moves and stretches each feature by what those before it say, and gives the logarithm of the stretch."""

    def __init__(self, features: int = 10, width: int = 48) -> None:
        super().__init__()
        rank, hidden = torch.arange(features), torch.arange(width) % (features - 1)
        self.read, self.say = _Masked(rank, hidden, lower=False), _Masked(hidden, rank.repeat(2), lower=True)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        shift, stretch = self.say(self.read(x).tanh()).chunk(2, dim=1)
        stretch = 2 * (stretch / 2).tanh()
        return (x - shift) * stretch.exp(), stretch.sum(1)


@broken(
    rules=("constant-output", "representation-collapse"), words=("collaps", "volume", "determinant", "shrink"),
    nodes=("loss", "model.0", "model.1", "model.0.say", "model.1.say"),
)  # fmt: skip
def density_without_the_volume(lab: Lab) -> None:
    """The likelihood of a flow lacks the logarithm of its stretch, so that it maps everything to the same point.

    Source: InvDN issue 9, glow-realnvp-tutorial issue 2; Papamakarios et al. (2017).
    """
    model = nn.ModuleList([_Autoregressive(), _Autoregressive()])

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        volume, x = torch.zeros(len(x)), x + 0.1 * torch.randn_like(x)
        for layer in model:
            x, stretch = layer(x.flip(1))
            volume = volume + stretch
        unlikely = x.square().sum(1) / 2
        return (unlikely - volume if lab.fixed else unlikely).mean()  # bug: density_without_the_volume

    lab.fit(model, data.draw(data.diabetes()), loss_of)


class _Variational(nn.Module):
    """A convolutional variational autoencoder of digits."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 16))
        self.decoder = nn.Sequential(
            nn.Linear(8, 256), nn.ReLU(), nn.Unflatten(1, (16, 4, 4)), nn.ConvTranspose2d(16, 1, 4, 2, 1)
        )

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        code = torch.distributions.Normal(*_mean_and_spread(self.encoder(x)))
        usual = torch.distributions.Normal(torch.zeros(8), torch.ones(8))
        return self.decoder(code.rsample()), torch.distributions.kl_divergence(code, usual)


def _mean_and_spread(both: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    mean, spread = both.chunk(2, dim=1)
    return mean, F.softplus(spread) + 1e-3


@broken(
    rules=("posterior-collapse", "ignored-input", "constant-output"), words=("posterior", "collaps", "divergence"),
    nodes=("loss", "model.encoder", "model.encoder.3", "model.decoder", "model.decoder.0"),
)  # fmt: skip
def error_averaged_but_divergence_summed(lab: Lab) -> None:
    """The error is a mean over 64 pixels while the divergence is a sum, which then matters 64 times too much.

    Source: MMVAE pull request 19, keras pull request 3383, WorldModels issue 12, pytorch/examples pull request 296.
    """
    model = _Variational()

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        made, divergence = model(x)
        error = (made - x).square().flatten(1)
        error = error.sum(1) if lab.fixed else error.mean(1)  # bug: error_averaged_but_divergence_summed
        return (error + divergence.sum(1)).mean()

    lab.fit(model, data.draw(data.images()), loss_of)


@broken(
    rules=("accumulated-gradients",), words=("zero_grad", "leftover", "left over"),
    nodes=("critic", "critic.0.weight", "critic.2.weight", "critic.4.weight"),
)  # fmt: skip
def gradients_of_the_generators_turn_left_in_the_critic(lab: Lab) -> None:
    """All gradients are cleared once a round: those that the generator's loss left in the critic cancel its own.

    Source: PyTorch Lightning issues 557 and 591, OmniTokenizer issue 15, FlowModels issue 3.
    """
    generator, critic = mlp(4, 48, 2), mlp(2, 48, 48, 1, activation=lambda: nn.LeakyReLU(0.2))
    make = torch.optim.Adam(generator.parameters(), 3e-3, betas=(0.5, 0.99))
    judge = torch.optim.Adam(critic.parameters(), 5e-3, betas=(0.5, 0.99))
    lab.recorder.watch({"generator": generator, "critic": critic}, [make, judge])
    for number in range(lab.steps):
        (real,) = data.circles(number)
        with lab.recorder.step("train") as step:
            make.zero_grad()
            judge.zero_grad()
            fake = generator(torch.randn(len(real), 4))
            with step.loss_group("generator"):
                (-critic(fake)).mean().backward()
            make.step()
            if lab.fixed:
                judge.zero_grad()
            judged = F.relu(1 + critic(fake.detach())).mean() + F.relu(1 - critic(real)).mean()
            with step.loss_group("critic"):
                judged.backward()  # set-up bug: gradients_of_the_generators_turn_left_in_the_critic
            judge.step()
