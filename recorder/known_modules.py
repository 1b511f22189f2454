"""Modules of torch whose inside is known: one call of one function, from the input and the weights to a new tensor."""

from __future__ import annotations

from torch import nn

_OPERATIONS: dict[type[nn.Module], str] = {
    nn.Linear: "linear", nn.Embedding: "embedding", nn.LayerNorm: "layer_norm", nn.GroupNorm: "group_norm",
    nn.Conv1d: "conv1d", nn.Conv2d: "conv2d", nn.Conv3d: "conv3d",
    nn.ReLU: "relu", nn.LeakyReLU: "leaky_relu", nn.ELU: "elu", nn.SiLU: "silu", nn.GELU: "gelu",
    nn.Sigmoid: "sigmoid", nn.Tanh: "tanh", nn.Softplus: "softplus",
}  # fmt: skip
"""By exact class: what a subclass does is its own. All of them pass their parameters on in the order of these."""

_FORWARD = {known: known.forward for known in _OPERATIONS}
_PARAMETERS = {
    nn.Linear: 2,
    nn.Embedding: 1,
    nn.LayerNorm: 2,
    nn.GroupNorm: 2,
    nn.Conv1d: 2,
    nn.Conv2d: 2,
    nn.Conv3d: 2,
}


def operation_of(module: nn.Module) -> str:
    """The name of the one function that a module calls; empty if there may be more to it."""
    known = module.__class__
    operation = _OPERATIONS.get(known, "")
    if not operation or known.forward is not _FORWARD[known] or len(module._parameters) != _PARAMETERS.get(known, 0):
        return ""
    return operation if is_as_known(module) else ""


def is_as_known(module: nn.Module) -> bool:
    """Whether a module still does what its class is known for: no hook, no ``forward`` of its own, nothing in place."""
    own = module.__dict__
    return not (
        own["_forward_pre_hooks"]
        or own["_forward_hooks"]
        or own["_backward_pre_hooks"]
        or own["_backward_hooks"]
        or "forward" in own
        or own.get("inplace")
        or own.get("max_norm") is not None
        or own.get("padding_mode", "zeros") != "zeros"  # there is a second call, then
    )
