"""The register of a step: every tensor that has a name, and which names are taken."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import torch

from stepscope.recorder.batch import BatchSize
from stepscope.recorder.errors import DuplicateNameError
from stepscope.recorder.frames import user_place
from stepscope.recorder.guard import Faults
from stepscope.recorder.named import PRELUDE, Named
from stepscope.recorder.trace import Trace
from stepscope.recorder.watched import WatchedTensor
from stepscope.store.records import TensorType

_TRANSFORMED = "tensors inside a function transform (vmap, grad, jvp) were not measured"


class Register:
    """Gives tensors their names. ``on_named`` is called with each tensor that got one and is to be measured.

    ``iteration`` is the one that is open, ``PRELUDE`` outside of all; ``iterations`` counts them.
    """

    def __init__(self, trace: Trace, faults: Faults, on_named: Callable[[torch.Tensor, Named], None]) -> None:
        self.trace = trace
        self.batch = BatchSize()
        self.named: list[Named] = []
        self.iteration = PRELUDE
        self.iterations = 0
        self._faults = faults
        self._on_named = on_named
        self._taken: dict[tuple[str, str, int], int] = defaultdict(int)

    def open_iteration(self) -> None:
        self.iteration = self.iterations
        self.iterations += 1
        self.trace.start_iteration()

    def close_iteration(self) -> None:
        self.iteration = PRELUDE
        self.trace.start_iteration()

    def claim(self, node: str, role: str) -> None:
        """Take a name and role for the user, once an iteration.

        Raises:
            DuplicateNameError: it is taken.
        """
        key = (node, role, self.iteration)
        if self._taken[key]:
            where = "this step" if self.iteration == PRELUDE else f"iteration {self.iteration}"
            raise DuplicateNameError(
                f"{node!r} (role {role!r}) was already recorded in {where}; "
                "give the second tensor another name or role=..."
            )
        self._taken[key] += 1

    def calls(self, node: str) -> int:
        """How often the recorder itself used a node in this iteration."""
        return self._taken[node, "", self.iteration]

    def next_call(self, node: str) -> int:
        """The number of this use of a node in this iteration, from 0."""
        key = (node, "", self.iteration)
        call = self._taken[key]
        self._taken[key] = call + 1
        return call

    def find(self, tensor: torch.Tensor) -> Named | None:
        """The name that a tensor, as it is now, has."""
        node = self.trace.known(tensor)
        index = None if node is None else self.trace.named.get(node)
        return None if index is None else self.named[index]

    def find_automatic(self, tensor: torch.Tensor) -> Named | None:
        """The name that the recorder itself gave to a tensor in this iteration."""
        known = self.find(tensor)
        return known if known is not None and known.automatic and known.iteration == self.iteration else None

    def is_data(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor holds data from outside the model, of the batch's size: no constant, no parameter."""
        return self.trace.is_data(tensor) and not isinstance(tensor, torch.nn.Parameter) and self.batch.fits(tensor)

    def add(
        self,
        tensor: torch.Tensor,
        node: str,
        role: str,
        type: TensorType,
        *,
        module: tuple[str, str] = ("", ""),
        batch_dim: int | None = None,
        batched: bool = True,
        automatic: bool = False,
        call: int = 0,
    ) -> None:
        """Name a tensor; ``module`` is the path and the class of the one in which it was made."""
        if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
            self._faults.tell(_TRANSFORMED)
            return
        if batch_dim is None and batched and type != "loss":
            batch_dim = self.batch.find(tensor)
        named = Named(
            node, role, self.iteration, type, tensor.dtype, tensor.device, batch_dim,
            *module, call, automatic, order=len(self.named),
        )  # fmt: skip
        self.named.append(named)
        named.trace_node = self.trace.name(tensor, named.order, user_place)
        self._on_named(tensor, named)

    def add_output(self, tensor: torch.Tensor, node: int, path: str, class_name: str) -> None:
        """Name the single output of a module, for which the trace has just made a node."""
        if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
            self._faults.tell(_TRANSFORMED)
            return
        call = self.next_call(path)
        named = Named(
            path, "output", self.iteration, "calculated", tensor.dtype, tensor.device,
            self.batch.find(tensor), path, class_name, call, False, node, len(self.named),
        )  # fmt: skip
        self.named.append(named)
        self.trace.name_made(tensor, node, named.order)
        self._on_named(tensor, named)

    def add_weight(self, watched: WatchedTensor) -> Named:
        """Name a parameter or a buffer."""
        tensor = watched.tensor
        type: TensorType = "buffer" if watched.is_buffer else "parameter"
        named = Named(
            watched.name, type, PRELUDE, type, tensor.dtype, tensor.device, None,
            watched.module, watched.module_class, order=len(self.named),
        )  # fmt: skip
        self.named.append(named)
        named.trace_node = self.trace.name(tensor, named.order, None)
        return named
