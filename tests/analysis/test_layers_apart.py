"""Where the layers of two trials differ."""

from __future__ import annotations

import pytest

from stepscope.analysis.layers_apart import LayerDifference, layers_apart
from stepscope.store.records import ModuleInfo


def net(**layers: str) -> list[ModuleInfo]:
    """A net whose layers are given as ``Class(settings)``."""
    found = [ModuleInfo("model", "Net", ())]
    for path, told in layers.items():
        kind, _, settings = told.removesuffix(")").partition("(")
        found.append(ModuleInfo(f"model.{path.replace('_', '.')}", kind, (), settings=settings))
    return found


@pytest.mark.parametrize(
    ("this", "other", "expected"),
    [
        (net(a="Conv2d(1, 4, kernel_size=(2, 2))"), net(a="Conv2d(1, 4, kernel_size=(2, 2))"), []),
        (
            net(a="Conv2d(1, 4, kernel_size=(2, 2), stride=(2, 2))"),
            net(a="Conv2d(1, 4, kernel_size=(3, 2), stride=(2, 2))"),
            [("model.a", "kernel_size=(2, 2)", "kernel_size=(3, 2)")],
        ),
        (
            net(a="Conv2d(4, 1, stride=(2, 2))"), net(a="Conv2d(4, 4, stride=(2, 2), bias=False)"),
            [("model.a", "1", "4, bias=False")],
        ),
        (net(a="Dropout(p=0.5)", b="ReLU"), net(a="Dropout(p=0.5)", b="GELU"), [("model.b", "ReLU", "GELU")]),
        (
            net(a="ReLU", b="Block", b_norm="LayerNorm(8)", c="ReLU"), net(a="ReLU", c="ReLU", d="ReLU"),
            [("model.b", "Block", "–"), ("model.d", "–", "ReLU")],
        ),
        ([], net(a="ReLU"), []),
        (net(a="Linear(4, 8)"), net(a="Linear"), []),
        (net(a="Linear"), net(a="Linear(4, 8)"), []),
    ],
)  # fmt: skip
def test_what_differs(this: list[ModuleInfo], other: list[ModuleInfo], expected: list[tuple[str, str, str]]) -> None:
    assert layers_apart(this, other) == [LayerDifference(*one) for one in expected]
