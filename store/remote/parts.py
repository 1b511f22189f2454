"""Which parts of a file are to be uploaded. Object stores cannot append: a file is many objects that never change."""

from __future__ import annotations

LARGEST = 32 << 20
"""Parts of this many bytes are left as they are."""


def new_ends(ends: tuple[int, ...], size: int) -> tuple[int, tuple[int, ...]]:
    """How the parts go on when a file has grown.

    The last parts are uploaded again, as one with what is new, while they are not longer than what follows them. So a
    byte is uploaded as often as the logarithm of a part's size at most, and there are few small parts.

    Args:
        ends: where the parts end that are there.
        size: the size of the file now.

    Returns:
        How many of the parts stay, and where the new ones end.
    """
    kept = len(ends)
    start = ends[-1] if ends else 0
    while kept:
        before = ends[kept - 2] if kept > 1 else 0
        if start - before > size - start or size - before > LARGEST:
            break
        kept, start = kept - 1, before
    return kept, (*range(start + LARGEST, size, LARGEST), size)
