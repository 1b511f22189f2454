"""The trace of a step: which tensor came from which, as torch calls tell it.

A ``Trace`` is a list of small nodes, one an output of a torch call; a node knows its parents. Nothing is searched
while the step runs: the edges between *named* nodes are found afterwards, in ``graph.py``, from plain numbers.

Tensors are known by identity and a weak reference, so that the trace keeps none of them alive. An in-place
operation gives its tensor a new node, and is remembered for its storage, because views of it change too.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch

from stepscope.recorder.autograd_walk import mark, mark_once, named_ancestors
from stepscope.recorder.edge_values import EdgeSums
from stepscope.recorder.frames import Place

_numbers = itertools.count()
_REENTRANT_CHECKPOINT = "CheckpointFunctionBackward"


class Trace:
    """Nodes of one step, in the order in which they were made.

    ``parents[n]`` are the nodes that ``n`` was computed from, ``carries_grad[n]`` whether its tensor requires a
    gradient, ``operations[n]`` and ``places[n]`` what made it and where.
    """

    def __init__(self) -> None:
        self.parents: list[tuple[int, ...]] = []
        self.carries_grad: list[bool] = []
        self.operations: list[str] = []
        self.places: list[Place | None] = []
        self.marks: dict[int, str] = {}  # node -> what is odd about the call that made it
        self.summed: dict[int, int] = {}  # node -> the dimension, from the end, that a softmax was taken over
        self.spread: dict[int, tuple[int, frozenset[int]]] = {}  # reshaped -> its softmax, and the dimensions of it now
        self.weighed: dict[int, int] = {}  # a product -> the softmax that made odd weights for it
        self.joined: dict[int, tuple[int, int]] = {}  # node -> the two dimensions that became its first
        self.beginnings: set[int] = set()  # the first rows of a longer table that was not computed
        self.turned: set[int] = set()  # what was multiplied with a negative number
        self.divided: dict[int, float] = {}  # a table -> the number it was divided by
        self.cell_states: dict[int, tuple[int | None, ...]] = {}  # weight of a cell -> the states it began from
        self.draws = False  # whether random numbers were drawn from a default generator
        self.masked: set[int] = set()  # what was multiplied with zeros and ones
        self.starts: dict[int, int] = {}  # a slice of time -> the place at which it begins
        self.wholes: dict[int, int] = {}  # node -> the reduction of a whole table to one number that it comes from
        self.row_sums: set[int] = set()  # sums of the rows of a table
        self.totals: set[int] = set()  # sums over a whole table, or over such rows, to one number
        self.edges = EdgeSums()  # what operations gave that can make infinite numbers
        self.named: dict[int, int] = {}  # node -> index of the named tensor
        self.rooted: list[bool] = []  # whether a named tensor is among the node's ancestors, or is the node
        self._of: dict[int, tuple[weakref.ref[torch.Tensor], int]] = {}
        self._changed: dict[int, tuple[int, ...]] = {}  # storage -> the last in-place change, the last with a gradient
        self._iteration_start = 0
        self._mark = f"stepscope {next(_numbers)}"

    def add(
        self,
        parents: tuple[int, ...],
        carries_grad: bool,
        operation: str = "",
        place: Place | None = None,
        tensor: torch.Tensor | None = None,
    ) -> int:
        """A new node; that of the tensor from now on, if one is given."""
        if tensor is not None:
            self._of[id(tensor)] = (weakref.ref(tensor), len(self.parents))
        self.parents.append(parents)
        self.carries_grad.append(carries_grad)
        self.operations.append(operation)
        self.places.append(place)
        rooted = self.rooted
        for parent in parents:
            if rooted[parent]:
                rooted.append(True)
                break
        else:
            rooted.append(False)
        return len(rooted) - 1

    def known(self, tensor: torch.Tensor) -> int | None:
        """The node of a tensor, if the trace has seen it."""
        entry = self._of.get(id(tensor))
        return entry[1] if entry is not None and entry[0]() is tensor else None

    def node(self, tensor: torch.Tensor) -> int:
        """The node of a tensor as it is now; one without parents is made for a tensor that was never seen."""
        entry = self._of.get(id(tensor))
        if entry is None or entry[0]() is not tensor:
            return self._meet(tensor)
        known = entry[1]
        if tensor.requires_grad and not self.carries_grad[known]:
            known = self._now_requiring_grad(tensor, known)
        if self._changed:
            known = self._with_changes(tensor, known)
        return known

    def nodes(self, tensors: Iterable[torch.Tensor]) -> tuple[int, ...]:
        """The nodes of several tensors, each once."""
        of, carries_grad, is_unchanged = self._of, self.carries_grad, not self._changed
        found: dict[int, None] = {}
        for tensor in tensors:
            entry = of.get(id(tensor))
            if entry is None or entry[0]() is not tensor or not (carries_grad[entry[1]] or not tensor.requires_grad):
                found[self.node(tensor)] = None
            else:
                found[entry[1] if is_unchanged else self.node(tensor)] = None
        return tuple(found)

    def has_met(self, tensors: Iterable[torch.Tensor | None]) -> bool:
        """Whether all of these, as far as there are any, are known to the trace, and plain tensors."""
        of = self._of
        for tensor in tensors:
            if tensor is not None:
                entry = of.get(id(tensor))
                if entry is None or entry[0]() is not tensor or tensor.__class__ not in _PLAIN_TENSORS:
                    return False
        return True

    def is_data(self, tensor: torch.Tensor) -> bool:
        """Whether nothing named is behind this tensor: it came into the step from outside, or from data that did."""
        known = self.known(tensor)
        return tensor.grad_fn is None if known is None else not self.rooted[known]

    def put(self, tensor: torch.Tensor, node: int) -> None:
        """Let ``node`` be the node of this tensor from now on."""
        self._of[id(tensor)] = (weakref.ref(tensor), node)

    def name(self, tensor: torch.Tensor, index: int, find_place: Callable[[], Place | None] | None) -> int:
        """Give the tensor, as it is now, a name, which hides what lies behind it; also from what came before the name.

        Only a tensor that has a name already, or was made in another iteration, gets a node of its own for it.
        ``find_place`` is asked for the place only if no torch call told where the tensor was made.
        """
        made_by = node = self.node(tensor)
        if made_by in self.named or made_by < self._iteration_start:
            node = self.add((made_by,), tensor.requires_grad, self.operations[made_by], self.places[made_by])
            self.put(tensor, node)
        if self.places[node] is None and find_place is not None:
            self.places[node] = find_place()
        self.named[node] = index
        self.rooted[node] = True
        if tensor.grad_fn is not None:
            mark(tensor.grad_fn, self._mark, node)
        self._hide_change(tensor, made_by, node)
        return node

    def name_made(self, tensor: torch.Tensor, node: int, index: int) -> None:
        """The same for a new tensor, right after its node was made."""
        self.named[node] = index
        self.rooted[node] = True
        function: Any = tensor.grad_fn
        if function is not None:
            function.metadata[self._mark] = node

    def start_iteration(self) -> None:
        """An iteration begins or ends: names that are given from now on are not those of what was made before."""
        self._iteration_start = len(self.parents)

    def root(self, tensor: torch.Tensor) -> None:
        """Let what is computed from a tensor be no data from outside, although the tensor has no name."""
        self.rooted[self.node(tensor)] = True

    def derive(self, tensor: torch.Tensor, origin: torch.Tensor) -> None:
        """Let a tensor come from another one, by a way that gradients pass although no torch call shows it."""
        start, end = self.node(origin), self.node(tensor)
        if start not in self.parents[end]:
            self.parents[end] += (start,)
            self.rooted[end] = True

    def connect(self, source: torch.Tensor, sink: torch.Tensor) -> None:
        """Let ``sink`` come from ``source`` too, by a way that no gradient passes."""
        start, end = self.node(source), self.node(sink)
        self.parents[end] += (self.add((start,), False),)
        self.rooted[end] = self.rooted[end] or self.rooted[start]

    def change(self, tensor: torch.Tensor, node: int) -> None:
        """An in-place operation made ``node`` out of the tensor: remember it for views of the same storage."""
        self.put(tensor, node)
        key = _storage(tensor)
        if key:
            self._note_change(key, node)

    def release(self) -> None:
        """Drop everything that refers to tensors or to the autograd graph; the plain numbers stay."""
        self._of.clear()
        self._changed.clear()

    def _note_change(self, storage: int, node: int) -> None:
        """Behind the last change are all those before it; what a gradient passes may end one change earlier."""
        with_gradient = (node,) if self.carries_grad[node] else self._changed.get(storage, ())[1:]
        self._changed[storage] = (node, *with_gradient)

    def _hide_change(self, tensor: torch.Tensor, made_by: int, node: int) -> None:
        """Views that are read later come from the name that a changed tensor got, not from the change behind it."""
        if node != made_by and self._changed:
            storage = _storage(tensor)
            if made_by in self._changed.get(storage, ()):
                self._note_change(storage, node)

    def _meet(self, tensor: torch.Tensor) -> int:
        if tensor.grad_fn is not None:
            return self._through_autograd(tensor, ())
        node = self.add((), tensor.requires_grad)
        self.put(tensor, node)
        return node

    def _through_autograd(self, tensor: torch.Tensor, before: tuple[int, ...]) -> int:
        """A tensor whose gradient path torch calls did not show (a custom function): ask the autograd graph."""
        operation = type(tensor.grad_fn).__name__ if tensor.grad_fn is not None else ""
        if operation == _REENTRANT_CHECKPOINT and before:
            found: tuple[int, ...] = ()
            self._carry_through(before)
        else:
            behind = named_ancestors(tensor.grad_fn, self._mark, self.known)
            found = tuple(self._as_of(node, before[0]) for node in behind) if before else behind
        place = self.places[before[0]] if before else None
        node = self.add((*found, *before), tensor.requires_grad, operation, place)
        self.put(tensor, node)
        if tensor.grad_fn is not None:
            mark_once(tensor.grad_fn, self._mark, node)  # so that the next one behind it does not walk the same way
        return node

    def _as_of(self, node: int, moment: int) -> int:
        """What a tensor was at an earlier moment, before later names and changes of it."""
        while node > moment and self.parents[node]:
            node = self.parents[node][0]
        return node

    def _carry_through(self, ends: tuple[int, ...]) -> None:
        """Let gradients pass a region that ran without a graph, and will run again with one in ``backward``."""
        region: set[int] = set()
        stack = [end for end in ends if not self.carries_grad[end]]
        while stack:
            node = stack.pop()
            if node not in region:
                region.add(node)
                stack.extend(parent for parent in self.parents[node] if not self.carries_grad[parent])
        for node in sorted(region):
            if self.operations[node] != "detach":
                self.carries_grad[node] = any(self.carries_grad[parent] for parent in self.parents[node])

    def _now_requiring_grad(self, tensor: torch.Tensor, known: int) -> int:
        if tensor.grad_fn is None and known in self.named:
            self.carries_grad[known] = True
            return known
        return self._through_autograd(tensor, (known,))

    def _with_changes(self, tensor: torch.Tensor, known: int) -> int:
        later = [change for change in dict.fromkeys(self._changed.get(_storage(tensor), ())) if change > known]
        if not later:
            return known
        node = self.add((known, *later), tensor.requires_grad, self.operations[known], self.places[known])
        self.put(tensor, node)
        return node


def _storage(tensor: torch.Tensor) -> int:
    """The address of the tensor's storage; 0 for tensors without one of their own (sparse, wrapped)."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError, ValueError):
        return 0


_PLAIN_TENSORS = (torch.Tensor, torch.nn.Parameter)
_PLAIN = frozenset([int, float, bool, str, type(None), torch.dtype, torch.device])


_DEPTH = 5


def tensors_in(value: Any) -> list[torch.Tensor]:
    """All tensors in an argument or a result: tensors, and containers of them, some levels deep."""
    found: list[torch.Tensor] = []
    if value.__class__ is tuple:  # as the arguments of a call are
        _collect(value, _DEPTH - 1, found)
    else:
        _collect((value,), _DEPTH, found)
    return found


def _collect(values: Iterable[Any], depth: int, found: list[torch.Tensor]) -> None:
    for value in values:
        if value.__class__ in _PLAIN:
            continue
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif depth and isinstance(value, (list, tuple, set, frozenset)):
            _collect(value, depth - 1, found)
        elif depth and isinstance(value, dict):
            _collect(value.values(), depth - 1, found)
