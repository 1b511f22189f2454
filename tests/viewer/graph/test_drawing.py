"""Small graphs, and what their pictures show, drawn by hand."""

from __future__ import annotations

from typing import Any

from stepscope.store.records import Graph, Vertex
from stepscope.viewer.graph import draw, tensor_key
from support.graph_text import graph_of, modules_of

PERCEPTRON = """
input -> net.first -> net.last -> loss
net.first.weight -> net.first
net.first.bias -> net.first
net.last.weight -> net.last
target ..> loss
"""


def everything(text: str, **options: Any) -> dict[str, Any]:
    graph = graph_of(text)
    return draw(graph, modules_of(graph), **options)


def titles(drawing: dict[str, Any]) -> list[str]:
    return [box["title"] for box in drawing["boxes"]]


def box(drawing: dict[str, Any], title: str) -> dict[str, Any]:
    (found,) = [box for box in drawing["boxes"] if box["title"] == title]
    return found


def links(drawing: dict[str, Any]) -> set[tuple[str, str]]:
    names = titles(drawing)
    return {(names[source], names[sink]) for source, sink, _ in drawing["links"]}


def test_parameters_are_rows_of_what_they_feed() -> None:
    drawing = everything(PERCEPTRON)
    assert set(titles(drawing)) == {"input", "net.first", "net.last", "target", "loss"}
    first = box(drawing, "net.first")
    assert [(row["label"], row["node"]) for row in first["rows"]] == [
        ("weight", "net.first.weight"),
        ("bias", "net.first.bias"),
    ]
    assert (first["tensors"], first["parameters"]) == (3, 2)


def test_parameters_can_be_boxes_of_their_own() -> None:
    drawing = everything(PERCEPTRON, parameters_as_boxes=True)
    assert {"net.first.weight", "net.first.bias", "net.last.weight"} <= set(titles(drawing))
    assert ("net.first.weight", "net.first") in links(drawing)


def test_a_parameter_with_two_consumers_is_a_box() -> None:
    drawing = draw(graph_of("input -> net.a -> net.b; net.tied.weight -> net.a; net.tied.weight -> net.b"), ["net"])
    assert box(drawing, "net.tied.weight")["type"] == "parameter"


def test_closed_modules_are_boxes_with_their_counts() -> None:
    drawing = draw(graph_of(PERCEPTRON), [])
    net = box(drawing, "net")
    assert (net["type"], net["module"], net["node"], net["id"]) == ("module", "net", None, "m:net")
    assert (net["tensors"], net["parameters"]) == (5, 3)
    assert net["sub"] == "5 tensors, 3 param."
    assert links(drawing) == {("input", "net"), ("net", "loss"), ("target", "loss")}


def test_open_modules_are_frames_around_their_boxes() -> None:
    drawing = draw(graph_of(PERCEPTRON), ["net"])
    (frame,) = drawing["frames"]
    assert (frame["module"], frame["depth"], frame["tensors"], frame["parameters"]) == ("net", 0, 5, 3)
    assert drawing["opened"] == ["net"]
    inside = {b["title"] for b in drawing["boxes"] if frame["x"] < b["x"] < frame["x"] + frame["w"]}
    assert {"net.first", "net.last"} <= inside


def test_the_main_line_is_straight_and_leads_from_left_to_right() -> None:
    drawing = everything("input -> net.a -> net.b -> net.c -> loss; input -> net.c; net.a -> loss; target -> loss")
    line = [b for b in drawing["boxes"] if b["main"]]
    assert [b["title"] for b in line] == ["input", "net.a", "net.b", "net.c", "loss"]
    assert len({round(b["y"] + b["h"] / 2, 1) for b in line}) == 1
    assert [b["x"] for b in line] == sorted(b["x"] for b in line)
    straight = [s for s in drawing["segments"] if "C" not in s["path"]]
    assert {s["source"] for s in straight} >= {titles(drawing).index(b["title"]) for b in line[:-1]}


def test_targets_stand_right_before_what_they_feed() -> None:
    drawing = everything("input -> a -> b -> c -> loss; target -> loss")
    assert box(drawing, "b")["x"] < box(drawing, "target")["x"] < box(drawing, "loss")["x"]


