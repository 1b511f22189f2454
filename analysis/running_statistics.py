"""The running statistics of batch normalisations: which never began, and which move although all is frozen."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stepscope.analysis.followers import followers, still_buffers
from stepscope.analysis.layers import rms
from stepscope.analysis.robust import median
from stepscope.analysis.view import View
from stepscope.store.records import ModuleInfo

_LEAST = 10


def norms(view: View) -> Iterator[tuple[str, ModuleInfo]]:
    """Modules with an output that a batch normalisation made, whatever their class is called."""
    for path, module in view.modules.items():
        node = view.nodes.get(path)
        if node is not None and node.operation == "batch_norm" and any(_buffers(module, "running_mean")):
            yield path, module


def never_began(view: View) -> list[str]:
    """Normalisations whose statistics are mean 0 and variance 1, exactly, in all steps of a training.

    Without those of averages, whose statistics are looked at with the average.
    """
    if len(view.training) < _LEAST:
        return []
    unlearned = [
        path
        for path, _ in norms(view)
        if _is_always(view, f"{path}.running_mean", 0.0) and _is_always(view, f"{path}.running_var", 1.0)
    ]
    known = followers(view) if unlearned else ()  # these are searched for among all modules
    looked_at = {buffer for follower in known for buffer in still_buffers(view, follower)}
    return [path for path in unlearned if f"{path}.running_mean" not in looked_at]


def input_size(view: View, path: str) -> float:
    """The root mean square of what goes into a normalisation, in the median of all steps; NaN if it has no name."""
    sources = [link.place for place in view.all_flow.of_node(path) for link in view.all_flow.sources.get(place, ())]
    named = [place for place in sources if view.all_flow.vertices[place].type in ("calculated", "input")]
    histories = [view.history(place.node, role=place.role, training=False) for place in named[:1]]
    return median(rms(histories[0])) if histories and len(histories[0]) else np.nan


def is_part_of_what_moves(view: View, path: str) -> bool:
    """Whether any parameter of the watched model changes that a module belongs to: no net that stays random."""
    top = path.partition(".")[0]
    return any(
        _changes(view, info.names[0])
        for name, module in view.modules.items()
        if name.partition(".")[0] == top
        for info in module.parameters
        if info.recorded and not info.is_buffer
    )


def moving_in_frozen(view: View) -> Iterator[str]:
    """Normalisations that were trained before, are frozen now, and whose statistics move nevertheless."""
    if len(view.training) < _LEAST or view.steps[0].number:
        return
    for path, module in norms(view):
        weights = [info for info in module.parameters if not info.is_buffer]
        mean = view.history(f"{path}.running_mean", training=False)
        if (
            weights
            and len(mean)
            and float(mean.of("abs_max")[0]) > 0  # of a new one it is zero
            and not any(info.trainable or _changes(view, info.names[0]) for info in weights)
            and _changes(view, mean.node)
        ):
            yield path


def _buffers(module: ModuleInfo, name: str) -> Iterator[str]:
    return (info.names[0] for info in module.parameters if info.is_buffer and info.name == name and info.recorded)


def _is_always(view: View, node: str, number: float) -> bool:
    history = view.history(node, training=False)
    ends = np.concatenate([history.of("min"), history.of("max")])
    return len(history) >= _LEAST and bool(np.all(ends == number))


def _changes(view: View, node: str) -> bool:
    return not view.history(node, training=False).is_constant
