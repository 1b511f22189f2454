"""The rule ``future-leak``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.attention import attends_to_itself, attentions
from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.next_token import predicted_inputs
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class FutureLeak(Rule):
    """A model that is to predict the next token can look at it: its attention puts weight on later positions.

    Symptom: the training loss falls far below what is possible, and what the model then writes is nonsense.

    How it is measured: the weight that a sample of queries puts on keys after them, where there are as many keys as
    queries. It counts only if the targets are the inputs one position later (compared token by token, on the kept
    samples), and only for attentions all of whose learned inputs come from these tokens: encoders that see whole
    sequences, and decoders that look at them, are as they should be.

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
        leaking = [place for place in attentions(view, "attention_future") if _weight(view, place) > self.weight]
        tokens = predicted_inputs(view) if leaking else []
        found = [place for place in leaking if any(attends_to_itself(view, place, other) for other in tokens)]
        if found:
            yield self._finding(view, found, tokens[0])

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


def _weight(view: View, place: Place) -> float:
    values = view.history(place.node, "attention_future", role=place.role).of("mean")
    return float(np.nanmax(values)) if np.isfinite(values).any() else 0.0
