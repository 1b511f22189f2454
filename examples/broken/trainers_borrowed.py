"""Mistakes with nets that were trained before: what is frozen, what is handed on, and what a checkpoint holds."""

from __future__ import annotations

import copy
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Batches, Lab, descend

_Table = tuple[torch.Tensor, torch.Tensor]


def _only(classes: range, *, first: int | None = None) -> _Table:
    """Digits of some classes, numbered from zero; only the ``first`` of them if asked."""
    x, y = data.images()
    wanted = (y >= classes.start) & (y < classes.stop)
    return x[wanted][:first], y[wanted][:first] - classes.start


def _unseen(classes: range) -> Batches:
    x, y = data.unseen_pixels()
    wanted = (y >= classes.start) & (y < classes.stop)
    return data.draw((x[wanted].unflatten(1, (1, 8, 8)), y[wanted] - classes.start), 150)


def _pretrain(model: nn.Module, batches: Batches, steps: int = 120) -> None:
    """An earlier training, which nobody recorded."""
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for number in range(steps):
        x, y = batches(5000 + number)
        descend(F.cross_entropy(model(x), y), optimizer)


class _Stages(nn.Module):
    """Two stages of convolutions, the first ``frozen`` of which are not to be trained any more."""

    def __init__(self, frozen: int) -> None:
        super().__init__()
        self.frozen = frozen
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2))
            for a, b in ((1, 16), (16, 32))
        )

    def _freeze_stages(self) -> None:
        for stage in self.stages[: self.frozen]:
            stage.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> _Stages:
        super().train(mode)
        self._freeze_stages()
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for stage in self.stages:
            x = stage(x)
        return x.flatten(1)


class _Tuned(nn.Module):
    """A backbone and a head."""

    def __init__(self, backbone: nn.Module, classes: int) -> None:
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(128, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(x))


@broken(
    words=("not frozen", "to be frozen", "pretrained", "fine-tun"),
    nodes=("model.backbone", "model.backbone.stages.0.0.weight", "model.backbone.stages.1.0.weight"),
)
def stages_frozen_only_when_train_is_called(lab: Lab) -> None:
    """The backbone freezes its stages in ``train()``, which nobody calls: all of it is trained on fifty digits.

    Source: TrainCheck (OSDI 2025), mmpretrain-702.
    """
    backbone = _Stages(frozen=0)
    _pretrain(_Tuned(backbone, 10), data.draw(_only(range(10)), 32), 150)
    backbone.frozen = 2
    model = _Tuned(backbone, 10)
    if lab.fixed:
        model.train()
    optimizer = torch.optim.Adam(model.parameters(), 0.02)  # set-up bug: stages_frozen_only_when_train_is_called
    lab.recorder.watch(model, optimizer)
    batches, (others, classes) = data.draw(_only(range(10), first=50), 16), data.unseen_pixels()
    for number in range(lab.steps):
        x, y = batches(number)
        with lab.recorder.step("train"):
            descend(F.cross_entropy(model(x), y), optimizer)
        lab.validate(lambda _: (others.view(-1, 1, 8, 8), classes), lambda x, y: F.cross_entropy(model(x), y), number)


def _efficient() -> nn.Sequential:
    """A pretrained classifier of ten digits, whose layers have names as in published nets."""
    return nn.Sequential(
        OrderedDict(
            stem=nn.Conv2d(1, 16, 3, padding=1, bias=False), bn0=nn.BatchNorm2d(16), act0=nn.SiLU(),
            down=nn.Conv2d(16, 32, 3, stride=2, bias=False), bn1=nn.BatchNorm2d(32), act1=nn.SiLU(),
            flat=nn.Flatten(), fc=nn.Linear(288, 10),
        )
    )  # fmt: skip


@broken(
    rules=("frozen-parameters",), words=("frozen", "requires_grad", "trainable"),
    nodes=("model.fc", "model.fc.weight", "model.fc.bias"),
)  # fmt: skip
def only_the_norms_are_left_to_train(lab: Lab) -> None:
    """All but the batch norms is frozen, and then the new last layer too, in a loop that should have freed it.

    Source: TrainCheck (OSDI 2025), PyTorch-FORUM84911.
    """
    model = _efficient()
    _pretrain(model, data.draw(_only(range(5))))
    model.fc = nn.Linear(288, 5)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = "bn" in name
    for parameter in model.fc.parameters():
        parameter.requires_grad = lab.fixed  # set-up bug: only_the_norms_are_left_to_train
    optimizer = torch.optim.Adam(filter(lambda p: p.requires_grad, model.parameters()), 1e-3)
    after = lab.validating(model, _unseen(range(5, 10)), lambda x, y: F.cross_entropy(model(x), y))
    criterion = nn.CrossEntropyLoss()
    lab.fit(model, data.draw(_only(range(5, 10)), 32), lambda x, y: criterion(model(x), y), optimizer, after=after)


