"""The rule ``unscaled-distillation``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place, Site
from stepscope.analysis.lines import sites_of
from stepscope.analysis.loss_inputs import OF_CLASSES
from stepscope.analysis.robust import median
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class UnscaledDistillation(Rule):
    """A teacher's softened answers have no say beside the labels, as the square of the temperature is missing.

    Symptom: a student learns from its labels as if there were no teacher.

    How it is measured: both sides of a divergence are softmaxes of scores that were divided by the same temperature,
    which makes its gradients smaller by the square of that. The weight that the total loss gives it, which is its
    gradient, is 1 or less, and together with the weight of the labels' loss it is 1, so that no square is in it.

    Causes: ``alpha * kl_div(...)`` where ``alpha * T * T * kl_div(...)`` was meant.

    Remedy: multiply the divergence by the square of the temperature.

    Source: Hinton, Vinyals and Dean, Distilling the knowledge in a neural network (2015), section 2: the gradients of
    soft targets scale as 1 / T², so "it is important to multiply them by T²".

    Attributes:
        least: the temperature from which on it counts. Source: the square of 2 is 4, a fair share less.
        sum: how near to 1 both weights together are, that they are shares of one loss.
    """

    name = "unscaled-distillation"
    about = "loss"
    causes = "A divergence of softened answers that is not multiplied by the square of the temperature."
    remedy = "Multiply the divergence by T * T, so that its gradients keep their size whatever the temperature."
    least: float = 2.0
    sum: float = 0.02

    def check(self, view: View) -> Iterable[Finding]:
        for site, heat, soft, hard in _pairs(view):
            if heat >= self.least and soft is not None and hard is not None:
                yield from self._look(view, site, heat, soft, hard)

    def _look(self, view: View, site: Site, heat: float, soft: Place, hard: Place) -> Iterable[Finding]:
        weights = [median(view.history(place.node, "gradient", role=place.role).of("mean")) for place in (soft, hard)]
        if not 0 < weights[0] <= 1 or weights[1] <= 0:
            return
        is_shared = abs(weights[0] + weights[1] - 1) < self.sum
        history = view.history(soft.node, role=soft.role)
        summary = (
            f"{soft.node} compares softened answers of temperature {heat:g}, whose gradients are {heat * heat:.3g} "
            f"times smaller for it, and is weighed by {weights[0]:.2g} beside {weights[1]:.2g} for {hard.node}: the "
            f"factor T*T is missing, the temperature squared, so that the labels outweigh the teacher."
        )
        yield self.finding(
            view, soft.node, "warning" if is_shared else "info", summary,
            [evidence(history, "mean", "the divergence from the teacher")], step=view.began,
            nodes=[*(place.node for place in view.objectives), hard.node], source=site.source,
            confidence=0.85 if is_shared else 0.5,
        )  # fmt: skip


def _pairs(view: View) -> Iterator[tuple[Site, float, Place | None, Place | None]]:
    """Each softened divergence, its temperature, its place among the losses, and a loss of labels beside it."""
    hard = [loss for loss in view.losses if view.flow.vertices[loss].operation in OF_CLASSES]
    for site in {site.source: site for site in sites_of(view, "heated")}.values():
        soft = next((place for place in site.after if place in view.losses and place not in view.objectives), None)
        yield site, float(site.operation.partition("T=")[2].rstrip(")")), soft, next(iter(hard), None)
