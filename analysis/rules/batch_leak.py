"""The rule ``batch-leak``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from stepscope.analysis.curves import fallen
from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place, Site
from stepscope.analysis.lines import sites_of
from stepscope.analysis.loss_inputs import Comparison, Shape, comparisons
from stepscope.analysis.next_token import predicted_inputs
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_TIME_FIRST = ("multi_head_attention_forward",)
"""What reads the first dimension as time, where the output is not turned back."""
_RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
_SCRAMBLED = (
    "A {operation} between {before} and {after} tears samples apart: it puts a dimension behind another one without "
    "moving a number, as only a transposition may."
)
_MIXED = (
    "A {operation} between {before} and {after} mixes the samples of the batch: it puts the first dimension behind "
    "others without moving a number, as only a transposition may."
)


@dataclass(frozen=True)
class BatchLeak(Rule):
    """A dimension that is taken for another one: samples end up in each other, or moments of a sample in its features.

    Symptom: training works somehow, but worse than it should; results depend on what else is in the batch; a net with
    a causal mask sees the future.

    How it is measured: on the way to a loss, a ``view`` or ``reshape`` turns ``(batch, a, ...)`` into ``(a, batch,
    ...)``, or does so to another dimension: neither moves a number. What joins or splits dimensions in place is right,
    and so are the shifts of relative positions, which pad first. Or: a recurrent layer, or an attention, reads the
    first dimension as time, while that is what the loss counts its samples by; or the second one, where a CTC loss,
    whose scores are ``(time, batch, classes)``, has the samples. Or: the first rows of a table of places are added
    along the batch, one for each sample. A recurrent layer that starts from the state of another step is worth knowing:
    other sequences may get in by it. Other leaks over the batch show only in ``probe(model, batch)``, which asks the
    model itself.

    Causes: ``view`` or ``reshape`` instead of ``transpose`` or ``permute``; a layer without ``batch_first=True``.

    Remedy: ``x.transpose(0, 1)``, or ``batch_first=True``.

    Source: shapes alone decide. Karpathy, A Recipe for Training Neural Networks (2019), names the
    mistake, and a gradient through one sample as the test.

    Attributes:
        fall: where nothing tells samples from moments, it is worth knowing if the loss has not lost this part.
    """

    name = "batch-leak"
    causes = "view() or reshape() where transpose() or permute() is meant, or a layer without batch_first=True."
    remedy = "Use transpose() or permute(), or batch_first=True; then check with probe(model, batch)."
    fall: float = 0.2

    def check(self, view: View) -> Iterable[Finding]:
        if not view.training:
            return
        torn = [site for kind in ("mix", "scramble") for site in sites_of(view, kind)]
        towards_loss = view.flow.upstream(view.losses) if torn else set()
        for line in dict.fromkeys(site.source for site in torn):
            sites = [site for site in torn if site.source == line]
            before = [p for p in _ordered(view, (p for site in sites for p in site.before)) if _is_data(view, p)]
            after = [p for p in _ordered(view, (p for site in sites for p in site.after)) if p in towards_loss]
            is_of_data = not any(site.before for site in sites)  # reshaped before it became an input
            if after and (before or (is_of_data and view.flow.vertices[after[0]].type == "input")):
                yield self._torn(view, sites[0], before or after, after)
        yield from self._placed(view)
        for place in _time_first(view):
            yield from self._over_samples(view, place)
        for place, scores in _across_second(view):
            yield self._over_second(view, place, scores)
        yield from self._carried(view)

    def _over_second(self, view: View, place: Place, scores: Comparison) -> Finding:
        shape = view.shape(place, view.training[-1])
        summary = (
            f"{place.node} {shape} has batch_first=True and reads its second dimension as time, but that is where "
            f"ctc_loss has its samples ({scores.prediction.node} {scores.shape}): samples influence each other."
        )
        return self.finding(
            view, place.node, "warning", summary, step=view.began, nodes=[scores.prediction.node],
            confidence=0.85, causes="batch_first=True for what comes moments first, as ctc_loss wants it.",
            remedy="Leave batch_first=True out, or transpose only behind the layer; check with probe(model, batch).",
        )  # fmt: skip

    def _carried(self, view: View) -> Iterable[Finding]:
        """Recurrent layers that start where an earlier step ended: right only if its sequences go on."""
        for site in sites_of(view, "carried state"):
            nodes = list(dict.fromkeys(place.node for place in (*_ordered(view, site.after), *site.before)))
            summary = (
                f"{nodes[0]} starts from a hidden state that is carried over from an earlier step (kept from the step "
                f"before, not reset): right only if each sequence of a batch continues that of the batch before."
            )
            yield self.finding(
                view, nodes[0], "info", summary, step=view.began, nodes=nodes[1:], confidence=0.6,
                source=site.source, causes="The state is kept as truncated backpropagation does, on shuffled data.",
                remedy="Start each batch from a state of zeros, or give it batches that continue each other.",
            )  # fmt: skip

    def _placed(self, view: View) -> Iterable[Finding]:
        """Encodings of places that tell samples apart, since the batch lies where they expect the time."""
        for site in sites_of(view, "along first"):
            size = int(site.operation.partition("(")[2].rstrip(")"))
            known = [(place, view.shape(place, view.training[-1])) for place in _ordered(view, site.before)]
            data = [place for place, shape in known if shape and _lies_first(view, place, shape, size)]
            if data:
                summary = (
                    f"Positional encodings are added to {data[-1].node} along the batch: the first {size} rows of a "
                    f"table, one for each sample and the same at all its moments. They tell samples apart, not moments."
                )
                nodes = [*_ordered(view, site.before), *_ordered(view, site.after)]
                yield self.finding(
                    view, data[-1].node, "warning", summary, step=view.began, confidence=0.9,
                    nodes=[name for name in dict.fromkeys(p.node for p in nodes) if name != data[-1].node],
                    source=site.source, causes="An encoding written for time first, given the batch first.",
                    remedy="Take the first x.shape[1] places and add them along dimension 1: table[None, :x.shape[1]].",
                )  # fmt: skip

    def _torn(self, view: View, site: Site, before: list[Place], after: list[Place]) -> Finding:
        text = _MIXED if site.kind == "mix" else _SCRAMBLED
        summary = text.format(operation=site.operation, before=before[0].node, after=after[0].node)
        nodes = list(dict.fromkeys(place.node for place in (*before, *after[1:])))
        shown = [evidence(view.history(after[0].node, role=after[0].role), "mean", "made of pieces")]
        return self.finding(
            view, after[0].node, "warning", summary, shown, step=view.began, nodes=nodes,
            confidence=0.9, source=site.source,
        )  # fmt: skip

    def _over_samples(self, view: View, place: Place) -> Iterable[Finding]:
        """Whether the first dimension of what a layer gives is that of the samples, and the second one is not."""
        shape = view.shape(place, view.training[-1])
        if shape is None or len(shape) != 3 or shape[0] == shape[1]:
            return
        behind = view.flow.downstream([place])
        compared = [c for c in comparisons(view) if c.prediction in behind and c.target is not None and c.shape]
        if any(_is_along_second(view, tokens, shape) for tokens in predicted_inputs(view)):
            yield self._of_tokens(view, place, shape)
        elif self._may_be_batch_first(view, place, shape, [c.shape for c in compared]):
            yield self._of_unknown(view, place, shape)
        elif compared and all(_counts_samples(c.shape, c.target_shape, shape) for c in compared):
            summary = (
                f"{place.node} {shape} reads its first dimension as time, but {compared[0].prediction.node} "
                f"{compared[0].shape} counts its samples by it: samples influence each other, as if they were moments."
            )
            shown = [evidence(view.history(place.node, role=place.role), "mean", "computed across samples")]
            nodes = [compared[0].prediction.node]
            yield self.finding(
                view, place.node, "warning", summary, shown, step=view.began, nodes=nodes, confidence=0.85
            )

    def _may_be_batch_first(self, view: View, place: Place, shape: Shape, scores: list[Shape]) -> bool:
        """Whether nothing tells time from samples, and the loss hardly falls: scores of moments, flattened."""
        flat = shape[0] * shape[1]
        is_marked = any(place in site.after for site in sites_of(view, "time first"))
        return is_marked and fallen(view) < self.fall and any(flat in (s[0], math.prod(s[:2])) for s in scores if s)

    def _of_unknown(self, view: View, place: Place, shape: Shape) -> Finding:
        summary = (
            f"{place.node} {shape} reads its first dimension as time: right only if that is what it is given. If the "
            f"samples come first, they influence each other: is batch_first=True missing?"
        )
        shown = [evidence(view.history(place.node, role=place.role), "mean", "computed across the first dimension")]
        return self.finding(view, place.node, "info", summary, shown, step=view.began, confidence=0.5)

    def _of_tokens(self, view: View, place: Place, shape: tuple[int, ...]) -> Finding:
        summary = (
            f"{place.node} {shape} reads its first dimension as time, but the texts go on along the second: samples "
            f"influence each other, as if they were moments (is batch_first=True missing?)."
        )
        shown = [evidence(view.history(place.node, role=place.role), "mean", "computed across samples")]
        return self.finding(view, place.node, "warning", summary, shown, step=view.began, confidence=0.85)


def _lies_first(view: View, place: Place, shape: Shape, size: int) -> bool:
    """Whether the first dimension alone is that of the batch, and has this size."""
    batches = {t.batch_dim for t in view.training[-1].layout.tensors if t.node == place.node and t.role == place.role}
    return batches == {0} and shape[0] == size and len(shape) > 1 and shape[1] != size


def _is_along_second(view: View, tokens: Place, shape: tuple[int, ...]) -> bool:
    """Whether a text goes on along the second dimension of its tokens, which a layer has, too."""
    given = view.shape(tokens, view.training[-1])
    batches = {t.batch_dim for t in view.training[-1].layout.tensors if t.node == tokens.node}
    return given is not None and tuple(given) == shape[:2] and batches == {0}


def _time_first(view: View) -> list[Place]:
    """The outputs of layers that read the first dimension as time; of several in a row the first one."""
    marked = {place for site in sites_of(view, "time first") for place in site.after}
    marked |= {
        place
        for place, vertex in view.flow.vertices.items()
        if vertex.operation in _TIME_FIRST and place.role in ("output", "output.0")  # weights are never turned back
    }
    found = _ordered(view, marked)
    return [place for place in found if not any(other in marked - {place} for other in view.flow.upstream([place]))]


def _across_second(view: View) -> Iterator[tuple[Place, Comparison]]:
    """Recurrent layers with ``batch_first=True`` whose first two dimensions are those of a CTC loss's scores."""
    marked = {place for site in sites_of(view, "time first") for place in site.after}
    for scores in (c for c in comparisons(view) if c.operation == "ctc_loss" and len(c.shape) == 3):
        if len(scores.target_shape) == 2 and scores.target_shape[0] != scores.shape[1]:
            continue  # the scores are transposed on their way to the loss
        before = view.flow.upstream([scores.prediction], differentiable=True)
        for place in _ordered(view, before - marked if scores.shape[0] != scores.shape[1] else ()):
            shape = view.shape(place, view.training[-1])
            is_recurrent = view.flow.vertices[place].operation in _RECURRENT and place.role in ("output", "output.0")
            if is_recurrent and shape is not None and len(shape) == 3 and shape[:2] == scores.shape[:2]:
                yield place, scores
                break


def _counts_samples(shape: tuple[int, ...], target: tuple[int, ...], layer: tuple[int, ...]) -> bool:
    """One prediction for each entry of the layer's first dimension, and none for those of the second."""
    return shape[0] == layer[0] and target[:1] == layer[:1] and layer[1] not in (*shape[1:], *target[1:])


def _ordered(view: View, places: Iterable[Place]) -> list[Place]:
    return sorted(places, key=lambda place: (view.position.get(place.node, 0), place.role))


def _is_data(view: View, place: Place) -> bool:
    """Weights may be reshaped as one likes."""
    return view.flow.vertices[place].type in ("input", "calculated")
