"""Mistakes in trainings on pictures that somebody asked about: what they are made of, scaled to, or spelled with."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


class _Denoiser(nn.Module):
    """Convolutions that say what of a picture is noise, after DnCNN."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.middle = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        )  # fmt: skip
        self.last = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, noisy: torch.Tensor) -> torch.Tensor:
        return noisy - self.last(self.middle(F.relu(self.first(noisy))))


def _with_noise(photos: torch.Tensor, sigma: float, seed: int) -> _Batch:
    """The photos with noise of that strength, and without."""
    noise = torch.randn(photos.shape, generator=torch.Generator().manual_seed(seed))
    return photos + sigma * noise, photos


@broken(
    rules=("targets-equal-inputs",),
    words=("identical", "same as", "equal to the input", "noise level", "sigma"),
    nodes=("input", "target"),
)
def dataset_made_with_noise_of_zero(lab: Lab) -> None:
    """The pairs for a denoiser were made with a noise of strength zero: each picture shall become what it is.

    Source: SonghyunYu/DIDN issue 4, the output of the model is the same noisy image, noiseSigma was 0.
    """
    photos, _ = data.images()
    seen, unseen = photos[:1200], photos[1200:]
    strength = 0.6
    pairs = _with_noise(seen, strength if lab.fixed else 0.0, 1)  # set-up bug: dataset_made_with_noise_of_zero
    held_out = _with_noise(unseen, strength, 2)
    model = _Denoiser()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def loss_of(noisy: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(noisy), clean)

    def batches(number: int) -> _Batch:
        rows = torch.randperm(len(seen), generator=torch.Generator().manual_seed(number))[:48]
        return pairs[0][rows], pairs[1][rows]

    after = lab.validating(model, lambda _: held_out, loss_of)
    lab.fit(model, batches, loss_of, optimizer, after=after)


def _photos(number: int) -> torch.Tensor:
    """Coloured photographs ``(12, 3, 20, 20)`` as bytes: soft patches of colour, one over the other."""
    generator = torch.Generator().manual_seed(number)
    coarse = torch.rand(12, 3, 5, 5, generator=generator)
    soft = F.interpolate(coarse, size=(20, 20), mode="bilinear", align_corners=True)
    return (255 * (0.1 + 0.8 * soft)).to(torch.uint8)


def _painting() -> torch.Tensor:
    """The picture ``(1, 3, 20, 20)`` whose style is wanted: slanting stripes in two colours."""
    place = torch.arange(20.0)
    stripes = 0.5 + 0.4 * (1.3 * (place[:, None] + place)).sin()
    return torch.stack([stripes, 0.3 + 0.3 * stripes, 0.9 - 0.7 * stripes])[None]


