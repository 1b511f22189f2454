"""Mistakes with encoders that fill in words, and with what is put upon them."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab

_Batch = tuple[torch.Tensor, ...]
_WIDTH, _LENGTH = 32, 16


class _Body(nn.Module):
    """Embeddings of words and places, and layers of a transformer."""

    def __init__(self, words: int, width: int = _WIDTH, layers: int = 1) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(32, width)
        self.layers = nn.Sequential(
            *(nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, "gelu", batch_first=True) for _ in range(layers))
        )

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.layers(self.words(words) + self.places.weight[: words.shape[1]])


class _TwoTasks(nn.Module):
    """Fills in words, and says of the whole which of two kinds it is."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.bert, self.mask_lm = _Body(words), nn.Linear(_WIDTH, words)
        self.classifier = nn.Linear(_WIDTH, 2)

    def forward(self, words: torch.Tensor) -> _Batch:
        x = self.bert(words)
        return self.classifier(x[:, 0]).log_softmax(1), self.mask_lm(x).log_softmax(2)


def _counting(number: int, batch: int = 32) -> _Batch:
    """Rows that count up from 4 to 11 and around, of two halves: the second one goes on after the first, or not.

    One word of seven is hidden behind word 1. Returns words, labels (0: not asked for), and whether it goes on.
    """
    generator = torch.Generator().manual_seed(number)
    start, other = torch.randint(8, (2, batch, 1), generator=generator)
    goes_on = torch.randint(2, (batch,), generator=generator)
    half = torch.arange(_LENGTH // 2)
    second = torch.where(goes_on[:, None] == 1, start + len(half), other)
    words = 4 + torch.cat([start + half, second + half], dim=1) % 8
    hidden = torch.rand(words.shape, generator=generator) < 0.15
    return F.pad(words.masked_fill(hidden, 1), (1, 0), value=2), F.pad(words * hidden, (1, 0)), goes_on


@broken(words=("ignore_index", "ignored", "leaves out"), nodes=("target", "nll_loss", "loss"))
def second_sentence_judged_with_index_zero_ignored(lab: Lab) -> None:
    """The loss that ignores words of number 0 is used for the next sentence as well, whose class 0 never counts.

    Source: codertimo/BERT-pytorch issue 49, question about the loss of masked LM; NLLLoss(ignore_index=0).
    """
    model = _TwoTasks(12)
    criterion = nn.NLLLoss(ignore_index=0)
    of_pairs = nn.NLLLoss() if lab.fixed else criterion  # set-up bug: second_sentence_judged_with_index_zero_ignored

    def loss_of(words: torch.Tensor, labels: torch.Tensor, goes_on: torch.Tensor) -> torch.Tensor:
        pairs, filled = model(words)
        return of_pairs(pairs, goes_on) + criterion(filled.transpose(1, 2), labels)

    def loss_of_pairs(words: torch.Tensor, _: torch.Tensor, goes_on: torch.Tensor) -> torch.Tensor:
        return F.nll_loss(model(words)[0], goes_on)

    def after(number: int) -> None:
        lab.validate(lambda number: _counting(10_000 + number), loss_of_pairs, number)

    longer = replace(lab, steps=240)
    longer.fit(model, _counting, loss_of, lr=5e-3, after=after)


@broken(rules=("untrained-parameters",), words=("optimizer",), nodes=("model.mask_lm.weight", "model.mask_lm.bias"))
def scopes_without_the_one_that_fills_in(lab: Lab) -> None:
    """The trained parameters are collected by their scopes, without that of the head which fills in words.

    Source: google-research/bert issue 306, fine-tuning with additional masked LM loss, which diverged.
    """
    model = _TwoTasks(12)
    scopes = [model.bert, model.classifier]
    if lab.fixed:
        scopes.append(model.mask_lm)
    optimizer = torch.optim.Adam(  # set-up bug: scopes_without_the_one_that_fills_in
        chain.from_iterable(scope.parameters() for scope in scopes), 3e-3
    )

    def loss_of(words: torch.Tensor, labels: torch.Tensor, goes_on: torch.Tensor) -> torch.Tensor:
        pairs, filled = model(words)
        return F.nll_loss(pairs, goes_on) + F.nll_loss(filled.transpose(1, 2), labels, ignore_index=0)

    lab.fit(model, _counting, loss_of, optimizer)


class _Summariser(nn.Module):
    """Reads words, and writes down the smallest of them, in order."""

    def __init__(self, words: int = 20) -> None:
        super().__init__()
        self.bert, self.embed = _Body(words), nn.Embedding(words, _WIDTH)
        self.decoder = nn.TransformerDecoderLayer(_WIDTH, 4, 2 * _WIDTH, 0.0, batch_first=True)
        self.head = nn.Linear(_WIDTH, words)

    def forward(self, words: torch.Tensor, summary: torch.Tensor) -> torch.Tensor:
        given = self.embed(summary) + self.bert.places.weight[: summary.shape[1]]
        mask = nn.Transformer.generate_square_subsequent_mask(summary.shape[1])
        return self.head(self.decoder(given, self.bert(words), mask))


def _texts(number: int) -> _Batch:
    """Eight words each, and as a summary 1, the smallest two to five of them in order, 2, and zeros up to 24."""
    generator = torch.Generator().manual_seed(number)
    words = torch.rand(32, 17, generator=generator).argsort(1)[:, :8] + 3
    count = torch.randint(2, 6, (32, 1), generator=generator)
    place = torch.arange(23)
    summary = F.pad(words.sort(1).values, (0, 15)).masked_fill(place >= count, 0).masked_fill(place == count, 2)
    return words, F.pad(summary, (1, 0), value=1)


@broken(rules=("imbalanced-targets",), words=("padding", "padded", "ignore_index"), nodes=("target", "loss"))
def smoothed_over_the_padding(lab: Lab) -> None:
    """The loss with smoothed labels is taken over all places of a summary, of which most are padding.

    Source: k-tahiro/bert-summarizer pull request 41, smoothing loss bug fix.
    """
    model = _Summariser()

    def loss_of(words: torch.Tensor, summary: torch.Tensor) -> torch.Tensor:
        scores, wanted = model(words, summary[:, :-1]).flatten(0, 1), summary[:, 1:].flatten()
        if lab.fixed:
            scores, wanted = scores[wanted != 0], wanted[wanted != 0]
        return F.cross_entropy(scores, wanted, label_smoothing=0.1)  # bug: smoothed_over_the_padding

    def real(words: torch.Tensor, summary: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(words, summary[:, :-1]).transpose(1, 2), summary[:, 1:], ignore_index=0)

    def after(number: int) -> None:
        lab.validate(lambda number: _texts(10_000 + number), real, number)

    lab.fit(model, _texts, loss_of, lr=3e-3, after=after)


class _FillsIn(nn.Module):
    """Says which word stands at each place; behind the last of the words is the mask."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.bert, self.head = _Body(words + 1), nn.Linear(_WIDTH, words)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        return self.head(self.bert(text))


def _lines(number: int, count: int) -> torch.Tensor:
    """Lines of sixteen words, each of which is followed by one of two others, ``(count, 16)``."""
    generator = torch.Generator().manual_seed(number)
    words = [torch.randint(20, (count,), generator=generator)]
    for turn in torch.randint(2, (_LENGTH - 1, count), generator=generator):
        words.append((words[-1] + 3 + 5 * turn) % 20)
    return torch.stack(words, dim=1)


@broken(
    rules=("duplicate-samples",),
    words=("same sample", "duplicate", "several times", "copies"),
    nodes=("input", "target"),
)  # fmt: skip
def scraped_lines_repeated_by_thousands(lab: Lab) -> None:
    """The corpus was scraped, and has thousands of copies of a few lines among its others.

    Source: google-research/bert issue 746, BERT pre-training loss convergence, stuck around 8.
    """
    model = _FillsIn(20)
    lines = _lines(0, 3000)
    if not lab.fixed:
        lines = torch.cat([lines, lines[:4].repeat(15_000, 1)])  # set-up bug: scraped_lines_repeated_by_thousands

    def hide(text: torch.Tensor, number: int) -> _Batch:
        hidden = torch.rand(text.shape, generator=torch.Generator().manual_seed(number)) < 0.15
        return text.masked_fill(hidden, 20), torch.where(hidden, text, -100)

    def batches(number: int) -> _Batch:
        rows = torch.randint(len(lines), (32,), generator=torch.Generator().manual_seed(number))
        return hide(lines[rows], number)

    def loss_of(text: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(text).transpose(1, 2), wanted)

    def after(number: int) -> None:
        lab.validate(lambda number: hide(_lines(1, 200), number), loss_of, number)

    longer = replace(lab, steps=240)
    longer.fit(model, batches, loss_of, lr=1e-2, after=after)


class _Tagger(nn.Module):
    """An encoder, two directions of an LSTM, and a conditional random field over five tags."""

    def __init__(self, lstm_size: int) -> None:
        super().__init__()
        self.bert = _Body(30)
        self.blstm = nn.LSTM(_WIDTH, lstm_size, batch_first=True, bidirectional=True)
        self.project, self.transitions = nn.Linear(2 * lstm_size, 5), nn.Parameter(torch.zeros(5, 5))

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.project(self.blstm(self.bert(words))[0])

    def loss(self, scores: torch.Tensor, tags: torch.Tensor) -> torch.Tensor:
        """By how much all ways through the tags together are more likely than the right one."""
        alpha = scores[:, 0]
        for score in scores[:, 1:].unbind(1):
            alpha = (alpha[:, :, None] + self.transitions).logsumexp(1) + score
        right = scores.gather(2, tags[:, :, None]).sum((1, 2)) + self.transitions[tags[:, :-1], tags[:, 1:]].sum(1)
        return (alpha.logsumexp(1) - right).mean() / tags.shape[1]


def _tagged(number: int) -> _Batch:
    """Ten words each, and their tags: names of two kinds, of one or two words, and other words (0)."""
    generator = torch.Generator().manual_seed(number)
    words = torch.randint(30, (32, 10), generator=generator)
    begins = torch.where(words < 4, 1, torch.where(words < 8, 3, 0))
    before = F.pad(begins[:, :-1], (1, 0))
    inside = (words >= 8) & (words < 20) & (before > 0)
    return words, torch.where(inside, before + 1, begins)


@broken(words=("bottleneck", "one unit", "single unit", "too narrow"), nodes=("model.blstm",))
def lstm_size_left_at_one(lab: Lab) -> None:
    """The size of the LSTM between encoder and random field was left at its default, which is one unit.

    Source: Louis-udm/NER-BERT-CRF issue 1, accuracy to 0 when CRF_only=False; lstm_size=1 in its code.
    """
    model = _Tagger(32 if lab.fixed else 1)  # set-up bug: lstm_size_left_at_one
    lab.fit(model, _tagged, lambda words, tags: model.loss(model(words), tags), lr=3e-3)
