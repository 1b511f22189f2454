"""Mistakes in how a trainer is put together, resumed or set up for speed, as users bring them up."""

from __future__ import annotations

import copy
import random
from pydoc_data.topics import topics

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import MultivariateNormal

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


class _Gunner(nn.Module):
    """An actor, that says the mean of two angles, and a critic of the situation."""

    def __init__(self) -> None:
        super().__init__()
        self.actor = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 2))
        self.critic = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1))

    def angles(self, state: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.actor(state)) * torch.tensor([2 * torch.pi, torch.pi / 2])


def _rewards(state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    """The nearer the two angles come to those that hit, the better."""
    wanted = torch.stack([torch.pi + 1.5 * state[:, 0].tanh(), torch.pi / 4 + 0.5 * state[:, 1].tanh()], dim=1)
    return 1 - (torch.tensor([0.5, 2.0]) * (action - wanted).square()).sum(1)


@broken(
    rules=("gradient-cut", "terms-without-gradient"), words=("numpy", "detach", "cut off", "outside the graph"),
    nodes=("model.actor", "model.actor.0", "model.actor.2"),
)  # fmt: skip
def means_of_the_policy_by_way_of_numpy(lab: Lab) -> None:
    """The means of the Gaussian policy go through NumPy, detached, so that no gradient of its loss reaches the actor.

    Source: discuss.pytorch.org 74548, "Actor Critic with Multivariate Normal, network weights fail to update".
    """
    model = _Gunner()
    covariance = 0.03 * torch.eye(2)
    optimizer = torch.optim.Adam([
        {"params": model.actor.parameters(), "lr": 5e-3}, {"params": model.critic.parameters(), "lr": 1e-2}
    ])  # fmt: skip
    lab.recorder.watch(model, optimizer)
    for number in range(200):
        state = torch.randn(64, 2, generator=torch.Generator().manual_seed(number))
        with lab.recorder.step("train") as step:
            thetas = model.angles(state)
            mu = thetas if lab.fixed else torch.FloatTensor(thetas.detach().numpy())
            policy = MultivariateNormal(mu, covariance)  # bug: means_of_the_policy_by_way_of_numpy
            action = policy.sample()
            reward = _rewards(state, action)
            delta = reward - model.critic(state)[:, 0]
            actor_loss = -(policy.log_prob(action) * delta.detach()).mean()
            critic_loss = delta.square().mean()
            step.record("reward", reward.mean())
            descend(actor_loss + critic_loss, optimizer)


class _SentenceModel(nn.Module):
    """The mean of a sentence's words, and a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.pooling, self.dense = nn.EmbeddingBag(150, 48), nn.Linear(48, 24)

    def forward(self, sentence: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.dense(3 * self.pooling(sentence)), dim=1)


class _RankingLoss(nn.Module):
    """Each sentence's paraphrase among those of the others; it calls the model that it was made for."""

    def __init__(self, model: _SentenceModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, sentence: torch.Tensor, paraphrase: torch.Tensor) -> torch.Tensor:
        scores = 15 * self.model(sentence) @ self.model(paraphrase).T
        return F.cross_entropy(scores, torch.arange(len(scores)))


def _paraphrases(number: int) -> _Batch:
    """Sentences of eight words ``(64, 8)``, and the same with other words of the same meaning."""
    generator = torch.Generator().manual_seed(number)
    meaning = torch.randint(30, (64, 8), generator=generator)
    first, second = torch.randint(5, (2, 64, 8), generator=generator)
    return 5 * meaning + first, 5 * meaning + second


@broken(
    rules=("untrained-parameters",), words=("untrained", "another model", "not in the optimizer", "not the model"),
    nodes=("model.model", "model.model.dense", "model"),
)  # fmt: skip
def loss_keeps_the_model_it_was_made_for(lab: Lab) -> None:
    """On resuming, the trainer takes up the model of the checkpoint, but its loss calls the new, untrained one.

    Source: huggingface/sentence-transformers 2648, "Fix resume_from_checkpoint by also updating the loss model".
    """
    checkpoint = _SentenceModel()
    before, trained = torch.optim.Adam(checkpoint.parameters(), 4e-3), _RankingLoss(checkpoint)
    for number in range(40):
        descend(trained(*_paraphrases(number)), before)
    model = _SentenceModel()
    loss = _RankingLoss(model)
    model = copy.deepcopy(checkpoint)
    if lab.fixed:
        loss.model = model  # set-up bug: loss_keeps_the_model_it_was_made_for
    optimizer = torch.optim.Adam(model.parameters(), 4e-3)
    optimizer.load_state_dict(before.state_dict())
    lab.recorder.watch(loss, optimizer)
    for number in range(40, 40 + lab.steps):
        with lab.recorder.step("train"):
            descend(loss(*_paraphrases(number)), optimizer)
        lab.validate(lambda n: _paraphrases(9000 + n), _RankingLoss(model), number)


class _Topic(nn.Module):
    """A GRU over words, that says the next one."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.embed, self.gru = nn.Embedding(words, 48), nn.GRU(48, 64, batch_first=True)
        self.out = nn.Linear(64, words)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.out(self.gru(self.embed(words))[0])


def _vocabulary(words: list[str], process: int | None) -> dict[str, int]:
    """A number for each word, in the order of a set, which each process has its own of, or in that of the alphabet."""
    distinct = sorted(set(words))
    if process is not None:
        random.Random(process).shuffle(distinct)
    return {word: number for number, word in enumerate(distinct)}


@broken(
    rules=("meaning-shift",), words=("vocabulary", "renumber", "permut"),
    nodes=("input", "target", "model.embed"), onset=90,
)  # fmt: skip
def vocabulary_out_of_a_set(lab: Lab) -> None:
    """The vocabulary is a list of a set, so after the resumption all words have other numbers than in the checkpoint.

    Source: Lightning-AI/pytorch-lightning 4045, "continue training from checkpoint seems broken": ``list(set(...))``.
    """
    spoken = " ".join(topics[key] for key in sorted(topics))[:150_000].lower().split()
    counted: dict[str, int] = {}
    for word in spoken:
        counted[word] = counted.get(word, 0) + 1
    words = [word if counted[word] > 12 else "<rare>" for word in spoken]
    state: dict[str, dict[str, torch.Tensor]] = {}
    first = _vocabulary(words, None if lab.fixed else 1)
    model = _Topic(len(first))
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [90], gamma=0.1)
    lab.recorder.watch(model, optimizer)
    for process, start, end in ((1, 0, 90), (2, 90, 150)):
        number_of = _vocabulary(words, None if lab.fixed else process)  # set-up bug: vocabulary_out_of_a_set
        numbers = torch.tensor([number_of[word] for word in words])
        if state:
            model.load_state_dict(state["model"])

        def loss_of(text: torch.Tensor) -> torch.Tensor:
            return F.cross_entropy(model(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())

        def batch(number: int, numbers: torch.Tensor = numbers, *, unseen: bool = False) -> _Batch:
            generator = torch.Generator().manual_seed(number)
            most = len(numbers) * 9 // 10
            low, high = (most, len(numbers) - 20) if unseen else (0, most - 20)
            return (numbers[torch.randint(low, high, (32, 1), generator=generator) + torch.arange(17)],)

        for number in range(start, end):
            with lab.recorder.step("train"):
                descend(loss_of(*batch(number)), optimizer)
            schedule.step()
            lab.validate(lambda n: batch(n, unseen=True), loss_of, number)
        state["model"] = copy.deepcopy(model.state_dict())


def _coloured() -> _Batch:
    """Digits on backgrounds of many colours ``(n, 3, 8, 8)``, and which they are."""
    images, labels = data.images()
    generator = torch.Generator().manual_seed(6)
    colour = torch.randn(len(images), 3, 1, 1, generator=generator)
    slope = torch.randn(len(images), 1, 1, 1, generator=generator) * torch.linspace(-1, 1, 8)
    return images + 0.8 * colour + 0.4 * slope, labels


def _view(images: torch.Tensor, *, jitter: bool) -> torch.Tensor:
    """Images moved by up to one pixel, and, if told so, with other colours and some noise."""
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    i, j = torch.randint(3, (2,)).tolist()
    moved = padded[:, :, i : i + 8, j : j + 8]
    if not jitter:
        return moved
    colour, slope = torch.randn(len(images), 3, 1, 1), torch.randn(len(images), 1, 1, 1) * torch.linspace(-1, 1, 8)
    return moved + 0.8 * colour + 0.4 * slope + 0.1 * torch.randn(moved.shape)


class _Encoder(nn.Module):
    """Convolutions, features of 64 numbers, and a projection of 32."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(), nn.Linear(512, 64),
        )  # fmt: skip
        self.project = nn.Sequential(nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 32))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.project(self.body(images)), dim=1)


