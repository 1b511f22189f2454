"""Mistakes in losses, rates and normalisation, as people asked about them and were answered."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend
from stepscope.examples.broken.nets import mlp

_Batch = tuple[torch.Tensor, ...]


class _Dialogue(nn.Module):
    """What is said, heard and seen at each turn of a talk, each read by a GRU, and the mood at the end."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.text, self.audio = nn.GRU(8, width, batch_first=True), nn.GRU(4, width, batch_first=True)
        self.video = nn.GRU(4, width, batch_first=True)
        self.mood = nn.Sequential(nn.Linear(3 * width, 24), nn.ReLU(), nn.Linear(24, 2))

    def forward(self, turns: torch.Tensor) -> torch.Tensor:
        parts = turns.split((8, 4, 4), dim=2)
        readers = (self.text, self.audio, self.video)
        return self.mood(torch.cat([reader(part)[1][0] for reader, part in zip(readers, parts, strict=True)], dim=1))


def _talks(number: int) -> _Batch:
    """Talks of five turns ``(64, 5, 16)``, and whether somebody is surprised: one in sixteen, and not easily told."""
    generator = torch.Generator().manual_seed(number)
    surprised = torch.rand(64, generator=generator) < 1 / 16
    sign = torch.randn(16, generator=torch.Generator().manual_seed(4))
    turns = torch.randn(64, 5, 16, generator=generator) + 0.16 * surprised[:, None, None] * sign
    return turns, surprised.long()


@broken(
    rules=("imbalanced-targets",),
    words=("imbalance", "class weight", "rare class", "weight the rare", "unbalanced"),
    nodes=("loss", "target"),
)
def surprise_is_never_said(lab: Lab) -> None:
    """One talk in sixteen is about a surprise, and counts as much as any other, so that it is never recognised.

    Source: amanshenoy/multilogue-net 8, model predicting only one class (imbalanced, ``class_weights`` solve it).
    """
    model = _Dialogue()
    weight = torch.tensor([1.0, 15.0]) if lab.fixed else torch.ones(2)

    def loss_of(turns: torch.Tensor, surprised: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(turns), surprised, weight=weight)  # bug: surprise_is_never_said

    def missed(turns: torch.Tensor, surprised: torch.Tensor) -> torch.Tensor:
        right = (model(turns).argmax(1) == surprised).float()
        return 1 - 0.5 * (right[surprised == 1].mean() + right[surprised == 0].mean())

    def many(number: int) -> _Batch:
        turns, surprised = zip(*(_talks(9000 + 20 * number + part) for part in range(12)), strict=True)
        return torch.cat(turns), torch.cat(surprised)

    lab.fit(model, _talks, loss_of, lr=2e-3, after=lab.validating(model, many, missed))


class _Gpt(nn.Module):
    """Two blocks that see what came before."""

    def __init__(self, letters: int, context: int, width: int = 48) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(letters, width), nn.Embedding(context, width)
        block = nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.h = nn.TransformerEncoder(block, 2, nn.LayerNorm(width), enable_nested_tensor=False)
        self.lm_head = nn.Linear(width, letters, bias=False)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        x = self.wte(text) + self.wpe(torch.arange(text.shape[1]))
        mask = nn.Transformer.generate_square_subsequent_mask(text.shape[1])
        return self.lm_head(self.h(x, mask=mask, is_causal=True))


@broken(rules=("learning-rate",), words=("learning rate",), nodes=("model", "model.lm_head.weight", "model.wte.weight"))
def half_the_context_at_the_old_rate(lab: Lab) -> None:
    """A language model with half the context is trained at a learning rate at which it diverges.

    Source: karpathy/nanoGPT 136, loss becomes nan (block size halved; a smaller learning rate, "confirming").
    """
    _, letters = data.text()
    model = _Gpt(letters, 16)
    rate = 3e-3 if lab.fixed else 0.3  # set-up bug: half_the_context_at_the_old_rate
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.1)
    batches = data.characters(16, 16)

    def loss_of(text: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(text).flatten(0, 1), following.flatten())

    after = lab.validating(model, lambda number: batches(9000 + number), loss_of)
    replace(lab, steps=120).fit(model, batches, loss_of, optimizer, after=after)


def _curve(number: int) -> _Batch:
    """Points ``(64, 1)`` and a wave over them, measured with little noise."""
    generator = torch.Generator().manual_seed(number)
    x = 4 * torch.rand(64, 1, generator=generator) - 2
    return x, (2 * x).sin() + 0.5 * x + 0.15 * torch.randn(64, 1, generator=generator)


