"""Which tensors may be measured later without a copy, because nobody else can write to their memory."""

from __future__ import annotations

import torch

_SMALL = 4096
"""Bytes that may be kept alive by a part of them."""
_ALONE = 2
"""References to a storage: the tensor's own, and that of the Python object through which it is asked."""


def is_alone(tensor: torch.Tensor) -> bool:
    """Whether nobody refers to a tensor's memory but this alias of it, and it keeps little else alive.

    A forward pass leaves most of its outputs to nobody: once the autograd graph is gone, the recorder's alias is
    the last that refers to their memory. Memory that numpy or another library lent to torch, or that processes share,
    is never alone.

    Args:
        tensor: a detached alias that the recorder holds.
    """
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
