"""The rule ``batch-leak``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place, Site
from stepscope.analysis.lines import mixing_sites
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class BatchLeak(Rule):
    """A reshape where a transposition was meant: parts of different samples end up in one.

    Symptom: training works somehow, but worse than it should, and results depend on what else is in the batch.

    How it is measured: on the way to a loss, a ``view`` or ``reshape`` turns ``(batch, a, ...)`` into
    ``(a, batch, ...)``. Neither moves a number: each "sample" of the result is made of pieces of several. What joins
    or splits dimensions in place, or leaves the batch where it is, is right. Other leaks over the batch show only in
    ``probe(model, batch)``, which asks the model itself.

    Causes: ``view`` or ``reshape`` instead of ``transpose`` or ``permute``, often before a recurrent layer that wants
    the time first.

    Remedy: ``x.transpose(0, 1)``, or ``batch_first=True``.

    Source: no threshold; shapes alone decide. Karpathy, A Recipe for Training Neural Networks (2019), names the
    mistake, and a gradient through one sample as the test.
    """

    name = "batch-leak"
    causes = "view() or reshape() instead of transpose() or permute(): the shape is right, the numbers stay in place."
    remedy = "Use transpose() or permute(), or batch_first=True; then check with probe(model, batch)."

    def check(self, view: View) -> Iterable[Finding]:
        sites = mixing_sites(view)
        towards_loss = view.flow.upstream(view.losses) if sites and view.training else set()
        for site in sites:
            before = [place for place in _ordered(view, site.before) if _has_batch(view, place)]
            after = [place for place in _ordered(view, site.after) if place in towards_loss]
            if before and after:
                yield self._finding(view, site, before, after)

    def _finding(self, view: View, site: Site, before: list[Place], after: list[Place]) -> Finding:
        summary = (
            f"A {site.operation} between {before[0].node} and {after[0].node} mixes the samples of the batch: it puts "
            f"the first dimension behind others without moving a number, as only a transposition may."
        )
        nodes = list(dict.fromkeys(place.node for place in (*before, *after[1:])))
        shown = [evidence(view.history(after[0].node, role=after[0].role), "mean", "made of pieces of several samples")]
        return self.finding(
            view, after[0].node, "warning", summary, shown, step=view.training[0].number, nodes=nodes,
            confidence=0.9, source=site.source,
        )  # fmt: skip


def _ordered(view: View, places: Iterable[Place]) -> list[Place]:
    return sorted(places, key=lambda place: (view.position.get(place.node, 0), place.role))


def _has_batch(view: View, place: Place) -> bool:
    """Weights may be reshaped as one likes."""
    return view.flow.vertices[place].type in ("input", "calculated")
