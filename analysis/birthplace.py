"""Where non-finite numbers come from: the first tensor that is not finite although its sources are."""

from __future__ import annotations

from dataclasses import dataclass

from stepscope.analysis.moment import Moment, non_finite_rows
from stepscope.store import Step
from stepscope.store.records import Call


@dataclass(frozen=True)
class Birth:
    """The tensor that was the first one.

    Attributes:
        node, role, iteration, quantity: which tensor.
        type, operation: of its vertex.
        nans: whether there is NaN in it, or only infinities.
        count: how many elements are not finite.
        before: the nodes it was computed from; for a gradient, those that were computed from it.
        operations: what made the nodes of ``before``.
    """

    node: str
    role: str
    iteration: int
    quantity: str
    type: str
    operation: str
    nans: bool
    count: int
    before: tuple[str, ...]
    operations: tuple[str, ...]


def find_birth(step: Step) -> Birth | None:
    """Values first, in the order of iterations and data; then gradients on the way back; None if all is well."""
    if not non_finite_rows(step).any():
        return None
    return _in_values(step) or _in_gradients(step)


def first_call_not_finite(step: Step, birth: Birth) -> Call | None:
    """The first call that gave non-finite numbers on the way to the tensor that was the first one.

    Of a gradient, on the way from that tensor to those that were computed from it: such numbers can be hidden there,
    by ``torch.where`` say, from all values, but not from the gradients.
    """
    known, is_value = step.iterations, birth.quantity == "value"
    for iteration in [birth.iteration] if birth.iteration in known else known:
        graph = step.graph(iteration)
        for call in graph.calls:
            before, after = ({graph.vertices[index].node for index in ends} for ends in (call.before, call.after))
            is_there = birth.node in after if is_value else birth.node in before and after & {*birth.before}
            if call.kind == "not finite" and is_there:
                return call
    return None


def _in_values(step: Step) -> Birth | None:
    for iteration in step.iterations:
        moment = Moment(step, iteration, "value")
        for vertex in moment.order():
            if not _is_first(moment, vertex, moment.sources[vertex]) or moment.is_mask(vertex):
                continue
            return _birth(moment, vertex, moment.sources[vertex])
    return None


def _in_gradients(step: Step) -> Birth | None:
    for iteration in reversed(step.iterations):
        moment = Moment(step, iteration, "gradient")
        for vertex in reversed(moment.order()):
            if _is_first(moment, vertex, moment.sinks[vertex]):
                return _birth(moment, vertex, moment.sinks[vertex])
    return None


def _is_first(moment: Moment, vertex: int, before: list[int]) -> bool:
    own = not moment.graph.vertices[vertex].lag
    return own and moment.bad[vertex] and not any(moment.bad[other] for other in before)


def _birth(moment: Moment, vertex: int, before: list[int]) -> Birth:
    row = moment.rows[vertex]
    assert row is not None  # only rows can be bad
    tensor, known = moment.step.layout.tensors[row], moment.graph.vertices
    return Birth(
        tensor.node, tensor.role, tensor.iteration, tensor.quantity, known[vertex].type, known[vertex].operation,
        moment.has_nan(vertex), moment.count(vertex),
        tuple(dict.fromkeys(known[other].node for other in before)),
        tuple(dict.fromkeys(known[other].operation for other in before)),
    )  # fmt: skip
