"""Mistakes in how the net is put together: cut gradients, forgotten layers, inputs that go nowhere."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab
from stepscope.examples.broken.nets import mlp


class Detached(nn.Module):
    """An encoder and a head; the codes were detached for a plot, and stayed so."""

    def __init__(self, *, detach: bool) -> None:
        super().__init__()
        self.encoder, self.head = mlp(64, 48, 24), nn.Linear(24, 10)
        self.detach = detach

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        code = self.encoder(x)
        if self.detach:
            code = code.detach()  # bug: detach_behind_the_encoder
        return self.head(F.relu(code))


@broken(rules=("gradient-cut", "no-gradient"), nodes=("model.encoder", "model.head"))
def detach_behind_the_encoder(lab: Lab) -> None:
    """The encoder's output is detached, so that only the head learns.

    Source: TrainCheck (OSDI 2025), parameters that are never updated.
    """
    model = Detached(detach=not lab.fixed)
    lab.fit(model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model(x), y))


class ThroughNumpy(nn.Module):
    """Rectifies its hidden units; may do so in numpy."""

    def __init__(self, *, numpy: bool) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(30, 32), nn.Linear(32, 1)
        self.numpy = numpy

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.embed(x)
        if self.numpy:
            return self.head(torch.from_numpy(hidden.detach().numpy().clip(0)))  # bug: activation_in_numpy
        return self.head(hidden.clamp(min=0))


@broken(rules=("gradient-cut", "no-gradient"), nodes=("model.embed", "model.head"))
def activation_in_numpy(lab: Lab) -> None:
    """The hidden units go through numpy, where no gradient can follow.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong tensor conversion.
    """
    model = ThroughNumpy(numpy=not lab.fixed)
    lab.fit(model, data.draw(data.tumours()), lambda x, y: F.binary_cross_entropy_with_logits(model(x)[:, 0], y))


class Backbone(nn.Module):
    """A convolutional backbone and a head."""

    def __init__(self, *, no_grad: bool) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3))
        self.head = nn.Linear(64, 10)
        self.no_grad = no_grad

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.set_grad_enabled(not self.no_grad):
            x = self.backbone(x)  # bug: no_grad_around_the_backbone
        return self.head(F.relu(x).flatten(1))


@broken(rules=("gradient-cut", "no-gradient"), nodes=("model.backbone", "model.backbone.3", "model.head"))
def no_grad_around_the_backbone(lab: Lab) -> None:
    """A no_grad that belongs to evaluation is left around the backbone, which should train.

    Source: TrainCheck (OSDI 2025), parameters that are never updated.
    """
    model = Backbone(no_grad=not lab.fixed)
    lab.fit(model, data.draw(data.images()), lambda x, y: F.cross_entropy(model(x), y))


class InAList(nn.Module):
    """Keeps its blocks in a list."""

    def __init__(self, *, plain: bool) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 48), nn.Linear(48, 10)
        blocks = [nn.Linear(48, 48) for _ in range(3)]
        self.blocks = blocks if plain else nn.ModuleList(blocks)  # set-up bug: blocks_in_a_plain_list

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.first(x))
        for block in self.blocks:
            x = F.relu(block(x))
        return self.last(x)


@broken(
    rules=("unregistered-parameters",),
    words=("registered", "plain list", "unknown to"), nodes=("model", "model.first", "model.last"),
)  # fmt: skip
def blocks_in_a_plain_list(lab: Lab) -> None:
    """The blocks are kept in a plain list, so that the model does not know their parameters and they never train.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong model construction; PyTorch's FAQ.
    """
    model = InAList(plain=not lab.fixed)
    lab.fit(model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model(x), y))


class HardChoice(nn.Module):
    """Scores four experts for each sample, and uses the best, or a mixture."""

    def __init__(self, *, hard: bool) -> None:
        super().__init__()
        self.score = nn.Linear(64, 4)
        self.experts = nn.ModuleList([mlp(64, 24, 10) for _ in range(4)])
        self.hard = hard

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answers = torch.stack([expert(x) for expert in self.experts], dim=1)
        scores = self.score(x)
        if self.hard:
            chosen = scores.argmax(1)  # bug: experts_chosen_by_argmax
            return answers[torch.arange(len(x)), chosen]
        return (scores.softmax(1)[:, :, None] * answers).sum(1)


@broken(rules=("gradient-cut", "no-gradient"), words=("argmax",), nodes=("model.score", "model.score.weight"))
def experts_chosen_by_argmax(lab: Lab) -> None:
    """The gate chooses an expert by argmax, which gives it no gradient.

    Source: TrainCheck (OSDI 2025), parameters that are never updated; hard attention without a relaxation.
    """
    model = HardChoice(hard=not lab.fixed)
    lab.fit(model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model(x), y))


class TwoBranches(nn.Module):
    """A net with a skip branch that may be forgotten."""

    def __init__(self, *, forget: bool) -> None:
        super().__init__()
        self.stem, self.main, self.skip = nn.Linear(64, 48), mlp(48, 48, 48), nn.Linear(48, 48)
        self.head = nn.Linear(48, 10)
        self.forget = forget

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(x))
        x = self.main(x) if self.forget else self.main(x) + self.skip(x)  # bug: branch_never_called
        return self.head(F.relu(x))


@broken(rules=("module-never-called", "no-gradient"), nodes=("model.skip", "model.skip.weight", "model.skip.bias"))
def branch_never_called(lab: Lab) -> None:
    """The skip branch is made but never called.

    Source: taxonomy of Humbatova et al. (ICSE 2020), missing layer; DDP's unused parameters.
    """
    model = TwoBranches(forget=not lab.fixed)
    lab.fit(model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model(x), y))


@broken(rules=("missing-nonlinearity",), nodes=("model.0", "model.1", "model.2"))
def no_activation_between_layers(lab: Lab) -> None:
    """Three linear layers follow one another without an activation.

    Source: UMLAUT (CHI 2021), no non-linear activation; DeepFD (ICSE 2022), missing activation.
    """
    layers: list[nn.Module] = [nn.Linear(64, 48), nn.Linear(48, 48), nn.Linear(48, 10)]
    if lab.fixed:
        layers = [layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2]]
    model = nn.Sequential(*layers)  # set-up bug: no_activation_between_layers
    lab.fit(model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model(x), y))


class Conditional(nn.Module):
    """Adds two numbers, of which one comes as a condition."""

    def __init__(self, *, lose: bool) -> None:
        super().__init__()
        self.embed, self.trunk = nn.Linear(1, 16), mlp(16 + 9, 32, 1)
        self.lose = lose

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        embedded = self.embed(condition)
        if self.lose:
            embedded = self.embed(torch.zeros_like(condition))  # bug: condition_lost
        return self.trunk(torch.cat([x, embedded], dim=1))


@broken(rules=("ignored-input",), words=("is zero",), nodes=("input.condition", "model.embed"))
def condition_lost(lab: Lab) -> None:
    """The condition is replaced by zeros, so that the net cannot use it.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong input; a dropped condition.
    """
    model = Conditional(lose=not lab.fixed)
    lab.fit(model, data.draw(data.diabetes()), lambda x, y: F.mse_loss(model(x[:, :9], x[:, 9:]), y), lr=1e-3)


class LastWord(nn.Module):
    """Reads sequences ``(batch, time, 4)`` with a recurrent layer that wants the time first."""

    def __init__(self, *, view: bool) -> None:
        super().__init__()
        self.read, self.head = nn.GRU(4, 24), nn.Linear(24, 4)
        self.view = view

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, time, features = x.shape
        swapped = x.transpose(0, 1)
        x = x.reshape(time, batch, features) if self.view else swapped  # bug: reshape_instead_of_transpose
        states, _ = self.read(x)
        return self.head(states[-1])


@broken(
    rules=("batch-leak",),
    words=("samples influence", "mixes", "mixed", "across the batch", "other samples", "reshape"),
    nodes=("model.read", "model", "input"),
)  # fmt: skip
def reshape_instead_of_transpose(lab: Lab) -> None:
    """A reshape where a transpose was meant mixes the samples of the batch with the steps of time.

    Source: taxonomy of Humbatova et al. (ICSE 2020), wrong tensor shape; Karpathy's recipe, view instead of permute.
    """
    model = LastWord(view=not lab.fixed)
    lab.fit(model, data.sequences(6), lambda x, y: F.cross_entropy(model(x), y), lr=1e-2)
