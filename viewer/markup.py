"""Pieces of page as plain lists, which ``assets/panel.js`` turns into elements; text stays text."""

from __future__ import annotations

from typing import Any

Markup = list[Any]
"""``[tag.class, attributes, child, ...]``; a child is a string or another list."""


def el(
    tag: str, *children: Markup | str | None, title: str = "", act: dict[str, Any] | None = None, copy: str = ""
) -> Markup:
    """An element.

    >>> el("b.name", "fc1", act={"node": "fc1"})
    ['b.name', {'act': {'node': 'fc1'}}, 'fc1']

    Args:
        tag: the tag's name, then class names, separated by dots.
        title: what the mouse pointer shows.
        act: what a click changes in the selection.
        copy: what a click copies.
    """
    attributes: dict[str, Any] = {}
    if title:
        attributes["title"] = title
    if act is not None:
        attributes["act"] = act
    if copy:
        attributes["copy"] = copy
    return [tag, attributes, *(child for child in children if child is not None)]


def table(head: list[Markup | str], rows: list[list[Markup | str]], *, style: str = "") -> Markup:
    """A small table; large ones are grids."""
    header = el("thead", el("tr", *(el("th", cell) for cell in head)))
    body = el("tbody", *(el("tr", *(cell if _is_cell(cell) else el("td", cell) for cell in row)) for row in rows))
    return el(f"table{'.' + style if style else ''}", header, body)


def _is_cell(cell: Markup | str) -> bool:
    return isinstance(cell, list) and str(cell[0]).partition(".")[0] == "td"


def spark(
    steps: list[int], values: list[float | None], mark: int | None = None, axis: tuple[float, float] | None = None
) -> Markup:
    """A small curve; None is a gap.

    Args:
        mark: a step at which a line is drawn.
        axis: the values at the lower and the upper edge; the curve's own unless given.
    """
    return ["spark", {"steps": steps, "values": values, "mark": mark, "axis": axis and list(axis)}]


def note(text: str) -> Markup:
    """A quiet sentence."""
    return el("p.note", text)
