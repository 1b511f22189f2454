"""Tells which of a Trainer's logged metrics are new."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch


class LoggedMetrics:
    """What ``LightningModule.log`` has logged since the last look.

    A Trainer keeps the last value of every metric, new or old, under the same name. A new value lies in new memory,
    so each last value is held on to: as long as it is, no other value can lie where it does.
    """

    def __init__(self) -> None:
        self._last: dict[str, torch.Tensor] = {}

    def new(self, metrics: Mapping[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
        """Name and value of each metric that was logged since the last call; only numbers, in tensors."""
        for name, value in metrics.items():
            if not isinstance(value, torch.Tensor) or value.numel() != 1:
                continue
            before = self._last.get(name)
            if before is None or before.data_ptr() != value.data_ptr():
                self._last[name] = value
                yield name, value


def group_and_name(metric: str) -> tuple[str, str]:
    """How a metric is filed: ``train/loss`` is ``loss`` in the group ``train``.

    >>> group_and_name("train/loss"), group_and_name("accuracy")
    (('train', 'loss'), ('', 'accuracy'))
    """
    group, _, name = metric.rpartition("/")
    return (group, name) if name else ("", metric)
