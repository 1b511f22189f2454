"""Mistakes in how models are taught that people ask about: by a scheduler, a teacher, a reward, the answer itself."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


class _DispNet(nn.Module):
    """Pictures to depths: down, up, and a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 3, 2, 1)
        self.upconv, self.predict = nn.ConvTranspose2d(32, 16, 2, 2), nn.Conv2d(32, 1, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        near = F.elu(self.conv1(x))
        far = F.elu(self.upconv(F.elu(self.conv2(near))))
        return self.predict(torch.cat([near, far], 1))


def _views(number: int) -> _Batch:
    """Pictures of slanted floors and a block ``(16, 1, 12, 12)``, brighter where nearer, and their depths."""
    generator = torch.Generator().manual_seed(number)
    slant = torch.linspace(1, -1, 12)[:, None] * (0.5 + torch.rand(16, 1, 1, generator=generator))
    depth = slant.expand(16, 12, 12).clone()
    for row, (y, x) in enumerate(torch.randint(0, 7, (16, 2), generator=generator).tolist()):
        depth[row, y : y + 5, x : x + 5] = -1.2
    pictures = (-depth).exp() - 1 + 0.2 * torch.randn(16, 12, 12, generator=generator)
    return pictures[:, None], depth[:, None]


class _StepDecay:
    """Halves the rate after some steps."""

    def __init__(self, optimizer: torch.optim.Optimizer, every: int) -> None:
        self.optimizer, self.every, self.count = optimizer, every, 0

    def step(self) -> None:
        self.count += 1
        for group in self.optimizer.param_groups:
            group["lr"] *= 0.5 if self.count % self.every == 0 else 1.0


@broken(
    rules=("unchanged-parameters",), words=("optimizer.step", "step of the optimizer", "never steps"),
    nodes=("model", "model.conv1.weight", "model.conv2.weight", "model.upconv.weight", "model.predict.weight"),
)  # fmt: skip
def scheduler_steps_where_the_optimizer_should(lab: Lab) -> None:
    """Where there is a scheduler, its step is called in place of the optimizer's, so that only the rate changes.

    Source: ClementPinard/SfmLearner-Pytorch 5, ``if scheduler: scheduler.step() else: optimizer.step()``.
    """
    model = _DispNet()
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    scheduler = _StepDecay(optimizer, 50)
    after = lab.validating(model, lambda number: _views(9000 + number), lambda x, depth: F.l1_loss(model(x), depth))
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        pictures, depth = _views(number)
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            F.l1_loss(model(pictures), depth).backward()  # bug: scheduler_steps_where_the_optimizer_should
            if lab.fixed:
                optimizer.step()
            scheduler.step()
        after(number)


@lru_cache
def _teacher() -> nn.Sequential:
    """A wide net that knows the digits."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        teacher = nn.Sequential(nn.Linear(64, 200), nn.ReLU(), nn.Dropout(0.3), nn.Linear(200, 10))
        optimizer, batches = torch.optim.Adam(teacher.parameters(), 3e-3), data.draw(data.pixels())
        for number in range(200):
            pixels, digit = batches(number)
            descend(F.cross_entropy(teacher(pixels), digit), optimizer)
    return teacher.eval().requires_grad_(False)


@broken(rules=("loss-balance",), words=("temperature", "t*t", "squared"), nodes=("loss",))
def soft_targets_too_faint_to_matter(lab: Lab) -> None:
    """The loss of the soft targets lacks the square of the temperature, and the doubtful hard labels outweigh it.

    Source: IntelLabs/distiller 122, no T*T in distillation loss.
    """
    x, y = data.pixels()
    doubtful = torch.rand(len(y), generator=torch.Generator().manual_seed(2)) < 0.6
    y = torch.where(doubtful, torch.randint(10, y.shape, generator=torch.Generator().manual_seed(3)), y)
    teacher, temperature, alpha = _teacher(), 6.0, 0.1
    student = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        scores = student(x)
        soft = (teacher(x) / temperature).softmax(1)
        distilled = F.kl_div((scores / temperature).log_softmax(1), soft, reduction="batchmean")
        if lab.fixed:
            distilled = distilled * temperature**2
        return alpha * F.cross_entropy(scores, y) + (1 - alpha) * distilled  # bug: soft_targets_too_faint_to_matter

    after = lab.validating(student, lambda _: data.unseen_pixels(), lambda x, y: F.cross_entropy(student(x), y))
    lab.fit(student, data.draw((x, y)), loss_of, torch.optim.Adam(student.parameters(), 5e-3), after=after)


class _ActorCritic(nn.Module):
    """A policy, and what a state is worth."""

    def __init__(self) -> None:
        super().__init__()
        self.pi = nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 3))
        self.v = nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 1))

    def forward(self, seen: torch.Tensor) -> _Batch:
        return self.pi(seen).log_softmax(-1), self.v(seen).squeeze(-1)


class _Corridors:
    """Corridors of nine places; the goal is at one end, a hole at the other, and only the goal is rewarded."""

    def __init__(self, rows: int, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.place, self.goal = torch.full((rows,), 4), torch.ones(rows)
        self.reset(torch.ones(rows, dtype=torch.bool))

    def reset(self, over: torch.Tensor) -> None:
        goal = 2.0 * torch.randint(2, self.goal.shape, generator=self.generator) - 1
        self.goal = torch.where(over, goal, self.goal)
        self.place = torch.where(over, 4, self.place)

    def seen(self) -> torch.Tensor:
        return torch.cat([F.one_hot(self.place, 9).float(), self.goal[:, None]], 1)

    def step(self, action: torch.Tensor) -> _Batch:
        self.place = self.place + action - 1
        over = (self.place == 0) | (self.place == 8)
        reward = (over & ((self.place == 8) == (self.goal > 0))).float()
        self.reset(over)
        return reward, over.float()


def _experience(model: _ActorCritic, world: _Corridors, *, late: bool) -> _Batch:
    """What was seen and done in 32 moments, its log-probability, its advantage, and the return."""
    seen, done, sure, worth, rewards, overs = [], [], [], [], [], []
    reward = torch.zeros(len(world.place))
    with torch.no_grad():
        for _ in range(32):
            seen.append(world.seen())
            chances, value = model(seen[-1])
            action = torch.multinomial(chances.exp(), 1, generator=world.generator)
            before = reward
            reward, over = world.step(action[:, 0])
            rewards.append(before if late else reward)  # set-up bug: reward_kept_for_the_next_moment
            overs.append(over)
            worth.append(value)
            done.append(action)
            sure.append(chances.gather(1, action)[:, 0])
            reward = torch.where(over > 0, 0.0, reward) if late else reward
        following, gained = model(world.seen())[1], torch.zeros(len(world.place))
        advantages: list[torch.Tensor] = []
        for reward, over, value in zip(rewards[::-1], overs[::-1], worth[::-1], strict=True):
            error = reward + 0.97 * following * (1 - over) - value
            gained = error + 0.97 * 0.95 * (1 - over) * gained
            advantages.insert(0, gained)
            following = value
    advantage = torch.stack(advantages).flatten()
    return torch.cat(seen), torch.cat(done), torch.cat(sure), advantage, advantage + torch.stack(worth).flatten()


@broken(words=("reward",), nodes=("target", "input", "loss", "model.v"))
def reward_kept_for_the_next_moment(lab: Lab) -> None:
    """Experience is stored with the reward of the moment before, so that what the last move of an episode won is lost.

    Source: openai/spinningup 50, silent bug in PPO implementation, rewards shifted.
    """
    model, world = _ActorCritic(), _Corridors(16, 0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    lab.recorder.watch(model, optimizer)
    for _ in range(50):
        seen, action, sure, advantage, returns = _experience(model, world, late=not lab.fixed)
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-5)
        for _ in range(3):
            with lab.recorder.step("train"):
                chances, value = model(seen)
                ratio = (chances.gather(1, action)[:, 0] - sure).exp()
                gain = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()
                descend(0.5 * F.mse_loss(value, returns) - gain, optimizer)


def _sentences(number: int) -> _Batch:
    """Sentences ``(32, 7)`` of words 1 to 12, and their translation: other words, backwards."""
    source = torch.randint(1, 13, (32, 7), generator=torch.Generator().manual_seed(number))
    return source, ((5 * source + 2) % 13).flip(1)


class _Bart(nn.Module):
    """A transformer from sentences to sentences."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.src, self.dst, self.place = nn.Embedding(14, width), nn.Embedding(14, width), nn.Embedding(7, width)
        self.body = nn.Transformer(width, 4, 1, 1, 96, dropout=0.0, batch_first=True)
        self.head = nn.Linear(width, 13)

    def forward(self, src: torch.Tensor, dst: torch.Tensor) -> torch.Tensor:
        place = self.place(torch.arange(7))
        mask = nn.Transformer.generate_square_subsequent_mask(7)
        return self.head(self.body(self.src(src) + place, self.dst(dst) + place, tgt_mask=mask))


@broken(rules=("targets-equal-inputs", "shifted-labels"), words=("copy", "unshifted"), nodes=("target", "input"))
def decoder_given_what_it_is_to_say(lab: Lab) -> None:
    """The decoder is given its labels unshifted, so that all it has to learn is to copy what it is to say.

    Source: ayaka14732/bart-base-jax 6, ``dst`` and ``labels`` are aligned wrongly, the model would just copy.
    """
    model = _Bart()

    def batches(number: int, *, shifted: bool = lab.fixed) -> _Batch:
        src, labels = _sentences(number)
        dst = F.pad(labels, (1, -1), value=13) if shifted else labels  # set-up bug: decoder_given_what_it_is_to_say
        return src, dst, labels

    def loss_of(src: torch.Tensor, dst: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(src, dst).flatten(0, 1), labels.flatten())

    after = lab.validating(model, lambda number: batches(9000 + number, shifted=True), loss_of)
    lab.fit(model, batches, loss_of, torch.optim.Adam(model.parameters(), 4e-3), after=after)


class _Nmt(nn.Module):
    """A recurrent encoder, and a decoder of one cell that is given the right word before."""

    def __init__(self, *, updates: bool, width: int = 64) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(14, 24), nn.Embedding(14, 24)
        self.encoder, self.rnn = nn.GRU(24, width, batch_first=True), nn.GRUCell(24, width)
        self.generator = nn.Linear(width, 13)
        self.updates = updates

    def forward(self, src: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        hidden = self.encoder(self.source(src))[1][0]
        outputs, h = [], hidden
        for emb_t in self.target(before).unbind(1):
            h = self.rnn(emb_t, h if self.updates else hidden)  # bug: decoder_starts_over_at_each_word
            outputs.append(self.generator(h))
        return torch.stack(outputs, 1)


def _phrases(number: int) -> _Batch:
    """Phrases ``(64, 4)`` of four words out of 1 to 5, their translation up to each place, and the translation."""
    src = torch.randint(1, 6, (64, 4), generator=torch.Generator().manual_seed(number))
    labels = src % 5 + 7
    return src, F.pad(labels, (1, -1), value=13), labels


@broken(rules=("forgetful-recurrence",), words=("hidden state", "updated", "carried"), nodes=("model.rnn", "model"))
def decoder_starts_over_at_each_word(lab: Lab) -> None:
    """The decoder takes the encoder's hidden state at every word, not its own last one, and never knows where it is.

    Source: pytorch/examples 88, OpenNMT: hidden state not updated in the decoder, ``self.rnn(emb_t, hidden)``.
    """
    model = _Nmt(updates=lab.fixed)

    def loss_of(src: torch.Tensor, before: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(src, before).flatten(0, 1), labels.flatten())

    after = lab.validating(model, lambda number: _phrases(9000 + number), loss_of)
    lab.fit(model, _phrases, loss_of, torch.optim.Adam(model.parameters(), 1e-2), after=after)
