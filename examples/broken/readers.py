"""Mistakes of nets that read one thing after another: words, moments, prices, pairs of texts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab


class _BothWays(nn.Module):
    """Reads ``(batch, time, 4)`` in both directions, and answers from the two last states."""

    def __init__(self, *, viewed: bool) -> None:
        super().__init__()
        self.read = nn.LSTM(4, 24, batch_first=True, bidirectional=True)
        self.head = nn.Linear(48, 4)
        self.viewed = viewed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, (last, _) = self.read(x)
        if self.viewed:
            return self.head(last.view(len(x), 48))  # bug: both_directions_joined_by_a_view
        return self.head(torch.cat([last[0], last[1]], dim=1))


@broken(
    rules=("batch-leak",), words=("other samples", "across the batch", "mixes", "mixed"),
    nodes=("model", "model.head", "model.read"),
)  # fmt: skip
def both_directions_joined_by_a_view(lab: Lab) -> None:
    """The last states ``(2, batch, width)`` are viewed as ``(batch, 2 width)``, which joins states of other samples.

    Source: graykode/nlp-tutorial issue 38 and timbmg/Sentence-VAE issue 15; Karpathy, view instead of permute.
    """
    model = _BothWays(viewed=not lab.fixed)
    lab.fit(model, data.sequences(5, tells=1), lambda x, y: F.cross_entropy(model(x), y), lr=1e-2)


WORDS = [f"{first}{second}" for first in ("Ka", "Lo", "Mi", "Nu", "Pe") for second in ("ra", "sto", "ti", "ven")]


class _Sorter(nn.Module):
    """Sorts texts of ten words into four topics."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, 16)
        self.read = nn.GRU(16, 24, batch_first=True)
        self.head = nn.Linear(24, 4)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        _, last = self.read(self.embed(text))
        return self.head(last[0])


@broken(
    rules=("unused-embeddings", "constant-data"), words=("never looked up", "same token", "one token", "unknown"),
    nodes=("input", "model.embed", "model.embed.weight"),
)  # fmt: skip
def almost_every_word_unknown(lab: Lab) -> None:
    """The vocabulary was written down in lower case and the texts are not: nearly every word is the unknown one.

    Source: StackOverflow on pretrained word vectors and out-of-vocabulary words; UMLAUT; Humbatova et al. (ICSE 2020).
    """
    vocabulary = {word.lower(): number for number, word in enumerate(WORDS, start=1)}
    model = _Sorter(len(WORDS) + 1)

    def look_up(word: str) -> int:
        return vocabulary.get(word.lower() if lab.fixed else word, 0)  # set-up bug: almost_every_word_unknown

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(number)
        topic = torch.randint(4, (48,), generator=generator)
        chosen = (4 * torch.randint(5, (48, 10), generator=generator) + topic[:, None]) % len(WORDS)
        other = torch.randint(len(WORDS), (48, 10), generator=generator)
        chosen = torch.where(torch.rand(48, 10, generator=generator) < 0.5, chosen, other)
        lower = torch.rand(48, 10, generator=generator) < 0.03
        spelled = [
            [WORDS[word].lower() if small else WORDS[word] for word, small in zip(row, case, strict=True)]
            for row, case in zip(chosen.tolist(), lower.tolist(), strict=True)
        ]
        return torch.tensor([[look_up(word) for word in row] for row in spelled]), topic

    lab.fit(model, batches, lambda text, topic: F.cross_entropy(model(text), topic), lr=5e-3)


class _Stepwise(nn.Module):
    """Goes through a sequence ``(batch, time, 4)`` with an LSTM cell."""

    def __init__(self, *, detached: bool) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTMCell(4, 24), nn.Linear(24, 4)
        self.detached = detached

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state, memory = torch.zeros(len(x), 24), torch.zeros(len(x), 24)
        for moment in x.unbind(1):
            if self.detached:
                state, memory = state.detach(), memory.detach()  # bug: state_detached_at_every_moment
            state, memory = self.cell(moment, (state, memory))
        return self.head(state)


@broken(
    rules=("gradient-cut",), words=("detach",),
    nodes=("model.cell", "model"),
)  # fmt: skip
def state_detached_at_every_moment(lab: Lab) -> None:
    """The state is detached at every moment instead of once a sequence, so that nothing earlier is ever learned.

    Source: PyTorch forum and the word language model example's ``repackage_hidden``, called in the inner loop.
    """
    model = _Stepwise(detached=not lab.fixed)
    lab.fit(model, data.sequences(5), lambda x, y: F.cross_entropy(model(x), y), lr=1e-2)


