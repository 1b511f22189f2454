"""The pieces of the layout, one by one, against answers worked out by hand or by brute force."""

from __future__ import annotations

from itertools import product

import hypothesis.strategies as st
import pytest
from hypothesis import given

from stepscope.viewer.graph.cells import Cell, Hop, Link
from stepscope.viewer.graph.components import cyclic_components
from stepscope.viewer.graph.crossings import count_crossings, neighbours, order_layers
from stepscope.viewer.graph.isotonic import isotonic
from stepscope.viewer.graph.lanes import make_hops
from stepscope.viewer.graph.layers import assign_layers, backward_pairs, topological
from stepscope.viewer.graph.mainline import main_line
from stepscope.viewer.graph.sizes import shortened, text_width

adjacency = st.integers(1, 7).flatmap(
    lambda count: st.lists(st.lists(st.integers(0, count - 1), unique=True), min_size=count, max_size=count)
)


def reach(sinks: list[list[int]]) -> list[set[int]]:
    """For each vertex, what can be reached from it, naively."""
    found = [set(some) for some in sinks]
    for _ in sinks:
        for seen in found:
            seen |= {far for near in seen for far in found[near]}
    return found


@given(adjacency)
def test_components_are_what_reaches_each_other(sinks: list[list[int]]) -> None:
    reached = reach(sinks)
    groups = {
        frozenset(b for b in range(len(sinks)) if a == b or (b in reached[a] and a in reached[b]))
        for a in range(len(sinks))
    }
    assert {frozenset(group) for group in cyclic_components(sinks)} == {group for group in groups if len(group) > 1}


@given(adjacency)
def test_without_backward_pairs_there_are_no_circles(sinks: list[list[int]]) -> None:
    back = backward_pairs(len(sinks), sinks)
    forward = [[b for b in some if (a, b) not in back] for a, some in enumerate(sinks)]
    assert sorted(topological(len(sinks), forward)) == list(range(len(sinks)))


def links(*pairs: tuple[int, int]) -> list[Link]:
    return [Link(tail, tail, head) for tail, head in pairs]


def test_layers_are_the_longest_ways() -> None:
    layer, back = assign_layers(4, links((0, 1), (1, 2), (0, 2), (2, 3)), late=(), last=())
    assert (layer, back) == ([0, 1, 2, 3], set())


def test_late_cells_stand_right_before_what_they_feed() -> None:
    layer, _ = assign_layers(5, links((0, 1), (1, 2), (3, 4), (4, 2)), late={3, 4}, last=())
    assert layer == [0, 1, 2, 0, 1]
    layer, _ = assign_layers(5, links((0, 1), (1, 2), (2, 3), (4, 3)), late={4}, last=())
    assert layer[4] == 2


def test_last_cells_stand_in_the_last_layer() -> None:
    layer, _ = assign_layers(4, links((0, 1), (1, 2), (0, 3)), late=(), last={3})
    assert layer == [0, 1, 2, 2]


def test_the_main_line_is_the_longest_way_to_the_best_end() -> None:
    sinks = [[1, 2], [3], [3], [4, 5], [], []]
    assert main_line(sinks, lambda box: int(box == 5)) == [0, 1, 3, 5]
    assert main_line([[], []], lambda box: 0) == []


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0.5, 1.0, 2.0])), min_size=1, max_size=4))
def test_isotonic_values_are_the_best_growing_ones(pairs: list[tuple[int, float]]) -> None:
    wishes, weights = [float(wish) for wish, _ in pairs], [weight for _, weight in pairs]

    def cost(values: list[float]) -> float:
        return sum(w * (v - wish) ** 2 for v, wish, w in zip(values, wishes, weights, strict=True))

    values = isotonic(wishes, weights)
    assert values == sorted(values)
    grid = [number / 2 for number in range(9)]
    others = [list(some) for some in product(grid, repeat=len(pairs)) if list(some) == sorted(some)]
    assert cost(values) <= min(map(cost, others)) + 1e-9


def two_layers(pairs: list[tuple[int, int]]) -> tuple[list[Cell], list[Hop]]:
    cells = [Cell("box", number, 10, 10, 5, layer=number // 4) for number in range(8)]
    return cells, [Hop(west, west, 4 + east, {4 + east}) for west, east in dict.fromkeys(pairs)]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=8))
def test_crossings_are_counted(pairs: list[tuple[int, int]]) -> None:
    cells, hops = two_layers(pairs)
    expected = sum(a.tail < b.tail and a.head > b.head for a in hops for b in hops)
    assert count_crossings([[0, 1, 2, 3], [4, 5, 6, 7]], neighbours(cells, hops)[1]) == expected


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=8))
def test_ordering_adds_no_crossings(pairs: list[tuple[int, int]]) -> None:
    cells, hops = two_layers(pairs)
    start = [[0, 1, 2, 3], [4, 5, 6, 7]]
    right = neighbours(cells, hops)[1]
    found = order_layers(cells, hops, start)
    assert [sorted(layer) for layer in found] == start
    assert count_crossings(found, right) <= count_crossings(start, right)


def test_crossed_lines_are_uncrossed() -> None:
    cells, hops = two_layers([(0, 1), (1, 0), (2, 3), (3, 2)])
    assert count_crossings(order_layers(cells, hops, [[0, 1, 2, 3], [4, 5, 6, 7]]), neighbours(cells, hops)[1]) == 0


def test_lines_of_one_source_share_lanes() -> None:
    cells = [Cell("box", number, layer=layer) for number, layer in enumerate([0, 2, 3])]
    hops = make_hops(cells, [Link(0, 0, 1, {1}), Link(0, 0, 2, {2})])
    assert [(cell.kind, cell.layer) for cell in cells[3:]] == [("lane", 1), ("lane", 2)]
    assert {(hop.tail, hop.head): hop.sinks for hop in hops} == {(0, 3): {1, 2}, (3, 1): {1}, (3, 4): {2}, (4, 2): {2}}


def test_lines_that_run_back_go_around_both_ends() -> None:
    cells = [Cell("box", 0, layer=1), Cell("box", 1, layer=2)]
    hops = make_hops(cells, [Link(1, 1, 0, {0})])
    assert [cell.layer for cell in cells[2:]] == [2, 1]
    assert [(hop.tail, hop.head, hop.back) for hop in hops] == [(1, 2, True), (2, 3, True), (3, 0, True)]


@pytest.mark.parametrize("text", ["short", "W" * 200, "名前" * 30, "a.b" * 40])
def test_shortened_texts_fit(text: str) -> None:
    cut = shortened(text)
    assert text_width(cut) <= 174.0
    assert cut == text or (cut[0] == text[0] and cut[-1] == text[-1])
