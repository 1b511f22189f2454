"""The rule ``masked-attention``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.attention import attentions
from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.history import History
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class MaskedAttention(Rule):
    """Queries of an attention that may look at no key at all.

    Symptom: NaN out of a softmax over nothing; or, with large numbers instead of infinities, a mean over everything.

    How it is measured: the share of queries, in a sample of them, all of whose keys are masked, over all recorded steps
    that are finite or the first that is not. It is an error if the attention's output then holds NaN, or if every
    query is masked; else it is worth knowing only: queries that are padding themselves are masked so without harm.

    Causes: a mask that is inverted (True means "leave out" for MultiheadAttention, "look at" for
    scaled_dot_product_attention), a sequence of padding only, a causal mask shifted by one.

    Remedy: check what True means in the mask, and that each query may look at itself at least.

    Source: no threshold.
    """

    name = "masked-attention"
    about = "attention"
    causes = "A mask that is inverted (True is the opposite for the two APIs of torch), or a sequence of padding only."
    remedy = "Check what True means in the mask, and let each query look at itself at least."

    def check(self, view: View) -> Iterable[Finding]:
        found: dict[Place, tuple[int, float, bool]] = {}
        for place in attentions(view, "attention_masked"):
            history = view.history(place.node, "attention_masked", role=place.role, training=False)
            masked = np.flatnonzero(history.of("mean") > 0)
            if len(masked):
                step, share = int(history.steps[masked[0]]), float(history.of("mean")[masked[0]])
                found[place] = step, share, _has_nan(view.history(place.node, role=place.role, training=False), step)
        if found:
            yield self._finding(view, found)

    def _finding(self, view: View, found: dict[Place, tuple[int, float, bool]]) -> Finding:
        place = next((place for place, (_, _, nan) in found.items() if nan), next(iter(found)))
        step, share, nan = found[place]
        then = ", and what it gives is NaN" if nan else ""
        summary = f"{share:.0%} of the queries of {place.node} may look at no key at step {step}{then}."
        others = list(dict.fromkeys(other.node for other in found if other.node != place.node))
        history = view.history(place.node, "attention_masked", role=place.role, training=False)
        shown = [evidence(history, "mean", "the share of queries without any key")]
        level = "error" if nan or share == 1 else "info"
        return self.finding(
            view, place.node, "error" if level == "error" else "info", summary, shown,
            step=step, nodes=others, confidence=0.95,
        )  # fmt: skip


def _has_nan(output: History, step: int) -> bool:
    return bool(np.any(output.of("nan_count")[output.steps == step] > 0))