def _documents(number: int) -> tuple[torch.Tensor, ...]:
    """Queries ``(32, 4)`` of four words each, and documents ``(32, 12)`` that these words are taken from."""
    generator = torch.Generator().manual_seed(number)
    documents = torch.randint(80, (32, 12), generator=generator)
    places = torch.rand(32, 12, generator=generator).argsort(1)[:, :4]
    return documents.gather(1, places), documents


class _Towers(nn.Module):
    """Two towers that bring queries and documents to the same sphere."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.query, self.document = (nn.EmbeddingBag(80, width, mode="mean") for _ in range(2))
        self.project_query, self.project_document = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, queries: torch.Tensor, documents: torch.Tensor) -> torch.Tensor:
        asked = F.normalize(self.project_query(self.query(queries)), dim=1)
        found = F.normalize(self.project_document(self.document(documents)), dim=1)
        return asked @ found.T / 0.07


@broken(
    rules=("constant-data", "imbalanced-targets"), words=("same target", "same class", "one class"),
    nodes=("target", "loss"),
)  # fmt: skip
def every_query_wants_the_first_document(lab: Lab) -> None:
    """The targets of a contrastive loss over a batch are all 0, as if each query's document came first in its row.

    Source: sthalles/SimCLR issue 33 and info-nce-pytorch issue 13, on what the labels are: zeros or the diagonal.
    """
    model = _Towers()

    def loss_of(queries: torch.Tensor, documents: torch.Tensor) -> torch.Tensor:
        wanted = torch.arange(len(queries)) if lab.fixed else torch.zeros(len(queries), dtype=torch.long)
        return F.cross_entropy(model(queries, documents), wanted)  # bug: every_query_wants_the_first_document

    lab.fit(model, _documents, loss_of, lr=1e-2)


class _Forecaster(nn.Module):
    """Says the next value of a series ``(batch, time)``."""

    def __init__(self, cell: type[nn.LSTM | nn.GRU | nn.RNN], width: int = 32) -> None:
        super().__init__()
        self.read, self.head = cell(1, width, batch_first=True), nn.Linear(width, 1)

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        states, _ = self.read(series[:, :, None])
        return self.head(states[:, -1])


def _waves(number: int, *, length: int = 16, batch: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy waves ``(batch, length)`` of spread 1, and what comes next ``(batch, 1)``."""
    generator = torch.Generator().manual_seed(number)
    speed = 0.2 + 0.8 * torch.rand(batch, 1, generator=generator)
    start = 6.3 * torch.rand(batch, 1, generator=generator)
    wave = 1.4 * (start + speed * torch.arange(length + 1)).sin()
    wave = wave + 0.1 * torch.randn(batch, length + 1, generator=generator)
    return wave[:, :-1], wave[:, -1:]


@broken(
    rules=("input-scale",), words=("standardi", "normali"),
    nodes=("input", "model.read"),
)  # fmt: skip
def prices_given_raw_to_an_lstm(lab: Lab) -> None:
    """Prices around 20,000 go into an LSTM as they are, and shut or open all of its gates: the forecast is constant.

    Source: keras-team/keras issue 1727, an LSTM that always predicts a constant; StackOverflow on scaling prices.
    """
    model = _Forecaster(nn.LSTM)

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        wave, following = _waves(number)
        prices = 20_000 + 1500 * wave
        return (prices - 20_000) / 1500 if lab.fixed else prices, following  # set-up bug: prices_given_raw_to_an_lstm

    lab.fit(model, batches, lambda series, y: F.mse_loss(model(series), y), lr=1e-2)


