"""The rule ``lost-order``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.attention import attentions
from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place, Site
from stepscope.analysis.layers import layers, recurrent_layers
from stepscope.analysis.lines import sites_of
from stepscope.analysis.parameters import is_inside
from stepscope.analysis.robust import smallest
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class LostOrder(Rule):
    """Words come to an attention without their places: in whatever order they stand, it is all the same.

    Symptom: what depends on the order of words (which comes first, what stands beside what) is never learned, while a
    recurrent net learns it; shuffled sentences give the same answers.

    How it is measured: from the tokens, which are numbers for an embedding, to the queries and keys of an attention
    nothing happens but what treats all places alike: the embedding, linear layers, normalisations, activations. Nothing
    is added, multiplied or joined on the way that does not come from the words themselves, as encodings of positions,
    rotations, or biases of scores would; there is no convolution and no recurrence; and the attention sees what comes
    later, so that no mask tells the places. Nor does a layer behind it read all places side by side.

    Causes: the encoding of positions was forgotten, or is computed and not used.

    Remedy: add an encoding of positions to the embeddings, or turn queries and keys by their places. Of a set, whose
    order means nothing, all is well: that is why it is worth knowing only.

    Attributes:
        future: the weight on later positions below which a mask hides them. Source: that of ``future-leak``; an
            attention of random weights puts half of it there.
    """

    name = "lost-order"
    about = "attention"
    causes = "Positional encodings that were forgotten, or are computed and not used."
    remedy = "Add an encoding of positions to the embeddings (or rotate queries and keys); of a set, all is well."
    future: float = 1e-4

    def check(self, view: View) -> Iterable[Finding]:
        sites = sites_of(view, "no order")
        seeing = (
            [place for place in attentions(view, "attention_future") if self._sees_all(view, place)] if sites else []
        )
        found = [place for place in seeing if any(_is_of(site, place) for site in sites)]
        if not found or _reads_places(view, found[0]):
            return
        words = [place.node for site in sites for place in site.before if _is_table(view, place)]
        inner = [place.node for place in found[1:] if place.node != found[0].node]
        summary = (
            f"{found[0].node} gets words without positions: nothing between their embedding and its queries and keys "
            f"depends on where they stand (no positional encoding, mask, convolution or recurrence), so that it knows "
            f"no order. Of a set that is right."
        )
        history = view.history(found[0].node, "attention_future", role=found[0].role)
        yield self.finding(
            view, found[0].node, "info", summary, [evidence(history, "mean", "the weight on later words")],
            step=view.began, nodes=list(dict.fromkeys([*words, *inner])), confidence=0.7,
        )  # fmt: skip

    def _sees_all(self, view: View, place: Place) -> bool:
        return smallest(view.history(place.node, "attention_future", role=place.role).of("mean")) > self.future


def _is_of(site: Site, attention: Place) -> bool:
    return any(is_inside(place.node, attention.node) for place in site.after)


def _is_table(view: View, place: Place) -> bool:
    return view.flow.vertices[place].operation == "embedding"


def _reads_places(view: View, attention: Place) -> bool:
    """Whether a layer behind an attention tells places apart: it is recurrent, a convolution, or reads them at once."""
    behind = {place.node for place in view.flow.downstream([attention])}
    shape = view.shape(attention, view.training[-1]) or ()
    together = {shape[-1] * length for length in shape[:-1]} if len(shape) == 3 else set()
    return any(
        layer.module in behind and ("Conv" in layer.module_class or layer.fan_in in together) for layer in layers(view)
    ) or any(layer.module in behind for layer in recurrent_layers(view))
