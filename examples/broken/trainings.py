"""Mistakes of those who write training loops, layers and gradients by hand."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend
from stepscope.examples.broken.nets import mlp


@broken(
    rules=("accumulated-gradients",), words=("zero_grad",),
    nodes=("body.0.weight", "body.2.weight", "body.0.bias", "body.2.bias"),
)  # fmt: skip
def gradients_of_one_optimizer_never_cleared(lab: Lab) -> None:
    """Of two optimizers, one for the convolutions and one for the head, only the head's has its gradients cleared.

    Source: stackoverflow-48001598, why to call zero_grad; TrainCheck (OSDI 2025), a missing zero_grad.
    """
    body = nn.Sequential(nn.Conv2d(1, 12, 3), nn.ReLU(), nn.Conv2d(12, 24, 3, stride=2), nn.ReLU(), nn.Flatten())
    head = nn.Linear(96, 10)
    slow, fast = torch.optim.SGD(body.parameters(), 0.2), torch.optim.Adam(head.parameters(), 3e-3)
    lab.recorder.watch({"body": body, "head": head}, [slow, fast])
    batches = data.draw(data.images())
    for number in range(lab.steps):
        x, y = batches(number)
        with lab.recorder.step("train"):
            fast.zero_grad()
            if lab.fixed:
                slow.zero_grad()
            F.cross_entropy(head(body(x)), y).backward()  # set-up bug: gradients_of_one_optimizer_never_cleared
            slow.step()
            fast.step()


class _Mixer(nn.Module):
    """Mixes the rows of an image with each other, and then what each row holds."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(8, width), nn.Linear(width, 10)
        self.across, self.within = mlp(8, 16, 8, activation=nn.GELU), mlp(width, 64, width, activation=nn.GELU)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = self.embed(x[:, 0])
        rows = rows + self.across(self.first(rows).transpose(1, 2)).transpose(1, 2)
        return self.head((rows + self.within(self.second(rows))).mean(1))


@broken(
    rules=("learning-rate",), words=("learning rate",),
    nodes=("loss", "model.embed.weight", "model.across.0.weight", "model.within.0.weight", "model.head.weight"),
)  # fmt: skip
def lambda_gives_the_rate_not_a_factor(lab: Lab) -> None:
    """LambdaLR multiplies by what its function returns, which is the learning rate itself: it is squared.

    Source: pytorch/pytorch issue 78917, MIC issue 60 and omniverse issue 82: the function gives a factor, not the rate.
    """
    model, peak = _Mixer(), 3e-3
    optimizer = torch.optim.AdamW(model.parameters(), peak)

    def schedule(step: int) -> float:
        shape = min((step + 1) / 20, (20 / (step + 1)) ** 0.5)
        return shape if lab.fixed else peak * shape  # set-up bug: lambda_gives_the_rate_not_a_factor

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    lab.fit(
        model, data.draw(data.images()), lambda x, y: F.cross_entropy(model(x), y), optimizer,
        after=lambda _: scheduler.step(),
    )  # fmt: skip


@broken(
    rules=("learning-rate",), words=("learning rate",),
    nodes=("loss", "model.0.weight", "model.1.weight", "model.3.weight"),
)  # fmt: skip
def learning_rate_of_the_checkpoint(lab: Lab) -> None:
    """The optimizer's state of a finished training is loaded to go on with new data, and with it its last, tiny rate.

    Source: pytorch/pytorch issue 156846, robosat issue 169, detr issue 301: a loaded state overrides the new rate.
    """
    model = nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64), nn.GELU(), nn.Linear(64, 10))
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    annealing = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 60, eta_min=1e-7)
    batches = data.draw(data.pixels())
    for number in range(60):
        x, y = batches(number)
        descend(F.cross_entropy(model(x), y), optimizer)
        annealing.step()
    checkpoint = optimizer.state_dict()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    if not lab.fixed:
        optimizer.load_state_dict(checkpoint)  # set-up bug: learning_rate_of_the_checkpoint
    lab.fit(model, batches, lambda x, y: F.cross_entropy(model(x.flip(1)), y), optimizer)


