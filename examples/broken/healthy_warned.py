"""Training runs after a course, lecture notes and guides, in which nothing is wrong."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Categorical

from stepscope.examples.broken import data
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]
_MASK = 30


def _sentences(number: int) -> _Batch:
    """Sentences ``(48, 10)`` of words 0 to 29 that go on by 7 or 11, some hidden; and the hidden ones, or -100."""
    generator = torch.Generator().manual_seed(number)
    first = torch.randint(30, (48, 1), generator=generator)
    stride = torch.where(torch.rand(48, 1, generator=generator) < 0.5, 7, 11)
    words = (first + stride * torch.arange(10)) % 30
    hidden = torch.rand(48, 10, generator=generator) < 0.2
    return torch.where(hidden, _MASK, words), torch.where(hidden, words, -100)


class _MaskedModel(nn.Module):
    """A block of a transformer that sees both sides."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(31, width), nn.Embedding(10, width)
        block = nn.TransformerEncoderLayer(width, 4, 128, 0.0, activation="gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, 1, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, 30)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.words(text) + self.places(torch.arange(text.shape[1]))))


def hidden_words_with_a_warm_up(lab: Lab) -> None:
    """A masked language model with warm-up and linear decay, after the Hugging Face course, chapter 7.3."""
    model = _MaskedModel()
    decayed = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in model.parameters() if parameter.dim() == 1]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=3e-3)
    steps = 240
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: min((n + 1) / 20, (steps - n) / (steps - 20), 1.0))
    lab.recorder.watch(model, optimizer)
    for number in range(steps):
        text, words = _sentences(number)
        with lab.recorder.step("train"):
            loss = F.cross_entropy(model(text).flatten(0, 1), words.flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        rate.step()


class _Agent(nn.Module):
    """A policy and a value, apart."""

    def __init__(self) -> None:
        super().__init__()
        self.actor = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 2))
        self.critic = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
        for net, gain in ((self.actor, 0.01), (self.critic, 1.0)):
            for layer in net:
                if isinstance(layer, nn.Linear):
                    nn.init.orthogonal_(layer.weight, gain if layer is net[-1] else 2**0.5)
                    nn.init.zeros_(layer.bias)


@torch.no_grad()
def _played(agent: _Agent, seed: int) -> _Batch:
    """What 64 balancers saw in twelve moments, did, how likely that was, and what they got from then on."""
    state = 2 * torch.rand(64, 2, generator=torch.Generator().manual_seed(seed)) - 1
    seen, done, likely, got = [], [], [], []
    for _ in range(12):
        policy = Categorical(logits=agent.actor(state))
        action = policy.sample()
        seen.append(state)
        done.append(action)
        likely.append(policy.log_prob(action))
        speed = 0.8 * state[:, 1] + 0.3 * (2 * action - 1) + 0.1 * state[:, 0]
        state = torch.stack([(state[:, 0] + 0.5 * speed).clamp(-2, 2), speed], dim=1)
        got.append(0.3 * (1 - state[:, 0].abs()))
    total, returns = torch.zeros(64), []
    for reward in reversed(got):
        total = reward + 0.9 * total
        returns.append(total)
    flat = [torch.cat(parts) for parts in (seen, done, likely, returns[::-1])]
    return tuple(flat)


def balancers_by_clipped_ratios(lab: Lab) -> None:
    """PPO with orthogonal weights and advantages normalised by the minibatch, after the 37 implementation details."""
    agent = _Agent()
    optimizer = torch.optim.Adam(agent.parameters(), lr=2e-3, eps=1e-5)
    lab.recorder.watch(agent, optimizer)
    for played in range(25):
        seen, done, likely, returns = _played(agent, played)
        with torch.no_grad():
            better = returns - agent.critic(seen)[:, 0]
        for _ in range(2):
            for rows in torch.randperm(len(seen)).split(256):
                with lab.recorder.step("train"):
                    policy = Categorical(logits=agent.actor(seen[rows]))
                    ratio = (policy.log_prob(done[rows]) - likely[rows]).exp()
                    gain = (better[rows] - better[rows].mean()) / (better[rows].std() + 1e-8)
                    surrogate = torch.min(ratio * gain, ratio.clamp(0.8, 1.2) * gain).mean()
                    value_loss = F.mse_loss(agent.critic(seen[rows])[:, 0], returns[rows])
                    loss = 0.5 * value_loss - surrogate - 0.005 * policy.entropy().mean()
                    optimizer.zero_grad()
                    loss.backward()
                    nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
                    optimizer.step()


