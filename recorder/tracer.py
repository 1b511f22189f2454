"""Watches torch calls during a recorded step and writes them into the trace."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from stepscope.recorder.edge_values import WATCHED
from stepscope.recorder.frames import user_place
from stepscope.recorder.loss_functions import LOSS_FUNCTIONS
from stepscope.recorder.loss_marks import mark_of_loss
from stepscope.recorder.loss_scale import MULTIPLICATIONS, UNSCALING, is_scaling
from stepscope.recorder.marks import MARKED, mark_of
from stepscope.recorder.trace import Trace, tensors_in

UNSEEN = torch._C.DisableTorchFunction
"""Inside it, the recorder's own tensor calls are not seen."""

_PURE, _IN_PLACE, _MAYBE_IN_PLACE, _BACKWARD, _SETTER, _GRAD, _FOREACH, _READ_GRAD = range(8)

_INPLACE_ARGUMENT = {  # torch.nn.functional functions with an ``inplace`` argument, and its position
    "relu": 1, "relu6": 1, "selu": 1, "hardswish": 1, "hardsigmoid": 1, "silu": 1, "mish": 1,
    "leaky_relu": 2, "elu": 2, "celu": 2, "hardtanh": 3, "threshold": 3, "rrelu": 4,
    "dropout": 3, "alpha_dropout": 3, "dropout1d": 3, "dropout2d": 3, "dropout3d": 3, "feature_alpha_dropout": 3,
}  # fmt: skip

_CLIPPING = torch.nn.utils.clip_grad.__file__
"""Where ``clip_grad_norm_`` and ``clip_grad_value_`` read gradients."""

_LEAVING = frozenset(["numpy", "item", "tolist"])
"""Methods by which numbers leave torch, and no gradient comes back."""

_USUAL_NAMES = {"log_sigmoid": "logsigmoid"}
"""Functions whose own name is not that by which they are called."""

_NO_CHANGE = frozenset(["requires_grad_", "rename_", "share_memory_"])
"""Methods whose names look as if they changed values."""


def _classify(function: Callable[..., Any]) -> int:
    name = getattr(function, "__name__", "")
    if function is torch.autograd.grad:
        return _GRAD
    if name == "backward":
        return _BACKWARD
    if name == "__set__":
        return _SETTER
    if name == "__get__" and _attribute(function) == "grad":
        return _READ_GRAD
    if name in _NO_CHANGE:
        return _PURE
    if name in ("__setitem__", "copy_", "set_"):
        return _IN_PLACE
    if name.startswith("__i") and name not in ("__index__", "__int__", "__iter__", "__invert__"):
        return _IN_PLACE
    if name.endswith("_") and not name.endswith("__"):
        return _IN_PLACE if not name.startswith("_foreach") else _FOREACH
    return _MAYBE_IN_PLACE if name in _INPLACE_ARGUMENT else _PURE


