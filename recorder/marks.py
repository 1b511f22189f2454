"""Calls that are looked at while they run, because a recording does not show afterwards what is odd about them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from stepscope.recorder.clip_marks import mark_of_clip
from stepscope.recorder.dimension_marks import note_division, note_join, note_softmax
from stepscope.recorder.exponent_marks import mark_of_exponential, note_scale
from stepscope.recorder.masked_scores import note_mask
from stepscope.recorder.place_marks import mark_of_places, note_slice
from stepscope.recorder.random_state import DRAWS, is_drawn
from stepscope.recorder.reshapes import mixes_samples, scrambles
from stepscope.recorder.sign_marks import mark_of_sum, note_factor
from stepscope.recorder.state_marks import mark_of_beginning, mark_of_cell
from stepscope.recorder.term_marks import mark_of_term
from stepscope.recorder.total_marks import mark_of_bend, note_total
from stepscope.recorder.trace import Trace
from stepscope.recorder.weighing_marks import note_einsum, note_product, note_reshape
from stepscope.recorder.whole_marks import note_meeting, note_whole

_Arguments = tuple[Any, ...]
_Named = dict[str, Any]
_SLOW, _FAST = 0.01, 0.5
"""Momenta of a batch normalisation between which its running statistics are those of several batches."""
_SAME = frozenset(["", "detach", "clone", "to"])
_MOST = 0.7
"""The share that is dropped beyond which little is left."""


def _of_reshape(made: torch.Tensor, args: _Arguments, kwargs: _Named, trace: Trace) -> str:
    note_join(made, args, kwargs, trace)
    before, after = args[0].shape, made.shape
    if mixes_samples(before, after):
        return "mix"
    return "scramble" if scrambles(before, after) else ""


def _of_recurrence(made: torch.Tensor, args: _Arguments, kwargs: _Named, trace: Trace) -> str:
    """A layer that reads the first dimension as time; what it is given is not packed, and no single sample.

    Or one that starts from a state which the step did not make: that of another step.
    """
    if beginning := mark_of_beginning(args, trace):
        return beginning
    if args[-1] is False and args[0].dim() == 3:
        return "time first"
    states = args[1] if isinstance(args[1], (tuple, list)) else (args[1],)
    known = [trace.known(state) for state in states if isinstance(state, torch.Tensor)]
    is_carried = bool(known) and all(_is_from_outside(trace, node) for node in known)
    return "carried state" if is_carried else ""


def _is_from_outside(trace: Trace, node: int | None) -> bool:
    """Whether a tensor is no parameter, and nothing that was computed, or made as zeros, within the step."""
    while node is not None and len(trace.parents[node]) == 1 and trace.operations[node] in _SAME:
        node = trace.parents[node][0]
    return node is None or not (trace.parents[node] or trace.carries_grad[node] or trace.operations[node])


def _of_dropout(made: torch.Tensor, args: _Arguments, kwargs: _Named, trace: Trace) -> str:
    training, share = _argument(args, kwargs, "training", 2, True), _argument(args, kwargs, "p", 1, 0.5)
    if not training or not share:
        return ""
    _note_draw(made, args, kwargs, trace)
    return f"high dropout: p={share:.2g}" if share > _MOST and made.requires_grad else "dropout"


def _of_fused_attention(made: torch.Tensor, args: _Arguments, kwargs: _Named, trace: Trace) -> str:
    """It drops weights whenever it is told a share, since it knows of no mode."""
    return "dropout" if _argument(args, kwargs, "dropout_p", 4, 0.0) else ""


def _of_batch_norm(made: torch.Tensor, args: _Arguments, kwargs: _Named, trace: Trace) -> str:
    """Running statistics that hardly follow the batches, or forget all but the last one; or are there, and not used.

    Or are used although they are those of the start.
    """
    momentum = _argument(args, kwargs, "momentum", 6, 0.1)
    if not _argument(args, kwargs, "training", 5, False):
        is_learning = made.requires_grad and _is_untouched(_argument(args, kwargs, "running_mean", 1, None))
        return "first statistics" if is_learning else ""
    if isinstance(momentum, float) and not _SLOW <= momentum < _FAST:
        return f"momentum: momentum={momentum:.2g}"
    return "" if _argument(args, kwargs, "running_mean", 1, None) is None else "by the batch"


def _is_untouched(running_mean: Any) -> bool:
    """Whether a running mean is all zeros, as at first; only of one that need not be waited for."""
    if running_mean.__class__ is not torch.Tensor or running_mean.device.type != "cpu":
        return False
    return not running_mean.any()


def _of_arithmetic(name: str, made: torch.Tensor, args: _Arguments, kwargs: _Named, trace: Trace) -> str:
    """A row and a column of the same length, which become a square; a table of places that is added along samples."""
    note_meeting(name, made, args, trace)
    if name in ("mul", "rmul"):
        note_factor(made, args, trace)
        note_scale(name, made, args, trace)
        note_mask(made, args, trace)
    if name in ("sub", "rsub") and made.dtype == torch.uint8:
        return "wraps"
    if name in ("add", "radd") and (sign := mark_of_sum(made, trace)):  # of a likelihood and a penalty
        return sign
    return _of_shapes(name, made, args, trace) or mark_of_term(name, made, args, trace)


def _of_shapes(name: str, made: torch.Tensor, args: _Arguments, trace: Trace) -> str:
    if made.dim() == 3:
        return mark_of_places(made, args, trace) if name in ("add", "radd", "iadd") else ""
    if (
        made.dim() != 2
        or len(args) < 2
        or not isinstance(args[0], torch.Tensor)
        or not isinstance(args[1], torch.Tensor)
    ):
        return ""
    samples = made.shape[0]
    shapes = {tuple(args[0].shape), tuple(args[1].shape)}
    return "square" if samples > 1 and shapes == {(samples,), (samples, 1)} else ""


def _of_division(made: torch.Tensor, args: _Arguments, kwargs: _Named, trace: Trace) -> str:
    note_factor(made, args, trace)
    note_scale("div", made, args, trace)
    return mark_of_sum(made, trace) or note_division(made, args, kwargs, trace)


def _of_sum(made: torch.Tensor, args: _Arguments, kwargs: _Named, trace: Trace) -> str:
    note_total(made, args, kwargs, trace)
    return note_whole(made, args, kwargs, trace) or mark_of_sum(made, trace)


def _note_draw(made: torch.Tensor, args: _Arguments, kwargs: _Named, trace: Trace) -> str:
    trace.draws = trace.draws or is_drawn(made, kwargs)
    return ""


def _of_draw(made: torch.Tensor, args: _Arguments, kwargs: _Named, trace: Trace) -> str:
    _note_draw(made, args, kwargs, trace)
    return "draw" if args and isinstance(args[0], torch.Tensor) and not made.requires_grad else ""


def _argument(args: _Arguments, kwargs: _Named, name: str, position: int, default: Any) -> Any:
    return kwargs.get(name, args[position] if len(args) > position else default)


_LOOKS: dict[str, Callable[[torch.Tensor, _Arguments, _Named, Trace], str]] = {
    **dict.fromkeys(["view", "reshape"], _of_reshape),
    "flatten": note_join,
    **dict.fromkeys(["unflatten", "squeeze", "unsqueeze"], note_reshape),
    "pad": lambda made, args, kwargs, trace: "pad",
    "batch_norm": _of_batch_norm,
    **dict.fromkeys(["softmax", "log_softmax", "normalize"], note_softmax),
    **dict.fromkeys(["div", "truediv", "itruediv"], _of_division),
    **dict.fromkeys(["matmul", "bmm"], note_product),
    "einsum": note_einsum,
    "exp": mark_of_exponential,
    "scaled_dot_product_attention": _of_fused_attention,
    **dict.fromkeys(["gru", "lstm", "rnn_tanh", "rnn_relu"], _of_recurrence),
    **dict.fromkeys(["gru_cell", "lstm_cell", "rnn_tanh_cell", "rnn_relu_cell"], mark_of_cell),
    **dict.fromkeys(["logsigmoid", "softplus", "log"], mark_of_bend),
    **dict.fromkeys(["dropout", "alpha_dropout", "dropout1d", "dropout2d", "dropout3d"], _of_dropout),
    **{name: partial(_of_arithmetic, name) for name in ("sub", "rsub", "add", "radd", "iadd", "mul", "rmul")},
    **dict.fromkeys(["max", "min", "amax", "amin", "median"], note_whole),
    **dict.fromkeys(["sum", "mean"], _of_sum),
    **dict.fromkeys(["clamp", "clip"], mark_of_clip),
    "getitem": note_slice,
    "real": lambda made, args, kwargs, trace: "real part" if args[0].is_complex() else "",
    **dict.fromkeys(["imag", "angle", "view_as_real"], lambda made, args, kwargs, trace: "imaginary part"),
    **dict.fromkeys(DRAWS, _note_draw),
    **dict.fromkeys(["normal", "bernoulli", "multinomial", "poisson"], _of_draw),
}
MARKED = frozenset(_LOOKS)
"""The torch functions that may be odd."""


def mark_of(name: str, args: _Arguments, kwargs: _Named, made: torch.Tensor, trace: Trace) -> str:
    """What is odd about a call of one of ``MARKED``, as a kind of ``Call``; empty if nothing is.

    An argument that matters may follow: ``"high dropout: p=0.9"``.
    """
    return _LOOKS[name](made, args, kwargs, trace) if args else ""
