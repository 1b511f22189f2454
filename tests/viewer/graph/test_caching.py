"""Equal questions have equal answers, and are answered once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from stepscope.viewer.graph import draw
from support.graph_text import graph_of

TEXT = "input -> net.a -> net.b -> loss; input -> net.c -> loss; net.a -> net.c; other.x -> loss; net.b -> other.y"
TESTS = Path(__file__).parents[2]


def test_equal_pictures_have_equal_hashes() -> None:
    graph = graph_of(TEXT)
    asked, found = draw(graph, ["net", "other"]), draw(graph, None, width=5000, height=2000)
    assert asked["hash"] == found["hash"]
    assert draw(graph, [])["hash"] != asked["hash"]


def test_a_picture_is_made_once() -> None:
    assert draw(graph_of(TEXT), ["net"]) is draw(graph_of(TEXT), ["net", "net"])


def test_a_digest_stands_for_the_graph() -> None:
    graph = graph_of(TEXT)
    assert draw(graph, ["net"], digest=b"one") is draw(graph, ["net"], digest=b"one")
    assert draw(graph, ["net"], digest="two")["hash"] == draw(graph, ["net"])["hash"]


def test_pictures_do_not_depend_on_the_process() -> None:
    program = (
        f"import sys, json; sys.path.insert(0, {str(TESTS)!r})\n"
        "from support.graph_text import graph_of; from stepscope.viewer.graph import draw\n"
        f"print(json.dumps(draw(graph_of({TEXT!r}))))"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert json.loads(found[0]) == json.loads(found[1]) == draw(graph_of(TEXT))
