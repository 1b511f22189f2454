"""The rule ``attention-collapse``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.attention import attentions
from stepscope.analysis.curves import fallen
from stepscope.analysis.finding import Finding, Level
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
    third of the training. If the loss has fallen well meanwhile, sharp attention is what the task wants, and worth
    knowing only. It also counts if weights are sharp before anything was learned.

    Causes: scores that grew (a learning rate that is too high, no normalisation of queries and keys), a missing
    division by the root of the head's width, an initialisation that is too large.

    Remedy: a lower learning rate or a longer warm-up, normalised queries and keys, scores divided by the root of
    the head's width.

    Attributes:
        entropy: the relative entropy below which it counts. Source: Zhai et al. (2023), "Stabilizing Transformer
            Training by Preventing Attention Entropy Collapse", where runs break as it nears 0; single heads of
            trained nets are sharp, so the mean over all must be.
        start: the relative entropy at step 0 below which it counts. Source: scores of a fresh layer that are divided as
            they should be leave 0.97 and more (our healthy runs).
        fallen: the part of the first loss that must be gone for sharp attention to be fine.
    """

    name = "attention-collapse"
    about = "attention"
    causes = "Scores that grew: a learning rate that is too high, or no division by the root of the head's width."
    remedy = "Lower the learning rate, warm up for longer, normalise queries and keys, and check how scores are scaled."
    entropy: float = 0.01
    start: float = 0.3
    fallen: float = 0.5

    def check(self, view: View) -> Iterable[Finding]:
        found: dict[Place, float] = {}
        for place in attentions(view):
            history = view.history(place.node, "attention_entropy", role=place.role)
            values = history.of("mean")
            if len(values) >= 3 and (late := median(values[2 * len(values) // 3 :])) < self.entropy:
                found[place] = late
        born = {place: value for place in attentions(view) if (value := _at_start(view, place)) < self.start}
        if found and not born:
            yield self._finding(view, next(iter(found)), found)
        if born:
            yield self._born(view, next(iter(born)), born)

    def _born(self, view: View, first: Place, born: dict[Place, float]) -> Finding:
        history = view.history(first.node, "attention_entropy", role=first.role)
        summary = (
            f"The queries of {first.node} look at few keys before anything is learned: the attention entropy is "
            f"{born[first]:.2g} of what equal weights have at step 0; the scores are not scaled, or start too large."
        )
        shown = [
            evidence(history, "mean", "the entropy of its weights, 1 if all are equal"),
            evidence(view.history(first.node, "attention_logit", role=first.role), "max", "its largest score"),
        ]
        others = list(dict.fromkeys(place.node for place in born if place.node != first.node))
        return self.finding(view, first.node, "warning", summary, shown, step=0, nodes=others, confidence=0.75)

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
        level: Level = "info" if self.fallen < fallen(view) < 1 else "warning"
        return self.finding(
            view, first.node, level, summary, shown, step=int(history.steps[onset]), nodes=others, confidence=0.8
        )


def _at_start(view: View, place: Place) -> float:
    """The relative entropy of an attention at step 0; infinite if that was not recorded."""
    history = view.history(place.node, "attention_entropy", role=place.role)
    return float(history.of("mean")[0]) if len(history) and history.steps[0] == 0 else math.inf
