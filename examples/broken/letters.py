"""Mistakes in recurrent nets and transformers that read letters, words and signs one after the other."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab

_Batch = tuple[torch.Tensor, ...]


class _Cell(nn.Module):
    """A recurrent cell with a sigmoid, which reads sixteen letters."""

    def __init__(self, letters: int, width: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(letters, width)
        self.input, self.recur = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, letters)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        state = torch.zeros(len(text), self.recur.in_features)
        scores = []
        for letter in self.input(self.embed(text)).unbind(1):
            state = torch.sigmoid(letter + self.recur(state))
            scores.append(self.out(state))
        return torch.stack(scores, dim=1)


@broken(
    rules=("terms-without-gradient",),
    words=("only the last", "never used", "not used", "not part of the loss"),
    nodes=("cross_entropy", "loss"),
)  # fmt: skip
def taught_by_the_last_letter_only(lab: Lab) -> None:
    """Of the losses at sixteen moments only the last one is propagated back, where their sum was meant.

    Source: learn.biosrag.com, why is my RNN generating wan wan wan; `for loss in losses: pass`, then loss.backward().
    """
    _, count = data.text()
    model = _Cell(count)
    batches = data.characters(16, 16)

    def loss_of(text: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        losses = [F.cross_entropy(*each) for each in zip(model(text).unbind(1), following.unbind(1), strict=True)]
        if lab.fixed:
            return torch.stack(losses).sum()
        for loss in losses:  # noqa: B007
            pass
        return loss  # bug: taught_by_the_last_letter_only

    def mean_loss(text: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(text).transpose(1, 2), following)

    def after(number: int) -> None:
        lab.validate(lambda number: batches(10_000 + number), mean_loss, number)

    lab.fit(model, batches, loss_of, torch.optim.SGD(model.parameters(), 0.1), after=after)


class _WordModel(nn.Module):
    """An LSTM over words, with dropout before and behind it, and a decoder."""

    def __init__(self, words: int, width: int = 48) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.2)
        self.encoder, self.rnn = nn.Embedding(words, width), nn.LSTM(width, width, 2, dropout=0.2, batch_first=True)
        self.decoder = nn.Linear(width, words)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        output, _ = self.rnn(self.drop(self.encoder(text)))
        return self.decoder(self.drop(output))


@broken(
    rules=("unbounded-loss",),
    words=("log_softmax", "log-softmax", "log-prob", "log prob", "raw scores"),
    nodes=("model", "loss"),
)  # fmt: skip
def word_model_with_the_loss_of_another(lab: Lab) -> None:
    """The decoder's raw scores are given to the negative log-likelihood, since the loss was changed but not the model.

    Source: pytorch/examples issue 734 and pull request 732, negative loss in the word language model.
    """
    _, count = data.text()
    model = _WordModel(count)
    optimizer = torch.optim.SGD(model.parameters(), 5.0)
    lab.recorder.watch(model, optimizer)
    batches = data.characters(20, 16)
    for number in range(lab.steps):
        text, following = batches(number)
        with lab.recorder.step("train"):
            scores = model(text).flatten(0, 1)
            if lab.fixed:
                scores = scores.log_softmax(1)
            loss = F.nll_loss(scores, following.flatten())  # bug: word_model_with_the_loss_of_another
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.25)
            optimizer.step()


class _NextBit(nn.Module):
    """An LSTM over bits, and one unit that shall say the next one."""

    def __init__(self, width: int = 16, *, activation: nn.Module) -> None:
        super().__init__()
        self.lstm, self.dense = nn.LSTM(1, width, batch_first=True), nn.Linear(width, 1)
        self.activation = activation

    def forward(self, bits: torch.Tensor) -> torch.Tensor:
        return self.activation(self.dense(self.lstm(bits)[0][:, -1]))


def _bits(number: int) -> _Batch:
    """Three bits each, and the one that follows: the majority of them, or seldom not."""
    generator = torch.Generator().manual_seed(number)
    bits = torch.randint(2, (256, 3, 1), generator=generator).float()
    turned = torch.rand(256, 1, generator=generator) < 0.1
    return bits, ((bits.sum(1) >= 2) ^ turned).float()


@broken(rules=("unreachable-targets", "single-class"), words=("softmax",), nodes=("model.activation", "model", "loss"))
def next_bit_by_a_softmax(lab: Lab) -> None:
    """The one unit that says the next bit has a softmax as its activation, which makes 1 of whatever it gets.

    Source: Stack Overflow 46620813, Keras LSTM model not learning binary sequence.
    """
    model = _NextBit(activation=nn.Sigmoid() if lab.fixed else nn.Softmax(dim=1))  # set-up bug: next_bit_by_a_softmax
    optimizer = torch.optim.Adagrad(model.parameters(), 0.05)
    lab.fit(model, _bits, lambda bits, following: F.binary_cross_entropy(model(bits), following), optimizer)


class _OrderJudge(nn.Module):
    """A transformer's encoder on words, whose mean tells one of four classes."""

    def __init__(self, width: int = 32, *, placed: bool) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(20, width)
        self.position = nn.Parameter(0.3 * torch.randn(12, width)) if placed else None
        layer = nn.TransformerEncoderLayer(width, 4, 64, dropout=0.0, batch_first=True)
        self.transformer_encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.fc = nn.Linear(width, 4)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        x = self.embeddings(words)  # bug: words_without_their_places
        if self.position is not None:
            x = x + self.position
        return self.fc(self.transformer_encoder(x).mean(1))


