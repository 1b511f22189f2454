"""The rule ``attention-logits``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.attention import attentions
from stepscope.analysis.curves import fallen
from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.flow import Place
from stepscope.analysis.history import History
from stepscope.analysis.robust import median
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class AttentionLogits(Rule):
    """The scores of an attention grow and grow, or are huge from the start: the way to a saturated softmax.

    Symptom: nothing at first; then loss spikes, and a run that diverges, the sooner the lower the precision.

    How it is measured: the largest score before the softmax, over a sample of queries and heads: in the median of the
    last tenth of the recorded training steps against that of the first.

    Causes: a learning rate that is too high, queries and keys that are not normalised, a missing division by the root
    of the head's width.

    Remedy: normalise queries and keys (QK-norm), lower the learning rate, divide the scores by the root of the width.

    Attributes:
        large: a score that is worrying. Source: Wortsman et al. (2023), "Small-scale proxies for large-scale
            Transformer training instabilities": runs diverge from 10,000 on and healthy ones stay below 100; e^-88 is 0
            in float32.
        growth: times its size at the start, unless it was that large then already.
        worse, learned: a score less than so many times ``large`` is worth knowing only, if so much of the loss is gone:
            attention that picks one of its inputs needs large scores. Source: of ours.
    """

    name = "attention-logits"
    about = "attention"
    causes = "A learning rate that is too high, queries and keys without a norm, or scores that are not scaled."
    remedy = "Normalise queries and keys, lower the learning rate, and divide scores by the root of the head's width."
    large: float = 100.0
    growth: float = 4.0
    worse: float = 3.0
    learned: float = 0.5

    def check(self, view: View) -> Iterable[Finding]:
        found: dict[Place, tuple[float, float]] = {}
        for place in attentions(view, "attention_logit"):
            history = view.history(place.node, "attention_logit", role=place.role)
            start, end = _levels(history)
            if len(history) >= 3 and end > self.large and (end > self.growth * start or start > self.large):
                found[place] = start, end
        if found:
            yield self._finding(view, max(found, key=lambda place: found[place][1]), found)

    def _finding(self, view: View, worst: Place, found: dict[Place, tuple[float, float]]) -> Finding:
        history = view.history(worst.node, "attention_logit", role=worst.role)
        start, end = found[worst]
        level: Level = "info" if end < self.worse * self.large and fallen(view) > self.learned else "warning"
        others = list(dict.fromkeys(place.node for place in found if place.node != worst.node))
        how = f"grow from {start:.3g} to {end:.3g}" if end > self.growth * start else f"are as large as {end:.3g}"
        more = f", and those of {len(others)} more" if others else ""
        onset = int(np.flatnonzero(history.of("max") > self.large)[0])
        shown = [evidence(history, "max", "its largest score")]
        return self.finding(
            view, worst.node, level, f"The scores of the attention {worst.node}{more} {how}.", shown,
            step=int(history.steps[onset]), nodes=others, confidence=0.75,
        )  # fmt: skip


def _levels(history: History) -> tuple[float, float]:
    """The largest score at the start and at the end."""
    values = history.of("max")
    tenth = max(1, len(values) // 10)
    return median(values[:tenth]), median(values[-tenth:])
