"""Mistakes around the step of an optimizer: averages, schedules, clipping, resuming, freezing, gradients by hand."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend
from stepscope.examples.broken.nets import mlp

_Batch = tuple[torch.Tensor, ...]


def _curve(number: int, noise: float = 0.3, rows: int = 32) -> _Batch:
    """Points ``(rows, 6)``, and a bumpy function of them ``(rows, 1)`` with noise."""
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(rows, 6, generator=generator)
    y = (2 * x[:, 0]).sin() + x[:, 1] * x[:, 2] + x[:, 3].abs() - 0.5 * x[:, 4]
    return x, (y + noise * torch.randn(rows, generator=generator))[:, None]


def _clean(number: int) -> _Batch:
    return _curve(number + 10_000, noise=0.0, rows=256)


def _blend(average: nn.Module, model: nn.Module, decay: float, *, buffers: bool = True) -> None:
    """Move an average a little towards a model."""
    named = dict(model.named_parameters()) | (dict(model.named_buffers()) if buffers else {})
    with torch.no_grad():
        for name, tensor in average.state_dict().items():
            if name in named and tensor.is_floating_point():
                tensor.lerp_(named[name], 1 - decay)


@broken(
    rules=("stale-copy",), words=("moving average", "lags", "hardly follows", "0.9999"),
    nodes=("average", "average.0.weight", "average.3.weight"), onset=30,
)  # fmt: skip
def average_too_slow_for_the_run(lab: Lab) -> None:
    """The moving average of the weights, which is validated, has a decay of 0.9999 in a run of 150 steps.

    Source: pytorch-image-models issue 1182 and wandb/senpai pull request 2899, averages that are still the start.
    """
    model = nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64), nn.GELU(), nn.Linear(64, 10))
    average = deepcopy(model).requires_grad_(False)
    lab.recorder.watch({"average": average})

    def after(number: int) -> None:
        decay = min(0.9999, (1 + number) / (10 + number)) if lab.fixed else 0.9999
        _blend(average, model, decay)  # set-up bug: average_too_slow_for_the_run
        lab.validate(data.draw(data.unseen_pixels(), 128), lambda x, y: F.cross_entropy(average(x), y), number)

    lab.fit(model, data.draw(data.pixels()), lambda x, y: F.cross_entropy(model(x), y), after=after)


@broken(
    rules=("batch-norm-mode",), words=("running",),
    nodes=("average.1", "average.1.running_mean", "average.1.running_var"), onset=30,
)  # fmt: skip
def average_without_running_statistics(lab: Lab) -> None:
    """The average of a net, which is validated, follows its parameters but not the statistics of its normalisation.

    Source: CuriousAI/mean-teacher issue 9, pytorch/ignite issue 2590, facebookresearch/moco issue 70.
    """
    model = nn.Sequential(nn.Linear(6, 48), nn.BatchNorm1d(48), nn.SiLU(), nn.Linear(48, 1))
    average = deepcopy(model).requires_grad_(False).eval()
    lab.recorder.watch({"average": average})

    def far(number: int) -> _Batch:
        x, y = _curve(number)
        return 4 * x + 10, y

    def after(number: int) -> None:
        _blend(average, model, 0.9, buffers=lab.fixed)  # set-up bug: average_without_running_statistics
        lab.validate(lambda n: far(n + 10_000), lambda x, y: F.mse_loss(average(x), y), number)

    lab.fit(model, far, lambda x, y: F.mse_loss(model(x), y), lr=1e-2, after=after)


@broken(
    rules=("discarded-gradients",), words=("zero_grad", "cleared", "thrown away", "last iteration", "discard"),
    nodes=("model.0.weight", "model.2.weight", "model.4.weight"),
)  # fmt: skip
def cleared_within_the_accumulation(lab: Lab) -> None:
    """zero_grad() is called before each of six small batches, so that the step sees that of the last only.

    Source: bytetriper/RAE issue 67, pytorch/torchtitan pull request 3575.
    """
    model = mlp(6, 48, 48, 1, activation=nn.Tanh)
    optimizer = torch.optim.SGD(model.parameters(), 0.04, momentum=0.9)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        with lab.recorder.step("train") as step:
            optimizer.zero_grad()
            for part in range(6):
                x, y = _curve(6 * number + part, noise=0.5, rows=4)
                with step.iteration():
                    if not lab.fixed:
                        optimizer.zero_grad()  # set-up bug: cleared_within_the_accumulation
                    (F.mse_loss(model(x), y) / 6).backward()
            optimizer.step()
        lab.validate(_clean, lambda x, y: F.mse_loss(model(x), y), number)


def _with_accidents(number: int) -> _Batch:
    """The curve; in one of 25 batches a few measurements are wild."""
    x, y = _curve(number)
    return (x, y.where(torch.arange(32)[:, None] > 2, 60.0)) if number % 25 == 20 else (x, y)


@broken(
    rules=("exploding-gradient",), words=("clip",),
    nodes=("model.0.weight", "model.2.weight", "model.4.weight"), onset=20,
)  # fmt: skip
def clipped_before_backward(lab: Lab) -> None:
    """Gradients are clipped before backward(), when there are none: wild batches throw the net out every 25 steps.

    Source: Cranial-XIX/FAMO issue 4, awslabs/graphstorm issue 1366, VGRNN issue 4.
    """
    model = mlp(6, 64, 64, 1, activation=nn.ELU)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        x, y = _with_accidents(number)
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), y)
            if not lab.fixed:
                nn.utils.clip_grad_norm_(model.parameters(), 2.0)  # set-up bug: clipped_before_backward
            loss.backward()
            if lab.fixed:
                nn.utils.clip_grad_norm_(model.parameters(), 2.0)
            optimizer.step()


@broken(
    rules=("learning-rate-decay", "scheduler-rhythm"), words=("schedul",),
    nodes=("loss", "model.0.weight", "model.2.weight"),
)  # fmt: skip
def plateau_judged_by_single_batches(lab: Lab) -> None:
    """ReduceLROnPlateau is given the loss of every single batch, whose noise it takes for a plateau.

    Source: PyTorch forum and Stack Overflow, ReduceLROnPlateau stepped in the batch loop; Humbatova et al. (ICSE 2020).
    """
    model = mlp(6, 96, 1)
    optimizer = torch.optim.RMSprop(model.parameters(), 3e-3)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.3, patience=2)
    sums: list[float] = []

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        loss = F.mse_loss(model(x), y)
        sums.append(loss.item())
        return loss

    def after(number: int) -> None:
        if not lab.fixed:
            scheduler.step(sums[-1])  # set-up bug: plateau_judged_by_single_batches
        elif number % 30 == 29:
            scheduler.step(sum(sums[-30:]) / 30)

    replace(lab, steps=240).fit(model, _curve, loss_of, optimizer, after=after)


@broken(
    rules=("settings-change", "learning-rate", "scheduler-rhythm"),
    words=("schedul", "learning rate rises", "rises again"),
    nodes=("loss", "model.0.weight", "model.2.weight", "model.4.weight"), onset=120,
)  # fmt: skip
def cosine_rises_again(lab: Lab) -> None:
    """T_max of a cosine is half of the training, after which the rate rises again: it ends at its greatest.

    Source: prodigy issue 10 and sd-scripts issue 601, T_max misunderstood; PyTorch forum on CosineAnnealingLR.
    """
    model = mlp(6, 64, 64, 1, activation=nn.ReLU)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    epochs = 24 if lab.fixed else 12
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)  # set-up bug: cosine_rises_again

    def after(number: int) -> None:
        if number % 10 == 9:
            scheduler.step()

    replace(lab, steps=240).fit(model, _curve, lambda x, y: F.mse_loss(model(x), y), optimizer, after=after)


_RESUMED = 160
"""The step from which a training is resumed from its checkpoint."""


@broken(
    rules=("settings-change", "learning-rate", "scheduler-rhythm"), words=("schedul", "learning rate", "lr changes"),
    nodes=("loss", "model.0.weight", "model.2.weight", "model.4.weight"), onset=_RESUMED,
)  # fmt: skip
def schedule_begins_anew_on_resuming(lab: Lab) -> None:
    """The checkpoint lacks the scheduler's state: on resuming, the rate is that of the very first step again.

    Source: ultralytics/yolov5 issue 292, PolymathicAI/the_well issue 77, NAS-Bench-201 issue 19.
    """
    model = mlp(64, 64, 64, 10)
    optimizer = torch.optim.SGD(model.parameters(), 0.15, momentum=0.9)

    def shape(step: int) -> float:
        return max(0.01, 1 - step / 170)

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, shape)

    def after(number: int) -> None:
        nonlocal scheduler
        scheduler.step()
        if number == _RESUMED - 1:
            saved, known = deepcopy(optimizer.state_dict()), scheduler.state_dict()
            scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer, shape
            )  # set-up bug: schedule_begins_anew_on_resuming
            if lab.fixed:
                scheduler.load_state_dict(known)
                optimizer.load_state_dict(saved)

    replace(lab, steps=200).fit(
        model, data.draw(data.pixels(), 24), lambda x, y: F.cross_entropy(model(x), y), optimizer, after=after
    )


@broken(
    rules=("non-finite", "dtype-range", "unchanged-parameters"), words=("overflow", "skipped", "scaler", "loss scale"),
    nodes=("loss", "model.0.weight", "model.2.weight"),
)  # fmt: skip
def scaler_made_in_every_step(lab: Lab) -> None:
    """The GradScaler is made in the loop: its scale starts at 65,536 each time, overflows, and the step is skipped.

    Source: PyTorch forum and pytorch/pytorch issue 67590, steps silently skipped; HPM issue 10, nothing is updated.
    """
    model = mlp(64, 64, 10, activation=nn.GELU)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    lab.recorder.watch(model, optimizer)
    scaler = torch.amp.GradScaler("cpu")
    for number in range(lab.steps):
        x, y = data.draw(data.pixels())(number)
        if not lab.fixed:
            scaler = torch.amp.GradScaler("cpu")  # set-up bug: scaler_made_in_every_step
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.float16):
                scores = model(x)
            loss = F.cross_entropy(scores.float(), y, reduction="sum")
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()


class _Compressor(nn.Module):
    """A variational autoencoder of thirty measurements."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = mlp(30, 48, 12, activation=nn.SiLU), mlp(6, 48, 30, activation=nn.SiLU)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, log_variance = self.encode(x).chunk(2, dim=1)
        code = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        return self.decode(code), divergence