@broken(words=("variance of the output", "variance of the prediction", "own variance"), nodes=("loss", "model"))
def spread_of_the_outputs_for_the_noise(lab: Lab) -> None:
    """The likelihood takes the variance of the outputs for that of the noise: it pays to spread them, not to fit.

    Source: stats.stackexchange 564809, using a neural network to learn linear regression variance (custom loss).
    """
    model = mlp(1, 48, 48, 1, activation=nn.Tanh)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda n: _curve(9000 + n), lambda x, y: F.mse_loss(model(x), y))

    def custom_loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        spread = torch.var(outputs - targets) if lab.fixed else torch.var(outputs)
        precision = 1 / spread  # bug: spread_of_the_outputs_for_the_noise
        return 0.5 * precision * (outputs - targets).pow(2).mean() - 0.5 * precision.log()

    for number in range(240):
        x, y = _curve(number)
        with lab.recorder.step("train"):
            descend(custom_loss(model(x), y), optimizer)
        after(number)


_LABELS, _WORDS = 60, 400


def _papers(number: int) -> _Batch:
    """Texts of twelve words out of four hundred ``(48, 12)``, and which of sixty labels they have: one or two."""
    generator = torch.Generator().manual_seed(number)
    about = torch.randint(_LABELS, (48, 2), generator=generator)
    own = about[:, torch.randint(2, (12,), generator=generator)] * 6 + torch.randint(6, (48, 12), generator=generator)
    other = torch.randint(_WORDS, (48, 12), generator=generator)
    words = torch.where(torch.rand(48, 12, generator=generator) < 0.5, own, other)
    return words, torch.zeros(48, _LABELS).scatter(1, about, 1.0)


@broken(
    rules=("imbalanced-targets",),
    words=("pos_weight", "pos weight", "imbalance", "rare label"),
    nodes=("loss", "target"),
)
def sixty_labels_mostly_absent(lab: Lab) -> None:
    """Of sixty labels one or two are true, and the true ones count no more than the others: none is ever said.

    Source: appvision-ai/fast-bert 52, 500+ multi-labels only predicts zeros (the weight of the positives).
    """
    model = nn.Sequential(nn.EmbeddingBag(_WORDS, 48), nn.LayerNorm(48), nn.Linear(48, 96), nn.ReLU())
    model.append(nn.Linear(96, _LABELS))
    weight = torch.full((_LABELS,), 29.0) if lab.fixed else None

    def loss_of(words: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        scores = model(words)
        return F.binary_cross_entropy_with_logits(scores, labels, pos_weight=weight)  # bug: sixty_labels_mostly_absent

    def missed(words: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        said = (model(words) > 0).float()
        return 1 - 0.5 * (said[labels == 1].mean() + 1 - said[labels == 0].mean())

    after = lab.validating(model, lambda number: _papers(9000 + number), missed)
    lab.fit(model, _papers, loss_of, torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01), after=after)


class _Matcher(nn.Module):
    """Encodes the points of two pictures one by one, and scores each pair of them."""

    def __init__(self, norm: type[nn.Module], width: int = 32) -> None:
        super().__init__()
        self.encode = nn.Sequential(
            nn.Linear(10, width), norm(width), nn.ReLU(), nn.Linear(width, width), norm(width), nn.ReLU(),
            nn.Linear(width, width),
        )  # fmt: skip

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return self.encode(left) @ self.encode(right).T / 32**0.5


def _pair(number: int) -> _Batch:
    """Thirty points of a scene seen twice ``(30, 10)`` in its own light, in another order, and that order."""
    generator = torch.Generator().manual_seed(number)
    light = 0.8 * torch.randn(10, generator=torch.Generator().manual_seed(number % 60))
    points = torch.randn(30, 10, generator=generator) * (0.4 + 0.8 * (number % 7) / 6) + light
    order = torch.randperm(30, generator=generator)
    return points, points[order] + 0.1 * torch.randn(30, 10, generator=generator), order.argsort()


@broken(
    rules=("batch-norm-mode", "small-batch-norm", "unmixed-batches"),
    words=("batch norm", "batchnorm", "batch of one", "batch size"),
    nodes=("model.encode.1", "model.encode.4"),
)
def one_pair_at_a_time_through_batch_norm(lab: Lab) -> None:
    """Batch norms are trained on one pair of pictures at a time, whose statistics are not those used in evaluation.

    Source: magicleap/SuperGluePretrainedNetwork 77, degraded by ``model.eval()`` (removed the batch norms).
    """
    norm = nn.LayerNorm if lab.fixed else nn.BatchNorm1d
    model = _Matcher(norm)  # set-up bug: one_pair_at_a_time_through_batch_norm

    def loss_of(left: torch.Tensor, right: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(left, right), order)

    def several(left: torch.Tensor) -> torch.Tensor:
        return torch.stack([loss_of(*_pair(9000 + int(left) + part)) for part in range(7)]).mean()

    after = lab.validating(model, lambda number: (torch.tensor(20 * number),), several)
    replace(lab, steps=180).fit(model, _pair, loss_of, torch.optim.Adam(model.parameters(), lr=3e-3), after=after)
