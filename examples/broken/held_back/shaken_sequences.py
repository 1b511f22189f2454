"""Mistakes in nets for sequences, drawn by dice from published collections of training bugs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _pulses(number: int) -> _Batch:
    """Recordings ``(32, 1, 96)`` with a short pulse somewhere, and which of four it is."""
    generator = torch.Generator().manual_seed(number)
    kind = torch.randint(4, (32,), generator=generator)
    shapes = torch.tensor([[1.0, 1, 1, 0], [-1, -1, -1, 0], [1, -1, 1, -1], [1, 1, -1, -1]]) * 3
    x = 0.4 * torch.randn(32, 96, generator=generator)
    place = torch.randint(4, 88, (32, 1), generator=generator) + torch.arange(4)
    return x.scatter_add(1, place, shapes[kind])[:, None] / 0.75, kind


class _Detector(nn.Module):
    """A convolution makes frames, an LSTM reads them."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 24, kernel, stride=8)
        self.lstm = nn.LSTM(24, 24, batch_first=True)
        self.head = nn.Linear(24, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        frames, _ = self.lstm(F.relu(self.conv(x)).transpose(1, 2))
        return self.head(frames.amax(1))


@broken(words=("kernel", "stride", "skip"), nodes=("model.conv",))
def frames_of_two_in_eight(lab: Lab) -> None:
    """The convolution before the LSTM has kernels of two samples at a stride of eight, and misses most pulses.

    Source: Humbatova et al., wrong filter size of a convolution.
    """
    kernel = 12 if lab.fixed else 2  # set-up bug: frames_of_two_in_eight
    model = _Detector(kernel)

    def loss_of(x: torch.Tensor, kind: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x), kind)

    after = lab.validating(model, lambda number: _pulses(9000 + number), loss_of)
    lab.fit(model, _pulses, loss_of, torch.optim.Adam(model.parameters(), lr=8e-3), after=after)


def _machines(number: int) -> _Batch:
    """What six sensors tell in twelve moments ``(32, 12, 6)``, and two hidden states in the next ``(32, 2)``."""
    generator = torch.Generator().manual_seed(number)
    begin = 0.5 * torch.randn(32, 1, 2, generator=generator)
    states = begin + (0.35 * torch.randn(32, 13, 2, generator=generator)).cumsum(1)
    mixed = states[:, :-1] @ torch.randn(2, 6, generator=torch.Generator().manual_seed(2))
    return torch.tanh(mixed) / 0.7 + 0.2 * torch.randn(32, 12, 6, generator=generator), states[:, -1] / 1.3


