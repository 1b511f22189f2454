"""The rule ``forgetful-recurrence``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding
from stepscope.analysis.occurrences import calls_in, occurs
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence
from stepscope.store import Step
from stepscope.store.records import Call, Graph


@dataclass(frozen=True)
class ForgetfulRecurrence(Rule):
    """A recurrent layer that reads one moment at a time and begins each from zeros, or from one state: it forgets.

    Symptom: what is generated repeats itself, or ignores what came before; a cell learns no more than a linear layer.

    How it is measured: within one step a recurrent layer, or cell, is called several times on sequences of a single
    moment, and in none of these calls with a state that was made before: always with zeros. If each call reads a slice
    of something longer, or what an earlier call has led to, it is certain; otherwise each may be a sequence of its own.
    Or each call reads a slice, and all of them begin from the very same state: what the layer returns is not kept.

    Causes: ``rnn(x_t)`` where ``rnn(x_t, state)`` was meant; a state that is returned and not kept, or set to zeros
    within the loop; a decoder that is given the encoder's state at every word.

    Remedy: keep what the layer returns, and give it to the next call; or give it the whole sequence at once.

    Source: the documentation of PyTorch's recurrent layers: without a state they start from zeros.

    Attributes:
        calls: fewer in a step are not judged. Source: of ours; a pair of nets that share weights makes two.
    """

    name = "forgetful-recurrence"
    causes = "The state that the layer returns is not kept, not given to the next call, or set to zeros in the loop."
    remedy = "Give each call the state that the one before returned: output, state = rnn(x, state)."
    calls: int = 3

    def check(self, view: View) -> Iterable[Finding]:
        told: set[str] = set()
        for kind, first in (("anew", 0), ("held", 1)):  # the first call that begins from a state may be right
            known: dict[bytes, tuple[Call, ...]] = {}
            for step in view.steps if occurs(view, kind) else ():
                for node, found in (_by_node(step, kind) if calls_in(step, kind, known) else {}).items():
                    if node not in told and len(found) >= max(self.calls, _times(step, node)) - first:
                        told.add(node)
                        yield from self._of_kind(view, step, node, found)

    def _of_kind(self, view: View, step: Step, node: str, found: list[Call]) -> Iterable[Finding]:
        if found[0].kind == "anew":
            yield self._finding(view, step, node, found)
        elif all("slice" in call.operation for call in found):
            yield self._of_held(view, step, node, found)

    def _of_held(self, view: View, step: Step, node: str, found: list[Call]) -> Finding:
        summary = (
            f"{node} is called {len(found) + 1} times in a step, each time for another moment, and each time it begins "
            f"from the same hidden state: what it makes of that state is never updated, and carried to no next call."
        )
        history = view.history(node, training=False)
        return self.finding(
            view, node, "warning", summary, [evidence(history, "mean", "from one state")], step=step.number,
            source=found[0].source, confidence=0.85,
        )  # fmt: skip

    def _finding(self, view: View, step: Step, node: str, found: list[Call]) -> Finding:
        is_sure = all("slice" in call.operation for call in found) or _goes_on(view, node)
        what = "each reads one moment and begins anew, from a hidden state of zeros"
        doubt = "" if is_sure else " Right only if each is a sequence of its own."
        summary = f"{node} is called {len(found)} times in a step, and {what}: nothing is remembered.{doubt}"
        history = view.history(node, training=False)
        return self.finding(
            view, node, "warning" if is_sure else "info", summary, [evidence(history, "mean", "begins anew")],
            step=step.number, source=found[0].source, confidence=0.9 if is_sure else 0.6,
        )  # fmt: skip


def _by_node(step: Step, kind: str) -> dict[str, list[Call]]:
    """The calls of a kind in a step by the module whose output they are."""
    found: dict[str, list[Call]] = {}
    for iteration in step.iterations:
        graph = step.graph(iteration)
        for call in graph.calls:
            if call.kind == kind and call.after:
                found.setdefault(graph.vertices[call.after[0]].node, []).append(call)
    return found


def _times(step: Step, node: str) -> int:
    """How many times a module is called in a step."""
    return sum(len(_calls(step.graph(iteration), node)) for iteration in step.iterations)


def _calls(graph: Graph, node: str) -> set[str]:
    """The calls of a module, whose outputs have roles such as ``call 3.0``; all roles of a single call are one."""
    roles = (vertex.role for vertex in graph.vertices if vertex.node == node and not vertex.lag)
    return {role.partition(".")[0] if role.startswith("call ") else "" for role in roles}


def _goes_on(view: View, node: str) -> bool:
    """Whether the last call of a module reads what an earlier one has led to."""
    places = view.all_flow.of_node(node)
    behind = view.all_flow.upstream(places[-1:])
    return any(place in behind for place in places[:-1])
