"""Mistakes that projects have mended in what their trainings are fed with, and in targets that are computed."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend
from stepscope.examples.broken.nets import mlp

_Batch = tuple[torch.Tensor, ...]


class _OfflineBuffer:
    """States, actions, rewards and next states of a cart that is pushed about; rewarded near place 40, speed 5."""

    def __init__(self, moments: int = 4000) -> None:
        generator = torch.Generator().manual_seed(3)
        centre, spread = torch.tensor([40.0, 5.0, 0.0]), torch.tensor([12.0, 3.0, 0.6])
        self.state = centre + spread * torch.randn(moments, 3, generator=generator)
        self.action = 2 * torch.rand(moments, 1, generator=generator) - 1
        push = torch.cat([0.5 * spread[:1] * self.action, spread[1:2] * self.action, 0 * self.action], dim=1)
        noise = 0.2 * spread * torch.randn(moments, 3, generator=generator)
        self.next_state = centre + 0.7 * (self.state - centre) + 0.3 * push + noise
        self.next_action = 2 * torch.rand(moments, 1, generator=generator) - 1
        self.reward = 1 - ((self.next_state - centre) / spread).pow(2).sum(1, keepdim=True) / 3

    def normalise_state(self, *, the_next_too: bool) -> None:
        """Give the states mean 0 and standard deviation 1."""
        mean, std = self.state.mean(0), self.state.std(0)
        self.state = (self.state - mean) / std
        if the_next_too:
            self.next_state = (self.next_state - mean) / std

    def sample(self, number: int) -> _Batch:
        rows = torch.randint(len(self.state), (128,), generator=torch.Generator().manual_seed(number))
        parts = self.state, self.action, self.reward, self.next_state, self.next_action
        return tuple(part[rows] for part in parts)


@broken(words=("next state", "next_state", "normalis", "standardis"), nodes=("target", "loss"))
def next_states_stay_as_they_were(lab: Lab) -> None:
    """An offline buffer normalises its states but not the next states, from which the targets of Q are computed.

    Source: github.com/Dragon-Zhuang/BPPO/issues/2, loss does not converge.
    """
    buffer = _OfflineBuffer()
    buffer.normalise_state(the_next_too=lab.fixed)  # set-up bug: next_states_stay_as_they_were
    critic = mlp(4, 64, 64, 1)
    target = copy.deepcopy(critic)
    optimizer = torch.optim.Adam(critic.parameters(), lr=3e-3)
    lab.recorder.watch(critic, optimizer)
    for number in range(lab.steps):
        state, action, reward, next_state, next_action = buffer.sample(number)
        with lab.recorder.step("train"):
            with torch.no_grad():
                wanted = reward + 0.9 * target(torch.cat([next_state, next_action], dim=1))
            descend(F.mse_loss(critic(torch.cat([state, action], dim=1)), wanted), optimizer)
        with torch.no_grad():
            for old, new in zip(target.parameters(), critic.parameters(), strict=True):
                old.lerp_(new, 0.05)


class _DScript(nn.Module):
    """Projects the residues of two proteins, compares all with all, and takes the best contacts."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.embedding = nn.Sequential(nn.Linear(10, width), nn.ReLU(), nn.Dropout(0.1))
        self.contact = nn.Sequential(nn.Linear(2 * width, 16), nn.ReLU(), nn.Linear(16, 1))
        self.scale = nn.Parameter(torch.tensor([1.0, 0.0]))

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        z0, z1 = self.embedding(first)[:, :, None], self.embedding(second)[:, None]
        pairs = self.contact(torch.cat([(z0 - z1).abs(), z0 * z1], dim=3))
        return self.scale[0] * pairs.flatten(1).logsumexp(1) + self.scale[1] - 3


def _proteins(number: int) -> _Batch:
    """Two proteins of eight residues ``(32, 8, 10)``, and whether a lock of one meets its key in the other."""
    generator = torch.Generator().manual_seed(number)
    kinds = torch.randint(2, 10, (2, 32, 8), generator=generator)
    side = torch.randint(2, (32,), generator=generator)
    rows, interacts = torch.arange(32), torch.rand(32, generator=generator) < 0.5
    kinds[side, rows, torch.randint(8, (32,), generator=generator)] = 0
    kinds[1 - side, rows, torch.randint(8, (32,), generator=generator)] = torch.where(interacts, 1, 2)
    first, second = F.one_hot(kinds, 10).float()
    return first, second, interacts.float()


