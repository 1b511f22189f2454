"""The inspector: who the selected tensor is, where it was made, its numbers, its neighbours."""

from __future__ import annotations

from stepscope.analysis.compare import Difference, sample_values
from stepscope.analysis.overview import continued
from stepscope.store import DamagedError, Node, Tensor
from stepscope.store.records import BATCH_AGGREGATES, SAMPLE_STATISTICS, STATISTICS, Graph, Vertex
from stepscope.viewer.markup import Markup, el, note, table
from stepscope.viewer.numbers import count, short
from stepscope.viewer.resolve import quantity_label, role_label
from stepscope.viewer.selection import ALL
from stepscope.viewer.views.code_line import code_line
from stepscope.viewer.views.moment import Moment
from stepscope.viewer.views.names import name_of

_EXPLAINED = {
    "mean": "the mean",
    "std": "the standard deviation (of the population)",
    "abs_mean": "the mean of the magnitudes",
    "abs_max": "the largest magnitude",
    "min": "the smallest element",
    "max": "the largest element",
    "norm": "the Euclidean norm",
    "zero_fraction": "the share of elements that are exactly zero",
    "nan_count": "how many elements are NaN",
    "inf_count": "how many elements are infinite",
    "spectral_norm": "the largest singular value, flattened to (first dimension, the rest)",
    "ratio": "the norm of the update over the norm of the value",
}
_NEIGHBOURS = 8


def nothing_selected(now: Moment | None) -> Markup:
    """What stands there before anything is selected."""
    if now is None:
        return el("div")
    losses = [vertex for vertex in now.step.graph(now.iteration).vertices if vertex.type == "loss"]
    links = [el("button.link.tensor", loss.node, act={"node": loss.node, "role": loss.role}) for loss in losses[:3]]
    return el(
        "div.hint",
        el("h3", "Nothing selected"),
        el("p", "Click a box of the graph or a row of the table, press an arrow key, or find a tensor by name (/)."),
        el("p", "Begin at ", *links, ".") if links else None,
    )


def not_recorded(now: Moment, nearby: tuple[int, ...]) -> Markup:
    """The selected node is not in this step: where it is."""
    name = now.selection.node
    links = [el("button.link", f"step {number}", act={"step": number}) for number in nearby]
    return el(
        "div.hint",
        el("div.name", name),
        el("p", f"was not recorded at step {now.step.number}, iteration {now.iteration}."),
        el("p", "It was at ", *links, ".") if links else note("It is in no other step of this trial."),
    )


def unreadable(error: Exception) -> Markup:
    """A step, or a part of it, that is damaged."""
    return el(
        "div.hint", el("h3", "This cannot be read"), el("p", str(error)), el("p", "Other steps are not affected.")
    )


def inspector(now: Moment, tensor: Tensor) -> Markup:
    """Everything about the selected tensor but its charts and neurons."""
    node = next((node for node in now.trial.nodes if node.name == tensor.info.node), None)
    graph = now.step.graph(now.iteration)
    index = _vertex(graph, now)
    made = graph.vertices[index] if index is not None else node
    return el(
        "div.inspector",
        _heading(now, tensor),
        _identity(now, tensor, made),
        code_line(made.source if made is not None else None),
        _numbers(now, tensor),
        _left_out(tensor),
        _neighbours(now, graph, index),
    )


def _left_out(tensor: Tensor) -> Markup | None:
    try:
        return note(tensor.left_out) if tensor.left_out else None
    except DamagedError:  # the table of neurons says so
        return None


def _vertex(graph: Graph, now: Moment) -> int | None:
    wish = now.selection
    wanted = (wish.node, wish.role, wish.lag)
    return next((i for i, v in enumerate(graph.vertices) if (v.node, v.role, v.lag) == wanted), None)


def _heading(now: Moment, tensor: Tensor) -> Markup:
    counts = tensor.statistics
    marks = [
        el("span.mark.trouble", f"{count(int(counts[name]))} {label}")
        for name, label in (("nan_count", "NaN"), ("inf_count", "infinite"))
        if counts[name] > 0
    ]
    if now.selection.quantity == "value" and counts["zero_fraction"] == 1.0:
        marks.append(el("span.mark.trouble", "all zero"))
    info = tensor.info
    return el(
        "div.heading",
        el("div.marks", el(f"span.mark.type-{info.type}", info.type), *marks),
        el("div.name", info.node, title=info.node),
    )


def _identity(now: Moment, tensor: Tensor, made: Vertex | Node | None) -> Markup:
    info, wish = tensor.info, now.selection
    batch = "no batch dimension" if info.batch_dim is None else f"batch dimension {info.batch_dim}"
    shape = f"[{', '.join(map(str, tensor.shape))}], {batch}" if tensor.shape else "a single number"
    kind = f" ({now.step.kind})" if now.step.kind else ""
    last = len(now.step.iterations) - 1
    iteration = f"iteration {now.iteration} of 0–{last}" if info.iteration >= 0 else "the whole step"
    facts: list[tuple[str, str]] = [
        ("trial", wish.trial),
        ("step", f"{now.step.number}{kind}, {iteration}"),
        ("role", f"{role_label(info.role, wish.lag)}, {quantity_label(wish.quantity)}"),
        ("shape", shape),
        ("dtype", f"{info.dtype} on {info.device}"),
    ]
    if made is not None and made.module:
        facts.append(("module", f"{made.module} ({made.module_class})" if made.module_class else made.module))
        if settings := next((module.settings for module in now.trial.network if module.path == made.module), ""):
            facts.append(("settings", settings))
    if made is not None and made.operation:
        facts.append(("made by", made.operation))
    return el("dl.facts", *(el("div", el("dt", name), el("dd", text, title=text)) for name, text in facts))


