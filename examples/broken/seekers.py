"""Mistakes of those who search and play: what is taken for near, for good, for past and for to come."""

from __future__ import annotations

from collections import deque
from copy import deepcopy
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend
from stepscope.examples.broken.nets import mlp


class _Finder(nn.Module):
    """Brings a text of words to a point on a sphere."""

    def __init__(self, words: int = 90, width: int = 24) -> None:
        super().__init__()
        self.words, self.project = nn.EmbeddingBag(words, 32, mode="mean"), nn.Linear(32, width)

    def forward(self, texts: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.project(self.words(texts).tanh()), dim=1)


def _shelves(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Texts ``(40, 10)`` from ten shelves, four from each, whose words are half the time those of their shelf."""
    generator = torch.Generator().manual_seed(number)
    shelf = torch.arange(40) // 4
    words = torch.randint(90, (40, 10), generator=generator)
    own = 9 * shelf[:, None] + torch.randint(9, (40, 10), generator=generator)
    return torch.where(torch.rand(40, 10, generator=generator) < 0.5, own, words), shelf


@broken(
    rules=("representation-collapse",),
    words=("collaps", "same point", "same code", "same for all", "hardest"),
    nodes=("model", "model.project", "loss"), onset=100,
)  # fmt: skip
def hardest_negative_is_the_text_itself(lab: Lab) -> None:
    """From step 100 on each text is set against the nearest in the batch, which is itself: all texts become the same.

    Source: pytorch-metric-learning issue 20, tensorflow-triplet-loss issue 6, SSDG-CVPR2020 issue 2.
    """
    model = _Finder()

    def loss_of(texts: torch.Tensor, shelf: torch.Tensor, hardest: torch.Tensor) -> torch.Tensor:
        codes = model(texts)
        away = 2 - 2 * codes @ codes.T
        alike = 2 - 2 * (codes * codes.view(10, 4, -1).roll(1, 1).flatten(0, 1)).sum(1)
        other = away.masked_fill(shelf[:, None] == shelf, torch.inf) if lab.fixed else away
        near = (
            other.min(1).values if hardest else away.roll(4, 1).diagonal()
        )  # bug: hardest_negative_is_the_text_itself
        return F.relu(alike - near + 0.5).mean()

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        return *_shelves(number), torch.tensor(number >= 100)

    replace(lab, steps=220).fit(model, batches, loss_of, lr=5e-3)


def _questions(number: int) -> tuple[torch.Tensor, ...]:
    """Questions ``(32, 4)`` and texts ``(32, 10)`` that have their words."""
    generator = torch.Generator().manual_seed(number)
    texts = torch.randint(90, (32, 10), generator=generator)
    return texts.gather(1, torch.rand(32, 10, generator=generator).argsort(1)[:, :4]), texts


@broken(
    words=("wrong sign", "reversed", "swapped", "similarit", "negated", "flipped", "upside down"),
    nodes=("loss", "model.question", "model.text"),
)  # fmt: skip
def similarity_taken_for_a_distance(lab: Lab) -> None:
    """A triplet loss for distances is given cosine similarities: answers are pushed away and other texts drawn near.

    Source: StackOverflow and Keras forum on triplets of cosines; Karpathy's most common neural net mistakes (2018).
    """
    ask, answer = _Finder(), _Finder()
    model = nn.ModuleDict({"question": ask, "text": answer})

    def loss_of(questions: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        asked, found = ask(questions), answer(texts)
        right, wrong = (asked * found).sum(1), (asked * found.roll(1, 0)).sum(1)
        if lab.fixed:
            right, wrong = 1 - right, 1 - wrong
        return F.relu(right - wrong + 0.5).mean()  # bug: similarity_taken_for_a_distance

    lab.fit(model, _questions, loss_of, lr=1e-2)


def _pushes(number: int) -> tuple[torch.Tensor, ...]:
    """Places ``(96, 2)``, one of four pushes, where it leads, the reward (best in the middle), and whether it ends."""
    generator = torch.Generator().manual_seed(number)
    place = 2 * torch.rand(96, 2, generator=generator) - 1
    push = torch.randint(4, (96,), generator=generator)
    onwards = (place + 0.4 * torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])[push]).clamp(-1, 1)
    return place, push, onwards, 1 - onwards.norm(dim=1), (onwards.norm(dim=1) < 0.2).float()


@broken(
    words=("gather(", "taken action", "chosen action", "maximum over", "greatest"),
    nodes=("loss", "prediction", "value"),
)  # fmt: skip
def value_of_the_best_push_not_the_made_one(lab: Lab) -> None:
    """What a push led to is learned as the value of the best push of that place, whichever was made.

    Source: PyTorch forum on the gather of the DQN tutorial; pytorch/tutorials on what ``state_action_values`` is.
    """
    value = mlp(2, 64, 64, 4)
    later = deepcopy(value).requires_grad_(False)
    optimizer = torch.optim.Adam(value.parameters(), lr=5e-3)
    lab.recorder.watch({"value": value, "later": later}, optimizer)
    for number in range(lab.steps):
        place, push, onwards, reward, end = _pushes(number)
        with lab.recorder.step("train"):
            wanted = reward + 0.5 * later(onwards).amax(1) * (1 - end)
            found = value(place)
            said = (
                found.gather(1, push[:, None])[:, 0] if lab.fixed else found.amax(1)
            )  # bug: value_of_the_best_push_not_the_made_one
            descend(F.smooth_l1_loss(said, wanted), optimizer)
        if number % 4 == 3:
            later.load_state_dict(value.state_dict())


class _Player(nn.Module):
    """One trunk, which says how to play and what may be expected."""

    def __init__(self, inputs: int, actions: int, width: int = 32) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh())
        self.play, self.expect = nn.Linear(width, actions), nn.Linear(width, 1)

    def forward(self, sight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.trunk(sight)
        return self.play(x).log_softmax(1), self.expect(x)[:, 0]


def _drawn(chances: torch.Tensor) -> torch.Tensor:
    """Random actions ``(batch,)`` by the logarithms of their chances ``(batch, actions)``."""
    return (chances.detach() - torch.empty_like(chances).exponential_().log()).argmax(1)


def _sights(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What a player sees ``(96, 6)``, and what is right there, one of four."""
    sight = torch.randn(96, 6, generator=torch.Generator().manual_seed(number))
    return sight, sight[:, :4].argmax(1)


@broken(
    rules=("gradient-cut",),
    words=("detach", "no_grad", "no gradient", "without gradient"),
    nodes=("model.play", "loss"),
)  # fmt: skip
def chances_remembered_without_gradient(lab: Lab) -> None:
    """The log-probabilities in the policy's loss are those kept under no_grad while playing: only entropy trains it.

    Source: nikhilbarhate99/PPO-PyTorch issue 18 and higgsfield issue 20, which log-probabilities need a gradient.
    """
    model = _Player(6, 4)

    def loss_of(sight: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            old, _ = model(sight)
        action = _drawn(old)[:, None]
        reward = (action[:, 0] == right).float()
        lab.recorder.scalar("reward", reward.mean())
        chances, expected = model(sight)
        advantage = (reward - expected).detach()
        entropy = -(chances.exp() * chances).sum(1).mean()
        taken = (chances if lab.fixed else old).gather(1, action)[:, 0]  # bug: chances_remembered_without_gradient
        policy = -(taken * advantage).mean()
        return policy + 0.5 * F.mse_loss(expected, reward) - 0.01 * entropy

    lab.fit(model, _sights, loss_of, lr=1e-2)


class _Traveller(nn.Module):
    """Decides each day of a journey by what it sees on this day."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(5, 32, 3, activation=nn.Tanh)

    def forward(self, sight: torch.Tensor) -> torch.Tensor:
        return self.net(sight).log_softmax(2)


@broken(
    words=("returns", "reversed", "rewards of the past", "reward-to-go"),
    nodes=("loss", "model"),
)  # fmt: skip
def returns_summed_from_the_start(lab: Lab) -> None:
    """The return of a day sums the rewards of the days before it, not of those to come: no action gets its own.

    Source: mohmdelsayed/streaming-drl issue 3, openai/gym pull request 3152, Tensorflow-2-RL-Cookbook issue 27.
    """
    model = _Traveller()

    def loss_of(sight: torch.Tensor) -> torch.Tensor:
        chances = model(sight)
        action = _drawn(chances.flatten(0, 1)).view(sight.shape[:2])
        right = (action == sight[:, :, :3].argmax(2)).float()
        reward = F.pad(right[:, :-1], (1, 0))  # is paid on the next day
        lab.recorder.scalar("reward", reward.sum(1).mean())
        back = torch.zeros(len(sight))
        returns = []
        for paid in (reward.flip(1) if lab.fixed else reward).unbind(1):
            back = paid + 0.8 * back
            returns.append(back)
        gain = torch.stack(returns[::-1] if lab.fixed else returns, dim=1)  # bug: returns_summed_from_the_start
        gain = (gain - gain.mean(0)) / (gain.std(0) + 1e-3)
        return -(chances.gather(2, action[:, :, None])[:, :, 0] * gain).mean()

    lab.fit(model, lambda number: (torch.randn(48, 6, 5),), loss_of, lr=1e-2)


@broken(
    words=("entropy", "determinis", "wrong sign"),
    nodes=("loss", "model.play"),
)  # fmt: skip
def entropy_added_to_the_loss(lab: Lab) -> None:
    """The entropy of the policy is added to the loss, not subtracted: it stops to try out before it knows anything.

    Source: async_deep_reinforce issue 49, muupan/async-rl issue 22, MrSyee/pg-is-all-you-need issue 37.
    """
    model = _Player(6, 5)

    def loss_of(sight: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        chances, expected = model(sight)
        action = _drawn(chances)
        reward = torch.where(action == 4, 0.5, (action == right).float())  # the fifth is safe, and not good
        lab.recorder.scalar("reward", reward.mean())
        policy = -(chances[torch.arange(len(sight)), action] * (reward - expected).detach()).mean()
        entropy = -(chances.exp() * chances).sum(1).mean()
        weight = -0.15 if lab.fixed else 0.15
        return policy + 0.5 * F.mse_loss(expected, reward) + weight * entropy  # bug: entropy_added_to_the_loss

    lab.fit(model, _sights, loss_of, lr=1e-2)


class _Ball:
    """A ball on a table, which is pushed, rolls on, and turns back at the edge."""

    def __init__(self, generator: torch.Generator) -> None:
        self.state = torch.rand(4, generator=generator) - 0.5

    def push(self, force: torch.Tensor) -> torch.Tensor:
        """Move on, in place; gives the state: where it is, and how fast."""
        self.state[2:] += 0.5 * force
        self.state[:2] += 0.5 * self.state[2:]
        self.state[2:] *= torch.where(self.state[:2].abs() > 1, -0.7, 0.9)
        self.state[:2].clamp_(-1, 1)
        return self.state


@broken(
    rules=("constant-data", "duplicate-samples", "targets-equal-inputs"),
    words=("equal the input", "same as the input", "identical", "same sample", "several times"),
    nodes=("input", "target"),
)  # fmt: skip
def buffer_of_the_same_state(lab: Lab) -> None:
    """The environment changes its state in place, and the replay buffer keeps no copies: all its states are the last.

    Source: StackOverflow on replay memories of numpy arrays changed in place; Humbatova et al. (ICSE 2020), data.
    """
    model = mlp(6, 48, 48, 4)
    generator = torch.Generator().manual_seed(0)
    ball = _Ball(generator)
    buffer: deque[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = deque(maxlen=2000)

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        for _ in range(400 if number == 0 else 4):
            force = 2 * torch.rand(2, generator=generator) - 1
            state = ball.state.clone() if lab.fixed else ball.state
            onwards = ball.push(force)
            onwards = onwards.clone() if lab.fixed else onwards
            buffer.append((state, force, onwards))  # set-up bug: buffer_of_the_same_state
        rows = torch.randint(len(buffer), (64,), generator=generator).tolist()
        return tuple(torch.stack(part) for part in zip(*[buffer[row] for row in rows], strict=True))

    def loss_of(state: torch.Tensor, force: torch.Tensor, onwards: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(torch.cat([state, force], dim=1)), onwards)

    lab.fit(model, batches, loss_of, lr=1e-2)


@broken(
    rules=("unrelated-targets",),
    words=("unrelated", "other samples", "belong to"),
    nodes=("target", "input"), onset=120,
)  # fmt: skip
def rewards_kept_longer_than_their_places(lab: Lab) -> None:
    """Places and moves are forgotten once the buffer is full, in step 120, and rewards never: they no longer match.

    Source: StackOverflow on deques of unlike lengths in replay memories; Humbatova et al. (ICSE 2020), wrong labels.
    """
    model = mlp(8, 48, 48, 1)
    most = 120 * 16
    places: deque[torch.Tensor] = deque(maxlen=most)
    rewards: deque[torch.Tensor] = deque(
        maxlen=most if lab.fixed else None
    )  # set-up bug: rewards_kept_longer_than_their_places

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(number)
        seen = torch.randn(16, 8, generator=generator)
        places.extend(seen)
        rewards.extend(seen[:, :2].prod(1) + seen[:, 2] - 0.5 * seen[:, 3].abs())
        rows = torch.randint(len(places), (96,), generator=generator).tolist()
        return torch.stack([places[row] for row in rows]), torch.stack([rewards[row] for row in rows])

    replace(lab, steps=260).fit(model, batches, lambda place, reward: F.mse_loss(model(place)[:, 0], reward), lr=5e-3)


class _Standard:
    """Brings what is seen to mean 0 and deviation 1, by running statistics."""

    def __init__(self, size: int) -> None:
        self.mean, self.square, self.count = torch.zeros(size), torch.ones(size), 0

    def learn(self, seen: torch.Tensor) -> None:
        self.count += 1
        self.mean += (seen.mean(0) - self.mean) / self.count
        self.square += (seen.square().mean(0) - self.square) / self.count

    def __call__(self, seen: torch.Tensor) -> torch.Tensor:
        return (seen - self.mean) / (self.square - self.mean.square()).clamp(min=1e-3).sqrt()


@broken(
    rules=("data-shift", "input-scale", "input-drift"),
    words=("inputs change", "standardi", "normali"),
    nodes=("input",), onset=130,
)  # fmt: skip
def standard_of_what_is_seen_not_saved(lab: Lab) -> None:
    """An agent goes on from a checkpoint at step 130, but the statistics that standardise what it sees were not saved.

    Source: kuds/mesozoic-labs pull request 131, stable-baselines3 issue 1256, leggedrobotics/rsl_rl issue 17.
    """
    model, standard = _Player(6, 4), _Standard(6)
    unit = torch.tensor([40.0, 25.0, 60.0, 30.0, 8.0, 90.0])

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        nonlocal standard
        sight, right = _sights(number)
        seen = unit * (sight + 1.5)
        if number == 130 and not lab.fixed:
            standard = _Standard(6)  # set-up bug: standard_of_what_is_seen_not_saved
        elif number < 130:
            standard.learn(seen)
        return standard(seen), right

    def loss_of(sight: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        chances, expected = model(sight)
        action = _drawn(chances)
        reward = (action == right).float()
        lab.recorder.scalar("reward", reward.mean())
        policy = -(chances[torch.arange(len(sight)), action] * (reward - expected).detach()).mean()
        return policy + 0.5 * F.mse_loss(expected, reward)

    replace(lab, steps=260).fit(model, batches, loss_of, lr=1e-2)
