"""What holds for the picture of any graph."""

from __future__ import annotations

import json
import re
from typing import Any

import hypothesis.strategies as st
from hypothesis import given, settings

from stepscope.store.records import Graph
from stepscope.viewer.graph import draw
from support.graph_text import module_graphs, modules_of

Record = dict[str, Any]
Point = tuple[float, float]
ROUNDED = 0.11


@st.composite
def pictures(draw_: st.DrawFn) -> tuple[Graph, Record]:
    graph = draw_(module_graphs())
    paths = modules_of(graph)
    opened = draw_(st.none() | st.just(paths) | st.lists(st.sampled_from(paths or [""]), max_size=4))
    return graph, draw(graph, opened, parameters_as_boxes=draw_(st.booleans()))


def apart(one: Record, other: Record) -> bool:
    right, below = one["x"] + one["w"] <= other["x"] + ROUNDED, one["y"] + one["h"] <= other["y"] + ROUNDED
    left, above = other["x"] + other["w"] <= one["x"] + ROUNDED, other["y"] + other["h"] <= one["y"] + ROUNDED
    return right or left or below or above


def inside(inner: Record, outer: Record) -> bool:
    return (
        outer["x"] <= inner["x"] + ROUNDED
        and outer["y"] <= inner["y"] + ROUNDED
        and inner["x"] + inner["w"] <= outer["x"] + outer["w"] + ROUNDED
        and inner["y"] + inner["h"] <= outer["y"] + outer["h"] + ROUNDED
    )


@given(pictures())
def test_boxes_and_frames_do_not_overlap(picture: tuple[Graph, Record]) -> None:
    _, drawing = picture
    whole = {"x": 0.0, "y": 0.0, "w": drawing["width"], "h": drawing["height"]}
    for number, box in enumerate(drawing["boxes"]):
        assert inside(box, whole)
        assert all(apart(box, other) for other in drawing["boxes"][:number])
        assert all(apart(box, frame) or inside(box, frame) for frame in drawing["frames"])
    for number, frame in enumerate(drawing["frames"]):
        assert inside(frame, whole)
        assert all(apart(frame, o) or inside(frame, o) or inside(o, frame) for o in drawing["frames"][:number])


@given(pictures())
def test_rows_are_inside_their_boxes_and_do_not_overlap(picture: tuple[Graph, Record]) -> None:
    for box in picture[1]["boxes"]:
        edges = [0.0, *(edge for row in box["rows"] for edge in (row["y"], row["y"] + row["h"])), box["h"]]
        assert edges == sorted(edges)


@given(pictures())
def test_every_tensor_has_a_box_and_every_edge_between_boxes_a_link(picture: tuple[Graph, Record]) -> None:
    graph, drawing = picture
    shown = drawing["tensors"]
    assert [(v.node, v.role, v.lag) for v in graph.vertices] == [tuple(tensor[:3]) for tensor in shown]
    edges = {(shown[edge.source][3], shown[edge.sink][3]) for edge in graph.edges}
    assert {(source, sink) for source, sink, _ in drawing["links"]} == {edge for edge in edges if edge[0] != edge[1]}
    for node, role, lag, number, row in shown:
        box = drawing["boxes"][number]
        if row >= 0:
            assert [box["rows"][row][name] for name in ("node", "role", "lag")] == [node, role, lag]
        elif box["module"] is None:
            assert [box[name] for name in ("node", "role", "lag")] == [node, role, lag]
    assert sum(box["tensors"] for box in drawing["boxes"]) == len(graph.vertices)


@given(pictures())
def test_identities_are_unique(picture: tuple[Graph, Record]) -> None:
    drawing = picture[1]
    identities = [one["id"] for box in drawing["boxes"] for one in (box, *box["rows"])]
    identities += [frame["id"] for frame in drawing["frames"]]
    assert len(set(identities)) == len(identities)


def points(path: str) -> list[Point]:
    """Points along a path, close together."""
    found: list[Point] = []
    for letter, text in re.findall(r"([MHC])([^MHC]*)", path):
        numbers = [float(number) for number in text.split()]
        if letter == "M":
            found.append((numbers[0], numbers[1]))
            continue
        x, y = found[-1]
        ends = [x, y, *numbers] if letter == "C" else [x, y, x, y, numbers[0], y, numbers[0], y]
        found += [_on_curve(ends, step / 40) for step in range(1, 41)]
    return found


def _on_curve(ends: list[float], t: float) -> Point:
    weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
    x, y = (sum(w * at for w, at in zip(weights, ends[axis::2], strict=True)) for axis in (0, 1))
    return x, y


def near(one: Point, other: Point) -> bool:
    return abs(one[0] - other[0]) <= ROUNDED and abs(one[1] - other[1]) <= ROUNDED


def reaches(pieces: list[list[Point]], source: Record, sink: Record) -> bool:
    """Whether the pieces lead from the right side of a box to the left side of another."""
    right = source["x"] + source["w"]
    reached = [piece for piece in pieces if abs(piece[0][0] - right) <= ROUNDED and _beside(piece[0], source)]
    for piece in reached:  # grows while it is read
        reached += [other for other in pieces if other not in reached and near(piece[-1], other[0])]
    return any(abs(piece[-1][0] - sink["x"]) <= ROUNDED and _beside(piece[-1], sink) for piece in reached)


def _beside(point: Point, box: Record) -> bool:
    return bool(box["y"] <= point[1] <= box["y"] + box["h"])


@given(pictures())
def test_lines_lead_from_the_right_of_sources_to_the_left_of_sinks(picture: tuple[Graph, Record]) -> None:
    drawing = picture[1]
    pieces = [(segment, points(segment["path"])) for segment in drawing["segments"]]
    for source, sink, _ in drawing["links"]:
        mine = [found for segment, found in pieces if segment["source"] == source and sink in segment["sinks"]]
        assert reaches(mine, drawing["boxes"][source], drawing["boxes"][sink])


@given(pictures())
def test_lines_run_around_boxes(picture: tuple[Graph, Record]) -> None:
    drawing = picture[1]
    for segment in drawing["segments"]:
        for x, y in points(segment["path"]):
            for box in drawing["boxes"]:
                across = (
                    box["x"] + 0.2 < x < box["x"] + box["w"] - 0.2 and box["y"] + 0.2 < y < box["y"] + box["h"] - 0.2
                )
                assert not across, (segment["path"], box["id"])


@given(pictures())
def test_lines_are_blocked_where_all_that_they_serve_is(picture: tuple[Graph, Record]) -> None:
    drawing = picture[1]
    blocked = {(source, sink): bool(closed) for source, sink, closed in drawing["links"]}
    for segment in drawing["segments"]:
        assert segment["blocked"] == all(blocked[segment["source"], sink] for sink in segment["sinks"])


@settings(max_examples=30)
@given(pictures())
def test_pictures_are_plain_json(picture: tuple[Graph, Record]) -> None:
    assert json.loads(json.dumps(picture[1], allow_nan=False)) == picture[1]
