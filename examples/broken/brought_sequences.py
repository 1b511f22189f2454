"""Mistakes in trainings on texts and other sequences, as users bring them up."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _utterances(number: int) -> _Batch:
    """Utterances of 3 to 24 tokens, padded to ``(48, 50)``, how long each is, and the mood that its end tells."""
    generator = torch.Generator().manual_seed(number)
    lengths = torch.randint(3, 25, (48,), generator=generator)
    tokens = torch.randint(4, 40, (48, 50), generator=generator)
    mood = torch.randint(3, (48,), generator=generator)
    rows = torch.arange(48)
    tokens[rows, lengths - 2] = 1 + mood
    tokens[torch.arange(50) >= lengths[:, None]] = 0
    return tokens, lengths, mood


class _Mood(nn.Module):
    """An RNN over embedded tokens, and a classifier for its last state."""

    def __init__(self, *, real_end: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, 24, padding_idx=0)
        self.rnn = nn.RNN(24, 48, batch_first=True)
        self.classifier = nn.Linear(48, 3)
        self.real_end = real_end

    def forward(self, tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        states, _ = self.rnn(self.embed(tokens))
        ends = lengths - 1 if self.real_end else torch.full_like(lengths, tokens.shape[1] - 1)
        last = states[torch.arange(len(states)), ends]  # bug: state_behind_the_padding
        return self.classifier(last)


@broken(words=("padding", "padded", "last real"), nodes=("model.rnn", "model.classifier", "model", "input"))
def state_behind_the_padding(lab: Lab) -> None:
    """What is classified is the state of the last column, which for short utterances lies far in the padding.

    Source: georgepar/slp 6, "Fix RNN": training is mended by choosing the proper last hidden states.
    """
    model = _Mood(real_end=lab.fixed)

    def loss_of(tokens: torch.Tensor, lengths: torch.Tensor, mood: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(tokens, lengths), mood)

    after = lab.validating(model, lambda number: _utterances(9000 + number), loss_of)
    lab.fit(model, _utterances, loss_of, lr=2e-3, after=after)


class _Block(nn.Module):
    """Causal attention and a feed-forward net, each after a norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = (p.unflatten(2, (4, -1)).transpose(1, 2) for p in self.c_attn(self.ln_1(x)).chunk(3, 2))
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.c_proj(seen.transpose(1, 2).flatten(2))
        return x + self.mlp(self.ln_2(x))


class _Gpt(nn.Module):
    """A small GPT over letters."""

    def __init__(self, letters: int, width: int = 64) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(letters, width), nn.Embedding(data.CONTEXT, width)
        self.h = nn.Sequential(*(_Block(width) for _ in range(2)))
        self.ln_f, self.lm_head = nn.LayerNorm(width), nn.Linear(width, letters, bias=False)
        for embedding in (self.wte, self.wpe):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        x = self.wte(text) + self.wpe.weight[: text.shape[1]]
        return self.lm_head(self.ln_f(self.h(x)))


@broken(
    rules=("learning-rate",), words=("learning rate",),
    nodes=("model", "model.lm_head.weight", "model.wte.weight", "model.h.0.c_attn.weight"),
)  # fmt: skip
def gpt_at_the_rate_of_a_large_batch(lab: Lab) -> None:
    """A GPT whose blocks and batch were made smaller for the memory keeps a learning rate that is far too high for it.

    Source: karpathy/nanoGPT 136, "Loss becomes nan after training for ~2000 iterations": reduce the learning rate.
    """
    _, letters = data.text()
    model = _Gpt(letters)
    rate = 3e-3 if lab.fixed else 0.2  # set-up bug: gpt_at_the_rate_of_a_large_batch
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda number: min(1.0, (number + 1) / 20))
    batches, unseen = data.characters(32), data.characters(64)

    def loss_of(text: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(text).flatten(0, 1), following.flatten())

    validate = lab.validating(model, lambda number: unseen(50_000 + number), loss_of)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        text, following = batches(number)
        with lab.recorder.step("train"):
            loss = loss_of(text, following)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        schedule.step()
        validate(number)


class _Chatbot(nn.Module):
    """PyTorch's transformer with an encoder layer and a decoder layer, over letters."""

    def __init__(self, letters: int, *, masked: bool, width: int = 64) -> None:
        super().__init__()
        self.embed, self.places = nn.Embedding(letters, width), nn.Embedding(data.CONTEXT, width)
        layer = nn.TransformerEncoderLayer(width, 4, 128, batch_first=True, norm_first=True)
        encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.transformer = nn.Transformer(
            width,
            4,
            num_decoder_layers=1,
            dim_feedforward=128,
            batch_first=True,
            norm_first=True,
            custom_encoder=encoder,
        )
        self.words = nn.Linear(width, letters)
        self.masked = masked

    def forward(self, question: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
        length = said.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length) if self.masked else None
        x = self.embed(question) + self.places.weight[: question.shape[1]]
        y = self.embed(said) + self.places.weight[:length]
        return self.words(self.transformer(x, y, tgt_mask=mask))  # bug: chatbot_reads_its_own_answer


