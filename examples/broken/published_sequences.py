"""Mistakes in nets for texts, signals and histories, from the published collections of faulty training programs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _mails(rows: int, seed: int, share: float) -> _Batch:
    """Mails of 24 words out of 300 ``(rows, 24)``, and whether each is spam, which uses some words more than others."""
    generator = torch.Generator().manual_seed(seed)
    spam = torch.rand(rows, 1, generator=generator) < share
    words = torch.randint(300, (rows, 24), generator=generator)
    typical = torch.randint(40, (rows, 24), generator=generator)
    return torch.where(spam & (torch.rand(rows, 24, generator=generator) < 0.25), typical, words), spam.float()


class _MailFilter(nn.Module):
    """The mean of a mail's word vectors, and a small net on it."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(300, 24, mode="mean")
        self.judge = nn.Sequential(nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 1))

    def forward(self, mails: torch.Tensor) -> torch.Tensor:
        return self.judge(self.words(mails))


@broken(rules=("imbalanced-targets",), words=("imbalance", "rare", "balance"), nodes=("target", "loss"))
def one_mail_in_fifty_is_spam(lab: Lab) -> None:
    """One mail in fifty is spam, and counts like any other in the cross-entropy, so that all are called harmless.

    Source: SageMaker Debugger's built-in rules, ClassImbalance.
    """
    mails, spam = _mails(19200, 0, 1 / 50)
    weight = (1 - spam).sum() / spam.sum()
    model = _MailFilter()
    criterion = nn.BCEWithLogitsLoss(pos_weight=weight if lab.fixed else None)  # set-up bug: one_mail_in_fifty_is_spam
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    lab.recorder.watch(model, optimizer)
    loader = DataLoader(TensorDataset(mails, spam), batch_size=128, shuffle=True, drop_last=True)
    after = lab.validating(model, lambda _: _mails(1000, 1, 1 / 50), lambda x, y: criterion(model(x), y))
    for number, (words, labels) in enumerate(loader):
        with lab.recorder.step("train"):
            descend(criterion(model(words), labels), optimizer)
        after(number)


def _recordings(number: int) -> _Batch:
    """Noise ``(48, 1, 400)``, and whether there is a short click in it, anywhere ``(48,)``."""
    generator = torch.Generator().manual_seed(number)
    clicks = torch.randint(2, (48,), generator=generator)
    start = torch.randint(394, (48, 1), generator=generator)
    since = torch.arange(400) - start
    click = 3.5 * torch.where((since >= 0) & (since < 6), (-1.0) ** since, 0.0) * clicks[:, None]
    return (torch.randn(48, 400, generator=generator) + click)[:, None], clicks


class _ClickFinder(nn.Module):
    """Convolutions, one number for each of their maps, and two scores."""

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv1d(1, 12, 7, 2, 3), nn.Conv1d(12, 24, 5, padding=2)
        self.pool, self.out = pool, nn.Linear(24, 2)

    def forward(self, sounds: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.conv2(F.relu(self.conv1(sounds))))
        return self.out(self.pool(x).squeeze(2))


@broken(words=("pool", "averag"), nodes=("model.pool", "model"))
def clicks_averaged_over_the_recording(lab: Lab) -> None:
    """The maps are averaged over the whole recording, in which a click of six samples among 400 gets lost.

    Source: taxonomy of Humbatova et al. (ICSE 2020), layer properties, wrong amount and type of pooling.
    """
    pool: nn.Module = nn.AdaptiveMaxPool1d(1)
    if not lab.fixed:
        pool = nn.AdaptiveAvgPool1d(1)  # set-up bug: clicks_averaged_over_the_recording
    model = _ClickFinder(pool)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda number: _recordings(6000 + number), lambda x, y: criterion(model(x), y))
    for number in range(lab.steps):
        sounds, clicks = _recordings(number)
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            loss = criterion(model(sounds), clicks)
            loss.backward()
            optimizer.step()
        after(number)


_GOODS = 150


def _visits(number: int) -> _Batch:
    """What visitors looked at, five goods ``(128, 5)``, and what they looked at next ``(128,)``.

    Each goes on by a step of their own round the shelf, of one to three, now and then to anywhere.
    """
    generator = torch.Generator().manual_seed(number)
    start, stride = (
        torch.randint(_GOODS, (128, 1), generator=generator),
        torch.randint(1, 4, (128, 1), generator=generator),
    )
    goods = (start + stride * torch.arange(6)) % _GOODS
    anywhere = torch.randint(_GOODS, (128, 6), generator=generator)
    goods = torch.where(torch.rand(128, 6, generator=generator) < 0.05, anywhere, goods)
    return goods[:, :5], goods[:, 5]


