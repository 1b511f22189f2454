"""The rule ``decayed-rows``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.finding import Finding
from stepscope.analysis.optimizers import settings
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_TABLES = ("Embedding", "EmbeddingBag")
_LEAST = 10


@dataclass(frozen=True)
class DecayedRows(Rule):
    """Weight decay pulls at the rows of an embedding that no batch has looked up.

    Symptom: rare words, users or films are forgotten; the table shrinks while the rest of the net learns.

    How it is measured: an optimizer adds a weight decay to the gradient (Adam, not AdamW; RMSprop, Adagrad). A large
    part of a table's gradient is exactly zero in the first steps, as its rows were not looked up, and nearly none of
    its update is; and its norm falls to a part of what it was. Adam divides by the size of the gradient, so that such
    rows move by the full learning rate however small the decay is.

    Causes: ``weight_decay`` for all parameters alike.

    Remedy: a group of its own without weight decay for embeddings, AdamW, or SparseAdam with ``sparse=True``.

    Attributes:
        unseen: the part of the gradient that is zero. Source: of ours; of a table that fits its data hardly any is.
        left: of the norm. Source: as in ``shrinking-weights``, for what the rest of the net does not do.
    """

    name = "decayed-rows"
    about = "optimizer"
    causes = "weight_decay of an adaptive optimizer for all parameters alike, embeddings included."
    remedy = "Give embeddings a group with weight_decay=0, or use AdamW, or SparseAdam with sparse=True."
    unseen: float = 0.3
    left: float = 0.7

    def check(self, view: View) -> Iterable[Finding]:
        decays = [float(group.get("weight_decay") or 0.0) for group in settings(view) if _is_added(group)]
        if not decays or max(decays) <= 0 or len(view.training) < _LEAST:
            return
        for module in view.trial.network:
            weight = next((p.names[0] for p in module.parameters if p.name == "weight"), "")
            if module.module_class in _TABLES and weight in view.nodes and self._shrinks(view, weight):
                norms = view.history(weight).of("norm")
                zero = float(np.median(view.history(weight, "gradient").of("zero_fraction")[:_LEAST]))
                summary = (
                    f"Weight decay ({max(decays):g}) pulls at rows of {weight} that were not looked up: {zero:.0%} of "
                    f"its gradient is zero in a step, all of it is moved, and its norm goes from {norms[0]:.3g} to "
                    f"{norms[-1]:.3g}."
                )
                yield self.finding(
                    view, weight, "warning", summary, [evidence(view.history(weight), "norm", "it shrinks")],
                    step=view.began, confidence=0.85,
                )  # fmt: skip

    def _shrinks(self, view: View, weight: str) -> bool:
        norms, gradient, update = view.history(weight), view.history(weight, "gradient"), view.history(weight, "update")
        if len(norms) < _LEAST or len(gradient) < _LEAST or len(update) < _LEAST:
            return False
        zero, still = (float(np.median(one.of("zero_fraction")[:_LEAST])) for one in (gradient, update))
        shrunk = norms.of("norm")[-1] < self.left * norms.of("norm")[0]
        return bool(zero > self.unseen and still < 0.01 and shrunk)


def _is_added(group: dict[str, object]) -> bool:
    """Whether a weight decay becomes a part of a gradient that is rescaled."""
    return ("betas" in group or "alpha" in group or "lr_decay" in group) and not group.get("decoupled_weight_decay")
