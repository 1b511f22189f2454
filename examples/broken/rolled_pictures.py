"""Mistakes in nets that look at pictures, drawn by dice from the published collections of faults."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]
_AXIS = torch.arange(16.0)


def _grid(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    rows, columns = torch.meshgrid(_AXIS[:size], _AXIS[:size], indexing="ij")
    return rows, columns


def _cells(number: int) -> _Batch:
    """Noisy microscope pictures ``(10, 1, 16, 16)`` of two round cells each, and where the cells are."""
    generator = torch.Generator().manual_seed(number)
    rows, columns = _grid(16)
    centre = 2 + 12 * torch.rand(10, 2, 2, 1, 1, generator=generator)
    radius = 2 + 1.5 * torch.rand(10, 2, 1, 1, generator=generator)
    inside = ((rows - centre[:, :, 0]) ** 2 + (columns - centre[:, :, 1]) ** 2 < radius**2).any(1, keepdim=True).float()
    noise = torch.randn(10, 1, 16, 16, generator=generator)
    return 2 * (inside - 0.2) + 0.8 * noise, inside


def _twice(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.Conv2d(outputs, outputs, 3, padding=1), nn.ReLU()
    )


class _UNet(nn.Module):
    """Down once or twice and up again, with shortcuts."""

    def __init__(self, width: int = 8, channels: int = 1) -> None:
        super().__init__()
        self.down1, self.down2 = _twice(channels, width), _twice(width, 2 * width)
        self.bottom = _twice(2 * width, 4 * width)
        self.lift2, self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2), _twice(4 * width, 2 * width)
        self.lift1, self.up1 = nn.ConvTranspose2d(2 * width, width, 2, 2), _twice(2 * width, width)
        self.out = nn.Conv2d(width, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = self.down1(x)
        coarse = self.down2(F.max_pool2d(fine, 2))
        deep = self.bottom(F.max_pool2d(coarse, 2))
        coarse = self.up2(torch.cat([self.lift2(deep), coarse], 1))
        return self.out(self.up1(torch.cat([self.lift1(coarse), fine], 1)))


@broken(
    rules=("weight-scale",),
    words=("initial weights", "initialis", "weights start", "starts with weights"),
    nodes=("model", "model.down1.0", "model.down2.0", "model.bottom.0", "model.up2.0", "model.up1.0",
           "model.down1.0.weight", "model.bottom.0.weight"),
)  # fmt: skip
def kernels_of_a_hundredth(lab: Lab) -> None:
    """All kernels of a U-Net start as normal numbers of a hundredth, so that hardly a signal passes its ten layers.

    Source: AutoTrainer (ICSE 2021), slow convergence, initial weights wrong.
    """
    model = _UNet()

    def start(module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            if lab.fixed:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            else:
                nn.init.normal_(module.weight, std=0.01)  # set-up bug: kernels_of_a_hundredth
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    model.down1.apply(start), model.down2.apply(start), model.bottom.apply(start)
    model.up2.apply(start), model.up1.apply(start)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        pictures, inside = _cells(number)
        with lab.recorder.step("train"):
            descend(F.binary_cross_entropy_with_logits(model(pictures), inside), optimizer)
        lab.validate(lambda n: _cells(9000 + n), lambda x, y: F.binary_cross_entropy_with_logits(model(x), y), number)


class _Noisy(Dataset[_Batch]):
    """Pictures with noise, and without."""

    def __init__(self, clean: torch.Tensor, seed: int, *, redrawn: bool) -> None:
        self.clean, self.seed, self.redrawn = clean, seed, redrawn
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.clean)

    def __getitem__(self, index: int) -> _Batch:
        if not self.redrawn:
            self.generator.manual_seed(self.seed)  # set-up bug: noise_seeded_in_getitem
        picture = self.clean[index]
        return picture + 0.8 * torch.randn(picture.shape, generator=self.generator), picture


@broken(
    rules=("repeated-randomness",),
    words=("same noise", "seed", "noise never changes", "repeated random", "same random"),
    nodes=("input",),
)  # fmt: skip
def noise_seeded_in_getitem(lab: Lab) -> None:
    """The data set of a denoiser seeds its generator for each picture, so that all get the very same noise.

    Source: SageMaker Debugger, rule SimilarAcrossRuns, a tensor that no seed or step changes.
    """
    pictures, _ = data.images()
    seen, unseen = pictures[:1100], pictures[1100:]
    loader = DataLoader(_Noisy(seen, 1, redrawn=lab.fixed), 32, shuffle=True, drop_last=True)
    model = _UNet(10)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    lab.recorder.watch(model, optimizer)
    number = 0
    for _ in range(5):
        model.train()
        for noisy, clean in loader:
            with lab.recorder.step("train"):
                optimizer.zero_grad()
                loss = F.mse_loss(model(noisy), clean)
                loss.backward()
                optimizer.step()
            number += 1
        model.eval()
        with torch.no_grad(), lab.recorder.step("validation") as step:
            noisy = unseen + 0.8 * torch.randn(unseen.shape, generator=torch.Generator().manual_seed(number))
            step.record("loss", F.mse_loss(model(noisy), unseen), type="loss")


def _marks(number: int) -> _Batch:
    """Plates ``(32, 1, 12, 12)`` with a spot or a scratch, faint or deep, lighter or darker; and which of the four."""
    generator = torch.Generator().manual_seed(number)
    rows, columns = _grid(12)
    kind = torch.randint(4, (32,), generator=generator)
    place = 3 + 6 * torch.rand(32, 2, 1, 1, generator=generator)
    down, right = rows - place[:, 0], columns - place[:, 1]
    spot, scratch = (-(down**2 + right**2) / 5).exp(), (-((down - right) ** 2) / 2).exp()
    form = torch.where((kind < 2)[:, None, None], spot, scratch)
    depth = torch.where(kind % 2 > 0, 2.0, 0.6) * (0.8 + 0.4 * torch.rand(32, generator=generator))
    sign = torch.randint(2, (32,), generator=generator) * 2.0 - 1
    grain = 1 + 0.3 * torch.randn(32, 12, 12, generator=generator)
    return (form * grain * (depth * sign)[:, None, None])[:, None], kind


class _Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, norm: type[nn.Module], inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1, self.norm2 = norm(outputs), norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), norm(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(hidden + self.shortcut(x))


class _ResNet(nn.Module):
    """A stem and three blocks."""

    def __init__(self, channels: int, classes: int, norm: type[nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(channels, 12, 3, padding=1, bias=False), norm(12)
        self.blocks = nn.Sequential(_Block(norm, 12, 12, 1), _Block(norm, 12, 24, 2), _Block(norm, 24, 24, 1))
        self.head = nn.Linear(24, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(F.relu(self.norm(self.stem(x)))).mean((2, 3)))


@broken(
    rules=("lost-scale",),
    words=("instance", "contrast", "each sample's scale", "per sample"),
    nodes=("model.norm", "model.blocks.0.norm1", "model.blocks.0.norm2", "model.blocks.1.norm1", "model.blocks.1.norm2",
           "model.blocks.2.norm1", "model.blocks.2.norm2", "model.blocks.1.shortcut.1"),
)  # fmt: skip
def norm_layers_of_a_style_transfer(lab: Lab) -> None:
    """Each picture is normalised by itself (InstanceNorm), which wipes out the depth of the marks that is asked for.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong layer type.
    """
    model = _ResNet(
        1, 4, nn.BatchNorm2d if lab.fixed else nn.InstanceNorm2d
    )  # set-up bug: norm_layers_of_a_style_transfer
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, lab.steps, eta_min=0.005)

    check = lab.validating(model, lambda number: _marks(9000 + number), lambda x, y: F.cross_entropy(model(x), y))

    def after(number: int) -> None:
        schedule.step()
        check(number)

    lab.fit(model, _marks, lambda x, y: F.cross_entropy(model(x), y), optimizer, after=after)


def _land(number: int, *, scaled: bool) -> _Batch:
    """Satellite pictures ``(32, 4, 9, 9)`` of three reflectances and the height in metres, and the use of the land."""
    generator = torch.Generator().manual_seed(number)
    use = torch.randint(5, (32,), generator=generator)
    typical = 0.3 + 0.12 * torch.randn(5, 3, generator=torch.Generator().manual_seed(3))
    grain = 0.06 * torch.randn(32, 3, 9, 9, generator=generator)
    light = 0.03 * torch.randn(32, 1, 1, 1, generator=generator)
    reflected = typical[use][:, :, None, None] + grain + light
    height = 1200 + 700 * torch.randn(32, 1, 1, 1, generator=generator)
    height = height + 60 * torch.randn(32, 1, 9, 9, generator=generator)
    if scaled:
        return torch.cat([(reflected - 0.3) / 0.14, (height - 1200) / 700], 1), use
    return torch.cat([reflected, height], 1), use


@broken(
    rules=("input-scale", "extreme-features"),
    words=("standardis", "scale the", "different scales", "other scale", "times larger than the"),
    nodes=("input", "model.stem"),
)  # fmt: skip
def height_in_metres_among_reflectances(lab: Lab) -> None:
    """Three channels hold reflectances below one, the fourth the height in metres, and none of them is scaled.

    Source: DeepLocalize and DeepFD's programs, Stack Overflow 45711636, features of other scales.
    """
    model = _ResNet(4, 5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    lab.recorder.watch(model, optimizer)

    def fresh(number: int) -> _Batch:
        return _land(9000 + number, scaled=lab.fixed)

    after = lab.validating(model, fresh, lambda x, y: F.cross_entropy(model(x), y))
    for number in range(lab.steps):
        pictures, use = _land(number, scaled=lab.fixed)  # set-up bug: height_in_metres_among_reflectances
        with lab.recorder.step("train"):
            descend(F.cross_entropy(model(pictures), use), optimizer)
        after(number)


class _VisionTransformer(nn.Module):
    """Patches of two by two pixels through two layers of a transformer."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, stride=2)
        self.place = nn.Parameter(0.02 * torch.randn(1, 16, width))
        layer = nn.TransformerEncoderLayer(width, 4, 64, dropout=0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.place
        return self.head(self.norm(self.encoder(tokens)).mean(1))


@broken(rules=("learning-rate",), words=("learning rate",), nodes=("model",))
def vision_transformer_at_the_rate_of_a_resnet(lab: Lab) -> None:
    """Adam trains a vision transformer with the learning rate 0.05 that came from a ResNet with plain descent.

    Source: UMLAUT (CHI 2021), learning rate too high.
    """
    pictures, digit = data.images()
    batches, unseen = data.draw((pictures[:1200], digit[:1200]), 48), (pictures[1200:], digit[1200:])
    model = _VisionTransformer()
    rate = 3e-3 if lab.fixed else 0.05
    optimizer = torch.optim.Adam(model.parameters(), rate)  # set-up bug: vision_transformer_at_the_rate_of_a_resnet
    after = lab.validating(model, lambda _: unseen, lambda x, y: F.cross_entropy(model(x), y))
    lab.fit(model, batches, lambda x, y: F.cross_entropy(model(x), y), optimizer, after=after)