@broken(
    rules=("posterior-collapse", "loss-balance"), words=("outweigh", "dominat", "weight of the"),
    nodes=("loss",), onset=40,
)  # fmt: skip
def divergence_weighs_more_and_more(lab: Lab) -> None:
    """The weight of the divergence grows by the same amount in every step, and is not kept at 1 when it gets there.

    Source: bidirection-trajectory-predicter issue 4, the weight reaches 100; Sentence-VAE issue 19.
    """
    model, step = _Compressor(), 0

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        nonlocal step
        restored, divergence = model(x)
        weight = min(1.0, step / 40) if lab.fixed else step / 40  # bug: divergence_weighs_more_and_more
        step += 1
        return 0.5 * (restored - x).square().sum(1).mean() + weight * divergence

    replace(lab, steps=220).fit(model, data.draw(data.tumours()), loss_of, lr=5e-3)


_PROBED = 80
"""The step before which a probe looks at what the trunk knows."""


@broken(
    rules=("frozen-parameters", "no-gradient"), words=("frozen", "requires_grad", "thaw"),
    nodes=("model.trunk", "model.trunk.0.weight", "model.trunk.2.weight"), onset=_PROBED,
)  # fmt: skip
def frozen_for_a_probe(lab: Lab) -> None:
    """At step 80 the trunk is frozen to fit a linear probe on it, and is not thawed when training goes on.

    Source: PyTorch forum, requires_grad left False; TrainCheck (OSDI 2025), parameters that should train do not.
    """
    model = nn.ModuleDict({"trunk": mlp(6, 64, 64, activation=nn.SiLU), "head": nn.Linear(64, 1)})
    trunk, head = model["trunk"], model["head"]

    def probe() -> None:
        reader = nn.Linear(64, 1)
        descent = torch.optim.Adam(reader.parameters(), 1e-2)
        for number in range(20):
            x, y = _curve(number)
            descend(F.mse_loss(reader(trunk(x)), y), descent)

    def after(number: int) -> None:
        if number == _PROBED - 1:
            trunk.requires_grad_(False)
            probe()
            trunk.requires_grad_(lab.fixed)  # set-up bug: frozen_for_a_probe

    replace(lab, steps=240).fit(model, _curve, lambda x, y: F.mse_loss(head(trunk(x)), y), lr=2e-3, after=after)


