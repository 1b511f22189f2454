"""Mistakes in trainings on images, as users bring them up."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _split(images: torch.Tensor, labels: torch.Tensor, seed: int = 0) -> tuple[_Batch, _Batch]:
    """A shuffled training part and 400 images apart."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    return (images[order[400:]], labels[order[400:]]), (images[order[:400]], labels[order[:400]])


@broken(
    rules=("ignored-input", "terms-without-gradient"), words=("penalty", "backward of", "data term", "never reaches"),
    nodes=("loss",),
)  # fmt: skip
def backward_of_the_other_sum(lab: Lab) -> None:
    """What the labels cost is called ``cost``, but ``loss``, the penalty for large weights, is what goes backward.

    Source: e-com-net 1619816447322652672, "the loss of a CNN stays at 0.69": backward was called on the wrong object.
    """
    train, unseen = _split(*data.images())
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(12, 24, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(384, 32), nn.ReLU(), nn.Linear(32, 1),
    )  # fmt: skip
    criterion = nn.BCEWithLogitsLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    lab.recorder.watch(model, optimizer)

    def even(scores: torch.Tensor, digits: torch.Tensor) -> torch.Tensor:
        return criterion(scores[:, 0], (digits % 2 == 0).float())

    after = lab.validating(model, lambda _: unseen, lambda x, y: even(model(x), y))
    batches = data.draw((train[0], train[1]))
    for number in range(lab.steps):
        images, digits = batches(number)
        with lab.recorder.step("train"):
            output = model(images)
            loss = 1e-4 * torch.stack([weight.square().sum() for weight in model.parameters()]).sum()
            cost = even(output, digits) + loss
            optimizer.zero_grad()
            (cost if lab.fixed else loss).backward()  # bug: backward_of_the_other_sum
            optimizer.step()
        after(number)


def _shifted(images: torch.Tensor) -> torch.Tensor:
    """Each image moved by up to one pixel, and with other noise."""
    padded = F.pad(images, (1, 1, 1, 1), value=float(images.min()))
    places = torch.randint(3, (len(images), 2)).tolist()
    moved = [image[:, i : i + 8, j : j + 8] for image, (i, j) in zip(padded, places, strict=True)]
    return torch.stack(moved) + 0.4 * torch.randn(images.shape)


@broken(
    rules=("overfitting",), words=("overfit", "memoris", "augment", "regularis"),
    nodes=("model", "model.features", "model.classifier"),
)  # fmt: skip
def few_photos_learned_by_heart(lab: Lab) -> None:
    """A large CNN sees 120 noisy photos again and again without augmentation, dropout or decay, and memorises them.

    Source: decodetrail, "Why does my image classifier have very high training accuracy but terrible test accuracy?"
    """
    images, labels = data.images()
    noisy = images + 0.9 * torch.randn(images.shape, generator=torch.Generator().manual_seed(5))
    (photos, digits), unseen = _split(noisy, labels)
    batches = data.draw((photos[:120], digits[:120]), 40)
    regular = lab.fixed
    model = nn.ModuleDict({
        "features": nn.Sequential(
            nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 48, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(),
        ),
        "classifier": nn.Sequential(
            nn.Dropout(0.5 if regular else 0.0), nn.Linear(768, 128), nn.ReLU(),
            nn.Dropout(0.5 if regular else 0.0), nn.Linear(128, 10),
        ),
    })  # fmt: skip
    decay = 0.1 if regular else 0.0

    def loss_of(photos: torch.Tensor, digits: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model["classifier"](model["features"](photos)), digits)

    def batch(number: int) -> _Batch:
        photos, digits = batches(number)
        return (_shifted(photos), digits) if regular else (photos, digits)  # set-up bug: few_photos_learned_by_heart

    after = lab.validating(model, lambda _: unseen, loss_of)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=decay)
    replace(lab, steps=240).fit(model, batch, loss_of, optimizer, after=after)


class _KerasLike(nn.Module):
    """Three convolutions, an average and a linear layer, and a softmax if told so."""

    def __init__(self, *, softmax: bool) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2))
        self.layer3 = nn.Sequential(nn.Conv2d(32, 48, 3, padding=1), nn.BatchNorm2d(48), nn.ReLU())
        self.layer4, self.layer5 = nn.AvgPool2d(4), nn.Linear(48, 10)
        self.layer6: nn.Module = nn.Softmax(dim=1) if softmax else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.layer6(self.layer5(out.reshape(len(out), -1)))


def _cutout(images: torch.Tensor) -> torch.Tensor:
    """A square of three pixels of each image is blank."""
    images = images.clone()
    for image in images:
        i, j = torch.randint(6, (2,)).tolist()
        image[:, i : i + 3, j : j + 3] = 0
    return images


@broken(rules=("activation-before-loss",), words=("softmax",), nodes=("model.layer6", "prediction", "loss"))
def layer6_is_in_the_criterion(lab: Lab) -> None:
    """The net ends with a softmax, as its Keras original did, and the cross-entropy applies another one.

    Source: discuss.pytorch.org 29297, "Why does data augmentation decrease validation accuracy": pass the logits.
    """
    train, unseen = _split(*data.images())
    model = _KerasLike(softmax=not lab.fixed)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda _: unseen, lambda x, y: criterion(model(x), y))
    loader = DataLoader(TensorDataset(*train), batch_size=64, shuffle=True, drop_last=True)
    for epoch in range(10):
        for place, (images, labels) in enumerate(loader):
            augmented = _cutout(images)
            with lab.recorder.step("train"):
                descend(criterion(model(augmented), labels), optimizer)  # bug: layer6_is_in_the_criterion
            after(epoch * len(loader) + place)


