"""The optimizers: their settings, as the recorder kept them, and what they hold."""

from __future__ import annotations

from typing import Any

from stepscope.analysis.view import View


def settings(view: View, *, last: bool = False) -> list[dict[str, Any]]:
    """The settings of all parameter groups of all optimizers in the first (or last) training step."""
    return [group for groups in _of_step(view, -1 if last else 0).values() for group in groups]


def by_optimizer(view: View) -> dict[str, list[dict[str, Any]]]:
    """The settings of the parameter groups of each watched optimizer in the first training step."""
    return _of_step(view, 0)


def is_plain(group: dict[str, Any]) -> bool:
    """Whether a group is trained by SGD without momentum."""
    return "nesterov" in group and not group["momentum"]


def watched(view: View) -> list[str]:
    """The names of the watched optimizers."""
    return list(_of_step(view, 0))


def held_by(view: View) -> dict[str, tuple[str, ...]]:
    """For each parameter's node the names of the watched optimizers that hold it."""
    return {
        info.names[0]: info.optimizers
        for module in view.trial.network
        for info in module.parameters
        if not info.is_buffer
    }


def _of_step(view: View, position: int) -> dict[str, list[dict[str, Any]]]:
    found = view.training[position].facts.get("optimizers", {}) if view.training else {}
    return found if isinstance(found, dict) else {}
