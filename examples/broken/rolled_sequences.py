"""Mistakes in nets that read sequences, and in nets cut into shards, drawn by dice from the collections of faults."""

from __future__ import annotations

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _reviews(number: int) -> _Batch:
    """Texts of twelve words ``(64, 12)`` out of a hundred, and which of ten keywords is among them."""
    generator = torch.Generator().manual_seed(number)
    words = torch.randint(10, 100, (64, 12), generator=generator)
    subject = torch.randint(10, (64, 1), generator=generator)
    place = torch.randint(12, (64, 1), generator=generator)
    return words.scatter(1, place, subject), subject[:, 0]


class _Layer(nn.Module):
    """Self-attention, and a hidden layer of sigmoid units."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.hidden, self.gate, self.back = nn.Linear(width, 2 * width), nn.Sigmoid(), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        known = self.norm1(x)
        x = x + self.attention(known, known, known, need_weights=False)[0]
        return x + self.back(self.gate(self.hidden(self.norm2(x))))


class _Reader(nn.Module):
    """Two layers of a transformer over words, and their mean."""

    def __init__(self, words: int, classes: int, width: int = 32) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(words, width), nn.Embedding(12, width)
        self.layers = nn.Sequential(_Layer(width), _Layer(width))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        x = self.layers(self.embed(text) + self.place(torch.arange(text.shape[1])))
        return self.head(self.norm(x).mean(1))


@broken(
    rules=("learning-rate",),
    words=("learning rate",),
    nodes=("model", "model.layers.0.hidden", "model.layers.0.gate", "model.layers.1.hidden", "model.layers.1.gate"),
)  # fmt: skip
def sigmoid_layers_at_a_rate_of_a_fifth(lab: Lab) -> None:
    """Adam trains a transformer with sigmoid units at the learning rate 0.2, and they saturate within a few steps.

    Source: DeepDiagnosis (ICSE 2022), saturated activation, learning rate too high for sigmoid layers.
    """
    model = _Reader(100, 10)
    groups = [{"params": model.parameters(), "lr": 3e-3 if lab.fixed else 0.2}]
    optimizer = torch.optim.Adam(groups)  # set-up bug: sigmoid_layers_at_a_rate_of_a_fifth
    after = lab.validating(model, lambda n: _reviews(9000 + n), lambda x, y: F.cross_entropy(model(x), y))
    lab.fit(model, _reviews, lambda text, subject: F.cross_entropy(model(text), subject), optimizer, after=after)


def _gestures(number: int) -> _Batch:
    """Twenty moments of two sensors ``(48, 20, 2)``, and which of four movements it was."""
    generator = torch.Generator().manual_seed(number)
    kind = torch.randint(4, (48,), generator=generator)
    moments = torch.arange(20.0)
    phase = 6.28 * torch.rand(48, 1, generator=generator)
    speed = torch.where(kind < 2, 0.4, 0.9)[:, None]
    turn = torch.where(kind % 2 > 0, 1.0, -1.0)[:, None]
    circle = torch.stack([(speed * moments + phase).sin(), turn * (speed * moments + phase).cos()], 2)
    return 1.3 * circle + 0.3 * torch.randn(48, 20, 2, generator=generator), kind


class _GestureNet(nn.Module):
    """An LSTM, and two layers of ReLU on its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(2, 32, batch_first=True)
        self.dense = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, (last, _) = self.lstm(x)
        return self.dense(last[0])


@broken(
    rules=("learning-rate",),
    words=("learning rate",),
    nodes=("model", "model.dense.0", "model.dense.1", "model.dense.2", "model.dense.3"),
)  # fmt: skip
def rate_that_kills_the_dense_layers(lab: Lab) -> None:
    """RMSprop takes steps of the learning rate 0.1 behind an LSTM, after which most units of ReLU stay off for good.

    Source: AutoTrainer (ICSE 2021) and SageMaker's DeadRelu, learning rate too large for ReLU.
    """
    model = _GestureNet()
    rate = 2e-3 if lab.fixed else 0.1
    optimizer = torch.optim.RMSprop(model.parameters(), lr=rate)  # set-up bug: rate_that_kills_the_dense_layers
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        movement, kind = _gestures(number)
        with lab.recorder.step("train"):
            descend(F.cross_entropy(model(movement), kind), optimizer)
        lab.validate(lambda n: _gestures(9000 + n), lambda x, y: F.cross_entropy(model(x), y), number)


class _Writer(nn.Module):
    """An LSTM that says the next character."""

    def __init__(self, letters: int, width: int = 96) -> None:
        super().__init__()
        self.embed = nn.Embedding(letters, 32)
        self.lstm = nn.LSTM(32, width, batch_first=True)
        self.head = nn.Linear(width, letters)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(self.embed(text))
        return self.head(states)


