"""Where a tensor belongs in the tree of modules, and what its box is called."""

from __future__ import annotations

from stepscope.store.records import Vertex

_PLAIN_ROLES = {"output", "tensor", "parameter", "buffer"}
_OUTSIDE_MODULES = {"input", "target"}


def module_of(vertex: Vertex) -> tuple[str, ...]:
    """The modules around a tensor, outermost first: those recorded, else what the dots of its name say."""
    if vertex.module:
        return tuple(vertex.module.split("."))
    if vertex.type in _OUTSIDE_MODULES:
        return ()
    parts = vertex.node.split(".")
    return tuple(parts[:-1]) if all(parts) else ()


def short_name(vertex: Vertex) -> str:
    """The node's name without the modules around it; a module's own output is called ``output``."""
    around = ".".join(module_of(vertex))
    if not around:
        return vertex.node
    if vertex.node == around:
        return "output"
    return vertex.node.removeprefix(around + ".")


def qualifier(vertex: Vertex, *, alone: bool) -> str:
    """What tells this tensor from others of its node: its role, or how old it is.

    Args:
        vertex: the tensor.
        alone: whether no other tensor of the node is in the graph.
    """
    if vertex.lag == 1:
        return "from previous iteration"
    if vertex.lag > 1:
        return f"from {vertex.lag} iterations ago"
    if vertex.role in _PLAIN_ROLES or (alone and vertex.role.startswith("output")):
        return ""
    return vertex.role


def kind_of(vertex: Vertex) -> str:
    """The class of the module whose output it is, or what made a calculated tensor."""
    if vertex.module_class and vertex.node == vertex.module:
        return vertex.module_class
    if vertex.type in ("calculated", "loss"):
        return vertex.operation
    return ""
