"""Mistakes on the way from the data to the loss: casts, weights, augmentation, times, padding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab
from stepscope.examples.broken.nets import mlp


@broken(
    rules=("constant-data", "single-class", "imbalanced-targets"), words=("same target", "constant"),
    nodes=("target", "loss"),
)  # fmt: skip
def targets_cast_to_whole_numbers(lab: Lab) -> None:
    """Targets between 0 and 1 are cast to whole numbers, so that every one of them is 0.

    Source: cellpose issue 1220, labels below 1 cast with ``.long()``; Humbatova et al. (ICSE 2020), wrong type.
    """
    model = nn.Sequential(*mlp(10, 32, 1), nn.Sigmoid())
    x, y = data.raw_diabetes()
    share = (y - 24) / 323
    if not lab.fixed:
        share = share.long().float()  # set-up bug: targets_cast_to_whole_numbers
    lab.fit(model, data.draw((x, share)), lambda x, y: F.mse_loss(model(x), y))


def _rare(number: int) -> tuple[torch.Tensor, ...]:
    """Two overlapping clouds of points ``(128, 6)``, of which the second is an eighth."""
    generator = torch.Generator().manual_seed(number)
    y = (torch.rand(128, generator=generator) < 0.125).long()
    return torch.randn(128, 6, generator=generator) + 0.7 * y[:, None], y


@broken(
    rules=("imbalanced-targets",), words=("class weight", "weight of the class", "rare class"),
    nodes=("target", "loss"),
)  # fmt: skip
def class_weights_upside_down(lab: Lab) -> None:
    """The loss weighs classes by how frequent they are instead of by the inverse: the rare one does not count.

    Source: lidar-bonnetal issue 48 and pytorch-deeplab-xception issue 109, how class weights are computed.
    """
    model = mlp(6, 32, 2)
    frequent, rare = 0.875, 0.125
    weight = torch.tensor([rare, frequent] if lab.fixed else [frequent, rare])

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x), y, weight=weight)  # bug: class_weights_upside_down

    lab.fit(model, _rare, loss_of)


@broken(
    rules=("constant-data", "unrelated-targets"), words=("erased", "almost all of the input", "are constant"),
    nodes=("input",),
)  # fmt: skip
def all_but_a_corner_erased(lab: Lab) -> None:
    """Random erasing is given the share to keep, and blanks all of an image but a corner of two by two pixels.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong augmentation; UMLAUT (CHI 2021), look at your inputs.
    """
    model = nn.Sequential(nn.Conv2d(1, 12, 3), nn.ReLU(), nn.Flatten(), nn.Linear(432, 10))
    batches = data.draw(data.images())

    def erased(number: int) -> tuple[torch.Tensor, ...]:
        x, y = batches(number)
        kept = torch.zeros(8, 8) > 0
        kept[:2, :2] = True
        keep = ~kept if lab.fixed else kept
        return x.where(keep, x.min()), y  # set-up bug: all_but_a_corner_erased

    lab.fit(model, erased, lambda x, y: F.cross_entropy(model(x), y))


class Denoiser(nn.Module):
    """Says which noise was added to points, from the noisy points and the time ``(batch, 1)``."""

    def __init__(self) -> None:
        super().__init__()
        self.join, self.net = nn.Linear(3, 64), mlp(64, 64, 2)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return self.net(F.silu(self.join(torch.cat([x, time], dim=1))))


@broken(
    rules=("input-scale", "extreme-features"),
    nodes=("input", "input.time", "input.x", "model.join", "model.join.weight"),
)  # fmt: skip
def raw_times_of_a_diffusion(lab: Lab) -> None:
    """The times of a diffusion go in as numbers up to 1,000 where the net expects shares of one.

    Source: SiT issue 24, Just-a-DiT pull request 9, se3_diffusion issue 8: the scale of times and their embedding.
    """
    model = Denoiser()

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        (points,) = data.circles(number)
        generator = torch.Generator().manual_seed(number)
        time = torch.randint(1, 1000, (len(points), 1), generator=generator)
        noise = torch.randn(len(points), 2, generator=generator)
        noisy = (1 - time / 1000).sqrt() * points + (time / 1000).sqrt() * noise
        return noisy, time / 1000 if lab.fixed else time.float(), noise  # set-up bug: raw_times_of_a_diffusion

    lab.fit(model, batches, lambda x, time, noise: F.mse_loss(model(x, time), noise))


class Tagger(nn.Module):
    """Gives each word of a text one of seven tags, the first of which stands for padding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.read = nn.Embedding(60, 16), nn.GRU(16, 24, batch_first=True)
        self.head = nn.Linear(24, 7)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.head(self.read(self.embed(words))[0])


@broken(
    rules=("imbalanced-targets", "trained-padding"), words=("padding", "ignore_index"), nodes=("target", "loss"),
)  # fmt: skip
def padding_counted_in_the_loss(lab: Lab) -> None:
    """The loss counts the places of padding, 57 of 60, as a class to learn: the real words hardly matter.

    Source: Transformers' and fairseq's guides on labels of -100; StackOverflow on ignore_index; SageMaker Debugger.
    """
    model = Tagger()

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(number)
        words = torch.zeros(32, 60, dtype=torch.int64)
        words[:, :3] = torch.randint(1, 60, (32, 3), generator=generator)
        return words, torch.where(words > 0, 1 + words % 6, 0)

    def loss_of(words: torch.Tensor, tags: torch.Tensor) -> torch.Tensor:
        ignored = 0 if lab.fixed else -100
        scores, wanted = model(words).flatten(0, 1), tags.flatten()
        return F.cross_entropy(scores, wanted, ignore_index=ignored)  # bug: padding_counted_in_the_loss

    lab.fit(model, batches, loss_of, torch.optim.SGD(model.parameters(), 1.0, momentum=0.9))


@broken(rules=("input-scale",), words=("unnormalised", "hardly"), nodes=("input", "model.0"))
def normalised_with_the_numbers_of_bytes(lab: Lab) -> None:
    """Pixels from 0 to 1 are normalised with the mean and the deviation of bytes: all become about -1.

    Source: torchvision's documentation of Normalize, whose numbers are for pixels from 0 to 1; forum threads on both.
    """
    model = nn.Sequential(nn.Conv2d(1, 12, 3), nn.ReLU(), nn.Flatten(), nn.Linear(432, 10))
    x, y = data.images()
    x = (x - x.min()) / (x.max() - x.min())
    mean, deviation = (0.3, 0.3) if lab.fixed else (77.0, 77.0)
    x = (x - mean) / deviation  # set-up bug: normalised_with_the_numbers_of_bytes
    lab.fit(model, data.draw((x, y)), lambda x, y: F.cross_entropy(model(x), y), lr=1e-3)


@broken(rules=("imbalanced-targets",), words=("ignore_index", "leaves out"), nodes=("target", "loss"))
def class_taken_for_padding(lab: Lab) -> None:
    """The loss is told to ignore 0, as texts do with padding, but here 0 is a class like others.

    Source: PyTorch's documentation of ignore_index; Transformers and segmentation issues on labels that start at 0.
    """
    model = mlp(64, 48, 10)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        ignored = -100 if lab.fixed else 0
        return F.cross_entropy(model(x), y, ignore_index=ignored)  # bug: class_taken_for_padding

    lab.fit(model, data.draw(data.pixels()), loss_of, lr=1e-3)