@broken(
    rules=("broadcast-target",), words=("broadcast",),
    nodes=("loss", "target", "model"),
)  # fmt: skip
def forecast_compared_with_every_series(lab: Lab) -> None:
    """Forecasts ``(batch, 1)`` minus values ``(batch,)``, in a loss by hand, compare each with those of all series.

    Source: PyTorch forum and StackOverflow on an LSTM that predicts the mean; Humbatova et al. (ICSE 2020).
    """
    model = _Forecaster(nn.GRU)

    def loss_of(series: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        wanted = wanted if lab.fixed else wanted[:, 0]
        return (model(series) - wanted).cosh().log().mean()  # bug: forecast_compared_with_every_series

    lab.fit(model, _waves, loss_of, lr=5e-3)


@broken(
    rules=("exploding-gradient", "learning-rate"), words=("explod", "clip"),
    nodes=("model.read", "model.read.weight_hh_l0", "model.read.weight_ih_l0"),
)  # fmt: skip
def recurrent_gradients_not_clipped(lab: Lab) -> None:
    """A plain recurrent net over forty moments is trained without clipping: its first huge gradients throw it out.

    Source: Pascanu et al. (2013); AutoTrainer and DeepDiagnosis, exploding gradients; PyTorch forum on clipping.
    """
    model = _Forecaster(nn.RNN)
    optimizer = torch.optim.SGD(model.parameters(), 0.2, momentum=0.9)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        series, following = _waves(number, length=40)
        with lab.recorder.step("train"):
            loss = F.mse_loss(model(series), following)
            optimizer.zero_grad()
            loss.backward()
            if lab.fixed:
                nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()  # bug: recurrent_gradients_not_clipped


class _Tagger(nn.Module):
    """Gives each word of a text ``(batch, time)`` one of five tags."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(30, 16)
        self.read = nn.GRU(16, 24, batch_first=True, bidirectional=True)
        self.head = nn.Linear(48, 5)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        return self.head(self.read(self.embed(text))[0])


def _tagged(number: int) -> tuple[torch.Tensor, ...]:
    """Texts ``(32, 12)`` of thirty words, and tags that depend on a word and the one before."""
    text = torch.randint(30, (32, 12), generator=torch.Generator().manual_seed(number))
    return text, (text + (text.roll(1, 1) >= 15)) % 5


@broken(
    rules=("batch-leak", "unrelated-targets"), words=("another order", "reshape", "transpos", "mixes"),
    nodes=("loss", "model", "model.head"),
)  # fmt: skip
def scores_viewed_with_classes_first(lab: Lab) -> None:
    """cross_entropy wants ``(batch, classes, time)``: the scores are viewed so instead of transposed, and scrambled.

    Source: StackOverflow and PyTorch forum on cross_entropy for tagging; Karpathy, view instead of permute.
    """
    model = _Tagger()

    def loss_of(text: torch.Tensor, tags: torch.Tensor) -> torch.Tensor:
        scores = model(text)
        scores = scores.transpose(1, 2) if lab.fixed else scores.view(len(text), 5, 12)
        return F.cross_entropy(scores, tags)  # bug: scores_viewed_with_classes_first

    lab.fit(model, _tagged, loss_of, lr=1e-2)


def _sounds(number: int) -> tuple[torch.Tensor, ...]:
    """Sounds ``(32, 20, 6)`` of four different letters, of five moments each, and the letters, from 1 to 5."""
    generator = torch.Generator().manual_seed(number)
    letters = 1 + torch.rand(32, 5, generator=generator).argsort(1)[:, :4]
    sound = F.one_hot(letters.repeat_interleave(5, dim=1), 6).float()
    return sound + 0.3 * torch.randn(32, 20, 6, generator=generator), letters


@broken(
    rules=("activation-before-loss",), words=("log_softmax", "log-prob", "log prob", "logarithm"),
    nodes=("prediction", "loss", "model"),
)  # fmt: skip
def spelling_loss_of_probabilities(lab: Lab) -> None:
    """ctc_loss is given probabilities, a softmax, where it wants their logarithms, and has hardly anything to gain.

    Source: PyTorch forum on a CTCLoss below zero; Humbatova et al. (ICSE 2020), wrong input of a loss.
    """
    model = nn.Sequential(nn.Conv1d(6, 48, 5, padding=2), nn.ReLU(), nn.Conv1d(48, 6, 1))

    def loss_of(sound: torch.Tensor, letters: torch.Tensor) -> torch.Tensor:
        scores = model(sound.transpose(1, 2)).permute(2, 0, 1)
        found = scores.log_softmax(2) if lab.fixed else scores.softmax(2)
        heard, told = torch.full((len(sound),), 20), torch.full((len(sound),), 4)
        return F.ctc_loss(found, letters, heard, told)  # bug: spelling_loss_of_probabilities

    lab.fit(model, _sounds, loss_of, lr=1e-2)