class _Locked(nn.Module):
    """Drops the same units for all samples of a batch."""

    def __init__(self, width: int, *, kept: bool) -> None:
        super().__init__()
        self.width = width
        self.mask = self.draw() if kept else None

    def draw(self) -> torch.Tensor:
        return 2.0 * (torch.rand(self.width) < 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return x
        return x * (self.draw() if self.mask is None else self.mask)  # bug: units_dropped_once_for_all


@broken(rules=("dead-units",), words=("dropout", "same units", "never used"), nodes=("model.0", "model.3"))
def units_dropped_once_for_all(lab: Lab) -> None:
    """A dropout of one's own draws its mask once, when it is made: half of the units never train, but are validated.

    Source: Merity et al. (2018), a locked dropout draws for each batch; PyTorch forum, a mask made in __init__.
    """
    model = nn.Sequential(
        _Locked(64, kept=not lab.fixed), nn.Linear(64, 128), nn.ReLU(), _Locked(128, kept=not lab.fixed),
        nn.Linear(128, 10),
    )  # fmt: skip

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x), y)

    lab.fit(
        model,
        data.draw(data.pixels()),
        loss_of,
        after=lab.validating(model, data.draw(data.unseen_pixels(), 128), loss_of),
    )


@broken(
    rules=("accumulated-gradients",), words=("zero_grad", "add up", "cleared"),
    nodes=("model.0.weight", "model.2.weight", "model.4.weight"),
)  # fmt: skip
def closure_without_zero_grad(lab: Lab) -> None:
    """The closure of L-BFGS does not clear the gradients, so that every evaluation adds to all earlier ones.

    Source: PyTorch forum and documentation of L-BFGS's closure; stackoverflow-48001598, why to call zero_grad.
    """
    model = mlp(1, 24, 24, 1, activation=nn.Tanh)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4, history_size=10)
    lab.recorder.watch(model, optimizer)
    x = torch.linspace(-2, 2, 128)[:, None]
    y = (3 * x).sin() + 0.3 * x.square()

    def closure() -> torch.Tensor:
        if lab.fixed:
            optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()  # set-up bug: closure_without_zero_grad
        return loss

    for _ in range(lab.steps // 3):
        with lab.recorder.step("train"):
            optimizer.step(closure)


class _Product(torch.autograd.Function):
    """Rows times a matrix, with a backward of its own."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, right: bool) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.right = right
        return x @ weight

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        back = weight.t() if ctx.right else weight  # set-up bug: transpose_missing_in_backward
        return gradients[0] @ back, x.t() @ gradients[0], None


class _Square(nn.Module):
    """A square layer that multiplies by a function of its own."""

    def __init__(self, width: int, *, right: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, width) / width**0.5)
        self.right = right

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(_Product.apply(x, self.weight, self.right))  # type: ignore[no-untyped-call]


@broken(
    rules=("wrong-gradient",), words=("wrong gradient", "transpos", "backward of", "gradient does not"),
    nodes=("model.1", "model.2", "model.3", "model.4"),
)  # fmt: skip
def transpose_missing_in_backward(lab: Lab) -> None:
    """The backward of a matrix product multiplies by the matrix where its transpose was meant; both are square.

    Source: PyTorch's documentation of extending autograd, gradcheck; PyTorch forum, custom Function does not learn.
    """
    layers = [_Square(48, right=lab.fixed) for _ in range(4)]
    model = nn.Sequential(nn.Linear(6, 48), *layers, nn.Linear(48, 1))
    lab.fit(model, lambda n: _curve(n, 0.0, 128), lambda x, y: F.mse_loss(model(x), y), lr=3e-3)


class _Crossing(nn.Module):
    """Deep and cross: three layers multiply the features with sums of themselves."""

    def __init__(self, *, even: bool) -> None:
        super().__init__()
        draw = torch.randn if even else torch.rand
        scale = 0.3 if even else 1.0
        self.weights = nn.ParameterList(
            [scale * draw(10, 10) for _ in range(3)]
        )  # set-up bug: factors_between_zero_and_one
        self.deep, self.head = mlp(10, 32, 16), nn.Linear(26, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        crossed = x
        for weight in self.weights:
            crossed = x * (crossed @ weight) + crossed
        return self.head(torch.cat([crossed, self.deep(x)], dim=1))


@broken(
    rules=("weight-scale",), words=("initial", "all positive"),
    nodes=("model.weights.0", "model.weights.1", "model.weights.2"),
)  # fmt: skip
def factors_between_zero_and_one(lab: Lab) -> None:
    """The matrices of cross layers are drawn by torch.rand, between 0 and 1, where small numbers around 0 were meant.

    Source: Stack Overflow and PyTorch forum, nn.Parameter(torch.rand(...)) for weights; Humbatova et al. (ICSE 2020).
    """
    model = _Crossing(even=lab.fixed)
    lab.fit(
        model, data.draw(data.diabetes()), lambda x, y: F.mse_loss(model(x), y),
        torch.optim.Adam(model.parameters(), 2e-3),
    )  # fmt: skip
