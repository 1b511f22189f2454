"""The embeddings of a trial: which rows get a gradient, as far as its kept elements show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.flow import Place
from stepscope.analysis.neurons import neurons_of
from stepscope.analysis.parameters import has_gradient, trainable
from stepscope.analysis.view import View
from stepscope.store import Step


@dataclass(frozen=True)
class Embedding:
    """A table of vectors: its weight's node, the module, how many rows of which width."""

    weight: str
    module: str
    rows: int
    width: int


def embeddings(view: View) -> list[Embedding]:
    """The embeddings that learn, and whose weight is nothing else: a tied one gets a gradient for each row."""
    tied = {info.names[0] for m in view.trial.network for info in m.parameters if len(info.names) > 1}
    return [
        Embedding(parameter.node, parameter.module, *parameter.shape)
        for parameter in trainable(view)
        if parameter.module_class in ("Embedding", "EmbeddingBag")
        and len(parameter.shape) == 2
        and parameter.node not in tied
        and has_gradient(view, parameter.node)
    ]


def used_rows(steps: Sequence[Step], embedding: Embedding) -> dict[int, bool]:
    """For each row of which an element was kept: whether it ever got a gradient other than zero."""
    used: dict[int, bool] = {}
    for step in steps:
        kept = neurons_of(step, Place(embedding.weight, "parameter"), "gradient")
        if kept is None:
            continue
        count = kept.samples.shape[-1]
        rows = np.arange(count) * kept.total // max(count, 1) // embedding.width
        for row, value in zip(rows.tolist(), kept.samples[0].tolist(), strict=True):
            used[row] = used.get(row, False) or value != 0
    return used
