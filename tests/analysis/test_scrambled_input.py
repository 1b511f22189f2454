"""Inputs whose channels were reshaped instead of permuted, before the step or within it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from support.short_runs import Batch, findings, record

Change = Callable[[torch.Tensor], torch.Tensor]


def pictures(number: int) -> torch.Tensor:
    """Waves in three colours ``(16, 8, 6, 3)``, channels last."""
    generator = torch.Generator().manual_seed(number)
    start = 6.3 * torch.rand(16, 1, 1, 3, generator=generator)
    wave = (torch.arange(8)[:, None, None] / 2 + torch.arange(6)[:, None] / 3 + start).sin()
    return wave + 0.1 * torch.randn(16, 8, 6, 3, generator=generator)


def told(folder: Path, before: Change, within: Change) -> list[tuple[str, str]]:
    """Trains with a change of the data before the step, and one within it."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 2))

    def data(number: int) -> Batch:
        return before(pictures(number)), torch.arange(16) % 2

    trial = record(folder, model, lambda x, y: F.cross_entropy(model(within(x)), y), data, steps=5)
    return [(found.rule, found.node) for found in findings(trial, "scrambled-input", "batch-leak")]


def reshaped(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(16, 3, 8, 6)


def permuted(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 3, 1, 2)


def as_it_is(x: torch.Tensor) -> torch.Tensor:
    return x


def test_channels_that_were_reshaped_before_the_step_are_told(tmp_path: Path) -> None:
    assert told(tmp_path, reshaped, as_it_is) == [("scrambled-input", "input")]


def test_those_that_are_reshaped_in_the_step_are_told_with_their_line(tmp_path: Path) -> None:
    found = told(tmp_path, as_it_is, reshaped)
    assert ("batch-leak", "input") in found
    assert all(node == "input" for _, node in found)


@pytest.mark.parametrize(
    ("before", "within"),
    [
        (permuted, as_it_is),
        (as_it_is, permuted),
        (lambda x: permuted(x).flatten(1), lambda x: x.view(16, 3, 8, 6)),
        (lambda x: torch.randn(16, 3, 8, 6), as_it_is),
        (lambda x: 0.3 * permuted(x) + (torch.arange(6) % 3), as_it_is),
    ],
)
def test_what_was_permuted_or_has_no_order_is_right(before: Change, within: Change, tmp_path: Path) -> None:
    torch.manual_seed(0)
    assert told(tmp_path, before, within) == []
