"""The main line of a picture: the longest way through it, from an input to the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stepscope.viewer.graph.layers import backward_pairs, topological


def main_line(sinks: Sequence[Sequence[int]], rank: Callable[[int], int]) -> list[int]:
    """The boxes on the main line, in order; none if no box depends on another.

    Args:
        sinks: for each box, those that depend on it.
        rank: how well a box does as the end of the line; among equals the line is the longest, then the first.
    """
    count = len(sinks)
    back = backward_pairs(count, sinks)
    forward = [[sink for sink in sinks[box] if (box, sink) not in back] for box in range(count)]
    length, before = _longest_ways(forward)
    ends = [box for box in range(count) if before[box] >= 0]
    if not ends:
        return []
    box = max(ends, key=lambda end: (rank(end), length[end], -end))
    line = [box]
    while before[box] >= 0:
        box = before[box]
        line.append(box)
    return line[::-1]


def _longest_ways(forward: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    """For each box, how many boxes lead to it on the longest way, and which is the last of them."""
    length = [0] * len(forward)
    before = [-1] * len(forward)
    for box in topological(len(forward), forward):
        for sink in forward[box]:
            if length[box] + 1 > length[sink]:
                length[sink], before[sink] = length[box] + 1, box
    return length, before