@broken(
    rules=("unrelated-targets",),
    words=("flipped label", "contradict", "label is flipped"),
    nodes=("target", "input.first", "input.second"),
)
def swapped_pairs_get_swapped_labels(lab: Lab) -> None:
    """To augment pairs of proteins their order is flipped, and so is the label, which should be kept.

    Source: github.com/samsledje/D-SCRIPT/issues/13, --augment flag does not properly augment data.
    """
    model = _DScript()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def augmented(number: int) -> _Batch:
        first, second, interacts = _proteins(number)
        again = interacts if lab.fixed else 1 - interacts  # set-up bug: swapped_pairs_get_swapped_labels
        return torch.cat([first, second]), torch.cat([second, first]), torch.cat([interacts, again])

    def loss_of(first: torch.Tensor, second: torch.Tensor, interacts: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(model(first, second), interacts)

    after = lab.validating(model, lambda number: _proteins(9000 + number), loss_of)
    lab.fit(model, augmented, loss_of, optimizer, after=after)


_PAD = 0


def _preferences(number: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Chosen answers, rejected ones ``(16, 32)`` in tokens from 1 on, padded with 0, and the mask of both in a row.

    A chosen answer counts up by its own stride, modulo 23; a rejected one wanders about.
    """
    generator = torch.Generator().manual_seed(number)
    begin = torch.randint(23, (16, 1), generator=generator)
    stride = torch.randint(1, 5, (16, 1), generator=generator)
    chosen = 1 + (begin + stride * torch.arange(32)) % 23
    wander = torch.randint(1, 5, (16, 32), generator=generator).cumsum(1)
    rejected = 1 + (begin + wander) % 23
    length = torch.randint(4, 10, (32, 1), generator=generator)
    length[0] = length[16] = 32
    mask = torch.arange(32) < length
    return torch.where(mask[:16], chosen, _PAD), torch.where(mask[16:], rejected, _PAD), mask


class _Policy(nn.Module):
    """A small causal language model."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed, self.rnn = nn.Embedding(24, width), nn.GRU(width, 48, batch_first=True)
        self.head = nn.Linear(48, 24)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(self.embed(tokens))[0])


def _mean_log_chance(scores: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The average log-probability ``(n,)`` of the tokens that count."""
    each = scores[:, :-1].log_softmax(2).gather(2, tokens[:, 1:, None])[..., 0]
    return (each * mask[:, 1:]).sum(1) / mask[:, 1:].sum(1)


@broken(rules=("imbalanced-targets",), words=("pad",), nodes=("target", "loss", "input"))
def padding_is_learned_as_an_answer(lab: Lab) -> None:
    """For the likelihood of whole answers the inputs are copied to the labels, and their padding is not masked.

    Source: github.com/huggingface/trl/pull/1625, [ORPO] correct label mask for pad tokens.
    """
    model = _Policy()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)

    def loss_of(chosen: torch.Tensor, rejected: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        tokens = torch.cat([chosen, rejected])
        scores = model(tokens)
        labels = chosen.masked_fill(~mask[:16], -100) if lab.fixed else chosen
        said, told = scores[:16, :-1].flatten(0, 1), labels[:, 1:].flatten()
        likelihood = F.cross_entropy(said, told)  # bug: padding_is_learned_as_an_answer
        good, bad = _mean_log_chance(scores, tokens, mask).chunk(2)
        odds = (good - bad) - ((-good.exp()).log1p() - (-bad.exp()).log1p())
        return likelihood - 0.1 * F.logsigmoid(odds).mean()

    def truly(chosen: torch.Tensor, _: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return -_mean_log_chance(model(chosen), chosen, mask[:16]).mean()

    lab.fit(model, _preferences, loss_of, optimizer,
            after=lambda number: lab.validate(lambda n: _preferences(9000 + n), truly, number))  # fmt: skip


def _office(*, photographed: bool) -> TensorDataset:
    """Digits sorted by class, as a folder per class gives them; photographed ones are inverted and noisy."""
    x, y = data.images()
    part = x[900:] if photographed else x[:900]
    labels = y[900:] if photographed else y[:900]
    order = labels.argsort(stable=True)
    noise = 0.3 * torch.randn(part.shape, generator=torch.Generator().manual_seed(2))
    return TensorDataset((0.8 * part + noise if photographed else part)[order], labels[order])


def _load(dataset: TensorDataset, *, shuffle: bool, train: bool) -> DataLoader[_Batch]:
    return DataLoader(dataset, batch_size=45, shuffle=shuffle, drop_last=train)


def _coral(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (source.T.cov() - target.T.cov()).pow(2).sum() / (4 * source.shape[1] ** 2)


@broken(rules=("unmixed-batches",), words=("shuffl", "sorted", "one class", "in order"), nodes=("input", "target"))
def shuffle_is_not_passed_on(lab: Lab) -> None:
    """The function that loads folders of digits does not pass ``shuffle`` on, and batches come class after class.

    Source: github.com/jindongwang/transferlearning/pull/437, fix `shuffle` param for data_loader.py.
    """
    backbone = nn.Sequential(
        nn.Conv2d(1, 12, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(12, 24, 2), nn.ReLU(), nn.Flatten(),
        nn.Linear(96, 32),
    )  # fmt: skip
    model = nn.ModuleDict({"backbone": backbone, "classifier": nn.Sequential(nn.ReLU(), nn.Linear(32, 10))})
    shuffle = lab.fixed
    source = _load(_office(photographed=False), shuffle=shuffle, train=True)  # set-up bug: shuffle_is_not_passed_on
    target = _load(_office(photographed=True), shuffle=shuffle, train=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9, weight_decay=5e-4)
    lab.recorder.watch(model, optimizer)
    unseen, labels = data.unseen_pixels()
    for epoch in range(13):
        for place, ((images, classes), (photos, _)) in enumerate(zip(source, target, strict=False)):
            with lab.recorder.step("train"):
                features, others = model["backbone"](images), model["backbone"](photos)
                loss = F.cross_entropy(model["classifier"](features), classes)
                descend(loss + 0.5 * _coral(features, others), optimizer)
            number = epoch * len(target) + place
            lab.validate(
                lambda _: (unseen.view(-1, 1, 8, 8), labels),
                lambda x, y: F.cross_entropy(model["classifier"](model["backbone"](x)), y), number,
            )  # fmt: skip


class _Agent:
    """A DQN for a corridor of eight places, whose end is a treasure."""

    def __init__(self, *, share: bool) -> None:
        self.actor, self.target = mlp(8, 64, 2), mlp(8, 64, 2)
        self.target.load_state_dict(self.actor.state_dict())
        params = list(self.target.parameters())
        self.target_params = params if share else copy.deepcopy(params)  # set-up bug: soft_update_of_a_copy

    @torch.no_grad()
    def soft_update(self, tau: float = 0.1) -> None:
        """Let the target follow the actor."""
        for old, new in zip(self.target_params, self.actor.parameters(), strict=True):
            old.lerp_(new, tau)


def _corridor(number: int) -> _Batch:
    """Places, actions, rewards, next places and ends ``(64,)``: forward or back, and one for reaching the end."""
    generator = torch.Generator().manual_seed(number)
    place, action = torch.randint(7, (64,), generator=generator), torch.randint(2, (64,), generator=generator)
    following = (place + 2 * action - 1).clamp(min=0)
    end = following == 7
    return F.one_hot(place, 8).float(), action, end.float(), F.one_hot(following, 8).float(), end


@broken(rules=("stale-copy",),
        words=("target network", "soft update", "follow"), nodes=("actor_target", "actor_target.0.weight",
        "actor_target.2.weight"))  # fmt: skip
def soft_update_of_a_copy(lab: Lab) -> None:
    """After parameters were shared, the soft update moves copies, and the target network itself never changes.

    Source: github.com/AgileRL/AgileRL/pull/464, soft update wasn't being applied to target network.
    """
    agent = _Agent(share=lab.fixed)
    optimizer = torch.optim.Adam(agent.actor.parameters(), lr=3e-3)
    lab.recorder.watch({"actor": agent.actor, "actor_target": agent.target}, optimizer)
    for number in range(200):
        place, action, reward, following, end = _corridor(number)
        with lab.recorder.step("train"):
            with torch.no_grad():
                wanted = reward + 0.9 * agent.target(following).amax(1) * ~end
            descend(F.mse_loss(agent.actor(place).gather(1, action[:, None])[:, 0], wanted), optimizer)
        agent.soft_update()