def _numbers(now: Moment, tensor: Tensor) -> Markup:
    mine = numbers_of(tensor, now.selection.sample)
    if now.other is None:
        pairs = [el("div.pair", _name(now, name), _number(name, value, tag="span")) for name, value in mine.items()]
        return el("div.numbers", el("div.label", _sample_title(now.selection.sample)), el("div.pairs", *pairs))
    return _side_by_side(now, tensor, mine)


def _side_by_side(now: Moment, tensor: Tensor, mine: dict[str, float]) -> Markup:
    other = now.counterpart_of(tensor)
    theirs = numbers_of(other, now.selection.sample) if other is not None else {}
    head: list[Markup | str] = [
        _sample_title(now.selection.sample),
        now.selection.trial,
        now.selection.compare,
        "ratio",
    ]
    rows = []
    for name, value in mine.items():
        row: list[Markup | str] = [el("td", _name(now, name)), _number(name, value)]
        row += [_number(name, theirs[name]), _ratio(value, theirs[name])] if name in theirs else ["–", "–"]
        rows.append(row)
    counterpart = None
    if now.there is not None and now.there.number != now.step.number:
        counterpart = note(f"{now.selection.compare}: its nearest step, {now.there.number}.")
    return el("div.numbers", table(head, rows, style="stats"), counterpart)


def _name(now: Moment, statistic: str) -> Markup:
    chosen = ".chosen" if statistic == now.selection.statistic else ""
    title = f"{_EXPLAINED[statistic]}; click to see it over steps"
    return el(f"button.link.stat{chosen}", statistic, title=title, act={"statistic": statistic})


def numbers_of(tensor: Tensor, sample: str) -> dict[str, float]:
    """The statistics to show: over all elements, over the batch, or of one sample."""
    if sample != ALL:
        if sample in BATCH_AGGREGATES or int(sample.partition(":")[2]) < len(tensor.step.samples):
            return sample_values(tensor.step, tensor.row.index, sample)
        return dict.fromkeys(SAMPLE_STATISTICS, float("nan"))
    found = {name: tensor.statistics[name] for name in STATISTICS}
    if tensor.info.quantity != "value" or tensor.info.type != "parameter" or len(tensor.shape) < 2:
        del found["spectral_norm"]
    if tensor.info.quantity == "update":
        row = tensor.step.layout.row(tensor.info.node, "value", tensor.info.role, tensor.info.iteration)
        if row is not None:
            norm = float(tensor.step.statistics()[row, STATISTICS.index("norm")])
            found["ratio"] = found["norm"] / norm if norm else float("nan")
    return found


def _sample_title(sample: str) -> Markup:
    if sample == ALL:
        return el("span", "over all elements", title="NaN and infinities are left out, and counted")
    if sample in BATCH_AGGREGATES:
        text = sample.replace("batch_", "").replace("_", "-")
        title = f"first the statistic of each sample over its neurons, then the {text} of these over the batch"
        return el("span", f"{text} over the batch", title=title)
    return el("span", sample.replace(":", " "))


def _number(name: str, value: float, tag: str = "td") -> Markup:
    bad = name in ("nan_count", "inf_count") and value > 0
    text = count(int(value)) if name in ("nan_count", "inf_count") and value == value else short(value)
    return el(f"{tag}.num.trouble" if bad else f"{tag}.num", text, title=repr(float(value)))


def _ratio(mine: float, theirs: float) -> Markup:
    difference = Difference(mine, theirs)
    title = f"difference {difference.absolute!r}, relative {difference.relative!r}"
    text = "=" if mine == theirs else f"×{short(mine / theirs)}" if theirs else "–"
    return el("td.num", text, title=title)


def _neighbours(now: Moment, graph: Graph, index: int | None) -> Markup | None:
    if index is None:
        return None
    vertex = graph.vertices[index]
    sources = [(graph.vertices[edge.source], edge.differentiable) for edge in graph.edges if edge.sink == index]
    sinks = [(graph.vertices[edge.sink], edge.differentiable) for edge in graph.edges if edge.source == index]
    given = vertex.lag > 0 or vertex.type in ("parameter", "buffer", "input", "target")
    end = vertex.type == "loss" or (vertex.node, vertex.role) in continued(now.step)
    return el(
        "div.neighbours",
        _carried_from(now, vertex),
        _list("computed from", sources, "" if given else "nothing that was recorded"),
        _list("used by", sinks, "" if end else "nothing that was recorded"),
    )


def _carried_from(now: Moment, vertex: Vertex) -> Markup | None:
    if not vertex.lag:
        return None
    before = now.iteration - vertex.lag
    act = {"iteration": before, "node": vertex.node, "role": vertex.role, "lag": 0}
    return el("div", el("span.label", "carried over from"), el("button.link", f"iteration {before}", act=act))


def _list(title: str, neighbours: list[tuple[Vertex, bool]], empty: str) -> Markup | None:
    if not neighbours and not empty:
        return None
    items = [
        el(
            "button.link.tensor",
            el("bdi", name_of(vertex.node, vertex.role)),
            title=vertex.node + ("" if differentiable or vertex.type == "input" else " (no gradient passes here)"),
            act={"node": vertex.node, "role": vertex.role, "lag": vertex.lag},
        )
        for vertex, differentiable in neighbours[:_NEIGHBOURS]
    ]
    more = len(neighbours) - _NEIGHBOURS
    rest = note(f"and {more} more") if more > 0 else None
    return el("div", el("span.label", title), *(items or [el("span.mark.warn", empty)]), rest)