@broken(
    rules=("weights-reset",), words=("overwritten", "set back", "something else writes", "made anew"),
    nodes=("model.0.weight", "model.2.weight", "model.5.weight", "model.0.bias", "model.2.bias", "model.5.bias"),
    onset=25,
)  # fmt: skip
def average_never_swapped_back(lab: Lab) -> None:
    """For each validation the weights are swapped for their moving average, and never swapped back to train on.

    Source: openfold pull request 90, Open-Sora-Plan issue 186, waifu-diffusion pull request 31.
    """
    model = nn.Sequential(
        nn.Conv1d(4, 24, 3, padding=1), nn.SiLU(), nn.Conv1d(24, 24, 3, padding=1), nn.SiLU(), nn.Flatten(),
        nn.Linear(192, 4),
    )  # fmt: skip
    average = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batches = data.sequences(8, tells=2)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x.transpose(1, 2)), y)

    def after(number: int) -> None:
        for name, tensor in model.state_dict().items():
            average[name].lerp_(tensor, 0.01)
        if number % 25 == 24:
            trained = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            model.load_state_dict(average)  # set-up bug: average_never_swapped_back
            with torch.no_grad(), lab.recorder.step("validation") as step:
                step.record("loss", loss_of(*batches(10_000 + number)), type="loss")
            if lab.fixed:
                model.load_state_dict(trained)

    lab.fit(model, batches, loss_of, torch.optim.Adam(model.parameters(), 2e-3), after=after)


