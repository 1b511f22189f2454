"""Training runs after official examples and tutorials, in which nothing is wrong."""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


class _Quick(nn.Module):
    """The net of the quickstart: flattened pictures, two hidden layers."""

    def __init__(self) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.linear_relu_stack = nn.Sequential(
            nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear_relu_stack(self.flatten(x))


def quickstart_on_digits(lab: Lab) -> None:
    """The quickstart of PyTorch's tutorials: plain SGD, with a test on other pictures after each epoch."""
    model, loss_fn = _Quick(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    after = lab.validating(model, lambda _: data.unseen_pixels(), lambda x, y: loss_fn(model(x), y))
    lab.fit(model, data.draw(data.images()), lambda x, y: loss_fn(model(x), y), optimizer, after=after)


class _Variational(nn.Module):
    """A variational autoencoder with one hidden layer on each side."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc21, self.fc22 = nn.Linear(64, 80), nn.Linear(80, 8), nn.Linear(80, 8)
        self.fc3, self.fc4 = nn.Linear(8, 80), nn.Linear(80, 64)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        hidden = F.relu(self.fc1(x))
        mean, log_variance = self.fc21(hidden), self.fc22(hidden)
        code = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        return torch.sigmoid(self.fc4(F.relu(self.fc3(code)))), mean, log_variance


def variational_digits(lab: Lab) -> None:
    """The example ``vae`` of pytorch/examples: cross-entropy of the pixels plus the divergence, both summed."""
    pictures, classes = data.pixels()
    pictures = (pictures - pictures.min()) / (pictures.max() - pictures.min())
    model = _Variational()

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        restored, mean, log_variance = model(x)
        pixels = F.binary_cross_entropy(restored, x, reduction="sum")
        return pixels - 0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())

    lab.fit(model, data.draw((pictures, classes), 128), loss_of, torch.optim.Adam(model.parameters(), lr=2e-3))


class _WordModel(nn.Module):
    """Embedding, LSTM and decoder, with dropout between them."""

    def __init__(self, words: int, width: int = 48) -> None:
        super().__init__()
        self.drop, self.encoder = nn.Dropout(0.2), nn.Embedding(words, width)
        self.rnn, self.decoder = nn.LSTM(width, width), nn.Linear(width, words)
        nn.init.uniform_(self.encoder.weight, -0.1, 0.1)
        nn.init.zeros_(self.decoder.bias)
        nn.init.uniform_(self.decoder.weight, -0.1, 0.1)

    def forward(self, text: torch.Tensor, state: _Batch | None) -> tuple[torch.Tensor, _Batch]:
        out, state = self.rnn(self.drop(self.encoder(text)), state)
        return F.log_softmax(self.decoder(self.drop(out)).flatten(0, 1), dim=1), state


def language_model_by_columns(lab: Lab) -> None:
    """The example ``word_language_model`` of pytorch/examples: a text in columns, detached states, clipped SGD."""
    letters, kinds = data.text()
    columns = letters[: 20 * 9000].view(20, -1).t().contiguous()
    model = _WordModel(kinds)
    optimizer = torch.optim.SGD(model.parameters(), lr=20.0)
    lab.recorder.watch(model, optimizer)
    state: _Batch | None = None
    for number in range(2 * lab.steps):
        piece = columns[25 * number : 25 * number + 26]
        with lab.recorder.step("train"):
            found, state = model(piece[:-1], state and tuple(part.detach() for part in state))
            optimizer.zero_grad()
            F.nll_loss(found, piece[1:].flatten()).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.25)
            optimizer.step()


class _GraphConvolution(nn.Module):
    """Mixes what neighbours know, and maps it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.xavier_normal_(self.kernel)

    def forward(self, known: torch.Tensor, near: torch.Tensor) -> torch.Tensor:
        return near @ (known @ self.kernel) + self.bias


class _Papers(nn.Module):
    """Two graph convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.gc1, self.gc2, self.dropout = _GraphConvolution(40, 16), _GraphConvolution(16, 4), nn.Dropout(0.5)

    def forward(self, words: torch.Tensor, near: torch.Tensor) -> torch.Tensor:
        return F.log_softmax(self.gc2(self.dropout(F.relu(self.gc1(words, near))), near), dim=1)


def _citations() -> _Batch:
    """Words of 300 papers in four fields ``(300, 40)``, who cites whom, normalised ``(300, 300)``, and the fields."""
    generator = torch.Generator().manual_seed(6)
    field = torch.randint(4, (300,), generator=generator)
    topical = 0.08 + 0.12 * (torch.arange(40) % 4 == field[:, None])
    words = torch.bernoulli(topical.expand(300, 40), generator=generator)
    cites = torch.bernoulli(torch.where(field[:, None] == field, 0.04, 0.005), generator=generator)
    near = ((cites + cites.t()) > 0).float() + torch.eye(300)
    root = near.sum(1).rsqrt()
    return words / words.sum(1, keepdim=True).clamp(min=1), root[:, None] * near * root, field


def papers_by_graph_convolution(lab: Lab) -> None:
    """The example ``gcn`` of pytorch/examples: all papers in each step, a loss on some, validated on others."""
    words, near, field = _citations()
    model = _Papers()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
    known, others = slice(0, 120), slice(120, 220)
    batch = (words, near, field)
    after = lab.validating(model, lambda _: batch, lambda w, n, f: F.nll_loss(model(w, n)[others], f[others]))
    lab.fit(
        model, lambda _: batch, lambda w, n, f: F.nll_loss(model(w, n)[known], f[known]), optimizer, after=after
    )  # fmt: skip


class _SubPixel(nn.Module):
    """Three convolutions, whose last channels become finer pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 24, 5, padding=2), nn.Conv2d(24, 24, 3, padding=1)
        self.conv3, self.pixel_shuffle = nn.Conv2d(24, 4, 3, padding=1), nn.PixelShuffle(2)
        for conv in (self.conv1, self.conv2):
            nn.init.orthogonal_(conv.weight, nn.init.calculate_gain("relu"))
        nn.init.orthogonal_(self.conv3.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pixel_shuffle(self.conv3(F.relu(self.conv2(F.relu(self.conv1(x))))))


def finer_digits(lab: Lab) -> None:
    """The example ``super_resolution`` of pytorch/examples: digits of 4 by 4 pixels are made 8 by 8."""
    model, criterion = _SubPixel(), nn.MSELoss()

    def loss_of(fine: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return criterion(model(F.avg_pool2d(fine, 2)), fine)

    others, classes = data.unseen_pixels()
    after = lab.validating(model, lambda _: (others.view(-1, 1, 8, 8), classes), loss_of)
    lab.fit(model, data.draw(data.images(), 32), loss_of, torch.optim.Adam(model.parameters(), 1e-3), after=after)


class _Spelling(nn.Module):
    """Reads words letter by letter; padding behind them is packed away."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.letters = nn.Embedding(27, 16, padding_idx=0)
        self.rnn, self.h2o = nn.GRU(16, width, batch_first=True), nn.Linear(width, 2)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        lengths = (words > 0).sum(1)
        packed = nn.utils.rnn.pack_padded_sequence(self.letters(words), lengths, batch_first=True, enforce_sorted=False)
        _, last = self.rnn(packed)
        return F.log_softmax(self.h2o(last[0]), dim=1)


def _spelled() -> data.Table:
    """Words of the documentation as numbers ``(n, 12)``, every second one backwards, and which are ``(n,)``."""
    from pydoc_data.topics import topics

    words = sorted({word for text in topics.values() for word in re.findall(r"\b[a-z]{4,12}\b", text)})
    back = [number % 2 for number in range(len(words))]
    spelled = [word[::-1] if turned else word for word, turned in zip(words, back, strict=True)]
    table = [[ord(letter) - 96 for letter in word] + [0] * (12 - len(word)) for word in spelled]
    return torch.tensor(table), torch.tensor(back)


def words_forwards_or_backwards(lab: Lab) -> None:
    """After the tutorial on names by a character-level RNN: is a word spelled backwards? Clipped Adam, a step decay."""
    words, back = _spelled()
    order = torch.randperm(len(words), generator=torch.Generator().manual_seed(2))
    words, back = words[order], back[order]
    model, criterion = _Spelling(), nn.NLLLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=60, gamma=0.5)
    lab.recorder.watch(model, optimizer)
    batches = data.draw((words[400:], back[400:]), 64)
    validate = lab.validating(model, lambda _: (words[:400], back[:400]), lambda x, y: criterion(model(x), y))
    for number in range(lab.steps):
        x, y = batches(number)
        with lab.recorder.step("train"):
            descend(criterion(model(x), y), optimizer)
        schedule.step()
        validate(number)
