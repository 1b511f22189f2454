"""The parameters of the watched models: which can be trained, what gradient they get, whether they change."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.history import History
from stepscope.analysis.robust import largest, smallest
from stepscope.analysis.view import View

_NOTHING_LEFT = 1e-3
"""The part of a gradient's largest size at which an optimizer that looks at it, as L-BFGS does, has arrived."""


@dataclass(frozen=True)
class Parameter:
    """A parameter that can be trained: its node, and the path of the module that owns it."""

    node: str
    module: str
    module_class: str
    shape: tuple[int, ...]


def trainable(view: View) -> list[Parameter]:
    """All trainable parameters that are recorded, each once, in the order of the modules."""
    found: dict[str, Parameter] = {}
    for module in view.trial.network:
        for info in module.parameters:
            if info.trainable and info.recorded and not info.is_buffer:
                node = info.names[0]
                found.setdefault(node, Parameter(node, module.path, module.module_class, info.shape))
    return list(found.values())


def gradients(view: View, node: str) -> list[History]:
    """The gradients of a node, one history a loss group."""
    known = view.nodes.get(node)
    names = [name for name in known.quantities if name.startswith("gradient")] if known else []
    return [history for history in (view.history(node, name) for name in names) if len(history)]


def has_gradient(view: View, node: str) -> bool:
    """Whether any gradient of it was recorded, be it zero."""
    return bool(gradients(view, node))


def is_gradient_zero(view: View, node: str) -> bool:
    """Whether it has gradients, and all of them are exactly zero."""
    histories = gradients(view, node)
    return bool(histories) and all(bool(np.all(history.of("abs_max") == 0)) for history in histories)


def is_left_over(view: View, node: str) -> bool:
    """Whether its gradients are the same, bit for bit, in all of at least three training steps.

    They are of an earlier training then, and nobody cleared them: no loss reaches it now.
    """
    histories = gradients(view, node)
    return bool(histories) and all(len(history) >= 3 and not history.is_changed.any() for history in histories)


def learning(view: View) -> list[str]:
    """The nodes of all trainable parameters that get gradients: what a mistake of the optimizer is about."""
    return [parameter.node for parameter in trainable(view) if has_gradient(view, parameter.node)]


def is_unchanged(view: View, node: str) -> bool:
    """Whether its value is the same in all of at least three training steps."""
    history = view.history(node)
    if len(history) < 3:
        return False
    update = view.history(node, "update")
    moved = len(update) > 0 and bool(largest(update.of("abs_max")) > 0)
    return not moved and history.is_constant


def standstill(view: View, node: str, least: int = 10) -> int | None:
    """The step from which on a parameter does not change although it has gradients; None if it goes on changing.

    It must have stood still for ``least`` recorded steps, and three times longer than ever before. A gradient that is
    next to nothing of what it was leaves nothing to be changed: the optimizer has come to its end.
    """
    history = view.history(node)
    changes = np.flatnonzero(history.is_changed)
    if not len(changes):
        return None
    still = len(history) - 2 - int(changes[-1])
    longest = int(np.diff(changes, prepend=-1).max()) - 1
    if still < max(least, 3 * longest):
        return None
    since = int(history.steps[changes[-1] + 1])
    for gradient in gradients(view, node):
        sizes, is_late = gradient.of("abs_max"), gradient.steps >= since
        if smallest(sizes[is_late]) > max(0.0, _NOTHING_LEFT * largest(sizes[~is_late])):
            return since
    return None


def gather(view: View, parameters: Iterable[Parameter]) -> dict[str, list[Parameter]]:
    """The parameters by the topmost module all of whose trainable parameters are among them."""
    chosen = list(parameters)
    names = {parameter.node for parameter in chosen}
    every = trainable(view)
    groups: dict[str, list[Parameter]] = {}
    for parameter in chosen:
        top = parameter.module
        while "." in top:
            parent = top.rpartition(".")[0]
            if parent not in view.modules or not all(p.node in names for p in every if is_inside(p.module, parent)):
                break
            top = parent
        groups.setdefault(top, []).append(parameter)
    return groups


def is_inside(path: str, module: str) -> bool:
    """Whether a path is that of a module, or of something in it."""
    return path == module or path.startswith(module + ".")


def in_sentence(nodes: Sequence[str], kind: str = "parameter") -> str:
    """Parameters for a sentence: ``"the parameter w"``, or ``"4 parameters (a, b, c and 1 more)"``."""
    return f"the {kind} {nodes[0]}" if len(nodes) == 1 else f"{len(nodes)} {kind}s ({listed(nodes)})"


def listed(names: Iterable[str], most: int = 3) -> str:
    """Names for a sentence: ``"a, b, c and 4 more"``."""
    given = list(names)
    text = ", ".join(given[:most])
    return f"{text} and {len(given) - most} more" if len(given) > most else text
