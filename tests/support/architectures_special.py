"""Small training runs with something unusual about them: frozen parts, odd numbers, odd optimizers, odd loops."""

from __future__ import annotations

import copy
import pickle
import random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from support.training import Training, simple


def regression(model: nn.Module) -> torch.Tensor:
    return F.mse_loss(model(torch.randn(8, 4)), torch.randn(8, 2))


def small() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))


def frozen_backbone() -> Training:
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU()), nn.Linear(6, 2))
    model[0].requires_grad_(False)
    return simple(model, lambda: regression(model))


class LowRank(nn.Module):
    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(1, base.in_features))
        self.up = nn.Parameter(torch.zeros(base.out_features, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + x @ self.down.T @ self.up.T


def low_rank_adapters() -> Training:
    model = small()
    model[0], model[2] = LowRank(model[0]), LowRank(model[2])
    return simple(model, lambda: regression(model))


class Binarize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.sign()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return gradient * (x.abs() < 1)


class ScaleInPlace(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.mark_dirty(x)
        return x.mul_(1.5)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * 1.5


class CustomFunctions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ScaleInPlace.apply(self.last(Binarize.apply(self.first(x))))


def custom_autograd_functions() -> Training:
    model = CustomFunctions()
    return simple(model, lambda: regression(model))


class ComplexNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 5, dtype=torch.complex64)
        self.filter = nn.Parameter(torch.randn(5, dtype=torch.complex64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spectrum = torch.fft.fft(self.first(x.to(torch.complex64))) * self.filter
        return torch.fft.ifft(spectrum).abs()[:, :2]


def complex_numbers() -> Training:
    model = ComplexNet()
    return simple(model, lambda: regression(model))


def sparse_embedding_gradients() -> Training:
    model = nn.EmbeddingBag(20, 3, mode="sum", sparse=True)
    optimizer = torch.optim.SparseAdam(model.parameters(), lr=0.1)
    return simple(model, lambda: model(torch.randint(20, (4, 3))).square().mean(), optimizer)


def lbfgs_with_closure() -> Training:
    model = small()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4, history_size=3)

    def step(number: int) -> list[torch.Tensor]:
        x, y = torch.randn(8, 4), torch.randn(8, 2)
        losses: list[torch.Tensor] = []

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            losses.append(F.mse_loss(model(x), y))
            losses[-1].backward()
            return losses[-1]

        optimizer.step(closure)
        return losses

    return Training({"model": model}, {"optimizer": optimizer}, step)


def gradient_accumulation() -> Training:
    model = small()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6)

    def step(number: int) -> list[torch.Tensor]:
        losses = []
        for _ in range(3):
            losses.append(regression(model) / 3)
            losses[-1].backward()
        nn.utils.clip_grad_value_(model.parameters(), 0.1)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        scheduler.step()
        return losses

    return Training({"model": model}, {"optimizer": optimizer}, step)


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.reentrant = reentrant
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)
        self.middle = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.3), nn.ReLU(inplace=True), nn.BatchNorm1d(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(checkpoint(self.middle, self.first(x), use_reentrant=self.reentrant))


def checkpointing() -> Training:
    model = Checkpointed(reentrant=False)
    return simple(model, lambda: regression(model))


def reentrant_checkpointing() -> Training:
    model = Checkpointed(reentrant=True)
    return simple(model, lambda: regression(model))


def autocast_bfloat16() -> Training:
    model = small()

    def loss() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return regression(model)

    return simple(model, loss)


def gradient_scaler() -> Training:
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)

    def step(number: int) -> list[torch.Tensor]:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = regression(model)
        if number == 2:
            loss = loss * torch.inf  # one step that the scaler has to skip
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        return [loss, torch.tensor(scaler.get_scale())]

    return Training({"model": model}, {"optimizer": optimizer}, step)


def moving_average_copy() -> Training:
    model = small()
    average = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.NAdam(model.parameters(), lr=1e-2)

    def step(number: int) -> list[torch.Tensor]:
        optimizer.zero_grad()
        x = torch.randn(8, 4)
        loss = F.mse_loss(model(x), average(x) + 1)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
                slow.lerp_(fast, 0.1)
        return [loss]

    return Training({"model": model, "average": average}, {"optimizer": optimizer}, step)


