"""The optimizers: their settings, as the recorder kept them, and what they hold."""

from __future__ import annotations

from typing import Any

from stepscope.analysis.view import View


def settings(view: View) -> list[dict[str, Any]]:
    """The settings of all parameter groups of all optimizers in the first training step."""
    return [group for groups in _of_first_step(view).values() for group in groups]


def watched(view: View) -> list[str]:
    """The names of the watched optimizers."""
    return list(_of_first_step(view))


def held_by(view: View) -> dict[str, tuple[str, ...]]:
    """For each parameter's node the names of the watched optimizers that hold it."""
    return {
        info.names[0]: info.optimizers
        for module in view.trial.network
        for info in module.parameters
        if not info.is_buffer
    }


def _of_first_step(view: View) -> dict[str, list[dict[str, Any]]]:
    found = view.training[0].facts.get("optimizers", {}) if view.training else {}
    return found if isinstance(found, dict) else {}
