"""The rule ``attention-collapse``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.attention import attentions
from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.robust import median
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class AttentionCollapse(Rule):
    """Every query of an attention looks at a single key: its softmax is saturated and lets no gradient through.

    Symptom: the loss spikes or stops falling; queries and keys of the layer hardly learn any more.

    How it is measured: in recorded steps, the entropy of each query's weights as a part of that of equal weights for
    all keys that it may look at, for a sample of queries and heads; the mean over these, in the median of the last
    third of the training.

    Causes: scores that grew (a learning rate that is too high, no normalisation of queries and keys), a missing
    division by the root of the head's width, an initialisation that is too large.

    Remedy: a lower learning rate or a longer warm-up, normalised queries and keys, scores divided by the root of
    the head's width.

    Attributes:
        entropy: the relative entropy below which it counts. Source: Zhai et al. (2023), "Stabilizing Transformer
            Training by Preventing Attention Entropy Collapse", where runs break as it nears 0; single heads of
            trained nets are sharp, so the mean over all must be.
    """

    name = "attention-collapse"
    causes = "Scores that grew: a learning rate that is too high, or no division by the root of the head's width."
    remedy = "Lower the learning rate, warm up for longer, normalise queries and keys, and check how scores are scaled."
    entropy: float = 0.01

    def check(self, view: View) -> Iterable[Finding]:
        found: dict[Place, float] = {}
        for place in attentions(view):
            history = view.history(place.node, "attention_entropy", role=place.role)
            values = history.of("mean")
            if len(values) >= 3 and (late := median(values[2 * len(values) // 3 :])) < self.entropy:
                found[place] = late
        if found:
            yield self._finding(view, next(iter(found)), found)

    def _finding(self, view: View, first: Place, found: dict[Place, float]) -> Finding:
        history = view.history(first.node, "attention_entropy", role=first.role)
        values = history.of("mean")
        onset = int(np.flatnonzero(~(values >= self.entropy))[0])
        others = list(dict.fromkeys(place.node for place in found if place.node != first.node))
        more = f"; so do {len(others)} more" if others else ""
        summary = (
            f"The queries of {first.node} look at one key each: the entropy of their weights is {found[first]:.2g} of "
            f"what equal weights have ({values[0]:.2g} at step {history.steps[0]}){more}."
        )
        shown = [
            evidence(history, "mean", "the entropy of its weights, 1 if all are equal"),
            evidence(view.history(first.node, "attention_logit", role=first.role), "max", "its largest score"),
        ]
        return self.finding(
            view, first.node, "warning", summary, shown, step=int(history.steps[onset]), nodes=others, confidence=0.8
        )
