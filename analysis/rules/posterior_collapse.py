"""The rule ``posterior-collapse``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.layers import rms
from stepscope.analysis.robust import median
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_MEAN = re.compile(r"(^|[._])(z_?)?(mu|mean|loc)(_?z)?$|(^|_)(mu|mean)(_|$)")
_VARIANCE = re.compile(r"log_?(var|variance|sigma|std)")


@dataclass(frozen=True)
class PosteriorCollapse(Rule):
    """The code of a variational autoencoder says nothing of its input: its posterior is the prior, for every sample.

    Symptom: reconstructions all look like the mean of the data; the divergence term is zero.

    How it is measured: the sizes (root mean square) of the means and of the log-variances that the encoder gives, in
    the last third of the training: both are 0 for the prior. They are found by their names (``mu`` or ``mean``, and
    ``logvar``, ``log_var`` or ``log_sigma``), be it a module's or a recorded tensor's.

    Causes: a divergence term that weighs too much (summed against a mean), a decoder that is strong enough without
    the code.

    Remedy: sum or average both terms alike, raise the weight of the divergence slowly, or allow it free bits.

    Attributes:
        size: below which both are that of the prior. Source: 0.1 for both is a divergence of 0.01 nats a dimension;
            codes that are in use have 0.1 to 3.
    """

    name = "posterior-collapse"
    about = "loss"
    causes = "A divergence term that weighs too much (summed where the other is averaged), or too strong a decoder."
    remedy = "Sum or average both terms alike, raise the weight of the divergence slowly, or allow it free bits."
    size: float = 0.1

    def check(self, view: View) -> Iterable[Finding]:
        calculated = [place for place in view.flow.of_type("calculated") if view.flow.sinks.get(place)]
        means = [place for place in calculated if _is_named(place, _MEAN)]
        variances = [place for place in calculated if _is_named(place, _VARIANCE)]
        for one, two in zip(means, variances, strict=False):
            sizes = _late_size(view, one), _late_size(view, two)
            if len(view.history(one.node, role=one.role)) >= 10 and max(sizes) < self.size:
                yield self._finding(view, one, two, sizes)

    def _finding(self, view: View, one: Place, two: Place, sizes: tuple[float, float]) -> Finding:
        history = view.history(one.node, role=one.role)
        summary = (
            f"The code says nothing of the input: {one.node} ({sizes[0]:.2g} in size) and {two.node} ({sizes[1]:.2g}) "
            f"are those of the prior for every sample."
        )
        shown = [
            evidence(history, "std", "the means, 0 for the prior"),
            evidence(view.history(two.node, role=two.role), "std", "the log-variances, 0 for the prior"),
        ]
        return self.finding(
            view, one.node, "warning", summary, shown, step=int(history.steps[0]), nodes=[two.node], confidence=0.75
        )


def _is_named(place: Place, pattern: re.Pattern[str]) -> bool:
    return any(pattern.search(name.lower()) for name in (place.node.rpartition(".")[2], place.role))


def _late_size(view: View, place: Place) -> float:
    sizes = rms(view.history(place.node, role=place.role))
    return median(sizes[2 * len(sizes) // 3 :])
