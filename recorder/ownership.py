"""Which tensors may be measured later without a copy, because nobody else can write to their memory."""

from __future__ import annotations

import torch

_SMALL = 4096
_ALONE = 2
"""References to a storage: the tensor's own, and that of the Python object through which it is asked."""


def settled(tensor: torch.Tensor, *, owned: bool) -> torch.Tensor:
    """The tensor itself if its memory is ours alone, else a copy.

    A forward pass leaves most of its outputs to nobody: once the autograd graph is gone, the recorder's alias is
    the last that refers to their memory. Memory that numpy or another library lent to torch, or that processes share,
    is always copied.

    Args:
        tensor: a detached alias that the recorder holds.
        owned: whether the recorder itself made the tensor, and never writes to it.
    """
    return tensor if owned or is_alone(tensor) else tensor.clone()


def is_alone(tensor: torch.Tensor) -> bool:
    """Whether nobody refers to a tensor's memory but this alias of it, and it keeps little else alive."""
    try:
        storage = tensor.untyped_storage()
        return (
            torch._C._storage_Use_Count(storage._cdata) <= _ALONE
            and storage.nbytes() <= 2 * tensor.nbytes + _SMALL  # a small part of it would keep all of it alive
            and storage.resizable()
            and not storage.is_shared()
        )
    except (RuntimeError, NotImplementedError, AttributeError):  # without a storage, or another torch
        return False
