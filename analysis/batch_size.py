"""How many samples a batch has."""

from __future__ import annotations

import numpy as np

from stepscope.analysis.view import View


def inputs_with_batch(view: View) -> list[str]:
    """The inputs with a batch."""
    tensors = view.training[-1].layout.tensors if view.training else ()
    return [t.node for t in tensors if t.type == "input" and t.quantity == "value" and t.batch_dim == 0]


def samples_of(view: View, node: str) -> int:
    """How many samples of a node a step usually has."""
    steps = [step for step in view.training[:20] if step.layout.row(node, "value", None, None) is not None]
    shapes = [step.find(node).shape for step in steps]
    return int(np.median([shape[0] for shape in shapes if shape])) if shapes else 0