class _Denoiser(nn.Module):
    """Takes the noise from a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, 16, 3, stride=2, padding=1)
        self.middle = nn.Conv2d(16, 16, 3, padding=1)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.out = nn.Conv2d(9, 1, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = F.leaky_relu(self.down(x), 0.1)
        hidden = hidden + F.leaky_relu(self.middle(hidden), 0.1)
        return self.out(torch.cat([self.up(hidden), x], dim=1))


class _Accelerated:
    """What a library for several devices does: a prepared model is another one, made of the first."""

    def prepare(self, model: _Denoiser) -> _Denoiser:
        return copy.deepcopy(model).train()


@broken(
    rules=("untrained-parameters", "unchanged-parameters"), words=("optimizer",),
    nodes=("model.down.weight", "model.middle.weight", "model.out.weight"),
)  # fmt: skip
def optimizer_made_before_the_model_is_prepared(lab: Lab) -> None:
    """The optimizer was given the parameters of the model as it was before ``prepare``, which made another one.

    Source: TrainCheck (OSDI 2025), new bug accelerate-2665.
    """
    accelerator, model = _Accelerated(), _Denoiser()
    early = torch.optim.AdamW(model.parameters(), 5e-3)
    model = accelerator.prepare(model)
    late = torch.optim.AdamW(model.parameters(), 5e-3)
    optimizer = late if lab.fixed else early  # set-up bug: optimizer_made_before_the_model_is_prepared
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, lab.steps)
    lab.recorder.watch(model, optimizer)
    batches = data.draw(data.images(), 32)
    for number in range(lab.steps):
        clean, _ = batches(number)
        with lab.recorder.step("train"):
            model.zero_grad()
            F.smooth_l1_loss(model(clean + 0.5 * torch.randn_like(clean)), clean).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        schedule.step()


class _Tagger(nn.Module):
    """Reads letters by an encoder that is not trained any more, and tells of each which one follows."""

    def __init__(self, letters: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(letters, 24)
        self.encoder = nn.GRU(24, 48, batch_first=True)
        self.head = nn.Sequential(nn.Linear(48, 32), nn.GELU(), nn.Linear(32, letters))

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.embed(text))[0]).transpose(1, 2)

    def freeze(self) -> _Tagger:
        self.embed.requires_grad_(False)
        self.encoder.requires_grad_(False)
        return self


def _draw_again(module: nn.Module) -> None:
    if isinstance(module, nn.Embedding | nn.GRU | nn.Linear):
        module.reset_parameters()


def _pretrained_tagger(batches: Batches, letters: int) -> _Tagger:
    model = _Tagger(letters)
    _pretrain(model, batches, 200)
    model.head[2] = nn.Linear(32, letters)
    return model.freeze()


@broken(
    rules=("weights-reset",), words=("reset", "made anew", "checkpoint"),
    nodes=("model.embed.weight", "model.encoder.weight_ih_l0", "model.encoder.weight_hh_l0"), onset=80,
)  # fmt: skip
def checkpoint_of_what_is_trained_only(lab: Lab) -> None:
    """The checkpoint holds only what the optimizer trains: after it was resumed, the frozen encoder is random.

    Source: TrainCheck (OSDI 2025), new bug deepspeed-5489 (frozen parameters are missing in the checkpoint).
    """
    batches = data.characters(32, 16)
    model = _pretrained_tagger(batches, data.text()[1])
    optimizer = torch.optim.Adam(model.head.parameters(), 4e-3)
    lab.recorder.watch(model, optimizer)

    def train(numbers: range) -> None:
        for number in numbers:
            text, following = batches(number)
            with lab.recorder.step("train"):
                descend(F.cross_entropy(model(text), following), optimizer)

    train(range(80))
    saved = {name: part.clone() for name, part in model.state_dict().items() if lab.fixed or "head" in name}
    model.apply(_draw_again)
    model.load_state_dict(saved, strict=False)  # set-up bug: checkpoint_of_what_is_trained_only
    train(range(80, 180))
