"""Mistakes in nets that read and write sequences, drawn by dice from published collections."""

from __future__ import annotations

from itertools import islice

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]
_BEGIN = 0


class _Translator(nn.Module):
    """Recurrent encoder and decoder, with attention to the encoder's states; the decoder is told the truth so far."""

    def __init__(self, source: int, target: int, width: int = 48) -> None:
        super().__init__()
        self.read, self.write = nn.Embedding(source, width), nn.Embedding(target, width)
        self.encoder = nn.GRU(width, width, batch_first=True, bidirectional=True)
        self.bridge = nn.Linear(2 * width, width)
        self.decoder = nn.GRU(width, width, batch_first=True)
        self.join, self.out = nn.Linear(2 * width, width), nn.Linear(width, target)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        states, last = self.encoder(self.read(source))
        states = self.bridge(states)
        so_far = F.pad(target[:, :-1], (1, 0), value=_BEGIN)
        written, _ = self.decoder(self.write(so_far), self.bridge(torch.cat([last[0], last[1]], 1))[None])
        attention = (written @ states.transpose(1, 2) / states.shape[2] ** 0.5).softmax(2)
        return self.out(torch.tanh(self.join(torch.cat([written, attention @ states], 2))))

    def loss(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(self(source, target).flatten(0, 1), target.flatten())


def _commands(number: int, chances: tuple[float, ...], rows: int = 48) -> _Batch:
    """Commands ``(rows, 6)`` of two verbs, each with a direction and a number, and what is to be done ``(rows, 9)``."""
    generator = torch.Generator().manual_seed(number)
    verbs = torch.multinomial(torch.tensor(chances), 2 * rows, replacement=True, generator=generator).view(rows, 2)
    ways = torch.randint(2, (rows, 2), generator=generator)
    times = torch.randint(1, 4, (rows, 2), generator=generator)
    command = torch.stack([1 + verbs, 5 + ways, 6 + times], 2).flatten(1)
    done = torch.full((rows, 9), 9)
    for row in range(rows):
        actions = (1 + 2 * verbs[row] + ways[row]).repeat_interleave(times[row])
        done[row, : len(actions)] = actions
    return command, done


@broken(words=("imbalance", "rare", "balanced"), nodes=("input.target", "loss", "model.out"))
def robot_that_is_seldom_told_to_jump(lab: Lab) -> None:
    """Of four verbs that all matter as much, one in two hundred of the recorded commands is jump; none is weighed up.

    Source: SageMaker Debugger, built-in rule ClassImbalance.
    """
    even = (0.25, 0.25, 0.25, 0.25)
    chances = even if lab.fixed else (0.33, 0.33, 0.335, 0.005)  # set-up bug: robot_that_is_seldom_told_to_jump
    model = _Translator(10, 10)
    after = lab.validating(model, lambda number: _commands(9000 + number, even, 200), model.loss)
    lab.fit(model, lambda number: _commands(number, chances), model.loss, lr=5e-3, after=after)


def _turned(rows: int, seed: int, letters: int = 12, length: int = 8) -> _Batch:
    """Words of random letters, and the same words backwards."""
    word = torch.randint(1, letters, (rows, length), generator=torch.Generator().manual_seed(seed))
    return word, word.flip(1)


@broken(
    rules=("constant-clipping",), words=("clip",), nodes=("model", "model.out.weight", "model.decoder.weight_hh_l0")
)
def words_turned_with_short_steps(lab: Lab) -> None:
    """The norm of all gradients is clipped to a hundredth, so that plain SGD hardly moves the translator.

    Source: taxonomy of Humbatova et al. (ICSE 2020), training, gradients, wrong gradient clipping.
    """
    model = _Translator(8, 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    longest = 1.0 if lab.fixed else 0.01
    lab.recorder.watch(model, optimizer)
    for number in range(180):
        word, backwards = _turned(48, number, 8, 6)
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            loss = model.loss(word, backwards)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), longest)  # bug: words_turned_with_short_steps
            optimizer.step()
        lab.validate(lambda n: _turned(300, 9000 + n, 8, 6), model.loss, number)