def test_unexpectedly_unconnected_sides_are_loose() -> None:
    drawing = everything("input -> a -> loss; lonely; a -> unused; memory@1 -> a; net.x.weight -> net.x; net.x -> loss")
    loose = {b["title"]: (b["loose"]["left"], b["loose"]["right"]) for b in drawing["boxes"]}
    assert loose == {
        "input": (False, False),
        "a": (False, False),
        "loss": (False, False),
        "lonely": (True, True),
        "unused": (False, True),
        "memory (from previous iteration)": (False, False),
        "net.x": (False, False),
    }


def test_what_later_iterations_use_is_not_loose() -> None:
    graph = graph_of("input -> memory")
    assert box(draw(graph), "memory")["loose"]["right"]
    assert not box(draw(graph, continued=[("memory", "output")]), "memory")["loose"]["right"]


def test_edges_without_gradients_are_blocked_if_there_could_be_one() -> None:
    drawing = everything("input ..> a; a ..> b; a -> c; b -> loss; c -> loss; target ..> loss")
    names = titles(drawing)
    blocked = {(names[source], names[sink]) for source, sink, closed in drawing["links"] if closed}
    assert blocked == {("a", "b")}
    (segment,) = [s for s in drawing["segments"] if s["blocked"]]
    assert (names[segment["source"]], [names[sink] for sink in segment["sinks"]]) == ("a", ["b"])


def test_lines_of_a_source_are_bundled() -> None:
    drawing = everything("input -> mask; mask -> c; input -> a -> b -> c -> d; mask -> d")
    mask = titles(drawing).index("mask")
    serving = [s["sinks"] for s in drawing["segments"] if s["source"] == mask]
    assert [titles(drawing).index(name) for name in ("c", "d")] in [sorted(sinks) for sinks in serving]


def test_roles_of_a_node_share_a_box() -> None:
    drawing = everything("input -> pair:first; input -> pair:second; pair:first -> loss; pair:second -> loss")
    pair = box(drawing, "pair")
    assert [(row["label"], row["node"], row["role"]) for row in pair["rows"]] == [
        ("first", "pair", "first"),
        ("second", "pair", "second"),
    ]
    assert [tensor[3:] for tensor in drawing["tensors"] if tensor[0] == "pair"] == [
        [titles(drawing).index("pair"), 0],
        [titles(drawing).index("pair"), 1],
    ]


def test_a_node_whose_roles_depend_on_each_other_has_a_box_for_each() -> None:
    drawing = everything("memory:old -> a -> memory:new -> loss")
    assert {"memory (old)", "memory (new)"} <= set(titles(drawing))
    assert ("a", "memory (new)") in links(drawing)


def test_what_was_carried_over_stands_apart() -> None:
    drawing = everything("memory@1 -> cell -> memory; input -> cell")
    carried = box(drawing, "memory (from previous iteration)")
    assert (carried["node"], carried["lag"], carried["sub"]) == ("memory", 1, "from previous iteration")
    assert carried["x"] < box(drawing, "cell")["x"] < box(drawing, "memory")["x"]


def test_a_module_used_twice_has_lines_that_run_back() -> None:
    drawing = draw(graph_of("input -> net.a; net.a -> other.b; other.b -> net.c; net.c -> loss"), ["net"])
    names = titles(drawing)
    back = {names[s["source"]] for s in drawing["segments"] if s["back"]}
    assert back == {"other.b"} or back == {"net.a"}
    assert ("other.b", "net.c") in links(drawing)


def test_long_names_are_cut_in_the_middle() -> None:
    name = "the_first_of_many_words_and_" + "x" * 60 + "_end"
    (only,) = draw(graph_of(name))["boxes"]
    assert only["title"] == name
    assert only["label"].startswith("the_f") and only["label"].endswith("_end") and "…" in only["label"]


def test_second_lines_tell_the_class_or_the_operation() -> None:
    vertices = (
        Vertex("net.fc", "output", 0, "calculated", "net.fc", "Linear", "linear", None),
        Vertex("net.sum", "tensor", 0, "calculated", "net", "Net", "add", None),
    )
    drawing = draw(Graph(vertices, ()), ["net"])
    assert {b["label"]: b["sub"] for b in drawing["boxes"]} == {"fc": "Linear", "sum": "add"}


def test_graphs_without_anything_have_empty_pictures() -> None:
    drawing = draw(Graph((), ()))
    assert (drawing["boxes"], drawing["segments"], drawing["tensors"]) == ([], [], [])
    assert drawing["width"] > 0 and drawing["height"] > 0


def test_keys_of_tensors() -> None:
    assert tensor_key("memory", "new", 1) == "memory\nnew\n1"