class _Stylist(nn.Module):
    """Paints a photograph anew."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.read = nn.Conv2d(3, width, 5, padding=2)
        self.change = nn.Conv2d(width, width, 3, padding=1)
        self.paint = nn.Conv2d(width, 3, 5, padding=2)

    def forward(self, photo: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.read(2 * photo - 1))
        x = x + F.relu(self.change(x))
        return torch.sigmoid(self.paint(x))


class _Features(nn.Module):
    """What a frozen net sees in pictures from 0 to 1: what is where, and which textures there are."""

    def __init__(self) -> None:
        super().__init__()
        self.near, self.far = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 24, 3, padding=1, stride=2)
        self.requires_grad_(requires_grad=False)

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        near = F.relu(self.near(4 * pictures - 2))
        far = F.relu(self.far(near))
        flat = near.flatten(2)
        return far, flat @ flat.transpose(1, 2) / flat.shape[2]


@broken(rules=("input-scale",), words=("255", "twice", "tiny", "scale of the input"), nodes=("input", "model.read"))
def photos_divided_by_255_twice(lab: Lab) -> None:
    """Photographs that the reader has already brought to between 0 and 1 are divided by 255 once more, and are black.

    Source: magenta/magenta issue 385, image stylization produces black images, inputs divided by 255 again.
    """
    features, model = _Features(), _Stylist()
    with torch.no_grad():
        _, texture = features(_painting())

    def read(number: int) -> torch.Tensor:
        return _photos(number).float() / 255

    def batches(number: int) -> _Batch:
        photos = read(number)
        return (photos if lab.fixed else photos / 255.0,)  # set-up bug: photos_divided_by_255_twice

    def loss_of(photos: torch.Tensor) -> torch.Tensor:
        there, textures = features(model(photos))
        content, _ = features(photos)
        return F.mse_loss(there, content) + 0.3 * F.mse_loss(textures, texture.expand_as(textures))

    after = lab.validating(model, lambda number: (read(9000 + number),), loss_of)
    lab.fit(model, batches, loss_of, lr=5e-3, after=after)


def _frames(number: int) -> _Batch:
    """Two pictures after one another ``(12, 1, 16, 16)``, and by how many pixels all has moved ``(12, 2, 16, 16)``."""
    generator = torch.Generator().manual_seed(number)
    coarse = torch.randn(12, 1, 10, 10, generator=generator)
    scene = F.interpolate(coarse, size=(32, 32), mode="bicubic", align_corners=True)
    moved = 3 * torch.rand(12, 2, generator=generator) - 1.5
    place = torch.arange(16.0) + 8
    grid = torch.stack(torch.meshgrid(place, place, indexing="ij")[::-1], dim=-1).expand(12, -1, -1, -1)
    first = F.grid_sample(scene, grid / 15.5 - 1, align_corners=True)
    second = F.grid_sample(scene, (grid - moved[:, None, None]) / 15.5 - 1, align_corners=True)
    return first, second, moved[:, :, None, None].expand(-1, -1, 16, 16)


class _FlowNet(nn.Module):
    """Says how the flow so far has to change."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(4, width, 5, padding=2), nn.LeakyReLU(0.1), nn.Conv2d(width, width, 3, padding=1),
            nn.LeakyReLU(0.1), nn.AvgPool2d(2), nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(0.1),
        )  # fmt: skip
        self.head = nn.Conv2d(width, 2, 3, padding=1)

    def forward(self, first: torch.Tensor, warped: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
        change = self.head(self.body(torch.cat([first, warped, flow], dim=1)))
        return flow + F.interpolate(change, scale_factor=2, mode="bilinear", align_corners=False)


class _Stack(nn.Module):
    """Nets that each begin where the one before ended; the second picture is warped back by the flow so far."""

    def __init__(self) -> None:
        super().__init__()
        self.nets = nn.ModuleList(_FlowNet() for _ in range(3))

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> list[torch.Tensor]:
        flow = first.new_zeros(len(first), 2, 16, 16)
        place = torch.arange(16.0)
        grid = torch.stack(torch.meshgrid(place, place, indexing="ij")[::-1], dim=0)
        flows = []
        for net in self.nets:
            warped = F.grid_sample(second, ((grid + flow) / 7.5 - 1).permute(0, 2, 3, 1), align_corners=True)
            flow = net(first, warped, flow)
            flows.append(flow)
        return flows


@broken(rules=("learning-rate",), words=("learning rate",), nodes=("model.nets.0", "model.nets.1", "model.nets.2"))
def whole_stack_at_the_rate_of_one_net(lab: Lab) -> None:
    """Three nets for optical flow are trained as one stack, at a learning rate that such a stack does not bear.

    Source: NVIDIA/flownet2-pytorch issue 38, L1 loss and EPE become extremely large (reduce the learning rate).
    """
    model = _Stack()
    rate = 2e-3 if lab.fixed else 0.1  # set-up bug: whole_stack_at_the_rate_of_one_net
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)

    def endpoint_error(first: torch.Tensor, second: torch.Tensor, moved: torch.Tensor) -> torch.Tensor:
        errors = [(flow - moved).norm(dim=1).mean() for flow in model(first, second)]
        return 0.3 * errors[0] + 0.3 * errors[1] + errors[2]

    lab.recorder.watch(model, optimizer)
    for number in range(120):
        first, second, moved = _frames(number)
        with lab.recorder.step("train"):
            descend(endpoint_error(first, second, moved), optimizer)
        lab.validate(lambda n: _frames(9000 + n), endpoint_error, number)


class _Reader(nn.Module):
    """Convolutions over a line of writing, and a recurrent layer along it."""

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Sequential(
            nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 32, 3, padding=1, stride=(2, 2)), nn.ReLU()
        )
        self.rnn = nn.GRU(128, 48, bidirectional=True, batch_first=True)
        self.head = nn.Linear(96, 11)

    def forward(self, line: torch.Tensor) -> torch.Tensor:
        columns = self.look(line).permute(0, 3, 1, 2).flatten(2)
        return self.head(self.rnn(columns)[0]).log_softmax(2).transpose(0, 1)


def _lines(number: int, *, unseen: bool = False) -> _Batch:
    """Lines of three handwritten digits ``(32, 1, 8, 24)``, and which digits they are ``(32, 3)``."""
    pictures, digits = data.images()
    begin, end = (1200, len(digits)) if unseen else (0, 1200)
    rows = torch.randint(begin, end, (32, 3), generator=torch.Generator().manual_seed(number))
    return torch.cat([pictures[rows[:, place]] for place in range(3)], dim=3), digits[rows]


@broken(rules=("ignored-targets",), words=("blank",), nodes=("target", "loss"))
def digit_zero_is_the_blank(lab: Lab) -> None:
    """The alphabet of a reader begins with the digit 0, and so 0 has the number that the CTC loss takes for blank.

    Source: yizt/crnn.pytorch issue 19, zeros between all letters, class 0 is the blank of CTC.
    """
    alphabet = "-0123456789" if lab.fixed else "0123456789"  # set-up bug: digit_zero_is_the_blank
    numbers = torch.tensor([alphabet.index(str(digit)) for digit in range(10)])
    model, criterion = _Reader(), nn.CTCLoss(blank=0)

    def loss_of(line: torch.Tensor, digits: torch.Tensor) -> torch.Tensor:
        frames = model(line)
        lengths = torch.full((len(line),), len(frames)), torch.full((len(line),), 3)
        return criterion(frames, numbers[digits], *lengths)

    optimizer = torch.optim.Adam(model.parameters(), lr=6e-3)
    after = lab.validating(model, lambda number: _lines(9000 + number, unseen=True), loss_of)
    replace(lab, steps=190).fit(model, _lines, loss_of, optimizer, after=after)
