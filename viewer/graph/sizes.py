"""How large boxes are, in pixels at scale 1."""

from __future__ import annotations

HEADER = 26.0
SECOND_LINE = 14.0
ROW = 19.0
ROW_GAP = 3.0
FRAME_HEADER = 28.0
PADDING = 14.0
NARROWEST, WIDEST = 64.0, 214.0
LONGEST_LABEL = 30

_NARROW = set("iljtfrI.,:;|!'()[] -")
_WIDE = set("mwMW@%")


def text_width(text: str, size: float = 12.0) -> float:
    """About how wide a text is in a sans-serif font of this size."""
    width = 0.0
    for letter in text:
        width += 0.36 if letter in _NARROW else 0.86 if letter in _WIDE else 0.68 if letter.isupper() else 0.58
    return width * size


def shortened(text: str, longest: int = LONGEST_LABEL) -> str:
    """The text, its middle left out if it is too long: names differ at their ends."""
    if len(text) <= longest:
        return text
    head = longest // 3
    return f"{text[:head]}…{text[head + 1 - longest :]}"