class _ConvTranslator(nn.Module):
    """Convolutions read the source, convolutions write the target, and attention passes between them."""

    def __init__(self, words: int, *, gated: bool, width: int = 48) -> None:
        super().__init__()
        self.gated = gated
        self.read, self.write = nn.Embedding(words, width), nn.Embedding(words, width)
        self.place = nn.Embedding(16, width)
        wide = 2 * width if gated else width
        self.encoder = nn.ModuleList(nn.Conv1d(width, wide, 3, padding=1) for _ in range(3))
        self.decoder = nn.ModuleList(nn.Conv1d(width, wide, 3) for _ in range(2))
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, words)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        places = self.place(torch.arange(source.shape[1]))
        x = (self.read(source) + places).transpose(1, 2)
        for layer in self.encoder:
            hidden = layer(x)  # bug: convolutional_translator_is_linear
            x = x + (F.glu(hidden, dim=1) if self.gated else hidden)
        y = (self.write(F.pad(target[:, :-1], (1, 0), value=_BEGIN)) + places).transpose(1, 2)
        for layer in self.decoder:
            hidden = layer(F.pad(y, (2, 0)))
            y = y + (F.glu(hidden, dim=1) if self.gated else hidden)
        attention = (self.query(y.transpose(1, 2)) @ x / x.shape[1] ** 0.5).softmax(2)
        return self.out(y.transpose(1, 2) + attention @ x.transpose(1, 2))


def _sums(number: int, rows: int = 64) -> _Batch:
    """Ten digits of base five, and for each the last digit of its sum with the one after it, backwards."""
    word = torch.randint(1, 6, (rows, 10), generator=torch.Generator().manual_seed(number))
    return word, (1 + (word + F.pad(word[:, 1:], (0, 1))) % 5).flip(1)


@broken(
    rules=("missing-nonlinearity",),
    words=("non-linear", "nonlinear", "no activation", "without an activation"),
    nodes=("model.encoder.0", "model.encoder.1", "model.encoder.2", "model.decoder.0", "model.decoder.1"),
)
def convolutional_translator_is_linear(lab: Lab) -> None:
    """The convolutions of the encoder and the decoder follow each other without gates or any other non-linearity.

    Source: UMLAUT (CHI 2021), missing activations between convolutions.
    """
    model = _ConvTranslator(6, gated=lab.fixed)

    def loss_of(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(source, target).transpose(1, 2), target)

    after = lab.validating(model, lambda number: _sums(9000 + number, 300), loss_of)
    lab.fit(model, _sums, loss_of, torch.optim.Adam(model.parameters(), lr=4e-3), after=after)


@broken(
    rules=("repeated-batch",), words=("same batch", "repeat", "same sample", "same input", "identical"),
    nodes=("input.source", "input.target"),
)  # fmt: skip
def first_page_of_the_dictionary(lab: Lab) -> None:
    """Each step asks for a new iterator over the loader and takes its first batch, which is the same every time.

    Source: SageMaker Debugger, built-in rule UnchangedTensor.
    """
    loader = DataLoader(TensorDataset(*_turned(9600, 1)), batch_size=64, shuffle=False)
    model = _Translator(12, 12)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=150)
    lab.recorder.watch(model, optimizer)
    pages = iter(loader)
    for number in range(150):
        word, backwards = next(pages if lab.fixed else iter(loader))  # set-up bug: first_page_of_the_dictionary
        with lab.recorder.step("train"):
            loss = model.loss(word, backwards)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        schedule.step()
        lab.validate(lambda n: _turned(300, 9000 + n), model.loss, number)