def copies_and_pickles() -> Training:
    """A copy of the model and a pickle of it are made within the step, as checkpoints and averages are."""
    model = small()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    extra: dict[str, Any] = {}

    def step(number: int) -> list[torch.Tensor]:
        optimizer.zero_grad()
        loss = regression(model)
        loss.backward()
        optimizer.step()
        twin = copy.deepcopy(model)
        extra["hooks"] = [len(twin._forward_pre_hooks), len(twin._forward_hooks)]
        pickled = pickle.dumps([model, copy.deepcopy(optimizer)])
        extra["modules in the pickle"] = [name for name in (b"stepscope", b"torch") if name in pickled]
        return [loss, twin(torch.ones(1, 4))]

    return Training({"model": model}, {"optimizer": optimizer}, step, extra)


def per_sample_gradients() -> Training:
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def one_loss(weights: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(torch.func.functional_call(model, weights, (x[None],)), y[None])

    def step(number: int) -> list[torch.Tensor]:
        weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
        x, y = torch.randn(8, 4), torch.randn(8, 2)
        gradients = torch.func.vmap(torch.func.grad(one_loss), in_dims=(None, 0, 0))(weights, x, y)
        for name, parameter in model.named_parameters():
            norms = gradients[name].flatten(1).norm(dim=1).clamp(min=1)
            parameter.grad = (gradients[name] / norms.view(-1, *[1] * parameter.dim())).mean(0)
        optimizer.step()
        return [gradient.sum() for gradient in gradients.values()]

    return Training({"model": model}, {"optimizer": optimizer}, step)


def parametrized_weights() -> Training:
    model = nn.Sequential(
        parametrizations.weight_norm(nn.Linear(4, 6)), nn.ReLU(), parametrizations.spectral_norm(nn.Linear(6, 2))
    )
    return simple(model, lambda: regression(model))


class Wayward(nn.Module):
    """Calls one module twice, one never, and drops layers at random by Python's and numpy's dice."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.never, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        x = self.twice(self.twice(x).relu_())
        if random.random() < 0.5:
            x = x + float(np.random.rand())
        return self.last(x)


def called_twice_and_never() -> Training:
    model = Wayward()
    return simple(model, lambda: regression(model), torch.optim.Rprop(model.parameters()))


def several_losses() -> Training:
    model = small()
    first = torch.optim.Adagrad(model[0].parameters(), lr=0.05)
    second = torch.optim.RAdam(model[2].parameters(), lr=0.05)

    def step(number: int) -> list[torch.Tensor]:
        model.zero_grad()
        out = model(torch.randn(8, 4))
        losses = [out.square().mean(), out.abs().mean()]
        losses[0].backward(retain_graph=True)
        losses[1].backward()
        first.step()
        second.step()
        return losses

    return Training({"model": model}, {"first": first, "second": second}, step)


def gradient_penalty() -> Training:
    model = small()

    def loss() -> torch.Tensor:
        x = torch.randn(8, 4, requires_grad=True)
        out = model(x)
        (slope,) = torch.autograd.grad(out.sum(), x, create_graph=True)
        return out.mean() + (slope.norm(dim=1) - 1).square().mean()

    return simple(model, loss)


def hooks_of_the_users() -> Training:
    model = small()
    model[0].register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    model[2].register_full_backward_hook(lambda module, grad_in, grad_out: (grad_in[0] * 0.5,))
    model[2].register_forward_hook(lambda module, args, output: output + 1)
    model[2].weight.register_hook(lambda gradient: gradient * 0.9)
    return simple(model, lambda: regression(model))


def parameter_writes_of_the_users() -> Training:
    """Clamps, resets and replaces parameters by hand between steps."""
    model = small()
    optimizer = torch.optim.Adamax(model.parameters(), lr=1e-2)

    def step(number: int) -> list[torch.Tensor]:
        optimizer.zero_grad()
        loss = regression(model)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            model[0].weight.clamp_(-0.3, 0.3)
        model[2].bias.data = model[2].bias.data * 0.99
        return [loss]

    return Training({"model": model}, {"optimizer": optimizer}, step)


def bfloat16_weights() -> Training:
    model = small().to(torch.bfloat16)
    return simple(model, lambda: model(torch.randn(8, 4, dtype=torch.bfloat16)).float().square().mean())


def growing_model() -> Training:
    """A layer is added and one is unfrozen while training goes on."""
    model = small()
    model[0].requires_grad_(False)
    optimizer = torch.optim.ASGD(model[2].parameters(), lr=0.05)

    def step(number: int) -> list[torch.Tensor]:
        if number == 2:
            model.append(nn.Linear(2, 2))
            optimizer.add_param_group({"params": list(model[3].parameters())})
        if number == 3:
            model[0].requires_grad_(True)
            optimizer.add_param_group({"params": list(model[0].parameters())})
        optimizer.zero_grad()
        loss = regression(model)
        loss.backward()
        optimizer.step()
        return [loss]

    return Training({"model": model}, {"optimizer": optimizer}, step)