class _Sign(torch.autograd.Function):
    """The sign of a number, whose gradient passes where the number is small."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, right: bool) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.right = right
        return x.sign()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (x,) = ctx.saved_tensors
        passes = (x.abs() < 2).float()
        if ctx.right:
            return gradients[0] * passes, None
        return passes, None  # set-up bug: backward_forgets_the_gradient_it_is_given


@broken(
    words=("backward", "custom", "does not depend", "unlike its"),
    nodes=("model.encoder", "model.encoder.0", "model.encoder.2", "model.encoder.2.weight", "model.encoder.2.bias"),
)  # fmt: skip
def backward_forgets_the_gradient_it_is_given(lab: Lab) -> None:
    """The backward of a binary code returns its own slope, and does not multiply it with the gradient that comes in.

    Source: PyTorch's notes on extending autograd; Bengio et al. (2013), straight-through estimators.
    """
    model = nn.ModuleDict({"encoder": mlp(64, 64, 24), "decoder": mlp(24, 64, 64)})

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        bits = _Sign.apply(model["encoder"](x), lab.fixed)  # type: ignore[no-untyped-call]
        return F.mse_loss(model["decoder"](bits), x)

    lab.fit(model, data.draw(data.pixels()), loss_of)


@broken(rules=("input-drift",), words=("input grow", "inputs grow", "drift", "in place", "in-place"), nodes=("input",))
def noise_added_in_place(lab: Lab) -> None:
    """Noise is added to a batch in place, which is a view of the data: they keep it, and get more in each epoch.

    Source: tflearn issue 854, augmentation that accumulates in the training data from epoch to epoch.
    """
    model = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten())
    model.append(nn.Linear(256, 10))
    images, labels = (table[:512].clone() for table in data.images())
    unseen = data.unseen_pixels()

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        rows = slice(64 * (number % 8), 64 * (number % 8) + 64)
        return images[rows], labels[rows]

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        noise = 0.7 * torch.randn_like(x)
        noisy = x + noise if lab.fixed else x.add_(noise)  # bug: noise_added_in_place
        return F.cross_entropy(model(noisy), y)

    def loss_of_unseen(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x.unflatten(1, (1, 8, 8))), y)

    lab.fit(model, batches, loss_of, after=lambda number: lab.validate(data.draw(unseen), loss_of_unseen, number))


@broken(
    rules=("non-finite", "dtype-range", "adam-epsilon"), words=("underflow", "float16", "eps"),
    nodes=("model.0.weight", "model.2.weight", "model.0.bias", "model.2.bias", "model"),
)  # fmt: skip
def eps_of_adam_in_half_precision(lab: Lab) -> None:
    """The whole net is cast to half precision, where Adam's eps of 1e-8 is zero: it divides by nothing.

    Source: glide-finetune issue 5, pytorch/pytorch issue 8860, chainer issue 6299, TROPT pull request 8.
    """
    model = mlp(30, 32, 1).half()
    eps = 1e-4 if lab.fixed else 1e-8
    optimizer = torch.optim.Adam(model.parameters(), 3e-3, eps=eps)  # set-up bug: eps_of_adam_in_half_precision

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(model(x.half())[:, 0].float(), y)

    lab.fit(model, data.draw(data.tumours()), loss_of, optimizer)


class _Gallery(nn.Module):
    """Has a code for each picture, learned with the decoder that paints it."""

    def __init__(self, pictures: int, *, fixed: bool, width: int = 12) -> None:
        super().__init__()
        if fixed:
            self.codes = nn.Parameter(torch.randn(pictures, width))
        else:
            codes = torch.randn(pictures, width, requires_grad=True)
            self.codes = codes  # type: ignore[assignment]  # set-up bug: tensor_in_place_of_a_parameter
        self.decoder = mlp(width, 64, 64, activation=nn.ELU)

    def forward(self, which: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.codes[which])


@broken(
    rules=("unregistered-parameters", "untrained-parameters"), words=("optimizer", "no parameter", "not registered"),
    nodes=("model", "model.codes", "model.decoder.0"),
)  # fmt: skip
def tensor_in_place_of_a_parameter(lab: Lab) -> None:
    """The codes of an auto-decoder are a tensor that requires gradients, but no nn.Parameter: no optimizer gets them.

    Source: stackoverflow-50935345, what nn.Parameter does that a tensor with requires_grad does not.
    """
    pictures = data.pixels()[0][:256]
    model = _Gallery(len(pictures), fixed=lab.fixed)

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        which = torch.randint(len(pictures), (64,), generator=torch.Generator().manual_seed(number))
        return which, pictures[which]

    lab.fit(model, batches, lambda which, x: F.mse_loss(model(which), x), lr=2e-2)


class _Reader(nn.Module):
    """A recurrent net over characters."""

    def __init__(self, characters: int, width: int = 48) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(characters, width), nn.Linear(width, characters)
        self.read = nn.GRU(width, width, batch_first=True)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        return self.head(self.read(self.embed(text))[0])


@broken(
    rules=("shrinking-weights",), words=("weight decay", "weight_decay", "shrink"),
    nodes=("model.embed.weight", "model.head.weight", "model.read.weight_ih_l0", "model.read.weight_hh_l0", "loss"),
)  # fmt: skip
def decay_of_adamw_given_to_adam(lab: Lab) -> None:
    """Adam gets the weight decay of 0.1 of an AdamW recipe, adds it to each gradient, and scales it up with that.

    Source: Loshchilov and Hutter (2019), decoupled weight decay: the decay of the one does not suit the other.
    """
    _, count = data.text()
    model = _Reader(count)
    kind = torch.optim.AdamW if lab.fixed else torch.optim.Adam
    optimizer = kind(model.parameters(), 5e-3, weight_decay=0.1)  # set-up bug: decay_of_adamw_given_to_adam
    lab.fit(
        model, data.characters(),
        lambda text, following: F.cross_entropy(model(text).flatten(0, 1), following.flatten()), optimizer,
    )  # fmt: skip


class _Neighbours(nn.Module):
    """Ten rounds in which each vertex takes the mean of its neighbours, and its own state if there are skips."""

    def __init__(self, *, skips: bool, width: int = 24) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(4, width), nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4))
        self.rounds = nn.ModuleList(nn.Linear(width, width) for _ in range(10))
        self.skips = skips

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        for layer in self.rounds:
            heard = F.relu(edges @ layer(x))
            x = x + heard if self.skips else heard  # bug: vertices_smoothed_into_one
        return self.head(x)


@broken(
    rules=("representation-collapse", "constant-output"), words=("same for every", "collaps", "smooth"),
    nodes=("model", "model.head", "model.rounds.9", "model.rounds.8"),
)  # fmt: skip
def vertices_smoothed_into_one(lab: Lab) -> None:
    """Ten rounds of means over neighbours without a skip make all vertices of a graph the same.

    Source: Li, Han and Wu (2018), deeper insights into graph convolutional networks.
    """
    model = _Neighbours(skips=lab.fixed)

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(number)
        group = torch.randint(4, (8, 20), generator=generator)
        alike = (group[:, :, None] == group[:, None]).float()
        edges = (torch.rand(8, 20, 20, generator=generator) < 0.1 + 0.4 * alike).float()
        edges = ((edges + edges.transpose(1, 2)) > 0).float()
        x = F.one_hot(group, 4) + 0.8 * torch.randn(8, 20, 4, generator=generator)
        return x, edges / edges.sum(2, keepdim=True).clamp(min=1), group

    lab.fit(model, batches, lambda x, edges, y: F.cross_entropy(model(x, edges).flatten(0, 1), y.flatten()))


@broken(
    rules=("representation-collapse", "constant-output"), words=("teacher", "collaps", "should not train"),
    nodes=("model.teacher", "model.teacher.0.weight", "model.teacher.2.weight", "kl_div", "loss"),
)  # fmt: skip
def teacher_learns_from_its_student(lab: Lab) -> None:
    """The teacher of a distillation is not frozen, and comes to agree with its student, who knows nothing yet.

    Source: lightly-train pull request 434, mmrazor pull request 100: the teacher's output was not detached.
    """
    model = nn.ModuleDict({"teacher": mlp(64, 96, 10), "student": mlp(64, 24, 10)})
    batches = data.draw(data.pixels())
    optimizer = torch.optim.Adam(model["teacher"].parameters(), 3e-3)
    for number in range(100):
        x, y = batches(number)
        descend(F.cross_entropy(model["teacher"](x), y), optimizer)
    model["teacher"].requires_grad_(not lab.fixed)  # set-up bug: teacher_learns_from_its_student
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        wanted, found = ((model[name](x) / 2).log_softmax(1) for name in ("teacher", "student"))
        return 4 * F.kl_div(found, wanted, reduction="batchmean", log_target=True)

    lab.fit(model, batches, loss_of, torch.optim.Adam(trained, 1e-2))


def _waves(number: int) -> tuple[torch.Tensor, ...]:
    """Four waves of other heights and beginnings: ten places of each with the values there, twice."""
    generator = torch.Generator().manual_seed(number)
    height, start = 0.5 + 2 * torch.rand(4, 1, 1, generator=generator), 3 * torch.rand(4, 1, 1, generator=generator)
    x = 6 * torch.rand(4, 20, 1, generator=generator) - 3
    y = height * (x + start).sin()
    return x[:, :10], y[:, :10], x[:, 10:], y[:, 10:]


@broken(
    rules=("no-gradient", "gradient-cut", "unchanged-parameters", "unregistered-parameters"), words=("detach",),
    nodes=("model", "model.0.weight", "model.2.weight", "model.4.weight", "loss"),
)  # fmt: skip
def adapted_weights_are_new_leaves(lab: Lab) -> None:
    """The weights adapted to a task are detached from those that they come from, which then never learn to adapt.

    Source: Truxify issue 13118, an inner loop through .data; Finn et al. (2017).
    """
    model = mlp(1, 40, 40, 1)

    def adapt(x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        weights = dict(model.named_parameters())
        slopes = torch.autograd.grad(F.mse_loss(model(x), y), list(weights.values()), create_graph=lab.fixed)
        if lab.fixed:
            return {name: weights[name] - 0.02 * slope for name, slope in zip(weights, slopes, strict=True)}
        return {
            name: (weights[name].data - 0.02 * slope).requires_grad_()  # bug: adapted_weights_are_new_leaves
            for name, slope in zip(weights, slopes, strict=True)
        }

    def loss_of(*tables: torch.Tensor) -> torch.Tensor:
        losses = [
            F.mse_loss(functional_call(model, adapt(x, y), (unseen,)), wanted)
            for x, y, unseen, wanted in zip(*tables, strict=True)
        ]
        return torch.stack(losses).mean()

    lab.fit(model, _waves, loss_of)
