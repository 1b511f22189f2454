"""The neurons of the selected tensor, one row each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stepscope.store import Tensor
from stepscope.store.records import NEURON_STATISTICS, Neurons
from stepscope.viewer.numbers import count


@dataclass(frozen=True)
class NeuronTable:
    """Columns as ``(field, title)``; rows as dictionaries; a sentence that says which neurons these are."""

    columns: tuple[tuple[str, str], ...] = ()
    rows: tuple[dict[str, Any], ...] = ()
    caption: str = ""


def neuron_table(tensor: Tensor, other: Tensor | None) -> NeuronTable:
    """The kept neurons of a tensor, besides those of the compared trial's where they are the same ones."""
    neurons = tensor.neurons
    if neurons is None or neurons.total == 0:
        return NeuronTable(caption=tensor.left_out or "No neurons were kept of this tensor.")
    kept = neurons.samples.shape[1]
    values = _values(tensor, neurons)
    theirs = other.neurons if other is not None else None
    if theirs is not None and theirs.total == neurons.total and theirs.samples.shape[1] == kept:
        first = next(iter(values.values()))
        against = next(iter(_values(other, theirs).values())) if other is not None else first
        values = {"other": against, "difference": first - against} | values
    labels = _labels(tensor, neurons.total, kept)
    lists = {name: _plain(column) for name, column in values.items()}
    rows = tuple(
        {"key": str(i), "neuron": labels[i], "position": i, **{name: column[i] for name, column in lists.items()}}
        for i in range(kept)
    )
    columns = (("neuron", "neuron"), *((name, _title(tensor, name)) for name in values))
    return NeuronTable(columns, rows, _caption(tensor, neurons, kept))


def _caption(tensor: Tensor, neurons: Neurons, kept: int) -> str:
    parts = [f"all {count(kept)} neurons"]
    if kept != neurons.total:
        parts = [f"{count(kept)} of {count(neurons.total)} neurons, evenly spaced"]
    if neurons.precision == "bf16" and neurons.samples.size:
        parts.append("raw values to 3 digits (bf16)")
    if tensor.left_out:
        parts.append(tensor.left_out)
    return "; ".join(parts)


def _values(tensor: Tensor, neurons: Neurons) -> dict[str, Any]:
    if neurons.statistics is None:
        return {"value": neurons.samples[0].astype(np.float64)}
    found = {name: neurons.statistics[i].astype(np.float64) for i, name in enumerate(NEURON_STATISTICS)}
    return found | {f"s{i}": row.astype(np.float64) for i, row in enumerate(neurons.samples)}


def _title(tensor: Tensor, name: str) -> str:
    if name in ("other", "difference") or not (name.startswith("s") and name[1:].isdigit()):
        return name
    position = int(name[1:])
    labels = tensor.step.categories
    index = tensor.step.samples[position] if position < len(tensor.step.samples) else position
    return f"sample {index}" + (f" | {labels[position]}" if position < len(labels) and labels[position] else "")


def _labels(tensor: Tensor, total: int, kept: int) -> list[str]:
    """Where each kept neuron stands in the tensor without its batch dimension."""
    shape = [size for dim, size in enumerate(tensor.shape) if dim != tensor.info.batch_dim]
    flat = [i * total // kept for i in range(kept)]
    if len(shape) < 2 or int(np.prod(shape)) != total:
        return [str(index) for index in flat]
    return [", ".join(map(str, map(int, place))) for place in zip(*np.unravel_index(flat, shape), strict=True)]


def _plain(values: Any) -> list[float | None]:
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values.tolist()]
