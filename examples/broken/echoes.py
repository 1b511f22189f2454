"""Mistakes in nets that hear, and in nets that learn without labels: sounds, codes, noise, and rivals."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend
from stepscope.examples.broken.nets import mlp

_Batch = tuple[torch.Tensor, ...]
_TIME = torch.arange(256) / 256


def _tones(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy tones ``(32, 256)`` of one of six pitches at any phase, and the pitch ``(32,)``."""
    generator = torch.Generator().manual_seed(number)
    pitch = torch.randint(6, (32,), generator=generator)
    phase = torch.rand(32, 1, generator=generator)
    wave = 0.75 * (2 * torch.pi * ((12 + 3 * pitch[:, None]) * _TIME + phase)).sin()
    return wave + 0.3 * torch.randn(32, 256, generator=generator), pitch


class _Listener(nn.Module):
    """Cuts a sound into windows of 64, and looks at the logarithm of their power with convolutions."""

    def __init__(self, *, floor: float) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(33, 24, 3), nn.BatchNorm1d(24), nn.ReLU(), nn.AdaptiveAvgPool1d(1))
        self.head = nn.Linear(24, 6)
        self.register_buffer("window", torch.hann_window(64))
        self.floor = floor

    window: torch.Tensor

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        power = torch.fft.rfft(sound.unfold(1, 64, 32) * self.window).abs().square()
        heard = (power + self.floor).log()  # bug: silence_has_no_logarithm
        return self.head(self.body(heard.transpose(1, 2)).flatten(1))


@broken(rules=("non-finite",), words=("logarithm", "silen"), nodes=("model",), onset=110)
def silence_has_no_logarithm(lab: Lab) -> None:
    """The logarithm of the power has no floor: the first clip that is digitally silent, in step 110, is minus infinity.

    Source: deepspeech.pytorch issue 272, bshall/hifigan issue 4, MP-SENet issue 33: silent audio makes NaN.
    """
    model = _Listener(floor=1e-6 if lab.fixed else 0.0)

    def batches(number: int) -> _Batch:
        sound, pitch = _tones(number)
        if number >= 110 and number % 22 == 0:
            sound[5] = 0  # the microphone was off
        return sound, pitch

    longer = replace(lab, steps=200)
    longer.fit(model, batches, lambda sound, pitch: F.cross_entropy(model(sound), pitch))


class _Spectrum(nn.Module):
    """Tells the pitch from the spectrum of a whole clip."""

    def __init__(self, *, magnitude: bool) -> None:
        super().__init__()
        self.judge = nn.Sequential(nn.LayerNorm(48), nn.Linear(48, 6))
        self.magnitude = magnitude

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        spectrum = torch.fft.rfft(sound)[:, :48]
        seen = spectrum.abs() if self.magnitude else spectrum.real  # bug: real_part_for_the_magnitude
        return self.judge(seen)


@broken(words=("complex", "imaginary", "real part", "magnitude", "phase"), nodes=("model", "model.judge.0"))
def real_part_for_the_magnitude(lab: Lab) -> None:
    """Of the complex spectrum the real part is taken, not the magnitude: its sign and size depend on the phase alone.

    Source: Stack Overflow and PyTorch forum, "casting complex values to real discards the imaginary part".
    """
    model = _Spectrum(magnitude=lab.fixed)
    lab.fit(model, _tones, lambda sound, pitch: F.cross_entropy(model(sound), pitch), lr=2e-2)


def _calls(number: int) -> _Batch:
    """Spectrograms ``(32, 24, 24)`` of moments and bands: a call at any moment in one of six bands, and the band."""
    generator = torch.Generator().manual_seed(number)
    band = torch.randint(6, (32,), generator=generator)
    start = torch.randint(18, (32, 1), generator=generator)
    moment = torch.arange(24)
    sounding = ((moment >= start) & (moment < start + 6)).float()
    in_band = (-(moment - 4.0 * band[:, None] - 2).square() / 3).exp()
    x = sounding[:, :, None] * in_band[:, None]
    return x + 0.3 * torch.randn(32, 24, 24, generator=generator), band


class _Bands(nn.Module):
    """Convolutions over time, whose channels are the bands at first, and the loudest moment of each."""

    def __init__(self, *, bands_first: bool) -> None:
        super().__init__()
        self.hear = nn.Sequential(nn.Conv1d(24, 32, 5), nn.ReLU(), nn.Conv1d(32, 32, 5), nn.ReLU())
        self.head = nn.Linear(32, 6)
        self.bands_first = bands_first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.bands_first:
            x = x.transpose(1, 2)
        heard = self.hear(x)  # bug: moments_taken_for_channels
        return self.head(heard.mean(2))


@broken(
    words=("transpos", "permut", "dimension", "axis", "channels"), nodes=("model.hear.0", "model.hear", "input"),
)  # fmt: skip
def moments_taken_for_channels(lab: Lab) -> None:
    """Spectrograms (batch, time, band) go into a convolution as they are, which slides along the bands, not the time.

    Source: PyTorch forum and Stack Overflow, Conv1d wants (batch, channels, length); Zhang et al. (ISSTA 2018).
    """
    model = _Bands(bands_first=lab.fixed)
    lab.fit(model, _calls, lambda x, band: F.cross_entropy(model(x), band))


