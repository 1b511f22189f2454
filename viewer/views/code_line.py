"""A line of the user's code, and where it is."""

from __future__ import annotations

from stepscope.store.records import SourceLine
from stepscope.viewer.excerpt import excerpt
from stepscope.viewer.markup import Markup, el


def code_line(source: SourceLine | None) -> Markup | None:
    """The line with its place, which a click copies as an editor takes it: ``file:line``; and what stands around it."""
    if source is None:
        return None
    where = f"{source.file.rpartition('/')[2]}:{source.line}" + (f" in {source.function}" if source.function else "")
    full = f"{source.file}:{source.line}"
    code = excerpt(source)
    return el(
        "div.source",
        el("button.place", where, title=f"{full} (click to copy)", copy=full),
        el("pre.near", code.before) if code.before else None,
        el("code", code.here),
        el("pre.near", code.after) if code.after else None,
    )
