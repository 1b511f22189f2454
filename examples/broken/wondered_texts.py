"""Mistakes in trainings on words and sequences that people ask about."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import lru_cache
from pydoc_data.topics import topics

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab

_Batch = tuple[torch.Tensor, ...]


def _reviews(number: int) -> _Batch:
    """Reviews of five to twenty words ``(32, 20)``, padded with 0, how many words, and whether they praise."""
    generator = torch.Generator().manual_seed(number)
    lengths = torch.randint(5, 21, (32,), generator=generator)
    words = torch.randint(1, 61, (32, 20), generator=generator)
    value = torch.randn(61, generator=torch.Generator().manual_seed(3))
    value[0] = 0.0
    words = words * (torch.arange(20) < lengths[:, None])
    return words, lengths, (value[words].sum(1) > 0).float()


class _Sentiment(nn.Module):
    """Words, a packed recurrent layer, and what the last of its states says."""

    def __init__(self, *, by_length: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(61, 24, padding_idx=0)
        self.rnn = nn.GRU(24, 32, batch_first=True)
        self.clf = nn.Linear(32, 1)
        self.by_length = by_length

    def forward(self, words: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = pack_padded_sequence(self.embed(words), lengths, batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        ends = lengths - 1 if self.by_length else torch.full_like(lengths, states.shape[1] - 1)
        return self.clf(states[torch.arange(len(words)), ends]).squeeze(1)  # bug: state_after_the_padding


@broken(words=("padding", "padded", "last state", "length"), nodes=("model", "model.rnn", "model.clf"))
def state_after_the_padding(lab: Lab) -> None:
    """A review is judged by the state at the last place of the batch, which is zero where the review is shorter.

    Source: georgepar/slp 6, "fixes RNN training by choosing the proper last hidden layers".
    """
    model = _Sentiment(by_length=lab.fixed)

    def loss_of(words: torch.Tensor, lengths: torch.Tensor, praised: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(model(words, lengths), praised)

    after = lab.validating(model, lambda number: _reviews(9000 + number), loss_of)
    lab.fit(model, _reviews, loss_of, torch.optim.Adam(model.parameters(), 1e-2), after=after)


class _Hop(nn.Module):
    """What a mention is, and what those that it is linked with are."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.own, self.linked = nn.Linear(inputs, outputs), nn.Linear(inputs, outputs, bias=False)

    def forward(self, x: torch.Tensor, links: torch.Tensor) -> torch.Tensor:
        return F.relu(self.own(x) + self.linked(links @ x))


class _Reader(nn.Module):
    """Scores mentions as answers to a question, by what they are linked with."""

    def __init__(self, *, chances: bool) -> None:
        super().__init__()
        self.hop1, self.hop2 = _Hop(32, 48), _Hop(48, 48)
        self.out = nn.Linear(48, 1)
        self.chances = chances

    def forward(self, mentions: torch.Tensor, links: torch.Tensor, question: torch.Tensor) -> torch.Tensor:
        x = torch.cat([mentions, mentions * question[:, None]], 2)
        scores = self.out(self.hop2(self.hop1(x, links), links)).squeeze(2)
        if self.chances:
            scores = scores.softmax(1)  # bug: answers_weighed_twice
        return scores


def _questions(number: int) -> _Batch:
    """Thirty mentions ``(32, 30, 16)``, who links to whom, a question about one, and who links to that one."""
    generator = torch.Generator().manual_seed(number)
    mentions = torch.randn(32, 30, 16, generator=generator)
    order = torch.rand(32, 30, generator=generator).argsort(1)
    about = torch.randint(30, (32,), generator=generator)
    links = F.one_hot(order, 30).float()
    question = mentions[torch.arange(32), about] + 0.4 * torch.randn(32, 16, generator=generator)
    return mentions, links, question, (order == about[:, None]).long().argmax(1)


@broken(rules=("activation-before-loss",), words=("softmax",), nodes=("model", "loss"))
def answers_weighed_twice(lab: Lab) -> None:
    """The reader ends in a softmax over the candidates, and the cross-entropy takes a softmax of that once more.

    Source: bowang-lab/Transformer-GCN-QA 32, an erroneous second softmax at the output of the model.
    """
    model = _Reader(chances=not lab.fixed)
    criterion = nn.CrossEntropyLoss()

    def loss_of(*batch: torch.Tensor) -> torch.Tensor:
        *asked, answer = batch
        return criterion(model(*asked), answer)

    after = lab.validating(model, lambda number: _questions(9000 + number), loss_of)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    replace(lab, steps=105).fit(model, _questions, loss_of, optimizer, after=after)


_END, _PAD, _ASK = 12, 13, 14


