"""The rule ``labels-of-others``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.loss_inputs import OF_CLASSES, Comparison, comparisons, is_floating
from stepscope.analysis.neurons import neurons_of, tensor_of
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence
from stepscope.store import Step

Rows = NDArray[np.float32] | NDArray[np.float64]
Indices = NDArray[np.int64]
_MOST, _LEAST = 20, 5


@dataclass(frozen=True)
class LabelsOfOthers(Rule):
    """The targets of a sequence are the input of another sample of the batch.

    Symptom: the loss stops where the frequencies of the tokens bring it.

    How it is measured: targets of a cross-entropy, as far as they are kept, are the very numbers of an input of whole
    numbers, but of its next row (or any other one), in all of the steps looked at, and not those of their own row at
    any shift.

    Causes: ``roll``, ``[1:]`` or a shift along dimension 0, the batch, where that of time was meant.

    Remedy: ``tokens.roll(-1, dims=1)``, or ``tokens[:, 1:]``.

    Source: no threshold; equality.
    """

    name = "labels-of-others"
    about = "targets"
    causes = "A shift along dimension 0, the batch, where that of time was meant."
    remedy = "Shift along the time: tokens[:, 1:], or tokens.roll(-1, dims=1)."

    def check(self, view: View) -> Iterable[Finding]:
        steps = view.training[:: max(1, len(view.training) // _MOST)]
        for comparison in comparisons(view):
            target = comparison.target
            if target is None or comparison.operation not in OF_CLASSES or len(steps) < _LEAST:
                continue
            for place in sorted(p for p in view.flow.upstream([comparison.prediction]) if _is_tokens(view, p)):
                rows = {_row_of(step, place, target) for step in steps}
                if len(rows) == 1 and (row := rows.pop()) is not None:
                    yield self._finding(view, comparison, target, place, row)

    def _finding(self, view: View, comparison: Comparison, target: Place, place: Place, row: int) -> Finding:
        history = view.history(target.node, role=target.role)
        summary = (
            f"The targets {target.node} of a sample are the numbers of {place.node} of another sample, {row} rows "
            f"further, in every step (shifted along the batch, not along time)."
        )
        return self.finding(
            view, target.node, "error", summary, [evidence(history, "mean", "of other samples")],
            step=view.began, nodes=[comparison.loss.node, place.node], confidence=0.95,
        )  # fmt: skip


def _is_tokens(view: View, place: Place) -> bool:
    return view.flow.vertices[place].type == "input" and not is_floating(view, place)


def _row_of(step: Step, place: Place, target: Place) -> int | None:
    """How many rows further in the input the targets stand, at their own places; None if they are another thing."""
    given, tensor = neurons_of(step, place), tensor_of(step, target)
    wanted = tensor.neurons if tensor is not None else None
    if given is None or wanted is None or given.samples.shape[1] != given.total or len(given.samples) < 2:
        return None
    tokens, length = given.samples, given.total
    # Flattened targets have no samples; of many, some are kept, evenly over all.
    flat = wanted.samples.ravel()
    places = np.arange(len(flat)) * (wanted.total * len(wanted.samples)) // len(flat)
    row, column = np.divmod(places, length)
    known = row < len(tokens)
    asked, row, column = flat[known], row[known], column[known]
    if len(asked) < _LEAST or len(np.unique(asked)) < 3 or _is_own(tokens, asked, row, column):
        return None
    found = [further for further in range(1, len(tokens)) if _stands(tokens, asked, row + further, column)]
    return found[0] if len(found) == 1 else None


def _is_own(tokens: Rows, asked: Rows, row: Indices, column: Indices) -> bool:
    """Whether targets are numbers of their own rows, at some shift."""
    return any(_stands(tokens, asked, row, column + shift) for shift in (-2, -1, 0, 1, 2))


def _stands(tokens: Rows, asked: Rows, row: Indices, column: Indices) -> bool:
    inside = (row < len(tokens)) & (column >= 0) & (column < tokens.shape[1])
    enough = inside.sum() >= _LEAST and len(np.unique(asked[inside])) >= 3
    return bool(enough and np.array_equal(tokens[row[inside], column[inside]], asked[inside]))
