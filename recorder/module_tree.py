"""The parts of a model, and their names."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.parameter import is_lazy

_INSIDE = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Where the wrappers of ``torch.compile``, FSDP 1 and its checkpoints keep the user's own module."""


def parts(model: nn.Module, *, every_path: bool = False) -> Iterable[tuple[str, nn.Module]]:
    """All modules of a model with their paths, as if none was compiled or wrapped; each once, or under every path."""
    for path, module in model.named_modules(remove_duplicate=not every_path):
        if _wrapped(module) is None:
            yield ".".join(part for part in path.split(".") if part not in _INSIDE), module


def unwrap(module: nn.Module) -> nn.Module:
    """The user's own module inside the wrappers of ``torch.compile`` and of data parallelism."""
    while True:
        inner = _wrapped(module)
        if inner is None and type(module).__name__ in ("DistributedDataParallel", "DataParallel"):
            inner = getattr(module, "module", None)
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def _wrapped(module: nn.Module) -> nn.Module | None:
    for name in _INSIDE:
        inner = module._modules.get(name)
        if inner is not None:
            return inner
    return None


def own_tensors(module: nn.Module) -> Iterable[tuple[str, torch.Tensor, bool]]:
    """Name, tensor, and whether it is a buffer: of what a module holds itself and has a shape by now."""
    for kind, is_buffer in ((module._parameters, False), (module._buffers, True)):
        for key, tensor in kind.items():
            if tensor is not None and not is_lazy(tensor):
                yield key, tensor, is_buffer


def join(prefix: str, path: str) -> str:
    return f"{prefix}.{path}" if path else prefix