class _Forecaster(nn.Module):
    """Each moment goes through ten layers, then an LSTM reads the moments."""

    def __init__(self, *, normed: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for place in range(10):
            layers.append(nn.Linear(24 if place else 6, 24))
            if normed:
                layers.append(nn.BatchNorm1d(24))  # set-up bug: moments_through_ten_bare_layers
            layers.append(nn.Tanh())
        self.encoder = nn.Sequential(*layers)
        self.lstm = nn.LSTM(24, 24, batch_first=True)
        self.head = nn.Linear(24, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        moments = self.encoder(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        states, _ = self.lstm(moments)
        return self.head(states[:, -1])


@broken(
    rules=("vanishing-gradient", "fading-signal"),
    words=("vanish", "fade", "normalis"),
    nodes=("model.encoder", "model"),
)
def moments_through_ten_bare_layers(lab: Lab) -> None:
    """Ten layers of tanh without batch norm stand before an LSTM, in which signals and gradients vanish.

    Source: AutoTrainer, vanishing gradient: no batch normalisation.
    """
    model = _Forecaster(normed=lab.fixed)

    def loss_of(x: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(x), states)

    after = lab.validating(model, lambda number: _machines(9000 + number), loss_of)
    lab.fit(model, _machines, loss_of, torch.optim.Adam(model.parameters(), lr=4e-3), after=after)


class _Seq2seq(nn.Module):
    """A GRU reads, another one writes, with the right answer so far as its input."""

    def __init__(self, letters: int, width: int) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({"embed": nn.Embedding(letters, 16), "gru": nn.GRU(16, width, batch_first=True)})
        self.decoder = nn.ModuleDict(
            {"embed": nn.Embedding(letters + 1, 16), "gru": nn.GRU(16, width, batch_first=True)}
        )
        self.out = nn.Linear(width, letters)
        self.start = letters

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        _, state = self.encoder["gru"](self.encoder["embed"](source))
        shown = torch.cat([torch.full_like(target[:, :1], self.start), target[:, :-1]], 1)
        states, _ = self.decoder["gru"](self.decoder["embed"](shown), state)
        return self.out(states)


def _reversed(number: int) -> _Batch:
    """Words of five letters out of eight ``(64, 5)``, and the same from behind."""
    source = torch.randint(8, (64, 5), generator=torch.Generator().manual_seed(number))
    return source, source.flip(1)


@broken(rules=("learning-rate",), words=("learning rate", "oscillat"), nodes=("optimizer",))
def words_from_behind_in_haste(lab: Lab) -> None:
    """Two GRUs are trained by Adam at the learning rate 0.1, at which the loss only goes up and down.

    Source: AutoTrainer, oscillating loss: learning rate too large.
    """
    model = _Seq2seq(8, 48)
    lr = 0.01 if lab.fixed else 0.1  # set-up bug: words_from_behind_in_haste
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    lab.recorder.watch(model, optimizer)

    def loss_of(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(source, target).flatten(0, 1), target.flatten())

    for number in range(200):
        source, target = _reversed(number)
        with lab.recorder.step("train"):
            loss = loss_of(source, target)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        lab.validate(lambda n: _reversed(9000 + n), loss_of, number)


def _sorted(number: int) -> _Batch:
    """Five cards out of twelve ``(64, 5)``, and the same in order."""
    source = torch.randint(12, (64, 5), generator=torch.Generator().manual_seed(number))
    return source, source.sort(1).values


@broken(rules=("frozen-parameters",), words=("frozen", "requires_grad"), nodes=("model.encoder", "model.encoder.gru"))
def cards_read_by_a_frozen_net(lab: Lab) -> None:
    """Only the given vectors of the cards were to be frozen, but the whole encoder is, which nobody ever trained.

    Source: TrainCheck, frozen stage is trained all the same, or a trained one frozen.
    """
    model = _Seq2seq(12, 40)
    vectors = torch.randn(12, 16, generator=torch.Generator().manual_seed(3))
    model.encoder["embed"].load_state_dict({"weight": vectors})
    kept = "encoder.embed" if lab.fixed else "encoder"  # set-up bug: cards_read_by_a_frozen_net
    for name, parameter in model.named_parameters():
        parameter.requires_grad = not name.startswith(kept)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)

    def loss_of(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(source, target).transpose(1, 2), target)

    after = lab.validating(model, lambda number: _sorted(9000 + number), loss_of)
    lab.fit(model, _sorted, loss_of, optimizer, after=after)


class _Speller(nn.Module):
    """A small transformer that tells the next character."""

    def __init__(self, letters: int, width: int = 48) -> None:
        super().__init__()
        self.embed = nn.Embedding(letters, width)
        self.place = nn.Parameter(0.02 * torch.randn(data.CONTEXT, width))
        self.block = nn.TransformerEncoderLayer(width, 4, 96, 0.0, batch_first=True, norm_first=True)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, letters)
        self.register_buffer("mask", torch.ones(data.CONTEXT, data.CONTEXT).triu(1).bool())

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.block(self.embed(text) + self.place, src_mask=self.mask)))


@broken(rules=("short-training",), words=("epoch", "still falling", "too short", "longer"), nodes=("loss", "model"))
def one_epoch_of_documentation(lab: Lab) -> None:
    """A language model is trained for one epoch of twenty steps only, and ends while its loss still falls fast.

    Source: Humbatova et al., suboptimal number of epochs.
    """
    epochs = 10 if lab.fixed else 1  # set-up bug: one_epoch_of_documentation
    model = _Speller(data.text()[1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    lab.recorder.watch(model, optimizer)
    batches = data.characters()

    def loss_of(text: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(text).transpose(1, 2), following)

    for epoch in range(epochs):
        for part in range(20):
            with lab.recorder.step("train"):
                descend(loss_of(*batches(20 * epoch + part)), optimizer)
        with torch.no_grad(), lab.recorder.step("validation") as step:
            step.record("loss", loss_of(*batches(90_000 + epoch)), type="loss")
