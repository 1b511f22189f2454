"""What a policy's choices are weighed by, in a step that trains a critic, too; on the writer's thread.

The loss of an actor and a critic has two terms: choices, by the logarithm of their chance, times how much better they
went than the critic had thought, and what the critic was wrong by. No gradient of the first may reach the critic, and
without the critic's guess in it, the second one is of no use.
"""

from __future__ import annotations

from collections.abc import Iterator

from stepscope.recorder.job import StepJob
from stepscope.recorder.loss_walk import COMPARES, KEEPS, PLAIN, PRODUCTS, TURNS, behind

ATTACHED, UNASKED = "attached", "unasked"
_DIFFERENCES = frozenset(["sub", "rsub"])
_LOSSES_OF_CHOICES = frozenset(["log_softmax", "cross_entropy", "nll_loss"])
_SQUARES = frozenset(["pow", "square"])
_OF_CHANCE = KEEPS | TURNS | {"exp", "sub", "minimum", "min"}
_OF_WEIGHT = KEEPS | TURNS | {"sub"}


class Advantages:
    """Looks at all products that a loss is made of.

    Attributes:
        attached: products of a chance and of a difference that carries a gradient on to a critic; and this difference.
        unasked: products of a chance and of the returns themselves; and the error of the critic that foresees them.
    """

    def __init__(self, job: StepJob) -> None:
        self._job = job
        self.attached: dict[int, int] = {}
        self.unasked: dict[int, int] = {}
        ends = [node for node, index in job.named_nodes.items() if job.named[index].type == "loss"]
        parts = sorted({one for end in ends for one in behind(job, end, PLAIN) if job.carries_grad[one]})
        products = [node for node in parts if job.operations[node] in PRODUCTS and len(job.parents[node]) == 2]
        squares = [node for node in parts if job.operations[node] in _SQUARES | {"abs"}]
        self._squared = {parent for node in squares for parent in job.parents[node]}
        self._parts = parts
        for node in products:
            self._look(node)

    @property
    def errors(self) -> dict[int, int]:
        """The critic's error that each of these products is about."""
        return self.unasked | self.attached

    def _look(self, node: int) -> None:
        for chance, weight in (self._job.parents[node], self._job.parents[node][::-1]):
            if self._is_chance(chance) and not self._is_chance(weight):
                if self._job.carries_grad[weight]:
                    self.attached.update((node, difference) for difference in self._learned_differences(weight))
                else:
                    self.unasked.update((node, error) for error in self._errors_of_returns(weight))

    def _is_chance(self, node: int) -> bool:
        """Whether this is the logarithm of what was chosen, or a ratio of chances."""
        job = self._job
        for one in behind(job, node, _OF_CHANCE) if job.carries_grad[node] else ():
            operation, parents = job.operations[one], job.parents[one]
            is_of_classes = operation in _LOSSES_OF_CHOICES or any(job.operations[p] == "logsumexp" for p in parents)
            # The density of a normal distribution: minus a square, with something added.
            is_density = operation in _SQUARES and one != node and job.operations[parents[0]] in _DIFFERENCES
            if is_of_classes or is_density:
                return True
        return False

    def _learned_differences(self, weight: int) -> Iterator[int]:
        """What a weight has of the error of a module that learns from this very error in another term."""
        job = self._job
        for one in behind(job, weight, _OF_WEIGHT):
            if job.operations[one] in _DIFFERENCES and job.carries_grad[one]:
                critics = set(self._guesses(one))
                if critics and any(critics.intersection(self._guesses(term)) for term, _ in self._regressions()):
                    yield one
                    return

    def _errors_of_returns(self, weight: int) -> Iterator[int]:
        """The errors of a model that foresees what choices are weighed by, if nothing of a model is in that."""
        made_of = set(behind(self._job, weight, PLAIN))
        if not any(self._job.operations[one] == "detach" or self._is_made(one) for one in made_of):
            yield from (error for error, target in self._regressions() if target in made_of)

    def _regressions(self) -> Iterator[tuple[int, int | None]]:
        """The errors of modules that a loss has, with the data that they are compared with, if it is data."""
        job = self._job
        for one in self._parts:
            is_error = job.operations[one] in (_DIFFERENCES if one in self._squared else COMPARES - _DIFFERENCES)
            if is_error and len(job.parents[one]) == 2:
                data = [parent for parent in job.parents[one] if not job.carries_grad[parent]]
                yield one, data[0] if data else None

    def _guesses(self, error: int) -> Iterator[int]:
        """The outputs of modules that an error is of."""
        job = self._job
        for parent in job.parents[error]:
            if job.carries_grad[parent]:
                yield from (one for one in behind(job, parent, KEEPS) if self._is_made(one))

    def _is_made(self, node: int) -> bool:
        """Whether a module gave this."""
        index = self._job.named_nodes.get(node)
        return index is not None and bool(self._job.named[index].module) and self._job.named[index].type == "calculated"
