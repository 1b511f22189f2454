"""The elements of tensors that are made of other tensors."""

from __future__ import annotations

from typing import Any, cast

import torch

_PLAIN = (torch.Tensor, torch.nn.Parameter)


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether a tensor is one of torch's own classes, with its numbers in strided memory, and in no transform."""
    if tensor.layout != torch.strided or tensor.is_meta or torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return False
    return type(tensor) in _PLAIN


def is_distributed(tensor: torch.Tensor) -> bool:
    """Whether a tensor is a ``DTensor``, or something like it."""
    return type(tensor) not in _PLAIN and hasattr(tensor, "to_local")


def is_spread(tensor: torch.Tensor) -> bool:
    """Whether the elements of a tensor lie on several processes, be it in a ``DTensor`` or the old way (FSDP 1)."""
    return is_distributed(tensor) or getattr(tensor, "_fsdp_flattened", False)


def elements(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself; of a nested one, all elements of its parts; of a distributed one, the part of this process.

    What the other processes hold is never asked for: they may not be recording, and would be waited for in vain.
    """
    if tensor.__class__ in _PLAIN and not tensor.is_nested:
        return tensor
    if is_distributed(tensor):
        with torch.no_grad():
            return cast(torch.Tensor, cast(Any, tensor).to_local())
    if not tensor.is_nested:
        return tensor
    if tensor.layout == torch.jagged:
        return tensor.values()
    return torch.cat([part.reshape(-1) for part in tensor.unbind()])


def storage_of(tensor: torch.Tensor) -> int:
    """The address of the memory that a tensor and its views share; 0 for tensors without one of their own."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError, ValueError):
        return 0
