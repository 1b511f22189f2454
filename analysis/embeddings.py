"""The embeddings of a trial: which rows get a gradient, or are asked for, as far as its kept elements show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepscope.analysis.flow import Place
from stepscope.analysis.neurons import neurons_of
from stepscope.analysis.parameters import has_gradient, trainable
from stepscope.analysis.view import View
from stepscope.store import Step

_LEAST, _WORDS, _MOST = 200, 4, 60
"""Fewer look-ups, or fewer of them in a text, tell nothing; so many steps tell as much as all."""


@dataclass(frozen=True)
class Embedding:
    """A table of vectors: its weight's node, the module, how many rows of which width."""

    weight: str
    module: str
    rows: int
    width: int


@dataclass(frozen=True)
class MostLookedUp:
    """The row that is asked for most, its share of all look-ups, and the numbers that ask for it."""

    row: int
    share: float
    place: Place


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


def most_looked_up(view: View, steps: Sequence[Step], embedding: Embedding) -> MostLookedUp | None:
    """The row that texts of several words ask for most, if it stands among others; None if that is not known.

    What stands only before, or only behind, all others is padding.
    """
    behind = [link.place for place in view.flow.of_node(embedding.module) for link in view.flow.sources.get(place, ())]
    for place in [place for place in behind if view.flow.vertices[place].type == "input"]:
        kept = [found.samples for found in (neurons_of(step, place) for step in steps[:_MOST]) if found is not None]
        rows = (
            np.concatenate([part for part in kept if part.shape[1:] == kept[0].shape[1:]]) if kept else np.empty((0, 0))
        )
        if rows.size >= _LEAST and rows.shape[1] >= _WORDS:
            values, counts = np.unique(rows, return_counts=True)
            most = values[np.argmax(counts)]
            if _stands_among(rows != most):
                return MostLookedUp(int(most), float(counts.max() / rows.size), place)
    return None


def _stands_among(others: NDArray[np.bool_]) -> bool:
    """Whether most texts that have other words have them neither at the front only nor at the end only."""
    told = others[others.any(axis=1) & ~others.all(axis=1)]
    counts, width = told.sum(axis=1), others.shape[1]
    positions = np.arange(width)
    in_front = (told == (positions < counts[:, None])).all(axis=1)
    at_end = (told == (positions >= width - counts[:, None])).all(axis=1)
    return len(told) > 0 and float(np.mean(in_front | at_end)) < 0.5