class _NextGood(nn.Module):
    """Vectors of goods, a GRU over the visit, and a score for each of the goods."""

    def __init__(self, *, normalise: bool) -> None:
        super().__init__()
        self.goods = nn.Embedding(_GOODS, 32)
        self.gru = nn.GRU(32, 64, batch_first=True)
        self.scores = nn.Linear(64, _GOODS)
        self.normalise = normalise

    def forward(self, visits: torch.Tensor) -> torch.Tensor:
        _, last = self.gru(self.goods(visits))
        scores = self.scores(last[0])
        return scores.softmax(dim=1) if self.normalise else scores  # bug: next_good_by_a_softmax_of_a_softmax


@broken(rules=("activation-before-loss",), words=("softmax",), nodes=("model", "prediction", "loss"))
def next_good_by_a_softmax_of_a_softmax(lab: Lab) -> None:
    """The net already ends with a softmax, and the cross-entropy, which wants scores, takes the softmax of that.

    Source: defect4ML (EMSE 2023) after Zhang et al. (ISSTA 2018), Stack Overflow 34240703, softmax before the loss.
    """
    model = _NextGood(normalise=not lab.fixed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 240)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda number: _visits(8000 + number), lambda x, y: F.cross_entropy(model(x), y))
    for number in range(240):
        visits, following = _visits(number)
        with lab.recorder.step("train"):
            descend(F.cross_entropy(model(visits), following), optimizer)
        schedule.step()
        after(number)


def _brackets(number: int) -> _Batch:
    """Rows of 16 signs out of six ``(48, 16)``, and which of two signs comes first in them, sign 0 or sign 1."""
    generator = torch.Generator().manual_seed(number)
    signs = torch.randint(2, 6, (48, 16), generator=generator)
    places = torch.rand(48, 16, generator=generator).argsort(1)[:, :2]
    signs.scatter_(1, places, torch.tensor([[0, 1]]).expand(48, 2))
    return signs, (places[:, 1] < places[:, 0]).long()


class _Encoder(nn.Module):
    """Signs and places, one layer of a transformer, and two scores from what is averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.signs, self.places = nn.Embedding(6, 32), nn.Parameter(0.5 * torch.randn(16, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 2)

    def forward(self, signs: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.layers(self.signs(signs) + self.places)).mean(1))


@broken(
    rules=("learning-rate",), words=("warm", "learning rate", "schedule"), nodes=("model", "model.layers", "model.head")
)
def warm_up_of_ten_thousand_steps(lab: Lab) -> None:
    """The warm-up of ten thousand steps suits a large corpus: in two hundred the rate never leaves its beginning.

    Source: SageMaker Debugger's built-in rules, LossNotDecreasing, here for a learning rate that stays too small.
    """
    model = _Encoder()
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3, betas=(0.9, 0.98))
    warm_up = 20 if lab.fixed else 10_000  # set-up bug: warm_up_of_ten_thousand_steps
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / warm_up))
    lab.recorder.watch(model, optimizer)
    for number in range(200):
        signs, first = _brackets(number)
        with lab.recorder.step("train"):
            loss = F.cross_entropy(model(signs), first)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        schedule.step()


def _walks(number: int) -> _Batch:
    """Three seconds of a sensor ``(64, 3, 30)``, and how sure a teacher is of each of five movements ``(64, 5)``."""
    generator = torch.Generator().manual_seed(number)
    movement = torch.randint(5, (64,), generator=generator)
    pace = torch.linspace(0.3, 1.5, 5)[movement][:, None, None] + 0.08 * torch.randn(64, 1, 1, generator=generator)
    phase = 6.2832 * torch.rand(64, 3, 1, generator=generator)
    sensor = 1.2 * (pace * torch.arange(30.0) + phase).sin() + 0.4 * torch.randn(64, 3, 30, generator=generator)
    unsure = -((torch.linspace(0.3, 1.5, 5) - pace[:, 0]) ** 2) / 0.02
    return sensor, unsure.softmax(1)


@broken(
    words=("log_softmax", "log-softmax", "softmax", "log-probabilit", "logarithms of probabilities"),
    nodes=("prediction", "loss", "model"),
)
def student_without_its_softmax(lab: Lab) -> None:
    """The divergence from the teacher expects logarithms of chances, but is given the student's raw scores.

    Source: NeuraLint's rules (TOSEM 2021), a missing softmax behind the last layer of a classifier.
    """
    student = nn.Sequential(
        nn.Conv1d(3, 24, 7, padding=3), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(24, 32, 5, padding=2), nn.ReLU(),
        nn.AdaptiveAvgPool1d(3), nn.Flatten(), nn.Linear(96, 5),
    )  # fmt: skip

    def loss_of(sensor: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        scores = student(sensor)
        if lab.fixed:
            scores = scores.log_softmax(dim=1)
        return F.kl_div(scores, teacher, reduction="batchmean")  # bug: student_without_its_softmax

    after = lab.validating(student, lambda number: _walks(4000 + number), loss_of)
    lab.fit(student, _walks, loss_of, lr=4e-3, after=after)