def digits_by_a_margin(lab: Lab) -> None:
    """Two layers with inverted dropout, a hinge loss and a rate that decays, after CS231n's notes."""
    x, y = data.pixels()
    hidden = nn.Linear(64, 48)
    nn.init.kaiming_normal_(hidden.weight, nonlinearity="relu")
    model = nn.Sequential(hidden, nn.ReLU(), nn.Dropout(0.2), nn.Linear(48, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9, nesterov=True, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.985)
    criterion = nn.MultiMarginLoss()
    validate = lab.validating(model, lambda _: data.unseen_pixels(), lambda x, y: criterion(model(x), y))

    def after(number: int) -> None:
        schedule.step()
        validate(number)

    lab.fit(model, data.draw((x, y)), lambda x, y: criterion(model(x), y), optimizer, after=after)


def _cells(number: int) -> _Batch:
    """Pictures ``(24, 1, 16, 16)`` with a bright cell on the left of a dark one, flipped at times, and their masks."""
    generator = torch.Generator().manual_seed(number)
    grid = torch.arange(16.0)
    pictures, masks = torch.zeros(24, 16, 16), torch.zeros(24, 2, 16, 16)
    for kind, (shade, left) in enumerate(((1.5, 2.0), (-1.5, 10.0))):
        row = 4 + 8 * torch.rand(24, 1, 1, generator=generator)
        column = left + 4 * torch.rand(24, 1, 1, generator=generator)
        cell = (grid[:, None] - row) ** 2 + (grid - column) ** 2 < 8
        pictures[cell] = shade
        masks[:, kind] = cell.float()
    pictures = (pictures + 0.5 * torch.randn(pictures.shape, generator=generator))[:, None]
    flipped = (torch.rand(24, 1, 1, 1, generator=generator) < 0.5).expand(-1, 1, 16, 16)
    return torch.where(flipped, pictures.flip(2), pictures), torch.where(flipped, masks.flip(2), masks)


def cells_flipped_with_their_masks(lab: Lab) -> None:
    """A segmentation by cross-entropy and Dice, whose pictures and masks are flipped together, under one cycle."""
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1, bias=False), nn.GroupNorm(3, 12), nn.ReLU(),
        nn.Conv2d(12, 12, 3, padding=1, bias=False), nn.GroupNorm(3, 12), nn.ReLU(), nn.Conv2d(12, 2, 1),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=lab.steps)

    def loss_of(pictures: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        scores = model(pictures)
        chance = scores.sigmoid()
        overlap = (2 * (chance * masks).sum((2, 3)) + 1) / ((chance + masks).sum((2, 3)) + 1)
        return F.binary_cross_entropy_with_logits(scores, masks) + (1 - overlap).mean()

    validate = lab.validating(model, lambda number: _cells(9000 + number), loss_of)

    def after(number: int) -> None:
        schedule.step()
        validate(number)

    lab.fit(model, _cells, loss_of, optimizer, after=after)


def digits_unfrozen_at_a_lower_rate(lab: Lab) -> None:
    """A pretrained body is frozen while a new head learns, then trained at a tenth of its rate, after fast.ai."""
    x, y = data.images()
    known, new = y < 6, y >= 6
    body = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 24, 3, stride=2), nn.ReLU(), nn.Flatten())
    old = nn.Linear(96, 6)
    batches = data.draw((x[known], y[known]))
    before = torch.optim.Adam([*body.parameters(), *old.parameters()], lr=3e-3)
    for number in range(120):
        images, labels = batches(number)
        descend(F.cross_entropy(old(body(images)), labels), before)
    model = nn.Sequential(body, nn.Linear(96, 4))
    body.requires_grad_(False)
    groups = [{"params": body.parameters(), "lr": 3e-4}, {"params": model[1].parameters(), "lr": 3e-3}]
    optimizer = torch.optim.Adam(groups)
    x, y = x[new], y[new] - 6
    unseen = x[400:], y[400:]
    validate = lab.validating(model, lambda _: unseen, lambda x, y: F.cross_entropy(model(x), y))

    def after(number: int) -> None:
        if number == 60:
            body.requires_grad_(True)
        validate(number)

    fresh = data.draw((x[:400], y[:400]), 40)
    lab.fit(model, fresh, lambda x, y: F.cross_entropy(model(x), y), optimizer, after=after)