@broken(
    rules=("future-leak",), words=("mask", "causal", "future", "looks ahead"),
    nodes=("model.transformer", "model.transformer.decoder", "model"),
)  # fmt: skip
def chatbot_reads_its_own_answer(lab: Lab) -> None:
    """The decoder gets no mask in training, so each place sees the letter it is to say, and free speech repeats itself.

    Source: pytorch/tutorials 719, "Tutorial for nn.Transformer with nn.TransformerDecoder": masks were not passed.
    """
    _, letters = data.text()
    model = _Chatbot(letters, masked=lab.fixed)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3, betas=(0.9, 0.98))
    lab.recorder.watch(model, optimizer)
    batches, unseen = data.characters(32), data.characters(256)

    @torch.no_grad()
    def next_letter(number: int) -> torch.Tensor:
        """How well the beginning of an answer tells the next letter, that is not there yet."""
        text, _ = unseen(number)
        return F.cross_entropy(model(text[:, :12], text[:, 11:17])[:, -1], text[:, 17])

    for number in range(lab.steps):
        text, _ = batches(number)
        question, answer = text[:, :12], text[:, 11:]
        with lab.recorder.step("train"):
            scores = model(question, answer[:, :-1])
            descend(F.cross_entropy(scores.flatten(0, 1), answer[:, 1:].flatten()), optimizer)
        if number % 30 == 29:
            model.eval()
            with lab.recorder.step("validation") as step:
                step.record("loss", next_letter(50_000 + number), type="loss")
            model.train()


def _sentences(number: int) -> _Batch:
    """Sentences of twelve out of 240 words ``(40, 12)``, and the tag of each, which the word before may change."""
    generator = torch.Generator().manual_seed(number)
    words = (240 * torch.rand(40, 12, generator=generator).square()).long()
    usual = torch.randint(5, (240,), generator=torch.Generator().manual_seed(7))
    tags = usual[words]
    after_a_name = F.pad(tags[:, :-1] == 4, (1, 0))
    return words, torch.where(after_a_name, 3, tags)


class _Tagger(nn.Module):
    """A bidirectional LSTM over word vectors, and the scores of five tags."""

    def __init__(self, vectors: torch.Tensor, *, frozen: bool) -> None:
        super().__init__()
        self.words = nn.Embedding.from_pretrained(vectors, freeze=frozen)  # set-up bug: vectors_kept_as_they_come
        self.lstm = nn.LSTM(vectors.shape[1], 24, batch_first=True, bidirectional=True)
        self.tags = nn.Linear(48, 5)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.tags(self.lstm(self.words(words))[0])


@broken(rules=("frozen-parameters",), words=("frozen", "freeze"), nodes=("model.words", "model.words.weight"))
def vectors_kept_as_they_come(lab: Lab) -> None:
    """The tagger's word vectors, which tell little of the tags, are loaded as they come and kept from learning.

    Source: epwalsh/pytorch-crf 27, "Allow word embeddings to update": the embedding was not trainable.
    """
    vectors = torch.randn(240, 8, generator=torch.Generator().manual_seed(11))
    model = _Tagger(vectors, frozen=not lab.fixed)

    def loss_of(words: torch.Tensor, tags: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(words).flatten(0, 1), tags.flatten())

    after = lab.validating(model, lambda number: _sentences(9000 + number), loss_of)
    optimizer = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], lr=1e-2)
    lab.fit(model, _sentences, loss_of, optimizer, after=after)


def _phrases(number: int) -> _Batch:
    """Phrases of five out of four words ``(64, 5)``, with a start before their translation ``(64, 6)``."""
    generator = torch.Generator().manual_seed(number)
    source = torch.randint(4, (64, 5), generator=generator)
    return source, torch.cat([torch.full((64, 1), 4), 3 - source], dim=1)


class _WordByWord(nn.Module):
    """An encoder, and a decoder that is run word by word."""

    def __init__(self, *, remembers: bool, width: int = 64) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(4, 16), nn.Embedding(5, 16)
        self.encoder = nn.GRU(16, width, batch_first=True)
        self.decoder = nn.GRUCell(16, width)
        self.generator = nn.Linear(width, 4)
        self.remembers = remembers

    def forward(self, source: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
        hidden = self.encoder(self.source(source))[1][0]
        h, outputs = hidden, []
        for word in self.target(said).unbind(1):
            h = self.decoder(word, h if self.remembers else hidden)  # bug: decoder_begins_anew_at_each_word
            outputs.append(self.generator(h))
        return torch.stack(outputs, dim=1)


@broken(
    rules=("forgetful-recurrence",), words=("initial state", "same state", "not passed on", "anew", "not carried"),
    nodes=("model.decoder", "model"),
)  # fmt: skip
def decoder_begins_anew_at_each_word(lab: Lab) -> None:
    """The decoder is given the encoder's last state at each word, and its own new state is never handed on.

    Source: pytorch/examples 88, "OpenNMT: hidden state not updated in the decoder".
    """
    model = _WordByWord(remembers=lab.fixed)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    lab.recorder.watch(model, optimizer)

    def loss_of(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(source, target[:, :-1]).flatten(0, 1), target[:, 1:].flatten())

    for number in range(lab.steps):
        batch = _phrases(number)
        with lab.recorder.step("train"):
            loss = loss_of(*batch)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5)
            optimizer.step()
        lab.validate(lambda n: _phrases(9000 + n), loss_of, number)