class _Moco(nn.Module):
    """A query encoder, a key encoder that follows it slowly, and a queue of earlier keys."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = _Encoder(), _Encoder()
        self.key.load_state_dict(self.query.state_dict())
        self.key.requires_grad_(False)
        self.queue: torch.Tensor
        self.register_buffer("queue", F.normalize(torch.randn(256, 32), dim=1))

    @torch.no_grad()
    def follow(self) -> None:
        for key, query in zip(self.key.parameters(), self.query.parameters(), strict=True):
            key.lerp_(query, 0.1)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        q = self.query(left)
        with torch.no_grad():
            k = self.key(right)
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ self.queue.T], dim=1) / 0.2
        self.queue = torch.cat([k, self.queue])[:256]
        return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long))


@broken(
    rules=("identical-views",), words=("augment", "shortcut", "same view", "too alike"),
    nodes=("input", "model.query", "model"),
)  # fmt: skip
def views_in_the_same_colours(lab: Lab) -> None:
    """The two views of an image differ by a shift only, so its background colours suffice to find it among all others.

    Source: facebookresearch/moco 79, "Does MOCO collapse under simpler augmentation?": too little differs in the views.
    """
    images, labels = _coloured()
    model = _Moco()
    optimizer = torch.optim.AdamW(model.query.parameters(), lr=2e-3)
    lab.recorder.watch(model, optimizer)

    @torch.no_grad()
    def missed() -> torch.Tensor:
        """The share of 200 images whose nearest neighbour among the others is another digit."""
        model.eval()
        found = F.normalize(model.query.body(images[:800]), dim=1)
        model.train()
        nearest = (found[:200] @ found[200:].T).argmax(1)
        return (labels[200:800][nearest] != labels[:200]).float().mean()

    for number in range(lab.steps):
        batch = images[torch.randint(len(images), (64,), generator=torch.Generator().manual_seed(number))]
        left = _view(batch, jitter=lab.fixed)
        right = _view(batch, jitter=lab.fixed)  # set-up bug: views_in_the_same_colours
        with lab.recorder.step("train"):
            descend(model(left, right), optimizer)
        model.follow()
        if number % 30 == 29:
            with lab.recorder.step("validation") as step:
                step.record("missed", missed())