class _Chat(nn.Module):
    """A small causal transformer, its block written out."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(21, width), nn.Embedding(10, width)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.head = nn.Linear(width, 21, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        length = tokens.shape[1]
        later = torch.ones(length, length).triu(1).bool()
        x = self.tokens(tokens) + self.places(torch.arange(length))
        seen = self.norm1(x)
        x = x + self.attention(seen, seen, seen, attn_mask=later, need_weights=False)[0]
        return self.head(self.norm3(x + self.mlp(self.norm2(x))))


def _collate(dialogues: list[list[int]], pad: int) -> _Batch:
    """Dialogues ``(n, 9)``, and what follows at each place: padding is not to be learned."""
    rows = torch.full((len(dialogues), 10), pad)
    for row, tokens in enumerate(dialogues):
        rows[row, : len(tokens)] = torch.tensor(tokens)
    labels = rows[:, 1:].clone()
    labels[labels == pad] = -100
    return rows[:, :-1], labels


def _dialogues(number: int) -> list[list[int]]:
    """A letter and how often it is asked for, then the letter as often, and the end."""
    generator = torch.Generator().manual_seed(number)
    letters, times = torch.randint(12, (48,), generator=generator), torch.randint(1, 7, (48,), generator=generator)
    return [[a, _ASK + n, *[a] * n, _END] for a, n in zip(letters.tolist(), times.tolist(), strict=True)]


@broken(rules=("hidden-end",), words=("end of", "end-of", "eos", "never stop"), nodes=("target", "model.head", "loss"))
def padding_called_the_end(lab: Lab) -> None:
    """The end mark serves as padding, and all padding is left out of the loss: a chat model never learns to stop.

    Source: huggingface/open-r1 492, ``tokenizer.pad_token = tokenizer.eos_token``, and the collator ignores padding.
    """
    model = _Chat()
    pad = _PAD if lab.fixed else _END  # set-up bug: padding_called_the_end
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.01)

    def loss_of(tokens: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(tokens).flatten(0, 1), following.flatten())

    after = lab.validating(model, lambda number: _collate(_dialogues(9000 + number), _PAD), loss_of)
    replace(lab, steps=120).fit(
        model, lambda number: _collate(_dialogues(number), pad), loss_of, optimizer, after=after
    )


@lru_cache
def _pairs() -> tuple[torch.Tensor, int]:
    """Words of the documentation and those near them ``(n, 2)``, of the three hundred most frequent."""
    words = [w for key in sorted(topics) for w in topics[key].lower().split() if w.isalpha()]
    known = {word: place for place, (word, _) in enumerate(Counter(words).most_common(300))}
    ids = torch.tensor([known[word] for word in words if word in known][:40_000])
    near = [torch.stack([ids[:-far], ids[far:]], 1) for far in (1, 2)]
    return torch.cat([*near, *(pair.flip(1) for pair in near)]), len(known)


class _SkipGram(nn.Module):
    """A table of words, and one of the words around them."""

    def __init__(self, words: int, *, shared: bool, width: int = 32) -> None:
        super().__init__()
        self.embedding_center, self.embedding_outside = nn.Embedding(words, width), nn.Embedding(words, width)
        for table in (self.embedding_center, self.embedding_outside):
            nn.init.normal_(table.weight, std=0.2)
        self.shared = shared

    def forward(self, center: torch.Tensor) -> torch.Tensor:
        outside = self.embedding_center if self.shared else self.embedding_outside
        return self.embedding_center(center) @ outside.weight.T  # bug: outside_words_from_the_wrong_table


@broken(
    rules=("module-never-called", "no-gradient"),
    words=("unused", "not used", "never used"),
    nodes=("model.embedding_outside", "model.embedding_outside.weight", "model"),
)  # fmt: skip
def outside_words_from_the_wrong_table(lab: Lab) -> None:
    """The words around a word are looked up in the table of the words themselves; the table made for them is not used.

    Source: chaklam-silpasuwanchai/Python-fo-Natural-Language-Processing 6, ``embedding_outside`` not used.
    """
    pairs, words = _pairs()
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(5))
    pairs, unseen = pairs[order[2000:]], pairs[order[:2000]]
    model = _SkipGram(words, shared=not lab.fixed)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)

    def loss_of(center: torch.Tensor, outside: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(center), outside)

    after = lab.validating(model, lambda _: (unseen[:, 0], unseen[:, 1]), loss_of)
    lab.fit(model, data.draw((pairs[:, 0], pairs[:, 1]), 512), loss_of, optimizer, after=after)


class _Listener(nn.Module):
    """Reads frames with plain recurrent units, and says one of twelve phones at each of them."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(16, 64, num_layers=2, nonlinearity="relu", batch_first=True)
        self.out = nn.Linear(64, 12)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.out(self.rnn(frames)[0])


def _speech(number: int) -> _Batch:
    """Forty frames ``(16, 40, 16)`` of phones that last four frames each, and the phone before the current one."""
    generator = torch.Generator().manual_seed(number)
    voice = torch.randn(12, 16, generator=torch.Generator().manual_seed(1))
    phones = torch.randint(12, (16, 11), generator=generator)
    spoken, before = phones[:, 1:].repeat_interleave(4, 1), phones[:, :-1].repeat_interleave(4, 1)
    before[:, :4] = spoken[:, :4]
    return voice[spoken] + 0.5 * torch.randn(16, 40, 16, generator=generator), before


@broken(words=("clip",), nodes=("model", "model.rnn", "model.rnn.weight_hh_l0", "model.rnn.weight_hh_l1"))
def clipped_gradients_thrown_away(lab: Lab) -> None:
    """The gradients are clipped into a list of their own, and the optimizer steps with those that are not clipped.

    Source: NVIDIA/OpenSeq2Seq 192, a bug effectively disabled the clipping of the norm of gradients.
    """
    model = _Listener()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(
        model, lambda number: _speech(9000 + number), lambda x, y: F.cross_entropy(model(x).transpose(1, 2), y)
    )
    for number in range(lab.steps):
        frames, phones = _speech(number)
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            F.cross_entropy(model(frames).transpose(1, 2), phones).backward()
            gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
            norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
            clipped = [gradient * (0.5 / norm).clamp(max=1.0) for gradient in gradients]
            if lab.fixed:
                for parameter, gradient in zip(model.parameters(), clipped, strict=True):
                    parameter.grad = gradient
            optimizer.step()  # bug: clipped_gradients_thrown_away
        after(number)