class Listener:
    """What the tracer tells of besides the trace; the session implements it."""

    def before_change(self, tensor: torch.Tensor, operation: str) -> None:
        """An in-place operation is about to change this tensor."""

    def before_replaced_gradient(self, tensor: torch.Tensor, gradient: object) -> None:
        """The ``.grad`` of a tensor is about to be set."""

    def before_gradient_read(self, tensor: torch.Tensor) -> None:
        """A function of torch that clips gradients is about to read that of a tensor."""

    def before_backward(self, tensors: Iterable[torch.Tensor]) -> None:
        """``backward`` is about to be called on these tensors."""

    def on_grad(self, begins: bool) -> None:
        """``torch.autograd.grad`` begins, or has ended."""

    def on_scaled(self, loss: torch.Tensor, scaled: torch.Tensor, scale: torch.Tensor) -> None:
        """A ``GradScaler`` multiplied a loss by its scale."""

    def on_unscaled(self, gradients: Iterable[torch.Tensor]) -> None:
        """A ``GradScaler`` divides gradients in place."""

    def on_arguments(self, name: str, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A torch function is about to be called with tensors."""

    def on_loss_function(self, name: str, result: torch.Tensor) -> None:
        """A loss function was called."""


class Tracer(TorchFunctionMode):
    """The torch-function mode of a recorded step. A fault in it is given to ``on_fault`` and ends the tracing only."""

    def __init__(self, trace: Trace, listener: Listener, on_fault: Callable[[Exception], None]) -> None:
        super().__init__()
        self.paused = False
        self.installed = False
        self.broken = False
        self._is_off = False
        self._trace = trace
        self._listener = listener
        self._on_fault = on_fault
        self._classes: dict[Any, int] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.paused or self.broken:
            return func(*args, **kwargs)
        try:
            category = self._category(func)
            if category == _READ_GRAD:
                category = _PURE
                if sys._getframe(1).f_code.co_filename == _CLIPPING:
                    self._listener.before_gradient_read(args[0])
            if category or "out" in kwargs:
                self._before(category, func, args, kwargs)
        except Exception as error:
            self._fail(error)
            return func(*args, **kwargs)
        result = func(*args, **kwargs)
        try:
            if category == _FOREACH:
                self._after_foreach(func.__name__, args)
            elif result is not None or category in (_IN_PLACE, _SETTER):
                self._after(category, func, args, kwargs, result)
        except Exception as error:
            self._fail(error)
        return result

    def install(self) -> None:
        """See torch calls from now on."""
        torch._C._push_on_torch_function_stack(self)
        self.installed = True

    def remove(self) -> None:
        """Take this mode off the stack, wherever it is by now; safe to call twice."""
        above = []
        while self.installed and torch._C._len_torch_function_stack():
            mode = torch._C._pop_torch_function_stack()
            if mode is self:
                break
            above.append(mode)
        for mode in reversed(above):
            torch._C._push_on_torch_function_stack(mode)
        self.installed = False

    def give_up(self) -> None:
        """See nothing more in this step."""
        self.broken = True
        self.remove()

    def pause(self, paused: bool) -> None:
        """See nothing for a while: off the stack, calls cost nothing; below somebody else's mode, it stays there."""
        self.paused = paused
        if not self.installed:
            return
        if paused and top_mode() is self:
            torch._C._pop_torch_function_stack()
            self._is_off = True
        elif not paused and self._is_off:
            torch._C._push_on_torch_function_stack(self)
            self._is_off = False

    def trace_opaque(self, operation: str, inputs: Any, outputs: Any) -> None:
        """Write one step into the trace for something whose inside was not watched."""
        trace = self._trace
        parents = tuple(dict.fromkeys(trace.node(tensor) for tensor in tensors_in(inputs)))
        place = user_place(2)
        for output in tensors_in(outputs):
            trace.add(parents, output.requires_grad, operation, place, output)

    def _fail(self, error: Exception) -> None:
        self.broken = True
        self._on_fault(error)

    def _category(self, func: Any) -> int:
        category = self._classes.get(func)
        if category is None:
            category = self._classes[func] = _classify(func)
        return category

    def _before(self, category: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if category == _BACKWARD:
            self._listener.before_backward(tensors_in(args[0] if args else kwargs.get("tensors")))
            return
        if category == _GRAD:
            self._listener.on_grad(True)
            return
        if func.__name__ == UNSCALING:
            self._listener.on_unscaled(args[0])
        if category == _SETTER and _attribute(func) == "grad":
            self._listener.before_replaced_gradient(*args[:2])
        if category == _FOREACH:
            for tensor in tensors_in(args[0]):
                self._listener.before_change(tensor, func.__name__)
        changed = _changed_argument(category, func, args, kwargs)
        for tensor in tensors_in(kwargs.get("out")) if changed is None else (changed,):
            self._listener.before_change(tensor, func.__name__)

    def _after_foreach(self, name: str, args: tuple[Any, ...]) -> None:
        """Each tensor of a list was changed in place, by its partners in the other lists and by what is no list."""
        partners = [arg for arg in args if isinstance(arg, (list, tuple))]
        common = [arg for arg in args if isinstance(arg, torch.Tensor)]
        for row in zip(*partners, strict=False):
            self._write(name.strip("_"), [t for t in (*row, *common) if isinstance(t, torch.Tensor)], [], row[0])

    def _after(self, category: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        if category == _BACKWARD:
            return
        if category == _GRAD:
            self._listener.on_grad(False)
        outputs = _tensors_of(result)
        changed = _changed_argument(category, func, args, kwargs) if category or kwargs else None
        if not outputs and changed is None:
            return self._leave(func, args)
        name = func.__name__
        name = _USUAL_NAMES.get(name, name)
        if name == "__get__":
            name = getattr(getattr(func, "__self__", None), "__name__", "view")
        self._listener.on_arguments(name, func, args, kwargs)
        if name in MULTIPLICATIONS and is_scaling(sys._getframe(2)):
            self._listener.on_scaled(args[0], outputs[0], args[1])
        inputs = tensors_in((args, kwargs)) if kwargs else tensors_in(args)
        if changed is None and category != _PURE and _is_among(outputs[0], inputs):
            changed = outputs[0]
        if kwargs and changed is None and kwargs.get("out") is not None:
            self._write_to_several(name, inputs, outputs)
        else:
            self._write(name.strip("_"), inputs, outputs, changed)
        self._mark(name, args, kwargs, outputs)

    def _mark(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: list[torch.Tensor]) -> None:
        """Note what is odd about a call, or may turn out to be."""
        trace, plain = self._trace, name.strip("_")
        if plain in WATCHED and outputs:
            trace.edges.note(trace.node(outputs[0]), plain, args, outputs[0])
        if name in LOSS_FUNCTIONS:
            mark = mark_of_loss(name, args, kwargs, trace)
            self._listener.on_loss_function(name, outputs[0])
        else:
            mark = mark_of(plain, args, kwargs, outputs[0], trace) if plain in MARKED else ""
        if mark:
            trace.marks[trace.node(outputs[0])] = mark

    def _leave(self, func: Any, args: tuple[Any, ...]) -> None:
        """A call gave no tensor: note where numbers leave torch that a gradient would have come back to."""
        name = getattr(func, "__name__", "")
        if name in _LEAVING and args and args[0].requires_grad:
            self._trace.add((self._trace.node(args[0]),), False, name, user_place(3))

    def _write_to_several(self, name: str, inputs: list[torch.Tensor], outs: list[torch.Tensor]) -> None:
        """``torch.max(..., out=(values, indices))``"""
        others = [tensor for tensor in inputs if not _is_among(tensor, outs)]
        for out in outs:
            self._write(name, [*others, out], [], out)

    def _write(
        self, operation: str, inputs: list[torch.Tensor], outputs: list[torch.Tensor], changed: torch.Tensor | None
    ) -> None:
        trace = self._trace
        parents = trace.nodes(inputs)
        # What a framework computes from the user's tensors (Lightning scales the loss) stands where those do.
        place = user_place(2) or next((trace.places[parent] for parent in parents if trace.places[parent]), None)
        for output in outputs:
            if output is not changed and not _is_among(output, inputs):
                trace.add(parents, output.requires_grad, operation, place, output)
        if changed is not None:
            trace.change(changed, trace.add(parents, changed.requires_grad, operation, place))


def top_mode() -> Any:
    """The innermost torch-function mode, if there is one."""
    depth = torch._C._len_torch_function_stack()
    return torch._C._get_function_stack_at(depth - 1) if depth else None


def _is_among(tensor: torch.Tensor, others: list[torch.Tensor]) -> bool:
    for other in others:  # noqa: SIM110 - a plain loop: this is asked at every torch call
        if other is tensor:
            return True
    return False


def _tensors_of(result: Any) -> list[torch.Tensor]:
    if isinstance(result, torch.Tensor):
        return [result]
    return tensors_in(result) if isinstance(result, (tuple, list, dict)) else []


def _changed_argument(category: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor | None:
    """The tensor that a call changes in place, if it does."""
    out = kwargs.get("out") if kwargs else None
    if isinstance(out, torch.Tensor):
        return out
    first = args[0] if args else None
    if category == _PURE or not isinstance(first, torch.Tensor):
        return None
    if category == _MAYBE_IN_PLACE:
        position = _INPLACE_ARGUMENT[func.__name__]
        inplace = kwargs.get("inplace", args[position] if len(args) > position else False)
        return first if inplace is True else None
    if category == _FOREACH or (category == _SETTER and _attribute(func) != "data"):
        return None
    return first


def _attribute(setter: Any) -> str:
    return getattr(getattr(setter, "__self__", None), "__name__", "")
