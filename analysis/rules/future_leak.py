"""The rule ``future-leak``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.attention import attends_to_itself, attentions
from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.layers import layers
from stepscope.analysis.lines import line_of_node, sites_of
from stepscope.analysis.loss_inputs import comparisons
from stepscope.analysis.next_token import predicted_inputs
from stepscope.analysis.parameters import trainable
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class FutureLeak(Rule):
    """A model that is to predict the next token can look at it: its attention puts weight on later positions.

    Symptom: the training loss falls far below what is possible, and what the model then writes is nonsense.

    How it is measured: the weight that a sample of queries puts on keys after them, where there are as many keys as
    queries. It counts only if the targets are the inputs one position later (compared token by token, on the kept
    samples; the values of a series of one channel are tokens, too), and only for attentions all of whose learned inputs
    come from these tokens: encoders that see whole sequences, and decoders that look at them, are as they should be. A
    recurrent layer that reads both ways
    leaks the future, too, and so does a convolution over time that keeps its length by padding both ends.

    Causes: a mask that is missing, transposed, inverted, of the wrong shape, or not passed on.

    Remedy: ``is_causal=True``, or a mask that hides what lies above the diagonal.

    Attributes:
        weight: the mean weight on later positions from which it counts. Source: a mask leaves exactly 0; additive ones
            of -1e4 leave less than this in any precision.
    """

    name = "future-leak"
    about = "attention"
    causes = "A causal mask that is missing, transposed, inverted, of the wrong shape, or not passed on."
    remedy = "Use is_causal=True, or a mask that hides everything above the diagonal; then the loss will be higher."
    weight: float = 1e-4

    def check(self, view: View) -> Iterable[Finding]:
        yield from self._both_ways(view)
        yield from self._centred(view)
        leaking = [place for place in attentions(view, "attention_future") if _weight(view, place) > self.weight]
        tokens = predicted_inputs(view) if leaking else []
        found = [place for place in leaking if any(attends_to_itself(view, place, other) for other in tokens)]
        if found:
            yield self._finding(view, found, tokens[0])

    def _centred(self, view: View) -> Iterable[Finding]:
        """Convolutions over time that pad both ends alike, and so see what comes next."""
        convolutions = [layer for layer in layers(view) if layer.module_class == "Conv1d" and layer.shape[2] > 1]
        tokens = predicted_inputs(view) if convolutions else []
        padded = {place.node for site in sites_of(view, "pad") for place in site.after}
        used = view.flow.upstream([comparison.prediction for comparison in comparisons(view)])
        for token in tokens:
            length = (view.shape(token, view.training[-1]) or (0, 0))[1]
            reached = view.flow.downstream([token]) & used
            for layer in convolutions:
                places = [place for place in view.flow.of_node(layer.module) if place in reached]
                shapes = {(view.shape(place, view.training[-1]) or (0,))[-1] for place in places}
                if shapes == {length} and layer.module not in padded and _takes(view, places[0], length):
                    yield self._of_convolution(view, layer.module, token)

    def _of_convolution(self, view: View, module: str, token: Place) -> Finding:
        summary = (
            f"{module} looks into the future: a convolution that pads both ends of time alike sees later positions of "
            f"{token.node}, whose next tokens are the targets."
        )
        return self.finding(
            view, module, "error", summary, step=view.began, nodes=[token.node], confidence=0.85,
            source=line_of_node(view, module), causes="padding=k // 2 (or 'same') where a causal convolution is meant.",
            remedy="Pad (k - 1) * dilation on the left only, or cut as many off the end.",
        )  # fmt: skip

    def _both_ways(self, view: View) -> Iterable[Finding]:
        """Recurrent layers that read both ways, the second one from the future."""
        modules = [parameter.module for parameter in trainable(view) if parameter.node.endswith("weight_hh_l0_reverse")]
        tokens = predicted_inputs(view) if modules else []
        for module in modules:
            places = set(view.flow.of_node(module))
            if any(places & view.flow.downstream([token]) for token in tokens) and places & view.flow.upstream(
                [comparison.prediction for comparison in comparisons(view)]
            ):
                summary = (
                    f"{module} is bidirectional and looks into the future: its second direction reads the later "
                    f"positions of {tokens[0].node}, whose next tokens are the targets."
                )
                yield self.finding(
                    view, module, "error", summary, step=view.began, nodes=[tokens[0].node],
                    confidence=0.95, source=line_of_node(view, module), causes="bidirectional=True in a net that "
                    "predicts what comes next.", remedy="Read in one direction: bidirectional=False.",
                )  # fmt: skip

    def _finding(self, view: View, found: list[Place], tokens: Place) -> Finding:
        first = found[0]
        history = view.history(first.node, "attention_future", role=first.role)
        others = list(dict.fromkeys(place.node for place in found if place.node != first.node))
        more = f" (as do {len(others)} more attentions)" if others else ""
        summary = (
            f"{first.node} looks into the future{more}: {_weight(view, first):.0%} of its weight lies on later "
            f"positions, although the targets are the next tokens of {tokens.node}."
        )
        shown = [evidence(history, "mean", "the weight on later positions")]
        return self.finding(
            view, first.node, "error", summary, shown, step=int(history.steps[0]), nodes=others, confidence=0.95
        )


def _takes(view: View, place: Place, length: int) -> bool:
    """Whether a layer gets a sequence of this length from the tensors before it."""
    sources = [link.place for link in view.flow.sources.get(place, ())]
    shapes = [view.shape(p, view.training[-1]) or () for p in sources if view.flow.vertices[p].type == "calculated"]
    return bool(shapes) and all(length in shape for shape in shapes)


def _weight(view: View, place: Place) -> float:
    values = view.history(place.node, "attention_future", role=place.role).of("mean")
    return float(np.nanmax(values)) if np.isfinite(values).any() else 0.0