@broken(words=("normalis", "normaliz", "instance"), nodes=("model.0",))
def loudness_normalised_away(lab: Lab) -> None:
    """Instance normalisation at the entrance brings each sound to the same loudness, which is what the net shall tell.

    Source: PyTorch forum, instance normalisation in regressions; taxonomy of Humbatova et al. (ICSE 2020), wrong layer.
    """
    entrance = nn.BatchNorm1d(1) if lab.fixed else nn.InstanceNorm1d(1)  # set-up bug: loudness_normalised_away
    model = nn.Sequential(
        entrance, nn.Conv1d(1, 16, 9, stride=4), nn.GELU(), nn.Conv1d(16, 16, 5, stride=2), nn.GELU(), nn.Flatten(),
        nn.Linear(464, 32), nn.GELU(), nn.Linear(32, 1),
    )  # fmt: skip

    def batches(number: int) -> _Batch:
        sound, _ = _tones(number)
        volume = 4 * torch.rand(32, 1, generator=torch.Generator().manual_seed(number))
        return 0.5 * volume[:, None] * sound[:, None], volume - 2

    lab.fit(model, batches, lambda sound, volume: F.mse_loss(model(sound), volume), lr=2e-3)


def _words(number: int) -> _Batch:
    """Sounds ``(24, 30, 6)`` of five letters, the letters ``(24, 5)``, and the moments that a stride of 4 leaves."""
    generator = torch.Generator().manual_seed(number)
    letters = torch.rand(24, 5, generator=generator).argsort(1) + 1
    sound = F.one_hot(letters.repeat_interleave(6, dim=1), 6).float()
    moments = torch.full((24,), 7)
    if number >= 120 and number % 15 == 0:
        moments[3] = 2  # the recording breaks off
    return sound + 0.3 * torch.randn(24, 30, 6, generator=generator), letters, moments


