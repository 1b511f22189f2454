"""The rule ``skipping-filters``: strides that are longer than their filters; and shortcuts, which are made so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.analysis.module_settings import numbers
from stepscope.analysis.rules.skipping_filters import _skipped
from stepscope.store.records import ModuleInfo
from support.short_runs import findings, images, record


@pytest.mark.parametrize(
    ("settings", "name", "expected"),
    [
        ("1, 24, kernel_size=(2,), stride=(8,)", "stride", (8,)),
        ("1, 24, kernel_size=(3, 5), stride=(1, 2), padding=(1, 1)", "kernel_size", (3, 5)),
        ("kernel_size=2, stride=4, padding=0, dilation=1, ceil_mode=False", "stride", (4,)),
        ("kernel_size=2, stride=4, padding=0", "size", ()),
        ("1, 2, kernel_size=(3, 3), stride=(1, 1), padding=same", "padding", ()),
        ("", "stride", ()),
    ],
)
def test_numbers_out_of_settings(settings: str, name: str, expected: tuple[int, ...]) -> None:
    assert numbers(ModuleInfo("a", "Conv2d", (), settings=settings), name) == expected


@pytest.mark.parametrize(
    ("kernel", "stride", "share"),
    [
        ((2,), (8,), 0.75), ((3, 3), (4, 4), 7 / 16), ((2,), (2, 4), 0.5), ((3, 3), (2, 2), 0), ((4,), (4,), 0),
        ((), (), 0),
    ],
)  # fmt: skip
def test_what_lies_between_the_filters(kernel: tuple[int, ...], stride: tuple[int, ...], share: float) -> None:
    assert _skipped(kernel, stride) == pytest.approx(share)


class Beside(nn.Module):
    """A block with two branches."""

    def __init__(self, one: nn.Module, two: nn.Module) -> None:
        super().__init__()
        self.one, self.two = one, two

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.one(x) + self.two(x)


_DENSE = nn.Conv2d(1, 8, 3, stride=2, padding=1)
NETS: dict[str, tuple[nn.Module, list[str]]] = {
    "gaps": (nn.Conv2d(1, 8, 2, stride=4), ["warning"]),
    "narrow gaps": (nn.Conv2d(1, 8, 3, stride=4), ["info"]),
    "one pixel of four": (nn.Conv2d(1, 8, 1, stride=2), ["warning"]),
    "pooling": (nn.MaxPool2d(2, stride=4), ["warning"]),
    "patches": (nn.Conv2d(1, 8, 4, stride=4), []),
    "a shortcut": (Beside(_DENSE, nn.Conv2d(1, 8, 1, stride=2)), []),
    "gaps beside others": (Beside(nn.Conv2d(1, 8, 5, stride=4, padding=2), nn.Conv2d(1, 8, 2, stride=4)), ["info"]),
}


@pytest.mark.parametrize("what", list(NETS))
def test_steps_that_are_longer_than_the_filters(what: str, tmp_path: Path) -> None:
    first, expected = NETS[what]
    model = nn.Sequential(first, nn.ReLU(), nn.Flatten(), nn.LazyLinear(4))
    model(images(0)[0])
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), images, steps=4)
    found = findings(trial, "skipping-filters")
    assert [one.level for one in found] == expected
    assert all(one.node.startswith("model.0") for one in found)