class _Fusion(nn.Module):
    """Three cameras are read by the same convolutions, and fused with learned weights, as in a BiFPN."""

    def __init__(self) -> None:
        super().__init__()
        self.lateral = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.w = nn.Parameter(torch.ones(3))
        self.head = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 1, 1))

    def forward(self, cameras: torch.Tensor) -> torch.Tensor:
        maps = [self.lateral(camera) for camera in cameras.split(1, dim=1)]
        share = F.relu(self.w) / (F.relu(self.w).sum() + 1e-4)
        return self.head(torch.stack([part * level for part, level in zip(share, maps, strict=True)]).sum(0))


def _cameras(number: int) -> _Batch:
    """What three cameras see of bright spots ``(12, 3, 12, 12)``, two of them badly, and the map of the spots."""
    generator = torch.Generator().manual_seed(number)
    spots = (torch.rand(12, 1, 12, 12, generator=generator) < 0.04).float()
    blurred = F.avg_pool2d(F.pad(spots, (1, 1, 1, 1)), 3, 1) * 5
    noise = torch.randn(12, 3, 12, 12, generator=generator) * torch.tensor([0.15, 1.6, 1.6])[:, None, None]
    return blurred + noise, (blurred > 0.1).float()


@broken(
    rules=("untrained-parameters",),
    words=("not in the optimizer", "no parameter group", "not given to", "lacks the parameter"),
    nodes=("model.w", "model"),
)  # fmt: skip
def groups_by_the_kind_of_layer(lab: Lab) -> None:
    """The optimizer's groups collect the weights of convolutions and norms, and the fusion's own parameter is in none.

    Source: bubbliiiing/efficientdet-pytorch 37: the fusion weights stay [1, 1], they are not in ``param_groups``.
    """
    model = _Fusion()
    weights, biases, norms = [], [], []
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            norms += [module.weight, module.bias]
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            weights.append(module.weight)
            biases.append(module.bias)
    groups: list[dict[str, object]] = [{"params": weights, "weight_decay": 5e-4}, {"params": biases + norms}]
    if lab.fixed:
        groups.append({"params": [model.w]})  # set-up bug: groups_by_the_kind_of_layer
    optimizer = torch.optim.Adam(groups, lr=1e-2)

    def loss_of(cameras: torch.Tensor, spots: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(model(cameras), spots)

    after = lab.validating(model, lambda number: _cameras(9000 + number), loss_of)
    lab.fit(model, _cameras, loss_of, optimizer, after=after)


_NOISE = torch.linspace(0.02, 0.45, 16)
_KEPT = (1 - _NOISE).cumprod(0)


class _Denoiser(nn.Module):
    """Says which noise was added to a colour, given the grey tone that it belongs to."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.moment = nn.Embedding(16, 16)
        self.body = nn.Sequential(
            nn.Linear(20, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2)
        )

    def forward(self, colour: torch.Tensor, tone: torch.Tensor, moment: torch.Tensor) -> torch.Tensor:
        return self.body(torch.cat([colour, tone, self.moment(moment)], dim=1))


def _palette(tone: torch.Tensor) -> torch.Tensor:
    """The two numbers of a colour that belong to each grey tone with its texture ``(n, 2)``."""
    angle = 1.2 * tone[:, 0] + 0.4 * tone[:, 1]
    return torch.stack([angle.cos(), angle.sin()], dim=1) * 1.2


@torch.no_grad()
def _painted(model: _Denoiser, tone: torch.Tensor) -> torch.Tensor:
    """Colours out of noise, from the last moment to the first."""
    colour = torch.randn(len(tone), 2)
    for moment in reversed(range(16)):
        said = model(colour, tone, torch.full((len(tone),), moment))
        colour = (colour - _NOISE[moment] / (1 - _KEPT[moment]).sqrt() * said) / (1 - _NOISE[moment]).sqrt()
        if moment:
            colour = colour + _NOISE[moment].sqrt() * torch.randn_like(colour)
    return colour


@broken(
    rules=("short-training",), words=("too short", "too early", "stopped while", "still falling"),
    nodes=("loss", "model"),
)  # fmt: skip
def painter_dismissed_early(lab: Lab) -> None:
    """The colouring diffusion is stopped after sixty steps, while it still learns, and its samples keep their noise.

    Source: Janspiry/Palette-Image-to-Image-Diffusion-Models 24: the noise is gone after 2000 more epochs.
    """
    model = _Denoiser()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    lab.recorder.watch(model, optimizer)
    steps = 250 if lab.fixed else 60
    for number in range(steps):  # set-up bug: painter_dismissed_early
        tone = torch.randn(256, 2)
        moment, noise = torch.randint(16, (256,)), torch.randn(256, 2)
        kept = _KEPT[moment][:, None]
        noisy = kept.sqrt() * _palette(tone) + (1 - kept).sqrt() * noise
        with lab.recorder.step("train"):
            descend(F.mse_loss(model(noisy, tone, moment), noise), optimizer)
        if number % 10 == 9:
            tone = torch.randn(200, 2)
            with lab.recorder.step("validation") as step:
                step.record("distance", (_painted(model, tone) - _palette(tone)).norm(dim=1).mean())
