"""From a layout to the dictionary that the browser draws; ``stepscope.viewer.graph`` describes its shape."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from typing import Any

from stepscope.viewer.graph.atoms import WEIGHTS
from stepscope.viewer.graph.layout import Layout
from stepscope.viewer.graph.lines import path_data
from stepscope.viewer.graph.loose import loose_sides
from stepscope.viewer.graph.outline import Outline
from stepscope.viewer.graph.sizes import HEADER, ROW, ROW_GAP, SECOND_LINE, shortened
from stepscope.viewer.graph.texts import BoxTexts, count_tensors, module_label

Record = dict[str, Any]


def describe(outline: Outline, layout: Layout, continued: Collection[tuple[str, str]]) -> Record:
    """The drawing of a layout."""
    corners = _corners(layout)
    drawing: Record = {
        "width": round(layout.width, 1),
        "height": round(layout.height, 1),
        "opened": list(layout.scene.opened),
        "refused": list(layout.scene.refused),
        "boxes": _boxes(outline, layout, corners, continued),
        "frames": _frames(outline, layout, corners),
        "segments": _segments(layout, corners),
        "links": [[source, sink, int(blocked)] for (source, sink), blocked in layout.scene.edges.items()],
        "tensors": _tensors(outline, layout),
    }
    content = json.dumps(drawing, separators=(",", ":")).encode()
    return {"hash": hashlib.blake2b(content, digest_size=16).hexdigest(), **drawing}


def _corners(layout: Layout) -> dict[int, tuple[float, float]]:
    """Where the top left corner of each frame is, in the whole picture."""
    corners = {0: (0.0, 0.0)}
    for number in range(len(layout.frames)):
        x, y = corners[number]
        for placed in layout.plans[number].frames:
            corners[placed.number] = (x + placed.x, y + placed.y)
    return corners


def _boxes(
    outline: Outline,
    layout: Layout,
    corners: dict[int, tuple[float, float]],
    continued: Collection[tuple[str, str]],
) -> list[Record]:
    main = set(layout.main)
    boxes: list[Record] = [{} for _ in layout.scene.boxes]
    for number, (x, y) in corners.items():
        for placed in layout.plans[number].boxes:
            place = {"x": x + placed.x, "y": y + placed.y, "w": placed.width, "h": placed.height}
            boxes[placed.number] = {
                **_about(outline, layout, placed.number),
                **{name: round(value, 1) for name, value in place.items()},
                "loose": loose_sides(outline, layout.scene, placed.number, continued),
                "main": placed.number in main,
            }
    return boxes


def _about(outline: Outline, layout: Layout, number: int) -> Record:
    """What a box is and says."""
    box = layout.scene.boxes[number]
    texts = layout.measured[number].texts
    tensors, parameters = count_tensors(outline, box.atoms)
    record: Record = {"label": texts.label, "sub": texts.sub, "title": texts.title}
    record |= {"tensors": tensors, "parameters": parameters, "rows": _rows(outline, texts)}
    if box.module is not None:
        return {"id": f"m:{box.module.path}", "type": "module", "module": box.module.path, **_NOTHING, **record}
    atom = outline.atoms[box.atoms[0]]
    return {"id": atom.id, "type": atom.type, "module": None, **_selects(outline, atom.members[-1]), **record}


_NOTHING: Record = {"node": None, "role": None, "lag": 0}


def _selects(outline: Outline, vertex: int) -> Record:
    tensor = outline.graph.vertices[vertex]
    return {"node": tensor.node, "role": tensor.role, "lag": tensor.lag}


def _rows(outline: Outline, texts: BoxTexts) -> list[Record]:
    top = HEADER + (SECOND_LINE if texts.sub else 0.0)
    rows = []
    for place, row in enumerate(texts.rows):
        tensor = outline.graph.vertices[row.vertex]
        plain = tensor.role in WEIGHTS and not tensor.lag
        identity = tensor.node if plain else f"{tensor.node}\n{tensor.role}\n{tensor.lag}"
        title = tensor.node if plain else f"{tensor.node} ({tensor.role})"
        rows.append(
            {"id": f"r:{identity}", "label": row.label, "type": tensor.type, "title": title}
            | {**_selects(outline, row.vertex), "y": top + place * ROW, "h": ROW - ROW_GAP}
        )
    return rows


def _frames(outline: Outline, layout: Layout, corners: dict[int, tuple[float, float]]) -> list[Record]:
    records = []
    for number, (x, y) in sorted(corners.items()):
        if not number:
            continue
        wired, plan = layout.frames[number], layout.plans[number]
        module = wired.frame.module
        tensors, parameters = count_tensors(outline, module.contents)
        place = {"x": x, "y": y, "w": plan.width, "h": plan.height}
        records.append(
            {
                "id": f"f:{module.path}",
                "module": module.path,
                "label": shortened(module_label(module)),
                "title": module.path,
            }
            | {"depth": wired.depth - 1, **{name: round(value, 1) for name, value in place.items()}}
            | {"tensors": tensors, "parameters": parameters}
        )
    return records


def _segments(layout: Layout, corners: dict[int, tuple[float, float]]) -> list[Record]:
    edges = layout.scene.edges
    return [
        {
            "source": line.source,
            "sinks": sorted(line.sinks),
            "path": path_data(line, x, y),
            "blocked": all(edges[line.source, sink] for sink in line.sinks),
            "back": line.back,
            "arrow": line.arrow,
        }
        for number, (x, y) in sorted(corners.items())
        for line in layout.plans[number].lines
    ]


def _tensors(outline: Outline, layout: Layout) -> list[list[Any]]:
    row_of = {row.vertex: place for measured in layout.measured for place, row in enumerate(measured.texts.rows)}
    box_of = layout.scene.box_of
    return [
        [vertex.node, vertex.role, vertex.lag, box_of[outline.atom_of[number]], row_of.get(number, -1)]
        for number, vertex in enumerate(outline.graph.vertices)
    ]
