"""Knows by what a ``GradScaler`` multiplied the loss, so that gradients are recorded as if it had not.

The scaler is never asked for: its multiplication is seen among the torch calls, and so is its ``unscale_``.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from types import FrameType

import torch
from torch.amp import grad_scaler

_SCALER_FILE = grad_scaler.__file__
UNSCALING = "_amp_foreach_non_finite_check_and_unscale_"
"""The torch function by which a scaler divides gradients in place."""


MULTIPLICATIONS = ("mul", "__mul__")


def is_scaling(frame: FrameType | None) -> bool:
    """Whether a multiplication, by the frame that made it, is a scaler's of a loss."""
    return frame is not None and frame.f_code.co_filename == _SCALER_FILE


class LossScale:
    """The scale of the ``backward`` that runs, or ran last; None without a scaler."""

    def __init__(self) -> None:
        self.current: torch.Tensor | None = None
        self._scaled: dict[int, tuple[weakref.ref[torch.Tensor], torch.Tensor]] = {}
        self._unscaled: set[int] = set()

    def learn(self, scaled: torch.Tensor, scale: torch.Tensor) -> None:
        """A loss was scaled. The scale is copied, because the scaler changes it in place."""
        self._scaled[id(scaled)] = weakref.ref(scaled), scale.detach().clone()

    def start(self, tensor: torch.Tensor) -> bool:
        """``backward`` begins at this tensor; says whether it is a scaled loss."""
        entry = self._scaled.get(id(tensor))
        known = entry is not None and entry[0]() is tensor
        self.current = entry[1] if entry is not None and known else None
        self._unscaled.clear()
        return known

    def learn_unscaled(self, gradients: Iterable[torch.Tensor]) -> None:
        """The scaler divided these gradients itself."""
        self._unscaled.update(gradient.data_ptr() for gradient in gradients)

    def unscaled(self, gradient: torch.Tensor) -> torch.Tensor:
        """A gradient without the scale, in a type that can hold it."""
        if self.current is None:
            return gradient
        wide = gradient if gradient.dtype == torch.float64 or gradient.is_complex() else gradient.float()
        return wide / self.current.to(wide.device)

    def unscaled_leaf(self, gradient: torch.Tensor) -> torch.Tensor:
        """A copy of the accumulated gradient of a leaf, without the scale if the scaler has not divided it yet."""
        values = gradient._values() if gradient.layout == torch.sparse_coo else gradient
        if self.current is None or values.data_ptr() in self._unscaled:
            return gradient.clone()
        return self.unscaled(gradient)
