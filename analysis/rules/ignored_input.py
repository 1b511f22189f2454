"""The rule ``ignored-input``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Flow, Place
from stepscope.analysis.parameters import is_gradient_zero, trainable
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence
from stepscope.store import Step

Uses = dict[Place, frozenset[Place]]
_LEAST = 6


@dataclass(frozen=True)
class IgnoredInput(Rule):
    """The loss does not depend on an input.

    Symptom: the loss settles where a constant answer would; changing the input changes nothing.

    How it is measured: in the joined graph of the training steps no path leads from the input to a loss. An alarm
    only if that is so for all inputs of the trial; a single one may be there for other reasons.

    An input from which something on the way to a loss is computed in the first recorded step, and in (almost) none of
    the later ones, is a warning: what was made of it then was kept, and stands for all others.

    Of a recurrent layer: its weights from one moment to the next get a gradient of exactly zero, those of its input do
    not, so that only one moment counts.

    Causes: a variable that was overwritten or mixed up in ``forward``, a branch that leaves the input out, a mask or
    another result that is kept from the first batch (``if self.mask is None``, ``lru_cache``).

    Remedy: follow the input in the graph to where its path ends.

    Attributes:
        later: the share of the later steps in which an input may still count. Source: of ours; what is drawn by lot
            (a modality that is dropped, say) comes back.
    """

    name = "ignored-input"
    causes = "A variable that was overwritten or mixed up in forward(), or a branch that leaves the input out."
    remedy = "Follow the input in the graph to where its path ends, and connect it."
    later: float = 0.05

    def check(self, view: View) -> Iterable[Finding]:
        yield from self._one_moment(view)
        yield from self._only_at_first(view)
        inputs = view.flow.of_type("input")
        if not view.training or not view.losses or not inputs:
            return
        used = view.flow.upstream(view.losses)
        ignored = list(dict.fromkeys(place.node for place in inputs if place not in used))
        ignored = [node for node in ignored if not any(place in used for place in view.flow.of_node(node))]
        nothing_used = not any(place in used for place in inputs)
        for node in ignored:
            summary = f"No loss depends on {node}: no path leads from it to {view.objectives[0].node}."
            shown = [evidence(view.history(node), "mean", "the input")]
            yield self.finding(view, node, "warning" if nothing_used else "info", summary, shown, step=view.began)

    def _only_at_first(self, view: View) -> Iterable[Finding]:
        """Inputs of which a result is kept: some of what they are used for happens in the first step, and no more."""
        for kind in view.training_kinds:
            steps = [step for step in view.training if step.kind == kind]
            if len(steps) < _LEAST or steps[0].number != int(view.trial.steps[0]):
                continue
            known: dict[tuple[bytes, ...], Uses] = {}
            first, *later = [_uses(step, known) for step in steps]
            for place in sorted(first):
                given = [uses for uses in later if place in uses]
                lost = [
                    end for end in first[place] if sum(end in uses[place] for uses in given) <= self.later * len(given)
                ]
                if lost and len(given) > len(later) / 2:
                    whole = len(lost) == len(first[place])
                    yield self._kept(view, place, sorted(lost, key=lambda end: view.position.get(end.node, 0)), whole)

    def _kept(self, view: View, place: Place, lost: list[Place], whole: bool) -> Finding:
        uses = "The loss hangs on" if whole else f"{lost[0].node} is computed from"
        summary = (
            f"{uses} {place.node} in the first step only, and in no later one: what was made of it then (a mask, say) "
            f"is kept, stale, and stands for all other batches."
        )
        shown = [evidence(view.history(place.node, role=place.role), "mean", "the input")]
        vertices = [view.flow.vertices[end] for end in lost]
        return self.finding(
            view, place.node, "warning", summary, shown, step=view.training[1].number, confidence=0.9,
            nodes=list(dict.fromkeys(end.node for end in lost)), source=vertices[0].source,
            causes="A mask, a length or another result that is made once and kept (a cache whose key lacks the batch).",
            remedy="Make it anew for each batch, or keep only what does not depend on the batch.",
        )  # fmt: skip

    def _one_moment(self, view: View) -> Iterable[Finding]:
        """Recurrent layers whose weights from one moment to the next never count, although those of the input do."""
        nodes = {parameter.node for parameter in trainable(view) if len(view.training) >= 3}
        for node in sorted(nodes):
            module, _, name = node.rpartition(".")
            if not name.startswith("weight_hh") or not is_gradient_zero(view, node):
                continue
            entering = f"{module}.{name.replace('_hh', '_ih')}"
            if entering not in nodes or is_gradient_zero(view, entering):
                continue
            backwards = name.endswith("_reverse")
            moment = "last moment, in its backward direction" if backwards else "first moment"
            summary = (
                f"Only the {moment} of what {module} reads has a say: the gradient of {node} is exactly zero in all "
                f"training steps, so that no loss depends on what comes from other moments."
            )
            shown = [evidence(view.history(node, "gradient"), "abs_max", "zero in all steps")]
            yield self.finding(
                view, module, "warning", summary, shown, step=view.began, nodes=[node], confidence=0.85,
                causes="The output is read at the wrong end (out[:, 0], or out[:, -1] of both directions), or there is "
                "one moment only.",
                remedy="Read the last state (h_n), or out[:, -1]; of a bidirectional layer both final states.",
            )  # fmt: skip


def _uses(step: Step, known: dict[tuple[bytes, ...], Uses]) -> Uses:
    """For each input of a step what is computed from it directly, and leads to a loss."""
    iterations = step.iterations or (0,)
    digests = tuple(step.graph_digest(iteration) for iteration in iterations)
    if digests not in known:
        flow = Flow([step.graph(iteration) for iteration in iterations])
        counts = flow.upstream(flow.of_type("loss"))
        known[digests] = {
            place: frozenset(link.place for link in flow.sinks.get(place, ()) if link.place in counts)
            for place in flow.of_type("input")
        }
    return known[digests]
