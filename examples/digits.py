"""The handwritten digits of scikit-learn, which two examples learn to read."""

from __future__ import annotations

from typing import NamedTuple

import torch

BATCH = 64
TEST_IMAGES = 360


class Digits(NamedTuple):
    """Images ``(n, 1, 8, 8)`` between 0 and 1, and their digits ``(n,)``."""

    images: torch.Tensor
    labels: torch.Tensor


def load(seed: int = 0) -> tuple[Digits, Digits]:
    """All 1797 digits, shuffled, as a training part and a test part."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise SystemExit("This example learns the digits of scikit-learn: pip install scikit-learn") from error
    bunch = load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(bunch.target, dtype=torch.int64)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    test, train = order[:TEST_IMAGES], order[TEST_IMAGES:]
    return Digits(images[train], labels[train]), Digits(images[test], labels[test])
