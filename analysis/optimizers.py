"""The settings of the optimizers, as the recorder kept them."""

from __future__ import annotations

from typing import Any

from stepscope.analysis.view import View


def settings(view: View) -> list[dict[str, Any]]:
    """The settings of all parameter groups of all optimizers in the first training step."""
    found = view.training[0].facts.get("optimizers", {}) if view.training else {}
    return [group for groups in found.values() for group in groups] if isinstance(found, dict) else []