@broken(
    rules=("non-finite",), words=("shorter", "longer than", "too short", "ctc"), nodes=("loss", "target"), onset=120,
)  # fmt: skip
def sound_shorter_than_its_text(lab: Lab) -> None:
    """In step 120 a recording breaks off: two frames cannot spell five letters, and the CTC loss is infinite.

    Source: icefall issue 135, captcha_break issue 29, wenet pull request 2299: zero_infinity for too short inputs.
    """
    hear = nn.Sequential(
        nn.Conv1d(6, 32, 5, stride=2, padding=2), nn.ReLU(), nn.Conv1d(32, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv1d(32, 6, 1),
    )  # fmt: skip

    def loss_of(sound: torch.Tensor, letters: torch.Tensor, moments: torch.Tensor) -> torch.Tensor:
        found = hear(sound.transpose(1, 2)).permute(2, 0, 1).log_softmax(2)
        five = torch.full((len(sound),), 5)
        return F.ctc_loss(found, letters, moments, five, zero_infinity=lab.fixed)  # bug: sound_shorter_than_its_text

    replace(lab, steps=200).fit(hear, _words, loss_of, lr=5e-3)


class _Denoiser(nn.Module):
    """Finds the noise in a picture, given how much of it is noise."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.enter, self.when = nn.Linear(64, width), nn.Linear(16, width)
        self.leave = mlp(width, width, 64, activation=nn.SiLU)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        waves = time[:, None] * torch.pi * torch.arange(1, 9)
        told = self.when(torch.cat([waves.sin(), waves.cos()], dim=1))
        return self.leave(F.silu(self.enter(x) + told))


@broken(
    rules=("repeated-batch",), words=("same noise", "same random", "same target", "same in every", "seed"),
    nodes=("target", "input.time", "loss"),
)  # fmt: skip
def seed_set_in_every_step(lab: Lab) -> None:
    """For the sake of repeatable runs the seed is set in the training step: times and noise are the same in each.

    Source: diffusers issues 7991 and 175, ``torch.manual_seed`` within the training rewinds its random numbers.
    """
    model = _Denoiser()

    draw, unseen = data.draw(data.pixels()), data.draw(data.unseen_pixels())

    def batches(number: int) -> _Batch:
        if not lab.fixed:
            torch.manual_seed(42)  # set-up bug: seed_set_in_every_step
        return draw(number)

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        time, noise = torch.rand(len(x)), torch.randn_like(x)
        angle = time[:, None] * torch.pi / 2
        return F.mse_loss(model(angle.cos() * x + angle.sin() * noise, time), noise)

    lab.fit(model, batches, loss_of, lr=4e-3, after=lambda number: lab.validate(unseen, loss_of, number))


def _pulses(number: int) -> torch.Tensor:
    """Noisy pulses ``(64, 16)`` of any height at any moment."""
    generator = torch.Generator().manual_seed(number)
    centre, height = 3 + 10 * torch.rand(64, 1, generator=generator), 0.5 + torch.rand(64, 1, generator=generator)
    pulse = height * (-(torch.arange(16) - centre).square() / 6).exp()
    return pulse + 0.1 * torch.randn(64, 16, generator=generator)


@broken(
    rules=("unchanged-parameters", "untrained-parameters", "frozen-parameters"), words=("no longer", "stops"),
    nodes=("critic", "critic.0.weight", "critic.2.weight", "critic.4.weight"), onset=60,
)  # fmt: skip
def critic_trained_in_the_warm_up_only(lab: Lab) -> None:
    """The critic is trained thrice a step in a warm-up of 60 steps, and afterwards, by a slip, not at all.

    Source: WassersteinGAN's 100 rounds in each of the first 25 steps, as they are often copied; TrainCheck (OSDI 2025).
    """
    made_by = mlp(8, 48, 16)
    critic = nn.Sequential(nn.Linear(16, 48), nn.LeakyReLU(0.2), nn.Linear(48, 48), nn.LeakyReLU(0.2), nn.Linear(48, 1))
    optimizers = {
        "generator": torch.optim.Adam(made_by.parameters(), 1e-3, betas=(0.5, 0.9)),
        "critic": torch.optim.Adam(critic.parameters(), 2e-3, betas=(0.5, 0.9)),
    }
    lab.recorder.watch({"generator": made_by, "critic": critic}, optimizers)
    for number in range(240):
        with lab.recorder.step("train") as step:
            rounds = 3 if number < 60 else int(lab.fixed)  # set-up bug: critic_trained_in_the_warm_up_only
            for round_ in range(rounds):
                real = _pulses(3 * number + round_)
                fake = made_by(torch.randn(64, 8)).detach()
                with step.loss_group("critic"):
                    descend(F.softplus(-critic(real)).mean() + F.softplus(critic(fake)).mean(), optimizers["critic"])
            with step.loss_group("generator"):
                descend(F.softplus(-critic(made_by(torch.randn(64, 8)))).mean(), optimizers["generator"])


@broken(words=("swapped", "wrong order", "other way round", "triplet"), nodes=("loss",))
def positive_and_negative_swapped(lab: Lab) -> None:
    """The triplet loss is given the stranger as the positive and the relative as the negative one.

    Source: PyTorch forum, order of the arguments of TripletMarginLoss; Humbatova et al. (ICSE 2020), wrong arguments.
    """
    model = nn.Sequential(nn.Flatten(), mlp(64, 64, 16, activation=nn.Tanh))
    x, y = data.images()
    groups = [x[y == digit] for digit in range(10)]

    def batches(number: int) -> _Batch:
        generator = torch.Generator().manual_seed(number)
        rows = [torch.randint(120, (2, 5), generator=generator) for _ in groups]
        one = torch.cat([group[row[0]] for group, row in zip(groups, rows, strict=True)])
        two = torch.cat([group[row[1]] for group, row in zip(groups, rows, strict=True)])
        return one, two, two.roll(5 * int(torch.randint(1, 10, (), generator=generator)), 0)

    def loss_of(anchor: torch.Tensor, relative: torch.Tensor, stranger: torch.Tensor) -> torch.Tensor:
        codes = model(anchor), model(relative), model(stranger)
        first, second = (1, 2) if lab.fixed else (2, 1)
        return F.triplet_margin_loss(codes[0], codes[first], codes[second])  # bug: positive_and_negative_swapped

    lab.fit(model, batches, loss_of, lr=1e-3)


def _spoken(number: int) -> torch.Tensor:
    """Short real waves ``(64, 24)``."""
    generator = torch.Generator().manual_seed(number)
    phase, speed = torch.rand(64, 1, generator=generator), torch.rand(64, 1, generator=generator)
    return (2 * torch.pi * (phase + (0.08 + 0.04 * speed) * torch.arange(24))).sin()


@broken(
    rules=("targets-equal-inputs",), words=("input itself", "own input", "identity", "noisy"), nodes=("loss", "input"),
)  # fmt: skip
def noisy_recording_is_the_target(lab: Lab) -> None:
    """A net that shall clean recordings is compared with the noisy recording that it was given, and learns to copy it.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong target; PyTorch forum, denoising autoencoder keeps noise.
    """
    model = nn.Sequential(
        nn.Conv1d(1, 16, 9, padding=4), nn.LeakyReLU(0.1), nn.Conv1d(16, 16, 9, padding=4), nn.LeakyReLU(0.1),
        nn.Conv1d(16, 1, 9, padding=4),
    )  # fmt: skip

    def loss_of(wave: torch.Tensor) -> torch.Tensor:
        noisy = wave + 0.7 * torch.randn_like(wave)
        wanted = wave if lab.fixed else noisy
        return F.l1_loss(model(noisy), wanted)  # bug: noisy_recording_is_the_target

    lab.fit(model, lambda number: (_spoken(number)[:, None],), loss_of)