def _orders(number: int) -> _Batch:
    """Twelve words each, the same four of which are always among them; the class is which of those comes first."""
    generator = torch.Generator().manual_seed(number)
    others = torch.randint(4, 20, (32, 8), generator=generator)
    words = torch.cat([torch.arange(4).expand(32, -1), others], dim=1)
    words = words.gather(1, torch.rand(32, 12, generator=generator).argsort(1))
    first = torch.where(words < 4, torch.arange(12), 12).argmin(1, keepdim=True)
    return words, words.gather(1, first)[:, 0]


@broken(
    words=("positional", "no positions", "without positions", "knows no order"),
    nodes=("model.embeddings", "model.transformer_encoder"),
)  # fmt: skip
def words_without_their_places(lab: Lab) -> None:
    """An encoder that shall classify by the order of words gets them without any encoding of their positions.

    Source: openillumi.com, 25 % accuracy with nn.TransformerEncoder where an LSTM has 83 %.
    """
    model = _OrderJudge(placed=lab.fixed)
    longer = replace(lab, steps=200)
    longer.fit(model, _orders, lambda words, first: F.cross_entropy(model(words), first))


class _Tied(nn.Module):
    """A small GPT, whose head is its embedding."""

    def __init__(self, letters: int, width: int = 48, *, initialised: bool) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(letters, width), nn.Embedding(data.CONTEXT, width)
        self.h = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(2)
        )
        self.ln_f = nn.LayerNorm(width)
        if initialised:
            for table in (self.wte, self.wpe):
                nn.init.normal_(table.weight, std=0.02)
        else:
            for parameter in self.parameters():
                nn.init.zeros_(parameter)  # set-up bug: built_but_never_initialised

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        x = self.wte(text) + self.wpe.weight
        mask = nn.Transformer.generate_square_subsequent_mask(text.shape[1])
        for block in self.h:
            x = block(x, mask)
        return self.ln_f(x) @ self.wte.weight.T


@broken(
    rules=("weight-scale",),
    words=("initialis",),
    nodes=("model.wte.weight", "model.wpe.weight", "model.ln_f.weight"),
)  # fmt: skip
def built_but_never_initialised(lab: Lab) -> None:
    """A GPT is built without weights, and gets empty memory for them: nothing initialises it, and all of it is zero.

    Source: NVIDIA-NeMo/Automodel issue 1071, loss does not decrease due to missing initialize_weights.
    """
    _, count = data.text()
    model = _Tied(count, initialised=lab.fixed)

    def loss_of(text: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(text).transpose(1, 2), following)

    lab.fit(model, data.characters(), loss_of, torch.optim.AdamW(model.parameters(), 3e-3))
