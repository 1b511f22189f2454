"""The rule ``masked-attention``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.attention import attentions
from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place, Site
from stepscope.analysis.history import History
from stepscope.analysis.lines import sites_of
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class MaskedAttention(Rule):
    """Queries of an attention that may look at no key at all.

    Symptom: NaN out of a softmax over nothing; or, with large numbers instead of infinities, a mean over everything.

    How it is measured: the share of queries, in a sample of them, all of whose keys are masked, over all recorded steps
    that are finite or the first that is not. It is an error if the attention's output then holds NaN, or if every
    query is masked; else it is worth knowing only: queries that are padding themselves are masked so without harm.

    Or the recorder saw that scores were multiplied with a mask (zeros and ones that nothing was computed for) and then
    went into a softmax: what was to be hidden gets the weight of a score of zero, which is e to the 0 before the sum.

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
        for site in {site.source: site for site in sites_of(view, "times mask")}.values():
            yield from self._multiplied(view, site)

    def _multiplied(self, view: View, site: Site) -> Iterable[Finding]:
        """Scores times zero, where minus infinity was meant."""
        made = [place.node for place in site.before if view.flow.vertices[place].type == "calculated"]
        after = [place.node for place in site.after if place in view.flow.upstream(view.losses)]
        if made and after:
            summary = (
                f"The scores of {made[-1]} are multiplied with a mask before the {site.operation}: what is masked "
                f"(padding, say) has a score of zero then, and still gets a weight."
            )
            yield self.finding(
                view, made[-1], "warning", summary, [evidence(view.history(made[-1]), "mean", "the scores")],
                step=view.began, nodes=[*after, *made[:-1]], confidence=0.9, source=site.source,
                causes="scores * mask, where zero is a score like any other.",
                remedy="scores.masked_fill(~mask, float('-inf')) before the softmax.",
            )  # fmt: skip

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
