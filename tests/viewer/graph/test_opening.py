"""Which modules are open: those asked for, or as many as there is room for; long runs are folded."""

from __future__ import annotations

from typing import Any

import pytest

from stepscope.store.records import Graph
from stepscope.viewer.graph import draw, open_to
from support.graph_text import chain, graph_of, modules_of


def blocks(count: int, inside: int = 2) -> Graph:
    lines, last = [], "input"
    for block in range(count):
        names = [f"net.blocks.{block}.t{number}" for number in range(inside)]
        lines.append(" -> ".join([last, *names]))
        last = names[-1]
    return graph_of("\n".join([*lines, f"{last} -> loss"]))


def labels(drawing: dict[str, Any]) -> list[str]:
    return [box["label"] for box in drawing["boxes"]]


def test_small_graphs_are_opened_at_once() -> None:
    drawing = draw(graph_of("input -> net.a -> net.b -> loss"))
    assert drawing["opened"] == ["net"]


def test_a_picture_opened_on_its_own_is_readable_in_the_panel() -> None:
    for count in (1, 4, 12, 40):
        drawing = draw(blocks(count, 5), width=1000, height=400)
        assert drawing["width"] * 0.62 <= 1000 and drawing["height"] * 0.62 <= 400


def test_a_larger_panel_shows_more() -> None:
    graph = blocks(6, 4)
    small, large = draw(graph, width=500, height=300), draw(graph, width=6000, height=900)
    assert len(small["boxes"]) < len(large["boxes"]) == len(graph.vertices)


def test_modules_that_are_alike_open_together() -> None:
    drawing = draw(graph_of("input -> a.x -> a.y -> b.x -> b.y -> c.x -> c.y -> loss"), width=420, height=300)
    assert set(drawing["opened"]) in (set(), {"a", "b", "c"})


def test_what_is_asked_for_is_opened_and_no_more() -> None:
    graph = blocks(3)
    drawing = draw(graph, ["net", "net.blocks", "net.blocks.1"])
    assert drawing["opened"] == ["net.blocks", "net.blocks.1"]
    assert labels(drawing) == ["input", "0", "t0", "t1", "2", "loss"]


def test_modules_in_closed_ones_stay_unseen() -> None:
    assert draw(blocks(3), ["net.blocks.1"])["frames"] == []


def test_a_module_that_would_show_one_box_is_that_box() -> None:
    drawing = draw(graph_of("input -> net.act.output -> net.fc.output -> loss"), ["net"])
    assert [box["label"] for box in drawing["boxes"] if box["module"] is None] == ["input", "act", "fc", "loss"]


def test_long_runs_of_blocks_are_folded_into_ranges() -> None:
    drawing = draw(blocks(30), ["net.blocks"])
    assert labels(drawing) == ["input", "blocks [0-11]", "blocks [12-23]", "blocks [24-29]", "loss"]
    drawing = draw(blocks(30), ["net.blocks", "net.blocks.[12-23]"])
    assert labels(drawing)[2:14] == [str(number) for number in range(12, 24)]


def test_short_runs_are_not_folded() -> None:
    assert labels(draw(blocks(12), ["net.blocks"])) == ["input", *map(str, range(12)), "loss"]


def test_many_tensors_outside_modules_are_folded() -> None:
    drawing = draw(graph_of(chain(450)), [])
    assert labels(drawing) == ["tensors [0-99]", "tensors [100-199]", "tensors [200-299]", "tensors [300-399]",
                               "tensors [400-450]"]  # fmt: skip


def test_the_way_to_a_node_is_opened() -> None:
    graph = blocks(30)
    opened = open_to(graph, "net.blocks.13.t1")
    assert set(opened) == {"net.blocks", "net.blocks.[12-23]", "net.blocks.13"}
    assert "net.blocks.13.t1" in [box["title"] for box in draw(graph, opened)["boxes"]]


def test_the_way_is_added_to_what_is_open() -> None:
    opened = open_to(blocks(3), "net.blocks.0.t1", ["elsewhere"])
    assert opened == ["elsewhere", "net.blocks", "net.blocks.0"]


def test_there_is_no_way_to_an_unknown_node() -> None:
    assert open_to(blocks(3), "nobody") == []


def test_there_are_never_too_many_boxes() -> None:
    graph = blocks(100, 30)
    ranges = [f"net.blocks.[{start}-{min(start + 11, 99)}]" for start in range(0, 100, 12)]
    drawing = draw(graph, [*modules_of(graph), *ranges])
    assert len(drawing["boxes"]) <= 1500
    assert drawing["refused"]
    assert not set(drawing["refused"]) & set(drawing["opened"])


@pytest.mark.parametrize("length", [200, 399, 5000])
def test_deep_chains_are_drawn(length: int) -> None:
    graph = graph_of(chain(length))
    for opened in (None, [f"tensors [{start}-{start + 99}]" for start in range(0, 1400, 100)]):
        drawing = draw(graph, opened)
        assert len(drawing["links"]) == len(drawing["boxes"]) - 1


def test_deeply_nested_modules_are_drawn() -> None:
    depth = 120
    paths = [".".join(f"m{level}" for level in range(end)) for end in range(1, depth)]
    graph = graph_of("input -> " + " -> ".join(f"{path}.t -> {path}.u" for path in paths))
    assert len(draw(graph, paths)["boxes"]) == len(graph.vertices)
    assert open_to(graph, f"{paths[-1]}.t") == paths