class _Layer(nn.Module):
    """Attention to what came before, then two layers."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.forth, self.back = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        seen = self.norm1(x)
        x = x + self.attention(seen, seen, seen, attn_mask=later, need_weights=False)[0]
        return x + self.back(F.gelu(self.forth(self.norm2(x))))


class _Gpt(nn.Module):
    """Two layers over letters."""

    def __init__(self, letters: int, context: int, width: int = 64) -> None:
        super().__init__()
        self.letter, self.place = nn.Embedding(letters, width), nn.Embedding(context, width)
        self.layers = nn.Sequential(_Layer(width, 4), _Layer(width, 4))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, letters)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        x = self.letter(text) + self.place(torch.arange(text.shape[1]))
        return self.head(self.norm(self.layers(x)))


@broken(
    rules=("tiny-batch",), words=("batch size", "batch of one", "small batch", "tiny batch", "single sample"),
    nodes=("input", "target", "model"),
)  # fmt: skip
def loader_left_at_its_default(lab: Lab) -> None:
    """The loader is made without a batch size, and its default is one piece of text for each step.

    Source: DeepDiagnosis (ICSE 2022), loss not decreasing, wrong batch size.
    """
    letters, kinds = data.text()
    pieces = letters[: 25 * 6000].view(-1, 25)
    unseen = letters[25 * 6000 : 25 * 6300].view(-1, 25)
    if lab.fixed:
        loader = DataLoader(TensorDataset(pieces), batch_size=32, shuffle=True)
    else:
        loader = DataLoader(TensorDataset(pieces), shuffle=True)  # set-up bug: loader_left_at_its_default
    model = _Gpt(kinds, 24)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.01)
    lab.recorder.watch(model, optimizer)

    def loss_of(text: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(text[:, :-1]).transpose(1, 2), text[:, 1:])

    for number, (text,) in enumerate(islice(loader, 150)):
        with lab.recorder.step("train"):
            descend(loss_of(text), optimizer)
        lab.validate(lambda _: (unseen,), loss_of, number)


def _sessions(number: int, rows: int = 64) -> _Batch:
    """Ten articles looked at ``(rows, 10)``; of which shelf the next will be ``(rows,)``: as after the one on sale."""
    generator = torch.Generator().manual_seed(number)
    seen = torch.randint(1, 31, (rows, 10), generator=generator)
    place = torch.randint(1, 8, (rows, 1), generator=generator)
    following = seen.gather(1, place + 1)
    return seen.scatter(1, place, 0), following[:, 0] % 5


class _NextShelf(nn.Module):
    """Convolutions over the embedded articles of a session, the strongest answer of each, and five shelves."""

    def __init__(self, *, transposed: bool, width: int = 24) -> None:
        super().__init__()
        self.transposed = transposed
        self.article = nn.Embedding(31, width)
        self.conv1, self.conv2 = nn.Conv1d(width, 64, 3, padding=1), nn.Conv1d(64, 64, 1)
        self.shelf = nn.Linear(64, 5)

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        x = self.article(seen)
        x = x.transpose(1, 2) if self.transposed else x.view(-1, 24, 10)  # bug: articles_cut_across
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        return self.shelf(x.amax(2))


@broken(
    rules=("scrambled-input", "batch-leak"), words=("channel", "transpos", "reshap", "permut"),
    nodes=("model.conv1", "model.article", "model"),
)  # fmt: skip
def articles_cut_across(lab: Lab) -> None:
    """Embeddings with channels last are viewed as channels first, which mixes the articles, where a transpose was due.

    Source: UMLAUT (CHI 2021), input shape, channels first and last mixed up.
    """
    model = _NextShelf(transposed=lab.fixed)
    criterion = nn.CrossEntropyLoss()

    def loss_of(seen: torch.Tensor, shelf: torch.Tensor) -> torch.Tensor:
        return criterion(model(seen), shelf)

    optimizer = torch.optim.Adam(model.parameters(), lr=6e-3)
    after = lab.validating(model, lambda number: _sessions(9000 + number, 400), loss_of)
    lab.fit(model, _sessions, loss_of, optimizer, after=after)
