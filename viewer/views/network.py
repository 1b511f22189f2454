"""The page of the modules: a tree with its parameters, their shapes and their numbers at the chosen step."""

from __future__ import annotations

import math
from typing import Any

from stepscope.analysis.layers_apart import LayerDifference, layers_apart
from stepscope.store import Step, Trial
from stepscope.store.records import STATISTICS, ModuleInfo, ParameterInfo
from stepscope.viewer.markup import Markup, el, note
from stepscope.viewer.numbers import count
from stepscope.viewer.views.moment import Moment


def network_rows(now: Moment) -> list[dict[str, Any]]:
    """One row a module and one a parameter, in the order of the tree."""
    theirs = _parameters(now.other) if now.other is not None else {}
    apart = {one.path: one for one in layers_apart(now.trial.network, now.other.network)} if now.other else {}
    optimized = any(parameter.optimizers for parameter in _parameters(now.trial).values())
    rows = []
    for module in now.trial.network:
        rows.append(_module_row(module, now.trial) | _settings(module, apart.get(module.path), now.other))
        for parameter in module.parameters:
            row = _parameter_row(module, parameter, now.step, theirs, now)
            rows.append(row | {"trainable": _trainable(parameter, optimized=optimized)})
    return rows


def network_caption(now: Moment) -> Markup:
    """The counts of the whole network."""
    if not now.trial.network:
        return note("No network is known: recorder.watch(model) records it.")
    own = list(_parameters(now.trial).values())
    total = sum(_size(parameter) for parameter in own if not parameter.is_buffer)
    trainable = sum(_size(parameter) for parameter in own if parameter.trainable and not parameter.is_buffer)
    text = f"{count(len(now.trial.network))} modules, {count(total)} parameters, {count(trainable)} of them trainable"
    if now.other is not None and now.other.network:
        others = sum(_size(parameter) for parameter in _parameters(now.other).values() if not parameter.is_buffer)
        text += f"; {now.other.name} has {count(others)} parameters"
    return el("div", note(text + ". Click a parameter to inspect it."))


def _settings(module: ModuleInfo, apart: LayerDifference | None, other: Trial | None) -> dict[str, Any]:
    """A layer's settings, where a parameter has its shape; where the other trial's are different, first what is."""
    if apart is None or other is None:
        return {"shape": module.settings}
    return {"shape": f"{apart.this}, there {apart.other}: {module.settings}", "other_settings": True}


def _parameters(trial: Trial) -> dict[str, ParameterInfo]:
    """Each parameter once, also if several modules share it."""
    found: dict[str, ParameterInfo] = {}
    for module in trial.network:
        for parameter in module.parameters:
            found.setdefault(parameter.names[0] if parameter.names else parameter.name, parameter)
    return found


def _size(parameter: ParameterInfo) -> int:
    return math.prod(parameter.shape)


def _depth(path: str) -> int:
    return path.count(".")


def _module_row(module: ModuleInfo, trial: Trial) -> dict[str, Any]:
    inside = [m for m in trial.network if m.path == module.path or m.path.startswith(module.path + ".")]
    own = {p.names[0] if p.names else p.name: p for m in inside for p in m.parameters if not p.is_buffer}
    size = sum(map(_size, own.values()))
    return {
        "key": f"m:{module.path}", "name": module.path.rpartition(".")[2], "path": module.path,
        "depth": _depth(module.path), "kind": module.module_class, "node": module.path, "is_module": True,
        "trainable": _module_state(module, trial.network[0]), **({"elements": size} if size else {}),
    }  # fmt: skip


def _parameter_row(
    module: ModuleInfo, parameter: ParameterInfo, step: Step, theirs: dict[str, ParameterInfo], now: Moment
) -> dict[str, Any]:
    name = parameter.names[0] if parameter.names else parameter.name
    row: dict[str, Any] = {
        "key": f"p:{module.path}:{name}", "name": parameter.name.rpartition(".")[2], "path": name,
        "depth": _depth(module.path) + 1, "kind": "buffer" if parameter.is_buffer else "parameter",
        "shape": " × ".join(map(str, parameter.shape)) or "scalar", "dtype": parameter.dtype,
        "elements": _size(parameter),
        "node": name, "is_module": False, "shared": ", ".join(parameter.names[1:]),
    }  # fmt: skip
    for field, quantity in (("norm", "value"), ("gradient_norm", "gradient"), ("update_norm", "update")):
        row |= _norm(field, step, name, quantity)
    if row.get("norm") and row.get("update_norm") is not None:
        row["update_ratio"] = row["update_norm"] / row["norm"]
    if now.there is not None:
        row |= _norm("other_norm", now.there, name, "value")
        other = theirs.get(name)
        row["different"] = other is None or other.shape != parameter.shape or other.trainable != parameter.trainable
    return row


def _module_state(module: ModuleInfo, root: ModuleInfo) -> str:
    """What is odd about a module: another mode than the model's, left out of the recording."""
    mode = "training mode" if module.training else "eval mode"
    words = [] if module.training == root.training else [mode]
    return ", ".join(words if module.recorded else [*words, "left out"])


def _trainable(parameter: ParameterInfo, *, optimized: bool) -> str:
    """Trainable or frozen, and what is odd about it: in no optimizer, in two of them, or left out of the recording.

    ``optimized`` says whether it is known which parameters the optimizers hold.
    """
    words = [] if parameter.is_buffer else ["trainable" if parameter.trainable else "frozen"]
    if optimized and parameter.trainable and not parameter.is_buffer and not parameter.optimizers:
        words.append("in no optimizer")
    if len(parameter.optimizers) > 1:
        words.append(f"in {len(parameter.optimizers)} optimizers")
    return ", ".join(words if parameter.recorded else [*words, "left out"])


def _norm(field: str, step: Step, node: str, quantity: str) -> dict[str, float | None]:
    """A norm under the name of its column; None if it is not finite, and nothing if it was not recorded."""
    row = step.layout.row(node, quantity, None, None)
    if row is None:
        return {}
    value = float(step.statistics()[row, STATISTICS.index("norm")])
    return {field: float(f"{value:.6g}") if math.isfinite(value) else None}
