"""The rule ``altered-gradients``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.finding import Finding
from stepscope.analysis.history import Values
from stepscope.analysis.own_sums import norms, own_sums, with_bias
from stepscope.analysis.parameters import learning, listed
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class AlteredGradients(Rule):
    """What the optimizer gets for a gradient is not what the backward pass gave: noise, or the opposite.

    Symptom: the loss falls far slower than it should, or rises, though the model and its data are sound.

    How it is measured: a bias is added to every sample, so its gradient is exactly the sum of the gradient of its
    layer's output. Where its direction is the opposite one, or has nothing to do with that of the sum although it is
    larger, something changed gradients in between. Clipping keeps the direction, the mean over devices is no larger.

    Causes: noise for privacy, or for exploring, that is far larger than the gradients; a sign that is turned in a hook
    or in a ``backward`` of one's own (a gradient reversal, which is meant between adversaries).

    Remedy: lower the noise, or make batches larger; look at hooks and at every ``backward`` that you wrote.

    Attributes:
        least: recorded steps below which nothing is said. Source: ten signs are alike by chance once in 500 times.
        share: of the steps in which it must be the opposite. Source: of ours.
        times: how many times its own sum a gradient must be, in the median, whose direction it does not have.
        alike: the cosine with its own sum below which it does not have it. Source: noise in eight dimensions gives 0.35
            now and then.
    """

    name = "altered-gradients"
    about = "gradients"
    causes = "Noise that is far larger than the gradients, or a sign turned in a hook or in a backward of one's own."
    remedy = "Lower the noise or make batches larger; look at hooks and at every backward that you wrote."
    least: int = 10
    share: float = 0.95
    times: float = 3.0
    alike: float = 0.3

    def check(self, view: View) -> Iterable[Finding]:
        noisy, turned = [], []
        for node, bias, own in self._known(view):
            cosines = (bias * own).sum(-1) / np.maximum(norms(bias) * norms(own), 1e-300)
            carried = np.median((bias[1:] * bias[:-1]).sum(-1) / (norms(bias[1:]) * norms(bias[:-1]) + 1e-300))
            if np.mean(cosines < -1 + 1e-3) > self.share:  # where only their sums are known, each is 1 or -1
                turned.append(node)
            elif bias.shape[1] > 1 and np.median(np.abs(cosines)) < self.alike and abs(carried) < self.alike:
                noisy += [node] if np.median(norms(bias) / norms(own)) > self.times else []
        if turned:
            what = "are the opposite of what the backward pass gave behind their layers"
            yield self._finding(view, turned, what, turned)
        if noisy:
            what = "are drowned in noise: larger than what the backward pass gave, of any direction"
            yield self._finding(view, noisy, what, learning(view))

    def _known(self, view: View) -> Iterator[tuple[str, Values, Values]]:
        """For each bias that is in use, its gradients and its own sums where neither is zero."""
        for module in with_bias(view):
            sums = own_sums(view, module)
            if sums is None or sums.of_calls:
                continue
            telling = (norms(sums.bias) > 0) & (norms(sums.output) > 0)
            if telling.sum() >= self.least:
                yield f"{module}.bias", sums.bias[telling], sums.output[telling]

    def _finding(self, view: View, biases: list[str], what: str, concerned: list[str]) -> Finding:
        first, history = biases[0], view.history(biases[0], "gradient")
        text = f"Gradients {what}; {listed(biases)} tell." if len(biases) > 1 else f"Gradients {what}; {first} tells."
        return self.finding(
            view, first, "info", text, [evidence(history, "norm", "what the optimizer gets")],
            step=int(history.steps[0]), nodes=[node for node in concerned if node != first], confidence=0.8,
        )  # fmt: skip
