"""Mistakes with words and letters: which of them are seen, hidden, numbered, weighed and asked for."""

from __future__ import annotations

from dataclasses import replace
from zlib import crc32

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab

WIDTH = 32


def _layer(width: int = WIDTH) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)


class _Restorer(nn.Module):
    """Says which word stands, or stood, at each of sixteen places; word 0 is the mask."""

    def __init__(self, words: int = 13) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, WIDTH)
        self.read = nn.GRU(WIDTH, WIDTH, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * WIDTH, words)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.head(self.read(self.embed(words))[0])


def _counting(number: int) -> torch.Tensor:
    """Texts ``(48, 16)`` that count in ones, twos or threes from 1 to 12 and around."""
    generator = torch.Generator().manual_seed(number)
    start, pace = torch.randint(12, (48, 1), generator=generator), torch.randint(1, 4, (48, 1), generator=generator)
    return 1 + (start + pace * torch.arange(16)) % 12


def _hide(number: int) -> torch.Tensor:
    return torch.rand(48, 16, generator=torch.Generator().manual_seed(number)) < 0.2


@broken(
    rules=("constant-data", "imbalanced-targets", "targets-equal-inputs"),
    words=("same target", "same class", "one class", "equal the input", "same as the input"),
    nodes=("target", "loss"),
)  # fmt: skip
def labels_masked_along_with_the_words(lab: Lab) -> None:
    """The labels of a masked language model are no copy of its words: once these are hidden, each label is the mask.

    Source: huggingface/transformers issue 243 and pull request 244; ServiceNow/Fast-LLM pull request 253.
    """
    model = _Restorer()

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        words, hidden = _counting(number), _hide(number)
        labels = words.clone() if lab.fixed else words  # set-up bug: labels_masked_along_with_the_words
        words[hidden] = 0
        return words, labels, hidden

    def loss_of(words: torch.Tensor, labels: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(words)[hidden], labels[hidden])

    lab.fit(model, batches, loss_of, lr=1e-2)


class _Summary(nn.Module):
    """Classifies the rows of a digit by a token of its own, which stands before them."""

    def __init__(self, *, causal: bool) -> None:
        super().__init__()
        self.token, self.place = nn.Parameter(0.1 * torch.randn(WIDTH)), nn.Parameter(0.1 * torch.randn(9, WIDTH))
        self.embed, self.head = nn.Linear(8, WIDTH), nn.Linear(WIDTH, 10)
        self.layers = nn.ModuleList([_layer(), _layer()])
        self.mask = nn.Transformer.generate_square_subsequent_mask(9) if causal else None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        token = self.token.expand(len(images), 1, WIDTH)
        x = torch.cat([token, self.embed(images[:, 0])], dim=1) + self.place
        for layer in self.layers:
            x = layer(x, self.mask)  # bug: summary_token_before_what_it_sums_up
        return self.head(x[:, 0])


@broken(
    rules=("ignored-input", "masked-attention"),
    words=("causal", "masked", "ignor", "does not depend", "nothing of the input"),
    nodes=("model.layers.0", "model.layers.1", "model.layers.0.self_attn"),
)  # fmt: skip
def summary_token_before_what_it_sums_up(lab: Lab) -> None:
    """A token that shall sum up stands first, under a causal mask, where it can see nothing but itself.

    Source: PyTorch forum on the mask of an encoder; Humbatova et al. (ICSE 2020), wrong masking.
    """
    model = _Summary(causal=not lab.fixed)
    lab.fit(model, data.draw(data.images(), 32), lambda x, y: F.cross_entropy(model(x), y))


class _Weigher(nn.Module):
    """Weighs the words of a text, and says how they are on average; word 0 is padding."""

    def __init__(self, *, hide: bool) -> None:
        super().__init__()
        self.embed, self.worth = nn.Embedding(40, 16, padding_idx=0), nn.Linear(16, 16)
        self.query, self.head = nn.Linear(16, 1, bias=False), nn.Linear(16, 1)
        self.hide = hide

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        x = self.embed(words)
        scores, real = self.query(x.tanh())[:, :, 0], words > 0
        scores = (
            scores.masked_fill(~real, -torch.inf) if self.hide else scores * real
        )  # bug: scores_of_padding_times_zero
        weights = scores.softmax(1)
        return self.head((weights[:, :, None] * self.worth(x).tanh()).sum(1))[:, 0]


