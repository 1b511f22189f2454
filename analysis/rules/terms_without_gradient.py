"""The rule ``terms-without-gradient``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place, Site
from stepscope.analysis.lines import sites_of
from stepscope.analysis.loss_inputs import SMALL
from stepscope.analysis.lost_losses import is_driven
from stepscope.analysis.occurrences import occurrences
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence
from stepscope.store.records import SourceLine

_DETACHING = frozenset(["detach", "detach_", "data"])
_FEWEST = 3
"""Steps by which a habit can be told from chance."""


@dataclass(frozen=True)
class TermsWithoutGradient(Rule):
    """A term of the loss, or a derivative in it, that was computed from the net and passes no gradient on.

    Symptom: the loss has all its terms, and training looks only after some of them: a policy that only its entropy
    moves, an equation that is never fulfilled, a gradient penalty without effect.

    How it is measured: the recorder walks back from each loss through plain arithmetic. A single number that is added
    there, does not require a gradient, and was computed from weights that get one elsewhere in the step is a constant
    for the optimizer; what was detached on purpose, and the entropy of a teacher within a divergence, are left out. So
    is what ``autograd.grad`` gave without ``create_graph=True``, if it is a derivative with respect to data and goes
    into the loss by arithmetic alone (an attack that makes new inputs of it goes through the net again). Or one of the
    usual losses is a term of another one, and all it compares are data and one prediction that was detached right
    before it. Or, in every training step, the line of the loss has computed others before it, of which nothing was
    made; if there is but one, or they were looked at (``item()``), this is worth knowing only. So is a loss function's
    result that carries a gradient and goes nowhere.

    Causes: values kept from a pass under ``no_grad`` (log-probabilities while playing); ``autograd.grad`` with
    ``retain_graph`` where ``create_graph`` was meant; ``x.grad`` that is read into a loss; ``loss = ...`` in a loop
    where ``loss += ...`` was meant, or ``backward`` behind the loop instead of in it.

    Remedy: compute what the loss needs once more, with a graph; ``autograd.grad(..., create_graph=True)``.

    Source: no threshold.
    """

    name = "terms-without-gradient"
    about = "loss"
    causes = "A part of the loss was computed under no_grad(), or is a derivative that was taken without a graph."
    remedy = "Compute it again with a gradient; take derivatives by autograd.grad(..., create_graph=True)."

    def check(self, view: View) -> Iterable[Finding]:
        for kind in ("no gradient", "no graph"):
            for site in {site.source: site for site in sites_of(view, kind)}.values():
                yield self._finding(view, site)
        yield from self._detached(view)
        yield from self._overwritten(view)
        yield from self._unused(view)

    def _detached(self, view: View) -> Iterable[Finding]:
        """Terms that are losses themselves, of a prediction that was cut off from the weights right before."""
        cuts = sites_of(view, "cut")
        for term in view.losses:
            site = next((site for site in cuts if term in site.after and site.operation in _DETACHING), None)
            made = _only_prediction(view, term)
            wholes = [loss for loss in view.losses if loss != term and _adds(view, loss, term)]
            if site is None or made is None or made not in site.before or not wholes:
                continue
            summary = (
                f"{term.node}, a term of {wholes[0].node}, compares what {made.node} gave after it was detached: it "
                f"changes the loss, and trains nothing, as no gradient passes through a {site.operation}."
            )
            history = view.history(term.node, role=term.role)
            nodes = dict.fromkeys(node for node in (made.node, wholes[0].node) if node != term.node)
            yield self.finding(
                view, term.node, "warning", summary, [evidence(history, "mean", "trains nothing")], source=site.source,
                step=view.began, nodes=list(nodes), confidence=0.85,
                causes="A prediction that was detached for another loss (a discriminator's) is used in this one, too.",
                remedy="Compute this term from what was not detached, or leave it out.",
            )  # fmt: skip

    def _overwritten(self, view: View) -> Iterable[Finding]:
        """Losses of the same line, of which only the last one counts."""
        found = occurrences(view, "overwritten")
        if len(found) < _FEWEST or not all(found):
            return
        for source in {call.source: call for call in found[-1]}:
            here = [place for place in view.losses if view.flow.vertices[place].source == source]
            loss = next((place for place in here if is_driven(view, place)), None)
            counts = [call.operation.partition("(")[2].split() for calls in found for call in calls]
            left = min(int(count) for count, _ in counts)
            is_sure = left > 1 and all(seen.startswith("unseen") for _, seen in counts)
            if loss is None:
                continue
            others = "the other one is overwritten, or never used, and trains nothing."
            if left > 1:
                others = f"the {left} others are overwritten, or never used, and train nothing."
            summary = (
                f"Only the last of {left + 1} losses that this line computes in a step reaches backward ({loss.node}): "
                f"{others}"
            )
            yield self.finding(
                view, loss.node, "warning" if is_sure else "info", summary,
                [evidence(view.history(loss.node, role=loss.role), "mean", "the last one")], source=source,
                step=view.began, confidence=0.9 if is_sure else 0.6,
                nodes=list(dict.fromkeys(place.node for place in here if place.node != loss.node)),
                causes="loss = ... in a loop where loss += ... was meant, or backward() behind the loop, not in it.",
                remedy="Add the losses up, or average them, and call backward() on the sum.",
            )  # fmt: skip

    def _unused(self, view: View) -> Iterable[Finding]:
        """Losses of torch's that would train something, and that nothing was made of."""
        driven = [loss for loss in view.losses if is_driven(view, loss)]
        known = {_call(view, loss) for loss in driven}
        for loss in view.losses if driven else ():
            learns = any(link.differentiable for link in view.flow.sources.get(loss, ()))
            if loss in driven or not learns or view.flow.sinks.get(loss) or _call(view, loss) in known:
                continue
            known.add(_call(view, loss))
            summary = (
                f"{loss.node} is computed with a gradient and is not part of the loss: backward() never gets there. "
                f"Was it to be added to {driven[0].node}?"
            )
            yield self.finding(
                view, loss.node, "info", summary, [evidence(view.history(loss.node, role=loss.role), "mean", "unused")],
                step=view.began, nodes=[driven[0].node], confidence=0.5,
                causes="A term that was forgotten in the sum; or it is only looked at.",
                remedy="Add it to the loss; if it is only looked at, compute it under torch.no_grad().",
            )  # fmt: skip

    def _finding(self, view: View, site: Site) -> Finding:
        made = [place for place in site.before if view.flow.vertices[place].type == "calculated"]
        made.sort(key=lambda place: view.position.get(place.node, 0))
        losses = [place for place in site.after if view.flow.vertices[place].type == "loss"] or view.objectives
        loss, of = losses[0].node, made[-1].node if made else "the model"
        if site.kind == "no graph":
            summary = (
                f"{loss} contains a derivative of {of} ({site.operation}) without a graph of its own "
                f"(create_graph=True is missing): no gradient flows through it, it is a constant for the optimizer."
            )
        else:
            summary = (
                f"A term of {loss} was computed from {of} without gradient (under no_grad?): it changes the loss, and "
                f"trains nothing."
            )
        history = view.history(loss)
        nodes = [place.node for place in made[::-1] if place.node != loss]
        return self.finding(
            view, loss, "warning", summary, [evidence(history, "mean", "contains it")], source=site.source,
            step=view.began, nodes=list(dict.fromkeys(nodes)), confidence=0.9,
        )  # fmt: skip


def _call(view: View, loss: Place) -> tuple[SourceLine | None, str]:
    """The call that made a loss: line and operation."""
    vertex = view.flow.vertices[loss]
    return vertex.source, vertex.operation


def _only_prediction(view: View, term: Place) -> Place | None:
    """What a usual loss compares with data, if no gradient passes to it, but one would pass on to weights."""
    links = [link for link in view.flow.sources.get(term, ()) if not link.lag]
    if view.flow.vertices[term].operation not in SMALL or any(link.differentiable for link in links):
        return None
    made = [link.place for link in links if view.flow.vertices[link.place].type == "calculated"]
    if len(made) != 1:
        return None
    behind = view.flow.upstream(made, differentiable=True)
    return made[0] if any(view.flow.vertices[place].type == "parameter" for place in behind) else None


def _adds(view: View, loss: Place, term: Place) -> bool:
    """Whether a loss is the sum of a term without gradient and of something that has one."""
    links = [link for link in view.flow.sources.get(loss, ()) if not link.lag]
    without = any(link.place == term and not link.differentiable for link in links)
    return without and any(link.differentiable for link in links)
