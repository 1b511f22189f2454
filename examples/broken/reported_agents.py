"""Mistakes that people report from trainings of agents, and of nets that shall learn new tasks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend
from stepscope.examples.broken.nets import mlp

_Batch = tuple[torch.Tensor, ...]


class _CartPoles:
    """Sixteen poles on carts, side by side; a pole that has fallen, or stood for 200 moments, is set up anew."""

    def __init__(self, seed: int) -> None:
        self.random = torch.Generator().manual_seed(seed)
        self.state, self.age = self._fresh(), torch.zeros(16)
        self.lengths: list[float] = []

    def _fresh(self) -> torch.Tensor:
        return 0.1 * torch.rand(16, 4, generator=self.random) - 0.05

    def step(self, action: torch.Tensor) -> torch.Tensor:
        """Push left (0) or right (1), and say which games are over."""
        place, speed, angle, turn = self.state.unbind(1)
        pull = (20.0 * action - 10 + 0.05 * turn**2 * angle.sin()) / 1.1
        bend = (9.8 * angle.sin() - angle.cos() * pull) / (0.5 * (4 / 3 - 0.1 * angle.cos() ** 2 / 1.1))
        push = pull - 0.05 * bend * angle.cos() / 1.1
        moved = (place + 0.02 * speed, speed + 0.02 * push, angle + 0.02 * turn, turn + 0.02 * bend)
        self.state, self.age = torch.stack(moved, 1), self.age + 1
        over = (moved[0].abs() > 2.4) | (moved[2].abs() > 0.21) | (self.age >= 200)
        self.lengths += self.age[over].tolist()
        self.state = torch.where(over[:, None], self._fresh(), self.state)
        self.age = self.age.where(~over, torch.zeros(16))
        return over.float()


class _ActorCritic(nn.Module):
    """A shared layer, the scores of two actions, and the value of the state."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.actor, self.critic = nn.Linear(4, 64), nn.Linear(64, 2), nn.Linear(64, 1)

    def forward(self, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = torch.tanh(self.shared(state * torch.tensor([1.0, 1.0, 5.0, 1.0])))
        return self.actor(hidden), self.critic(hidden)[..., 0]


@broken(words=("episode", "games", "done", "boundar"), nodes=("loss", "target", "model.critic", "model.actor"))
def games_strung_together(lab: Lab) -> None:
    """Several games are played into one list, and the return of a move goes on into the next: falling costs nothing.

    Source: lansinuote/More_Simple_Reinforcement_Learning 2, several games in ``play_game`` confused what was learned.
    """
    model, poles = _ActorCritic(), _CartPoles(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    lab.recorder.watch(model, optimizer)
    for _ in range(110):
        seen, done, moves, ends = [], [], [], []
        with torch.no_grad():
            for _ in range(24):
                scores, _ = model(poles.state)
                action = torch.multinomial(scores.softmax(1), 1)[:, 0]
                seen.append(poles.state)
                moves.append(action)
                ends.append(poles.step(action))
            following = model(poles.state)[1]
        for over in reversed(ends):
            stays = 1 - over if lab.fixed else torch.ones(16)
            following = 0.1 + 0.95 * following * stays  # set-up bug: games_strung_together
            done.append(following)
        returns = torch.stack(done[::-1])
        with lab.recorder.step("train"):
            scores, value = model(torch.stack(seen))
            policy = torch.distributions.Categorical(logits=scores)
            gain = (returns - value).detach()
            won = policy.log_prob(torch.stack(moves)) * (gain - gain.mean()) / (gain.std() + 1e-6)
            loss = F.smooth_l1_loss(value, returns) - won.mean() - 0.01 * policy.entropy().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()


class _Joints:
    """Sixty-four robots with two joints, each to be brought to zero, from wherever they are."""

    def __init__(self) -> None:
        self.state = torch.zeros(64, 2)
        self.age = 0

    def move(self, action: torch.Tensor) -> _Batch:
        """Turn the joints by a tenth of the action, not beyond 1; what was, the reward, and what is."""
        if self.age % 10 == 0:
            self.state = 2 * torch.rand(64, 2) - 1
        before, self.age = self.state, self.age + 1
        self.state = (before + 0.3 * action).clamp(-1, 1)
        return before, action, -self.state.abs().sum(1), self.state


class _SoftActor(nn.Module):
    """A normal distribution through a tanh, as wide as the action space."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.net, self.bound = mlp(2, 64, 64, 4), bound

    def forward(self, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, log_std = self.net(state).chunk(2, dim=1)
        normal = torch.distributions.Normal(mean, log_std.clamp(-5, 2).exp())
        raw = normal.rsample()
        squeeze = torch.log(1 - raw.tanh() ** 2 + 1e-6)
        return self.bound * raw.tanh(), (normal.log_prob(raw) - squeeze).sum(1)


@broken(
    rules=("input-scale",),
    words=("action space", "action bound", "bounds of", "action limit", "range of the action"),
    nodes=("actor", "critic", "actor.net"),
)  # fmt: skip
def joints_that_could_turn_a_hundredfold(lab: Lab) -> None:
    """The bounds of the action space are 100, a hundred times what the joints can use: most actions hit a wall.

    Source: araffin.github.io, Getting SAC to Work on a Massive Parallel Simulator (limits of 3% of the action space).
    """
    bound = 1.0 if lab.fixed else 100.0  # set-up bug: joints_that_could_turn_a_hundredfold
    actor, critic, target = _SoftActor(bound), mlp(4, 64, 64, 1), mlp(4, 64, 64, 1)
    target.load_state_dict(critic.state_dict())
    target.requires_grad_(requires_grad=False)
    learns = torch.optim.Adam(actor.parameters(), lr=3e-3), torch.optim.Adam(critic.parameters(), lr=3e-3)
    lab.recorder.watch({"actor": actor, "critic": critic}, {"actor": learns[0], "critic": learns[1]})
    robots, memory = _Joints(), list[_Batch]()
    for number in range(lab.steps):
        with torch.no_grad():
            memory.append(robots.move(actor(robots.state)[0]))
        chosen = torch.randint(len(memory), (4,)).tolist()
        state, action, reward, after = (torch.cat(parts) for parts in zip(*(memory[i] for i in chosen), strict=True))
        with lab.recorder.step("train"):
            with torch.no_grad():
                move, surprise = actor(after)
                wanted = reward + 0.9 * (target(torch.cat([after, move], 1))[:, 0] - 0.02 * surprise)
            descend(F.mse_loss(critic(torch.cat([state, action], 1))[:, 0], wanted), learns[1])
            move, surprise = actor(state)
            descend((0.02 * surprise - critic(torch.cat([state, move], 1))[:, 0]).mean(), learns[0])
        with torch.no_grad():
            for slow, fast in zip(target.parameters(), critic.parameters(), strict=True):
                slow.lerp_(fast, 0.05)
        if number % 30 == 29:
            with lab.recorder.step("validation") as step, torch.no_grad():
                fresh = _Joints()
                for _ in range(8):
                    left = fresh.move(bound * actor.net(fresh.state)[:, :2].tanh())[3]
                step.record("loss", left.abs().mean(), type="loss")


def _waves(tasks: torch.Tensor, random: torch.Generator) -> _Batch:
    """Of each wave ``(n, 2)``, its height and its phase, ten points to adapt to and ten to judge by."""
    x = 6 * torch.rand(len(tasks), 20, 1, generator=random) - 3
    return x, tasks[:, :1, None] * (x + tasks[:, 1:, None]).sin()


def _new_tasks(count: int, random: torch.Generator) -> torch.Tensor:
    return torch.rand(count, 2, generator=random) * torch.tensor([2.0, 3.1]) + torch.tensor([0.5, 0.0])


def _adapted(model: nn.Module, x: torch.Tensor, y: torch.Tensor, *, learn: bool) -> torch.Tensor:
    """The error on the second half of a task, after two steps on its first half."""
    weights: dict[str, torch.Tensor] = dict(model.named_parameters())
    for _ in range(2):
        inner = F.mse_loss(functional_call(model, weights, (x[:10],)), y[:10])
        slopes = torch.autograd.grad(inner, list(weights.values()), create_graph=learn)
        weights = {key: value - 0.05 * slope for (key, value), slope in zip(weights.items(), slopes, strict=True)}
    return F.mse_loss(functional_call(model, weights, (x[10:],)), y[10:])


@broken(rules=("repeated-batch",), words=("same tasks", "same batch", "repeat", "memoris"), nodes=("input", "target"))
def tasks_drawn_once_for_all_epochs(lab: Lab) -> None:
    """The tasks of meta-learning are drawn when the data set is made, and every epoch has the same four again.

    Source: dragen1860/MAML-Pytorch 36, ``create_batch`` is called once, the tasks are the same in every epoch.
    """
    model = mlp(1, 40, 40, 1, activation=nn.Tanh)
    optimizer = torch.optim.Adam(model.parameters(), lr=8e-3)
    random = torch.Generator().manual_seed(2)
    tasks = _new_tasks(4, random)
    points = _waves(tasks, random)
    lab.recorder.watch(model, optimizer)
    for number in range(120):
        if lab.fixed:
            points = _waves(_new_tasks(4, random), random)  # set-up bug: tasks_drawn_once_for_all_epochs
        x, y = points
        with lab.recorder.step("train"):
            descend(
                torch.stack([_adapted(model, a, b, learn=True) for a, b in zip(x, y, strict=True)]).mean(), optimizer
            )
        if number % 30 == 29:
            unseen = torch.Generator().manual_seed(77)
            x, y = _waves(_new_tasks(40, unseen), unseen)
            errors = [_adapted(model, a, b, learn=False).detach() for a, b in zip(x, y, strict=True)]
            with lab.recorder.step("validation") as step:
                step.record("loss", torch.stack(errors).mean(), type="loss")


def _demonstrations(count: int, random: torch.Generator, *, spread: bool) -> _Batch:
    """A pendulum, its angle and speed, held up by an expert for thirty moments, and what the expert did."""
    start = torch.tensor([0.3, 0.0]) + 0.02 * torch.randn(count, 2, generator=random)
    if spread:
        start = torch.tensor([2.4, 4.0]) * (torch.rand(count, 2, generator=random) - 0.5)
    states, pushes = [], []
    angle, speed = start.unbind(1)
    for _ in range(30):
        push = (-4 * angle.sin() - 1.2 * speed).clamp(-2, 2)
        states.append(torch.stack([angle, speed], 1))
        pushes.append(push)
        speed = speed + 0.1 * (2 * angle.sin() + push)
        angle = angle + 0.1 * speed
    return torch.cat(states), torch.cat(pushes)[:, None]


@broken(rules=("data-shift",), words=("cover", "distribution"), nodes=("input",))
def demonstrations_from_one_start(lab: Lab) -> None:
    """All demonstrations begin at one place, and so cover few of the states that the cloned policy gets into.

    Source: Unity-Technologies/ml-agents 1903, behavioural cloning needs data that cover a large number of states.
    """
    random = torch.Generator().manual_seed(4)
    spread = lab.fixed  # set-up bug: demonstrations_from_one_start
    states, pushes = _demonstrations(40, random, spread=spread)
    scale = torch.tensor([0.6, 1.0])
    unseen = _demonstrations(40, random, spread=True)
    policy = mlp(2, 48, 48, 1)

    def batches(number: int) -> _Batch:
        rows = torch.randint(len(states), (64,), generator=torch.Generator().manual_seed(number))
        return states[rows] / scale, pushes[rows]

    def loss_of(state: torch.Tensor, push: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(policy(state), push)

    after = lab.validating(policy, lambda _: (unseen[0] / scale, unseen[1]), loss_of)
    lab.fit(policy, batches, loss_of, torch.optim.Adam(policy.parameters(), lr=3e-3), after=after)
