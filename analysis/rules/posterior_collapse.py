"""The rule ``posterior-collapse``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.codes import named_codes
from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.layers import Layer, layers, rms
from stepscope.analysis.robust import median
from stepscope.analysis.rule import Rule
from stepscope.analysis.spread import neuron_moments
from stepscope.analysis.units import late_steps
from stepscope.analysis.view import View, evidence
from stepscope.store import Step

_LAYERS = frozenset(["linear", "addmm", "conv1d", "conv2d", "conv3d"])


@dataclass(frozen=True)
class PosteriorCollapse(Rule):
    """The code of a variational autoencoder says nothing of its input: its posterior is the prior, for every sample.

    Symptom: reconstructions all look like the mean of the data; the divergence term is zero.

    How it is measured: the sizes (root mean square) of the means and of the log-variances that the encoder gives, in
    the last third of the training: both are 0 for the prior. They are found by their names (``mu`` or ``mean``, and
    ``logvar``, ``log_var`` or ``log_sigma``), be it a module's or a recorded tensor's.

    Without such names: a layer's output hardly varies over the batch, but the only layer that is computed from it
    varies by many times what its weights make of that. So random numbers are drawn between the two, and they are all
    that gets through.

    Causes: a divergence term that weighs too much (summed against a mean), a decoder that is strong enough without
    the code.

    Remedy: sum or average both terms alike, raise the weight of the divergence slowly, or allow it free bits.

    Attributes:
        size: below which both are that of the prior. Source: 0.1 for both is a divergence of 0.01 nats a dimension;
            codes that are in use have 0.1 to 3. The spread over the batch must stay below it, too.
        drawn: times what the weights make of what the encoder gives. Source: runs without anything drawn have 1, up to
            1.6; a code that is in use, too, as it varies more than what is drawn.
    """

    name = "posterior-collapse"
    about = "loss"
    causes = "A divergence term that weighs too much (summed where the other is averaged), or too strong a decoder."
    remedy = "Sum or average both terms alike, raise the weight of the divergence slowly, or allow it free bits."
    size: float = 0.1
    drawn: float = 5.0

    def check(self, view: View) -> Iterable[Finding]:
        for one, two in named_codes(view):
            sizes = _late_size(view, one), _late_size(view, two)
            if len(view.history(one.node, role=one.role)) >= 10 and max(sizes) < self.size:
                yield self._finding(view, one, two, sizes)
                return
        yield from self._of_draws(view) if len(view.training) >= 10 else ()

    def _of_draws(self, view: View) -> Iterable[Finding]:
        """Layers of whose output nothing but what is drawn gets through to the next layer."""
        late = late_steps(view)
        for layer in layers(view):
            codes = _before(view, layer)
            spread = math.hypot(*(_spread(late, code) for code in codes))
            if not 0 < spread < self.size:
                continue
            outputs = view.history(layer.weight).of("norm")[-1] / math.sqrt(layer.shape[0])
            passed = _spread(late, Place(layer.module, view.nodes[layer.module].roles[-1]))
            if passed > self.drawn * spread * outputs:
                yield self._of_draw(view, codes, layer.module, spread, passed)

    def _of_draw(self, view: View, codes: list[Place], layer: str, spread: float, passed: float) -> Finding:
        summary = (
            f"The code says nothing of the input: {codes[0].node} varies over the batch by {spread:.2g} only, but "
            f"{layer}, which reads what is drawn around it, by {passed:.2g}: a posterior that is the same for every "
            f"sample (posterior collapse)."
        )
        code, *others = codes
        history = view.history(code.node, role=code.role)
        return self.finding(
            view, code.node, "warning", summary, [evidence(history, "std", "what the encoder gives")],
            step=int(history.steps[0]), nodes=[*(other.node for other in others), layer], confidence=0.8,
        )  # fmt: skip

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


def _before(view: View, layer: Layer) -> list[Place]:
    """What one or two layers before gave, mean and variance say, if this one is computed from nothing else."""
    places = view.flow.of_node(layer.module)
    behind = view.flow.sources.get(places[0], ()) if len(places) == 1 else ()
    given = [link.place for link in behind if view.flow.vertices[link.place].type not in ("parameter", "buffer")]
    are_layers = all(view.flow.vertices[place].operation in _LAYERS for place in given)
    return given if len(given) in (1, 2) and are_layers and not any(link.lag for link in behind) else []


def _spread(steps: Sequence[Step], place: Place) -> float:
    """The root mean square, over neurons and steps, of the spread over the batch; 0 if it is unknown."""
    known = [found for found in (neuron_moments(step, place) for step in steps) if found is not None]
    return float(np.sqrt(np.mean([np.mean(std**2) for _, std in known]))) if known else 0.0


def _late_size(view: View, place: Place) -> float:
    sizes = rms(view.history(place.node, role=place.role))
    return median(sizes[2 * len(sizes) // 3 :])
