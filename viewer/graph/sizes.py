"""How large boxes are, in pixels at scale 1."""

from __future__ import annotations

HEADER = 26.0
SECOND_LINE = 14.0
ROW = 19.0
ROW_GAP = 3.0
FRAME_HEADER = 28.0
PADDING = 14.0
NARROWEST, WIDEST = 64.0, 214.0
BOLD = 1.15
"""How much wider bold letters are, which the names of modules have."""
TOGGLE = 16.0
"""The sign that opens a module."""

_NARROW = set("iljtfrI.,:;|!'()[] -")
_WIDE = set("mwMW@%")
_MOST_LETTERS = 80
_SQUARE_LETTERS = 0x2E80
"""From here on letters are as wide as they are high (Chinese, Japanese, Korean, emoji)."""


def text_width(text: str, size: float = 12.0) -> float:
    """About how wide a text is in a sans-serif font of this size."""
    width = 0.0
    for letter in text:
        width += _letter_width(letter)
    return width * size


def _letter_width(letter: str) -> float:
    if letter in _NARROW:
        return 0.36
    if letter in _WIDE:
        return 0.86
    if ord(letter) >= _SQUARE_LETTERS:
        return 1.0
    return 0.68 if letter.isupper() else 0.58


def shortened(text: str, size: float = 12.0, room: float = WIDEST - 40.0) -> str:
    """The text, its middle left out if it is too wide: names differ at their ends."""
    if text_width(text, size) <= room:
        return text
    kept = min(len(text) - 1, _MOST_LETTERS)
    while kept > 3 and text_width(_without_middle(text, kept), size) > room:
        kept -= 1
    return _without_middle(text, kept)


def _without_middle(text: str, kept: int) -> str:
    """The first third and the last two thirds of so many letters."""
    head = kept // 3
    return f"{text[:head]}…{text[head - kept :]}"
