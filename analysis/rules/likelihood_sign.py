"""The rule ``likelihood-sign``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place, Site
from stepscope.analysis.lines import sites_of
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_GAINS = ("reward", "return", "score", "accuracy")


@dataclass(frozen=True)
class LikelihoodSign(Rule):
    """A loss that is a log-probability without its minus: what should become likely becomes unlikely.

    Symptom: the loss falls without end, below zero; a policy gets worse from step to step; a classifier learns to be
    wrong.

    How it is measured: the loss is one number, made of one logarithm of probabilities (a log_softmax, a density of a
    normal distribution, the negative of a cross-entropy) by sums, means, selections and products, with a plus in all:
    signs are counted along the calls; the size of weights may be added (a penalty). So is the logarithm of the sigmoid
    of a difference of two scores: minimised, it has no end, whichever of the two is preferred. Multiplied with data,
    such as returns, it is worth knowing only, since these may be costs; unless something that was recorded as a reward,
    return, score or accuracy falls meanwhile.

    Causes: the minus of a policy gradient or a likelihood was forgotten, or is there twice.

    Remedy: minimise the negative: ``-(log_prob * advantage).mean()``.

    Attributes:
        fall: how many times its spread (of the differences from step to step) a reward must fall. Source: of ours;
            what wanders falls by less over the thirds of a run.
    """

    name = "likelihood-sign"
    about = "loss"
    causes = "The minus of a policy gradient or of a likelihood was forgotten, or is there twice."
    remedy = "Minimise the negative: -(log_prob * advantage).mean(), or -log_prob.mean()."
    fall: float = 1.0

    def check(self, view: View) -> Iterable[Finding]:
        losses = set(view.objectives)
        for site in sites_of(view, "plus log"):
            loss = next((p for p in site.after if p in losses and view.flow.vertices[p].source == site.source), None)
            operation, _, weighted = site.operation.partition("(")
            if loss is not None and view.flow.vertices[loss].operation == operation and not _is_entropy(view, site):
                if weighted.startswith("pair"):
                    yield self._of_pair(view, site, loss)
                else:
                    yield self._finding(view, site, loss, is_weighted=weighted.startswith("weighted"))

    def _of_pair(self, view: View, site: Site, loss: Place) -> Finding:
        """The logarithm of the sigmoid of what one score is above another."""
        sources = sorted(site.before, key=lambda place: view.position.get(place.node, 0))
        made = list(dict.fromkeys(p.node for p in sources if view.flow.vertices[p].type == "calculated"))
        summary = (
            f"{loss.node} is the log-likelihood of a preference, log(sigmoid(difference of {' and '.join(made)})), "
            f"with a plus, without a minus: descent turns the order around, without end (wrong sign?)."
        )
        history = view.history(loss.node, role=loss.role)
        return self.finding(
            view, loss.node, "warning", summary, [evidence(history, "mean", "to be made small")],
            step=view.began, nodes=made[::-1], confidence=0.8, source=site.source,
            remedy="Minimise the negative: -F.logsigmoid(preferred - other).mean().",
        )  # fmt: skip

    def _finding(self, view: View, site: Site, loss: Place, *, is_weighted: bool) -> Finding:
        falling = self._falling(view)
        sources = sorted(site.before, key=lambda place: view.position.get(place.node, 0))
        made = [p.node for p in sources if view.flow.vertices[p].type == "calculated"]
        of = made[-1] if made else "the model"
        what = f"log-probabilities of {of}{' times data' if is_weighted else ''} with a plus, without a minus"
        doubt = f" Meanwhile {falling} falls." if falling else " Right only if the data are costs." * is_weighted
        summary = (
            f"{loss.node} is the {site.operation.partition('(')[0]} of {what}: descent makes them ever less likely "
            f"(wrong sign?).{doubt}"
        )
        history = view.history(loss.node, role=loss.role)
        return self.finding(
            view, loss.node, "warning" if falling or not is_weighted else "info", summary,
            [evidence(history, "mean", "to be made small")], step=view.began, nodes=made[::-1],
            confidence=0.9 if falling or not is_weighted else 0.6, source=site.source,
        )  # fmt: skip

    def _falling(self, view: View) -> str:
        """What was recorded as a number that is to grow, and falls."""
        for group, name in view.trial.scalar_names:
            if any(word in name.lower() for word in _GAINS):
                values = view.trial.scalars(name, group=group).values
                third = len(values) // 3
                spread = float(np.std(np.diff(values))) if third > 2 else np.inf
                if third and np.mean(values[-third:]) < np.mean(values[:third]) - self.fall * spread:
                    return name
        return ""


def _is_entropy(view: View, site: Site) -> bool:
    """Whether a net's log-probabilities are of what it drew itself, and another one judges that, as in SAC."""
    for place in site.before:
        if view.flow.vertices[place].type == "parameter":
            continue
        others = {other for other in site.before if other.node != place.node and other.node in view.modules}
        if others & view.flow.downstream(view.flow.of_node(place.node), differentiable=True):
            return True
    return False