@broken(
    rules=("squared-chances",),
    words=("squared error", "cross-entropy", "mean squared", "mse"),
    nodes=("loss", "prediction", "model"),
)
def squared_error_of_the_next_letter(lab: Lab) -> None:
    """The chances of the next letter are fitted with the squared error to ones and zeros, which hardly has a slope.

    Source: DeepLocalize and DeepFD's programs, Stack Overflow 51930566, loss of a recurrent classifier.
    """
    _, letters = data.text()
    model = _Writer(letters)

    def loss_of(text: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        scores = model(text)
        if lab.fixed:
            return F.cross_entropy(scores.flatten(0, 1), following.flatten())
        wanted = F.one_hot(following, letters).float()
        return F.mse_loss(scores.softmax(-1), wanted)  # bug: squared_error_of_the_next_letter

    optimizer = torch.optim.SGD(model.parameters(), lr=0.8, momentum=0.9)
    batches = data.characters(16, 24)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        text, following = batches(number)
        with lab.recorder.step("train"):
            descend(loss_of(text, following), optimizer)
        if number % 30 == 29:
            text, following = batches(9000 + number)
            with torch.no_grad(), lab.recorder.step("validation") as step:
                step.record("loss", loss_of(text, following), type="loss")
                step.record("right", (model(text).argmax(-1) == following).float().mean())


class _Shard(nn.Module):
    """Half of an output layer, with its copy of the norm before it."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.norm(x))


class _Sharded(nn.Module):
    """An output layer over two shards, as in tensor parallelism."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second = _Shard(width, outputs // 2), _Shard(width, outputs // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.first(x), self.second(x)], dim=-1)

    def reduce(self) -> None:
        """Give both copies of the norm the sum of their gradients."""
        for one, other in zip(self.first.norm.parameters(), self.second.norm.parameters(), strict=True):
            if one.grad is not None and other.grad is not None:
                one.grad += other.grad
                other.grad.copy_(one.grad)


def _merged(model: nn.Module) -> nn.Module:
    """The model as its checkpoint has it: with the first of the copies of each norm."""
    model = deepcopy(model)
    for module in model.modules():
        if isinstance(module, _Sharded):
            module.second.norm.load_state_dict(module.first.norm.state_dict())
    return model


class _Translator(nn.Module):
    """A GRU reads, another writes and looks back at what was read; its output layer is cut into two shards."""

    def __init__(self, words: int, width: int = 48) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(words, width), nn.Embedding(words + 1, width)
        self.place = nn.Embedding(8, width)
        self.reader = nn.GRU(width, width // 2, batch_first=True, bidirectional=True)
        self.writer = nn.GRU(width, width, batch_first=True)
        self.join = nn.Linear(2 * width, width)
        self.head = _Sharded(width, words)

    def forward(self, source: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        place = self.place(torch.arange(source.shape[1]))
        read, _ = self.reader(self.source(source) + place)
        read = read + self.source(source)
        written, _ = self.writer(self.target(before) + place)
        seen = (written @ (read + place).transpose(1, 2) / 7).softmax(-1) @ read
        return self.head(self.join(torch.cat([written, seen], 2)).tanh())


def _sentences(number: int) -> _Batch:
    """Sentences ``(64, 6)`` of sixty words, the words before each word of the translation, and the translation."""
    generator = torch.Generator().manual_seed(number)
    source = torch.randint(60, (64, 6), generator=generator)
    dictionary = torch.randperm(60, generator=torch.Generator().manual_seed(8))
    translation = dictionary[source]
    return source, torch.cat([torch.full((64, 1), 60), translation[:, :-1]], 1), translation


@broken(
    words=("clip", "drift apart", "copies differ", "out of sync", "diverge from each other"),
    nodes=("model.head", "model.head.first.norm", "model.head.second.norm", "model.head.first.norm.weight",
           "model.head.second.norm.weight", "model.head.first.norm.bias", "model.head.second.norm.bias"),
)  # fmt: skip
def norm_copy_that_no_rank_clips(lab: Lab) -> None:
    """Only the first of two shards of a translator clips its copy of the norm, so that the two copies drift apart.

    Source: TrainCheck (OSDI 2025), deepspeed-1801 (BLOOM-176B).
    """
    model = _Translator(60)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        source, before, translation = _sentences(number)
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            F.cross_entropy(model(source, before).flatten(0, 1), translation.flatten()).backward()
            model.head.reduce()
            norm = model.head.second.norm
            own = [p for p in model.parameters() if all(p is not other for other in norm.parameters())]
            length = nn.utils.get_total_norm([p.grad for p in own if p.grad is not None])
            clipped = list(model.parameters()) if lab.fixed else own
            nn.utils.clip_grads_with_norm_(clipped, 0.1, length)  # bug: norm_copy_that_no_rank_clips
            optimizer.step()
        if number % 30 == 29:
            whole = _merged(model)
            with torch.no_grad(), lab.recorder.step("validation") as step:
                source, before, translation = _sentences(9000 + number)
                scores = whole(source, before).flatten(0, 1)
                step.record("loss", F.cross_entropy(scores, translation.flatten()), type="loss")
