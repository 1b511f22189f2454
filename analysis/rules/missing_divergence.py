"""The rule ``missing-divergence``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.codes import Code, named_codes
from stepscope.analysis.finding import Finding
from stepscope.analysis.loss_inputs import comparisons
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class MissingDivergence(Rule):
    """A variational autoencoder whose loss lacks the KL divergence from the prior.

    Symptom: inputs are restored well, but what is decoded from codes that are drawn at random looks like nothing.

    How it is measured: an encoder's mean and log-variance (found by their names) are decoded together, and reach the
    loss by this way alone, in all training steps; the loss compares what is decoded with the input. A divergence from
    the prior is computed from both of them beside the decoder.

    Causes: the term is computed but not added, or is left out.

    Remedy: add ``-0.5 * (1 + logvar - mean**2 - logvar.exp())``, summed over the code, to the reconstruction's loss.

    Source: Kingma and Welling (2014), "Auto-Encoding Variational Bayes", equation 10. No threshold.
    """

    name = "missing-divergence"
    about = "loss"
    causes = "The divergence from the prior is computed but not added to the loss, or was left out."
    remedy = "Add -0.5 * (1 + logvar - mean**2 - logvar.exp()), summed over the code, to the loss."

    def check(self, view: View) -> Iterable[Finding]:
        code = next((code for code in named_codes(view) if _is_only_decoded(view, code)), None)
        if code is None or not _is_autoencoder(view):
            return
        summary = (
            f"The loss has no KL divergence from the prior: {code.mean.node} and {code.variance.node} reach it through "
            f"the decoder alone, so that nothing keeps the codes where the prior would draw them."
        )
        histories = [view.history(place.node, role=place.role) for place in (code.mean, code.variance)]
        shown = [
            evidence(histories[0], "std", "the means, about 1 for the prior"),
            evidence(histories[1], "mean", "the log-variances, 0 for the prior"),
        ]
        nodes = [code.variance.node, *(loss.node for loss in view.objectives[:1])]
        yield self.finding(
            view, code.mean.node, "warning", summary, shown, step=view.began, nodes=nodes, confidence=0.85
        )


def _is_only_decoded(view: View, code: Code) -> bool:
    """Whether no loss is reached from the log-variance but through what reads it together with the mean."""
    flow = view.flow
    shared = {link.place for link in flow.sinks.get(code.mean, ())} & {
        link.place for link in flow.sinks.get(code.variance, ())
    }
    decoders = {place for place in shared if place not in view.losses and flow.vertices[place].type == "calculated"}
    seen, waiting = {code.variance}, [code.variance]
    while waiting:
        for link in flow.sinks.get(waiting.pop(), ()):
            if link.place not in seen and link.place not in decoders:
                seen.add(link.place)
                waiting.append(link.place)
    return bool(decoders) and seen.isdisjoint({*view.losses, *view.objectives})


def _is_autoencoder(view: View) -> bool:
    """Whether a loss compares what a net gives with what it is given."""
    return any(
        comparison.target is not None
        and view.flow.vertices[comparison.target].type == "input"
        and comparison.target in view.flow.upstream([comparison.prediction])
        for comparison in comparisons(view)
    )
