"""What a test needs of a training run: its models, its optimizers, one step, and a fingerprint of all its state."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from stepscope.recorder import Recorder, Schedule

Fingerprint = dict[str, str]


@dataclass
class Training:
    """A small training run. ``step(number)`` makes its data, trains once and returns its losses."""

    models: dict[str, nn.Module]
    optimizers: dict[str, Optimizer]
    step: Callable[[int], list[torch.Tensor]]
    extra: dict[str, Any] = field(default_factory=dict)


def simple(model: nn.Module, loss: Callable[[], torch.Tensor], optimizer: Optimizer | None = None) -> Training:
    """One model, one optimizer, one loss a step."""
    chosen = optimizer or torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=1e-2)

    def step(number: int) -> list[torch.Tensor]:
        chosen.zero_grad()
        value = loss()
        value.backward()
        chosen.step()
        return [value]

    return Training({"model": model}, {"optimizer": chosen}, step)


def seed_everything(seed: int = 0) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def train(make: Callable[[], Training], steps: int, recorder: Recorder | None) -> list[Fingerprint]:
    """Train from a fixed seed; the fingerprint of everything before the first step and after each one."""
    seed_everything()
    training = make()
    before_updates: list[Fingerprint] = []
    for name, optimizer in training.optimizers.items():
        optimizer.register_step_pre_hook(lambda *_, name=name: before_updates.append(_gradients(training, name)))
    if recorder is not None:
        recorder.watch(training.models, training.optimizers)
    found = [fingerprint(training, [])]
    for number in range(steps):
        if recorder is None:
            losses = training.step(number)
        else:
            with recorder.step():
                losses = training.step(number)
        found.append(fingerprint(training, losses))
        for index, gradients in enumerate(before_updates):
            found[-1].update({f"update {index}: {key}": value for key, value in gradients.items()})
        before_updates.clear()
    return found


def open_recorder(folder: Any, schedule: Schedule) -> Recorder:
    return Recorder(folder, trial="trial", schedule=schedule, strict=True, if_exists="overwrite")


def fingerprint(training: Training, losses: list[torch.Tensor]) -> Fingerprint:
    """Everything that training consists of, each part by a digest of its bytes."""
    parts: dict[str, Any] = {"losses": losses, "extra": training.extra, **_process_state()}
    for name, model in training.models.items():
        for key, tensor in (*model.named_parameters(prefix=name), *model.named_buffers(prefix=name)):
            parts[key] = tensor
            parts[f"{key} facts"] = (tensor.requires_grad, tensor.grad is None, tensor.is_leaf, _tensor_hooks(tensor))
            parts[f"{key} gradient"] = tensor.grad
        for key, module in model.named_modules(prefix=name):
            parts[f"{key} hooks"] = _module_hooks(module)
            parts[f"{key} attributes"] = (module.training, sorted(vars(module)))
    for name, optimizer in training.optimizers.items():
        parts[name] = optimizer.state_dict()
        parts[f"{name} hooks"] = (len(optimizer._optimizer_step_pre_hooks), len(optimizer._optimizer_step_post_hooks))
    return {key: digest(value) for key, value in parts.items()}


def digest(value: Any) -> str:
    """A digest of every byte of a nested value."""
    made = hashlib.blake2b(digest_size=12)
    for part in _bytes_of(value):
        made.update(part)
    return made.hexdigest()


def _gradients(training: Training, name: str) -> Fingerprint:
    groups = training.optimizers[name].param_groups
    return {f"{name} gradient {g} {i}": digest(p.grad) for g, group in enumerate(groups) for i, p in _numbered(group)}


def _numbered(group: dict[str, Any]) -> list[tuple[int, torch.Tensor]]:
    return list(enumerate(group["params"]))


def _bytes_of(value: Any) -> Iterator[bytes]:
    if isinstance(value, torch.Tensor):
        yield from _bytes_of_tensor(value)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield repr(key).encode()
            yield from _bytes_of(item)
    elif isinstance(value, (list, tuple)):
        yield str(len(value)).encode()
        for item in value:
            yield from _bytes_of(item)
    elif isinstance(value, np.ndarray):
        yield value.tobytes()
    else:
        yield repr(value).encode()


def _bytes_of_tensor(tensor: torch.Tensor) -> Iterator[bytes]:
    tensor = tensor.detach()
    yield f"{tensor.dtype} {tuple(tensor.shape)} {tensor.layout}".encode()
    if tensor.layout == torch.sparse_coo:
        yield from _bytes_of_tensor(tensor._indices())
        yield from _bytes_of_tensor(tensor._values())
    else:
        yield str(tensor.stride()).encode()
        plain = torch.view_as_real(tensor) if tensor.is_complex() else tensor
        yield plain.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _module_hooks(module: nn.Module) -> tuple[int, ...]:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks")
    return tuple(len(getattr(module, kind)) for kind in kinds)


def _tensor_hooks(tensor: torch.Tensor) -> int:
    after = getattr(tensor, "_post_accumulate_grad_hooks", None)
    return len(tensor._backward_hooks or ()) + len(after or ())


def _process_state() -> dict[str, Any]:
    shared = nn.modules.module
    names = ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks")
    return {
        "torch random": torch.get_rng_state(),
        "numpy random": np.random.get_state(),
        "python random": random.getstate(),
        "global hooks": [len(getattr(shared, name)) for name in names],
        "function modes": [type(mode).__name__ for mode in _get_current_function_mode_stack()],
        "dispatch modes": [type(mode).__name__ for mode in _get_current_dispatch_mode_stack()],
        "grad mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_anomaly_enabled()),
        "autocast": (
            torch.is_autocast_enabled("cpu"),
            torch.get_autocast_dtype("cpu"),
            torch.is_autocast_cache_enabled(),
        ),
        "defaults": (torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()),
    }
