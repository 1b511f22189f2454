"""How large each box is, with its texts and rows."""

from __future__ import annotations

from dataclasses import dataclass

from stepscope.viewer.graph.outline import Outline
from stepscope.viewer.graph.scene import SceneBox
from stepscope.viewer.graph.sizes import (
    BOLD,
    HEADER,
    NARROWEST,
    ROW,
    ROW_GAP,
    SECOND_LINE,
    TOGGLE,
    WIDEST,
    text_width,
)
from stepscope.viewer.graph.texts import BoxTexts, texts_of


@dataclass(frozen=True)
class Measured:
    """A box with its texts, size, and how far below its top lines touch it."""

    texts: BoxTexts
    width: float
    height: float
    anchor: float


def measure(outline: Outline, box: SceneBox) -> Measured:
    """The size of a box, from its texts."""
    texts = texts_of(outline, box)
    head = HEADER + (SECOND_LINE if texts.sub else 0.0)
    widths = [
        text_width(texts.label, 12.0) * (BOLD if box.module else 1.0) + (TOGGLE if box.module else 0.0),
        text_width(texts.sub, 10.0),
    ]
    widths += [text_width(row.label, 11.0) + 12.0 for row in texts.rows]
    rows = len(texts.rows) * ROW + ROW_GAP if texts.rows else 0.0
    return Measured(texts, min(max(*widths, NARROWEST - 24.0) + 24.0, WIDEST), head + rows, head / 2)