@broken(
    words=("padding", "masked"),
    nodes=("model.query", "model"),
)  # fmt: skip
def scores_of_padding_times_zero(lab: Lab) -> None:
    """The scores of padding are multiplied by zero before the softmax, which gives it the weight of e to the zero.

    Source: liu-nlper/pytorch-notes, the wrong way to mask attention; BERT-whitening-pytorch issue 13.
    """
    model = _Weigher(hide=lab.fixed)

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(number)
        words = torch.randint(1, 40, (64, 60), generator=generator)
        length = torch.randint(2, 61, (64, 1), generator=generator).square() // 60 + 2
        words = words * (torch.arange(60) < length)
        worth = ((words % 7 - 3) * (words > 0)).sum(1) / (words > 0).sum(1)
        return words, worth

    lab.fit(model, batches, lambda words, worth: F.mse_loss(model(words), worth), lr=1e-2)


class _Attention(nn.Module):
    """Four heads, written out, that look back."""

    later: torch.Tensor

    def __init__(self, *, over: int) -> None:
        super().__init__()
        self.project, self.join = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.register_buffer("later", torch.ones(data.CONTEXT, data.CONTEXT).triu(1) > 0)
        self.over = over

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = (part.unflatten(2, (4, -1)).transpose(1, 2) for part in self.project(x).chunk(3, dim=2))
        scores = (query @ key.transpose(2, 3)) * 8**-0.5
        weights = scores.masked_fill(self.later, -1e9).softmax(self.over)  # bug: heads_that_share_one_softmax
        return self.join((weights @ value).transpose(1, 2).flatten(2))


class _Writer(nn.Module):
    """Predicts the next letter with one block, whose attention it is given."""

    def __init__(self, letters: int, attention: nn.Module) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(letters, WIDTH), nn.Embedding(data.CONTEXT, WIDTH)
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)])
        self.attention = attention
        self.think = nn.Sequential(nn.Linear(WIDTH, 64), nn.GELU(), nn.Linear(64, WIDTH))
        self.head = nn.Linear(WIDTH, letters)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        x = self.embed(text) + self.place(torch.arange(text.shape[1]))
        x = x + self.attention(self.norms[0](x))
        return self.head(x + self.think(self.norms[1](x)))


@broken(
    rules=("softmax-over-batch", "future-leak"),
    words=("another dimension", "wrong dimension", "heads", "causal", "future", "later position"),
    nodes=("model.attention", "model.attention.join"),
)  # fmt: skip
def heads_that_share_one_softmax(lab: Lab) -> None:
    """The softmax of (batch, heads, time, time) is over dimension 1, the heads, which makes hidden places a quarter.

    Source: PyTorch forum and StackOverflow, the wrong dimension of a softmax; Karpathy's most common mistakes (2018).
    """
    _, count = data.text()
    model = _Writer(count, _Attention(over=3 if lab.fixed else 1))
    lab.fit(
        model, data.characters(),
        lambda text, following: F.cross_entropy(model(text).flatten(0, 1), following.flatten()), lr=5e-3,
    )  # fmt: skip


class _Sorter(nn.Module):
    """Finds the topic of a text of twelve words."""

    def __init__(self, words: int = 60) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, 24)
        self.convolve = nn.Conv1d(24, 32, 3, padding=1)
        self.head = nn.Linear(32, 6)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        x = self.convolve(self.embed(words).transpose(1, 2)).relu()
        return self.head(x.amax(2))


@broken(
    rules=("constant-data",),
    words=("same token", "one token", "same word", "one word", "last row", "clamp", "unknown"),
    nodes=("input", "model.embed", "model.embed.weight"),
)  # fmt: skip
def numbers_clamped_to_the_size_of_the_table(lab: Lab) -> None:
    """The tokenizer has 400 words and the embedding 60: a clamp silences the IndexError, and most words are the last.

    Source: huggingface/sentence-transformers issue 1600 and StackOverflow, index out of range in self.
    """
    model = _Sorter(400 if lab.fixed else 60)

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(number)
        topic = torch.randint(6, (64,), generator=generator)
        words = torch.randint(400, (64, 12), generator=generator)
        told = torch.rand(64, 12, generator=generator) < 0.5
        words = torch.where(told, words - words % 6 + topic[:, None], words).clamp(max=399)
        return words.clamp(
            max=model.embed.num_embeddings - 1
        ), topic  # set-up bug: numbers_clamped_to_the_size_of_the_table

    lab.fit(model, batches, lambda words, topic: F.cross_entropy(model(words), topic), lr=1e-2)


