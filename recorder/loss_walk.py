"""What a loss is made of, as far as it is plain arithmetic: walked backwards through the trace, on the writer's thread.

Found are terms that no gradient passes, derivatives that were taken without a graph, an entropy with the wrong sign,
and a prediction that is the greatest of several.
"""

from __future__ import annotations

from collections.abc import Iterator

from stepscope.recorder.job import StepJob

NO_GRADIENT, NO_GRAPH, ENTROPY, GREATEST = "no gradient", "no graph", "entropy", "greatest"
FACTOR = "factor: "
"""The mark of a single number that was multiplied with a number."""
KEEPS = frozenset(
    ["", "mean", "sum", "add", "radd", "iadd", "div", "truediv", "stack", "cat", "squeeze", "unsqueeze", "view",
     "reshape", "flatten", "getitem", "gather", "select", "to", "float", "clone", "contiguous", "transpose", "clamp"]
)  # fmt: skip
TURNS = frozenset(["neg", "rsub"])
PRODUCTS = frozenset(["mul", "rmul", "imul"])
_BENDS = frozenset(
    ["sub", "pow", "square", "abs", "sqrt", "exp", "log", "relu", "maximum", "minimum", "min", "max", "where", "norm",
     "vector_norm", "linalg_vector_norm", "linalg_norm", "tanh", "sigmoid", "softplus", "sin", "cos", "rsqrt",
     "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "dot", "prod", "rpow", "rtruediv", "log1p", "expm1"]
)  # fmt: skip
PLAIN = KEEPS | TURNS | PRODUCTS | _BENDS
"""Arithmetic: what is beyond anything else, a layer say, is no part of the loss but of what is trained."""
COMPARES = frozenset(["sub", "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"])
_CHOICES = frozenset(["max", "amax"])
_LOGARITHMS = frozenset(["log_softmax", "log", "sub", "logsigmoid"])
_SHARES = frozenset(["softmax", "exp"])
_MOST = 4000


def odd_terms(job: StepJob) -> dict[int, str]:
    """The nodes of the trace that are odd in what a loss is made of, with the kind of ``Call`` that they are."""
    walk = _Walk(job)
    found = {node: NO_GRADIENT for node, mark in job.marks.items() if mark == NO_GRADIENT and walk.is_cut_off(node)}
    found |= dict.fromkeys(walk.without_graph, NO_GRAPH)
    found |= {node: NO_GRAPH for node in found if walk.leads_to_derivative(node)}
    found |= dict.fromkeys(walk.greatest, GREATEST)
    return found | dict.fromkeys(walk.entropies if walk.plays else (), ENTROPY)


def factors(job: StepJob) -> list[float]:
    """The numbers by which terms of the losses are multiplied, in the order of the calls."""
    found = {node: float(mark.removeprefix(FACTOR)) for node, mark in job.marks.items() if mark.startswith(FACTOR)}
    reached = _Walk(job).reached if found else ()
    return [found[node] for node in sorted(found) if node in reached]


class _Walk:
    """Goes back from the losses of a step, and looks at each call once.

    Attributes:
        reached: the nodes that were met.
        entropies: products ``p log p`` that the loss has with a minus: the entropy with a plus.
        without_graph: derivatives with respect to data that carry no gradient on.
        greatest: what is the greatest of a module's numbers, and compared with what has one, too.
        plays: whether logarithms of probabilities are multiplied with data, as in a policy gradient.
    """

    def __init__(self, job: StepJob) -> None:
        self._job = job
        self.reached: set[int] = set()
        self.entropies: list[int] = []
        self.without_graph: list[int] = []
        self.greatest: list[int] = []
        self.plays = False
        self._types = {node: job.named[index].type for node, index in job.named_nodes.items()}
        ends = [node for node, kind in self._types.items() if kind == "loss" and job.carries_grad[node]]
        waiting = [(node, 1) for node in ends]
        while waiting and len(self.reached) < _MOST:
            node, sign = waiting.pop()
            if node not in self.reached:
                self.reached.add(node)
                waiting += self._look(node, sign)

    def is_cut_off(self, node: int) -> bool:
        """Whether a number was computed without a gradient, though not detached, from weights that learn elsewhere."""
        job = self._job
        weights = {
            weight
            for weight in behind(self._job, node, through=None)
            if self._types.get(weight) == "parameter" and job.carries_grad[weight]
        }
        if not weights or any(self._is_entropy(*job.parents[one]) for one in self._products_behind(node)):
            return False  # of a teacher: a part of a divergence
        users = (parents for parents, learns in zip(job.parents, job.carries_grad, strict=True) if learns)
        return any(weights.intersection(parents) for parents in users)

    def leads_to_derivative(self, node: int) -> bool:
        return any(self._is_derivative(one) for one in behind(self._job, node, through=PLAIN))

    def _products_behind(self, node: int) -> Iterator[int]:
        job = self._job
        plain = behind(job, node, through=PLAIN)
        return (one for one in plain if job.operations[one] in PRODUCTS and len(job.parents[one]) == 2)

    def _look(self, node: int, sign: int) -> Iterator[tuple[int, int]]:
        """The calls behind one, each with the sign that it has in the loss; 0 where there is none."""
        operation, parents, carries = self._job.operations[node], self._job.parents[node], self._job.carries_grad
        if operation not in PLAIN and self._types.get(node) != "loss":
            return
        learning = [parent for parent in parents if carries[parent]]
        self.without_graph += [one for parent in parents if not carries[parent] for one in self._derivatives(parent)]
        if operation in PRODUCTS and len(learning) == 2 and self._is_entropy(*learning):
            self.entropies += [node] if sign < 0 else []
            return
        if operation in PRODUCTS and len(parents) == 2 and len(learning) == 1:
            self.plays = self.plays or self._is_logarithm(learning[0])
        if operation in COMPARES and len(parents) == 2 and len(learning) == 1:
            self.greatest += self._choice(parents, learning[0])
        for parent in learning:
            yield parent, self._sign(node, sign, is_first=parent == parents[0], alone=len(learning) == 1)

    def _sign(self, node: int, sign: int, *, is_first: bool, alone: bool) -> int:
        operation = self._job.operations[node]
        if operation in KEEPS or (operation == "sub" and is_first):
            return sign
        if operation in TURNS or operation == "sub":
            return -sign
        if operation in PRODUCTS and alone:
            return -sign if self._job.marks.get(node, "").startswith(f"{FACTOR}-") else sign
        return 0

    def _is_entropy(self, one: int, other: int) -> bool:
        """Whether a product is that of probabilities with their logarithms."""
        return any(self._goes_with(a, b) for a, b in ((one, other), (other, one)))

    def _goes_with(self, share: int, logarithm: int) -> bool:
        operations, parents = self._job.operations, self._job.parents
        while operations[logarithm] == "clamp" and parents[logarithm]:
            logarithm = parents[logarithm][0]
        if operations[share] not in _SHARES:
            return False
        if logarithm in parents[share]:
            return operations[logarithm] in _LOGARITHMS
        if operations[logarithm] == "log_softmax":
            return bool(set(parents[share]) & set(parents[logarithm]))
        return operations[logarithm] == "log" and share in behind(self._job, logarithm, through=PLAIN)

    def _is_logarithm(self, node: int) -> bool:
        """Whether logarithms of probabilities are behind what is multiplied with data."""
        for one in behind(self._job, node, through=KEEPS | TURNS | {"exp", "sub", "minimum", "min"}):
            operation, parents = self._job.operations[one], self._job.parents[one]
            if operation == "log_softmax" or any(self._job.operations[parent] == "logsumexp" for parent in parents):
                return True
        return False

    def _choice(self, parents: tuple[int, ...], learning: int) -> list[int]:
        """The prediction, if it and what it is compared with are the greatest of several numbers."""
        job = self._job
        chosen = next((one for one in behind(self._job, learning, KEEPS) if job.operations[one] in _CHOICES), None)
        other = next(parent for parent in parents if parent != learning)
        is_bootstrapped = any(job.operations[one] in _CHOICES for one in behind(self._job, other, PLAIN))
        made = [] if chosen is None else [self._types.get(parent) for parent in job.parents[chosen]]
        return [chosen] if chosen is not None and is_bootstrapped and "calculated" in made else []

    def _derivatives(self, node: int) -> Iterator[int]:
        return (one for one in behind(self._job, node, through=PLAIN) if self._is_derivative(one))

    def _is_derivative(self, node: int) -> bool:
        """Whether ``autograd.grad`` with respect to data made a tensor, and no graph of it."""
        job = self._job
        parents = job.parents[node]
        is_of_weights = any(self._types.get(parent) == "parameter" for parent in parents)
        of_graph = any(job.carries_grad[parent] and job.parents[parent] for parent in parents)
        return job.operations[node] == "grad" and not job.carries_grad[node] and of_graph and not is_of_weights


def behind(job: StepJob, node: int, through: frozenset[str] | None) -> Iterator[int]:
    """What a node was computed from, itself included; by these operations only, and not past a ``detach``."""
    seen, waiting = {node}, [node]
    while waiting and len(seen) < _MOST:
        one = waiting.pop()
        yield one
        operation = job.operations[one]
        if operation != "detach" and (through is None or operation in through):
            fresh = [parent for parent in job.parents[one] if parent not in seen]
            seen.update(fresh)
            waiting += fresh
