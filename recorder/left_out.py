"""What the selections of the watched models leave out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn

from stepscope.recorder.module_tree import join, own_tensors, parts
from stepscope.recorder.selection import Place, Selection


def places(prefix: str, model: nn.Module) -> Iterable[tuple[int, Place]]:
    """Every module, parameter and buffer of a model by its ``id``; shared parameters once a place."""
    for path, module in parts(model):
        full, depth = join(prefix, path), path.count(".") + 1 if path else 0
        yield id(module), Place((full,), depth, module)
        for key, tensor, _ in own_tensors(module):
            yield id(tensor), Place((f"{full}.{key}", full), depth, module)


def left_out(models: Mapping[str, nn.Module], selections: Mapping[str, Selection]) -> set[int]:
    """The ids of all that is chosen at none of its places."""
    seen: set[int] = set()
    chosen: set[int] = set()
    for prefix, model in models.items():
        for key, place in places(prefix, model):
            seen.add(key)
            if selections[prefix].chooses(place):
                chosen.add(key)
    return seen - chosen


def summary(prefix: str, model: nn.Module, selection: Selection) -> str:
    """A sentence for the recording: the selection, and how much of the model it leaves out."""
    modules = {id(module) for _, module in parts(model)}
    everything = {key for key, _ in places(prefix, model)}
    without = left_out({prefix: model}, {prefix: selection})
    return (
        f"{prefix}: watch({selection}) leaves out {len(without & modules)} of {len(modules)} modules and "
        f"{len(without - modules)} of {len(everything - modules)} parameters and buffers"
    )