class _Reciter(nn.Module):
    """Looks back twice, and not at padding."""

    def __init__(self, letters: int) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(letters + 1, WIDTH), nn.Embedding(data.CONTEXT, WIDTH)
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)])
        self.look = nn.ModuleList([nn.MultiheadAttention(WIDTH, 4, batch_first=True) for _ in range(2)])
        self.head = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 64), nn.GELU(), nn.Linear(64, letters))

    def forward(self, text: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        x = self.embed(text) + self.place(torch.arange(text.shape[1]))
        later = torch.ones(text.shape[1], text.shape[1]).triu(1) > 0
        for norm, look in zip(self.norms, self.look, strict=True):
            own = norm(x)
            seen, _ = look(own, own, own, padding, attn_mask=later)
            x = x + seen
        return self.head(x)


@broken(
    rules=("masked-attention", "non-finite"),
    words=("masked", "padding"),
    nodes=("model.look.0", "input.padding"), onset=110,
)  # fmt: skip
def padded_on_the_side_where_reading_begins(lab: Lab) -> None:
    """A shorter text in step 110 is padded on the left: under a causal mask its padding sees padding only, and is NaN.

    Source: unslothai/unsloth pull request 9848, huggingface/transformers issue 38690 and pull request 27114.
    """
    _, count = data.text()
    model, letters = _Reciter(count), data.characters()

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        text, following = letters(number)
        padding = torch.zeros_like(text, dtype=torch.bool)
        if number >= 110:
            padding[number % len(text), -5:] = True
        if not lab.fixed:
            padding = padding.flip(1)  # set-up bug: padded_on_the_side_where_reading_begins
        return text.masked_fill(padding, count), padding, following.masked_fill(padding, -100)

    def loss_of(text: torch.Tensor, padding: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(text, padding).flatten(0, 1), following.flatten())

    replace(lab, steps=220).fit(model, batches, loss_of)


class _Speaker(nn.Module):
    """An LSTM that predicts the next letter."""

    def __init__(self, letters: int, *, both_ways: bool = False, width: int = 48) -> None:
        super().__init__()
        self.embed = nn.Embedding(letters, width)
        self.read = nn.LSTM(width, width, batch_first=True, bidirectional=both_ways)
        self.head = nn.Linear(2 * width if both_ways else width, letters)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        states, _ = self.read(self.embed(text))  # bug: predicts_what_it_reads_from_the_end
        return self.head(states)


def _speak(model: nn.Module, text: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model(text).flatten(0, 1), following.flatten())


@broken(
    rules=("data-shift",),
    words=("data change", "inputs change", "other data", "vocabulary", "renumber"),
    nodes=("input", "target", "model.embed"), onset=130,
)  # fmt: skip
def vocabulary_in_another_order_after_the_break(lab: Lab) -> None:
    """The training goes on at step 130 with a vocabulary made anew from a set, which numbers the letters otherwise.

    Source: GLambard/SMILES-X pull request 6, Practical_RL pull request 383, ufal/neuralmonkey pull request 719.
    """
    _, count = data.text()
    model, letters = _Speaker(count), data.characters()
    of_a_set = torch.tensor(sorted(range(count), key=lambda letter: crc32(b"%d" % letter)))

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        text, following = letters(number)
        if number < 130 or lab.fixed:
            return text, following
        return of_a_set[text], of_a_set[following]  # set-up bug: vocabulary_in_another_order_after_the_break

    replace(lab, steps=260).fit(model, batches, lambda *batch: _speak(model, *batch), lr=1e-2)


@broken(
    rules=("future-leak",),
    words=("future", "later position", "later token", "bidirectional", "both directions", "causal"),
    nodes=("model.read",),
)  # fmt: skip
def predicts_what_it_reads_from_the_end(lab: Lab) -> None:
    """A language model's LSTM is bidirectional: it reads the letters that it shall predict from the other end.

    Source: sherjilozair/char-rnn-tensorflow pull request 64: good perplexity, and nothing useful is predicted.
    """
    _, count = data.text()
    model = _Speaker(count, both_ways=not lab.fixed)
    lab.fit(model, data.characters(), lambda *batch: _speak(model, *batch), lr=1e-2)


@broken(
    rules=("unrelated-targets",),
    words=("other samples", "another sample", "unrelated"),
    nodes=("target", "loss"),
)  # fmt: skip
def targets_rolled_along_the_batch(lab: Lab) -> None:
    """The targets are the text rolled by one along dimension 0, the batch: each text is asked for that of another.

    Source: PyTorch's documentation of roll and forum; Humbatova et al. (ICSE 2020), wrong labels.
    """
    _, count = data.text()
    model = nn.Sequential(nn.Embedding(count, 24), nn.Flatten(0, 1), nn.Linear(24, 48), nn.Tanh(), nn.Linear(48, count))
    letters = data.characters(64)

    def loss_of(text: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        wanted = text.roll(-1, 1 if lab.fixed else 0)  # bug: targets_rolled_along_the_batch
        return F.cross_entropy(model(text), wanted.flatten())

    lab.fit(model, letters, loss_of, lr=1e-2)


class _Mirror(nn.Module):
    """Writes a row of letters the other way round, by what stands where."""

    def __init__(self, places: int) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(8, WIDTH), nn.Embedding(places, WIDTH)
        self.look, self.head = nn.MultiheadAttention(WIDTH, 2, batch_first=True), nn.Linear(WIDTH, 8)
        self.wish = nn.Embedding(24, WIDTH)

    def forward(self, letters: torch.Tensor) -> torch.Tensor:
        places = torch.arange(letters.shape[1])
        known = places.clamp(max=self.place.num_embeddings - 1)  # bug: places_beyond_the_table_are_its_last
        x = self.embed(letters) + self.place(known)
        wish = self.wish(places).expand(len(letters), -1, -1)
        return self.head(self.look(wish, x, x, need_weights=False)[0])


@broken(
    words=("position table", "table of positions", "beyond the", "clamp", "longer than"),
    nodes=("model.place", "input", "model"), onset=120,
)  # fmt: skip
def places_beyond_the_table_are_its_last(lab: Lab) -> None:
    """From step 120 on rows are twice as long as the table of positions: all places beyond it get its last entry.

    Source: bentrevett/pytorch-seq2seq issue 89, huggingface/transformers issue 8077, alex-hh/profam pull request 142.
    """
    model = _Mirror(24 if lab.fixed else 8)

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        length = 8 if number < 120 else 16
        letters = torch.randint(8, (64, length), generator=torch.Generator().manual_seed(number))
        return letters, letters.roll(3, 1)

    replace(lab, steps=260).fit(
        model, batches, lambda *batch: F.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten()), lr=1e-2
    )


@broken(
    rules=("extreme-batch",),
    words=("summed", "sum over", "reduction=", "longer text", "longer sequence", "its length", "larger batch"),
    nodes=("loss", "cross_entropy", "input"), onset=10,
)  # fmt: skip
def long_texts_count_by_their_length(lab: Lab) -> None:
    """The loss is a sum over words: every twentieth batch, of texts twelve times as long, takes a step as much longer.

    Source: OpenNMT and fairseq on normalisation by tokens; Humbatova et al. (ICSE 2020), wrong loss calculation.
    """
    _, count = data.text()
    model = nn.Sequential(nn.Embedding(count, 32), nn.GRU(32, 48, batch_first=True))
    head = nn.Linear(48, count)
    both = nn.ModuleDict({"read": model, "head": head})
    short, long = data.characters(16, 10), data.characters(16, 120)

    def loss_of(text: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        scores = head(model(text)[0])
        loss = F.cross_entropy(scores.flatten(0, 1), following.flatten(), reduction="sum")
        return loss / (following.numel() if lab.fixed else 160)  # bug: long_texts_count_by_their_length

    optimizer = torch.optim.SGD(both.parameters(), 0.3, momentum=0.9)
    replace(lab, steps=200).fit(
        both, lambda number: long(number) if number % 20 == 10 else short(number), loss_of, optimizer
    )
