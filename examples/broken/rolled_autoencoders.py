"""Mistakes in nets that rebuild what they were given, drawn by dice from the published collections of faults."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _beats(number: int) -> _Batch:
    """Heartbeats ``(48, 1, 32)`` of mean 0 and standard deviation 1."""
    generator = torch.Generator().manual_seed(number)
    moments = torch.arange(32.0)
    late, wide, high, deep = torch.rand(4, 48, 1, generator=generator)
    peak = (2 + high) * (-((moments - 12 - 6 * late) ** 2) / (2 + 2 * wide)).exp()
    dip = (1 + deep) * (-((moments - 16 - 6 * late) ** 2) / 4).exp()
    wave = 0.5 * ((moments - 6 * wide) / 3).sin()
    noise = 0.05 * torch.randn(48, 32, generator=generator)
    beats = peak - dip + wave + noise
    return (((beats - beats.mean()) / beats.std())[:, None],)


class _Autoencoder(nn.Module):
    """Strided convolutions down to six numbers, and up again."""

    def __init__(self, *, linear_end: bool) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv1d(1, 12, 4, 2, 1), nn.ReLU(), nn.Conv1d(12, 24, 4, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(192, 6)
        )
        layers: list[nn.Module] = [nn.Linear(6, 192), nn.Unflatten(1, (24, 8))]
        for inputs, outputs in ((24, 12), (12, 1)):
            layers += [nn.ReLU(), nn.ConvTranspose1d(inputs, outputs, 4, 2, 1)]
        if not linear_end:
            layers += [nn.ReLU()]  # set-up bug: decoder_ends_like_its_other_layers
        self.decoder = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.encoder(x))


@broken(
    rules=("unreachable-targets",),
    words=("relu at the end", "output activation", "last activation", "cannot be negative", "never negative",
           "out of reach", "below zero"),
    nodes=("model.decoder", "model.decoder.6", "model"),
)  # fmt: skip
def decoder_ends_like_its_other_layers(lab: Lab) -> None:
    """The decoder of an autoencoder of heartbeats ends with a ReLU, though half of the standardised values are below 0.

    Source: UMLAUT (CHI 2021), last layer with a nonlinearity.
    """
    model = _Autoencoder(linear_end=lab.fixed)
    after = lab.validating(model, lambda n: _beats(9000 + n), lambda beats: F.mse_loss(model(beats), beats))
    lab.fit(model, _beats, lambda beats: F.mse_loss(model(beats), beats), lr=4e-3, after=after)


def _ink() -> torch.Tensor:
    pixels, _ = data.pixels()
    return (pixels > 0).float()


@broken(
    rules=("several-labels",),
    words=("cross-entropy over", "softmax", "exclusive", "add up to one", "several labels", "sum to one"),
    nodes=("loss", "target", "prediction"),
)  # fmt: skip
def pixels_that_exclude_each_other(lab: Lab) -> None:
    """An autoencoder of black and white pixels is trained with a cross-entropy that takes the 64 for one choice.

    Source: DeepDiagnosis (ICSE 2022), accuracy not increasing, wrong loss for the labels.
    """
    drawings = _ink()
    seen, unseen = drawings[:1200], drawings[1200:]
    model = nn.Sequential(nn.Linear(64, 80), nn.ELU(), nn.Linear(80, 16), nn.ELU(), nn.Linear(16, 80), nn.ELU())
    model.append(nn.Linear(80, 64))
    criterion = nn.BCEWithLogitsLoss() if lab.fixed else nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    lab.recorder.watch(model, optimizer)
    number = 0
    while number < lab.steps:
        for rows in torch.randperm(len(seen)).split(60):
            with lab.recorder.step("train"):
                rebuilt = model(seen[rows])
                descend(criterion(rebuilt, seen[rows]), optimizer)  # bug: pixels_that_exclude_each_other
            number += 1
        with torch.no_grad(), lab.recorder.step("validation") as step:
            rebuilt = model(unseen)
            step.record("loss", criterion(rebuilt, unseen), type="loss")
            step.record("wrong pixels", ((rebuilt > 0).float() != unseen).float().mean())


class _Vae(nn.Module):
    """Digits through eight variables."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 96), nn.SiLU(), nn.Linear(96, 96), nn.SiLU())
        self.mean, self.logvar = nn.Linear(96, 8), nn.Linear(96, 8)
        self.decoder = nn.Sequential(nn.Linear(8, 96), nn.SiLU(), nn.Linear(96, 96), nn.SiLU(), nn.Linear(96, 64))

    def forward(self, ink: torch.Tensor) -> torch.Tensor:
        """The negative evidence for each picture."""
        hidden = self.encoder(ink)
        mean, logvar = self.mean(hidden), self.logvar(hidden)
        code = mean + (0.5 * logvar).exp() * torch.randn_like(mean)
        rebuilt = F.binary_cross_entropy_with_logits(self.decoder(code), ink, reduction="none").sum(1)
        return rebuilt - 0.5 * (1 + logvar - mean**2 - logvar.exp()).sum(1)


def _start(module: nn.Module) -> None:
    """Begin with the weights of Glorot and Bengio."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


def _pretrained(drawings: torch.Tensor) -> dict[str, torch.Tensor]:
    """The weights after a training on other digits."""
    model = _Vae().apply(_start)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(500):
        descend(model(drawings[torch.randint(len(drawings), (64,))]).mean(), optimizer)
    return model.state_dict()


@broken(
    words=("pretrained", "pre-trained", "loaded", "checkpoint", "initialised again", "overwritten"),
    nodes=("model", "model.encoder", "model.decoder", "model.encoder.0", "model.encoder.2", "model.mean",
           "model.logvar", "model.decoder.0", "model.decoder.2", "model.decoder.4"),
)  # fmt: skip
def weights_drawn_again_after_loading(lab: Lab) -> None:
    """A trained autoencoder is loaded for a fine-tuning, and after that its weights are drawn anew.

    Source: TrainCheck (OSDI 2025), transformers-17877, weights initialised again after loading.
    """
    pixels, digit = data.pixels()
    ink = (pixels > 0).float()
    model = _Vae()
    weights = _pretrained(ink[digit < 6])
    model.apply(_start)
    model.load_state_dict(weights)
    if not lab.fixed:
        model.apply(_start)  # set-up bug: weights_drawn_again_after_loading
    ink = ink[digit >= 6]
    unseen = ink[400:]
    optimizer = torch.optim.AdamW(model.parameters(), 3e-4)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        with lab.recorder.step("train"):
            descend(model(ink[torch.randint(400, (48,))]).mean(), optimizer)
        lab.validate(lambda _: (unseen,), lambda unseen: model(unseen).mean(), number)
