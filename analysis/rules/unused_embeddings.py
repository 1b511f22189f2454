"""The rule ``unused-embeddings``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.embeddings import Embedding, embeddings, used_rows
from stepscope.analysis.finding import Finding
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_FEWEST_ROWS = 50
"""Small tables (of positions, of distances) cost nothing."""


@dataclass(frozen=True)
class UnusedEmbeddings(Rule):
    """Most rows of an embedding are never looked up: the table is larger than what occurs.

    Symptom: a model that is larger than it needs to be; rare tokens that stay random.

    How it is measured: an embedding's gradient is zero in each row that was not looked up. Of the rows of which an
    element was kept (64 elements, spread evenly), the share that got no gradient in any of up to two hundred recorded
    training steps.

    Causes: a vocabulary size taken from elsewhere, tokens that are mapped to "unknown" or shifted, too few data.

    Remedy: count the tokens of the data, and make the table as large as that.

    Attributes:
        share: of the rows. Source: of ours; words are rare by nature, so this is worth knowing only.
        least: recorded training steps below which nothing is said.
    """

    name = "unused-embeddings"
    causes = "A vocabulary size taken from elsewhere, tokens that are mapped to one or shifted, or too few data."
    remedy = "Count the tokens that occur in the data, and make the table as large as that."
    share: float = 0.75
    least: int = 20

    def check(self, view: View) -> Iterable[Finding]:
        if len(view.training) < self.least:
            return
        steps = view.training[:: max(1, len(view.training) // 200)]
        for embedding in embeddings(view):
            used = used_rows(steps, embedding)
            unused = [row for row, is_used in used.items() if not is_used]
            if embedding.rows >= _FEWEST_ROWS and len(used) >= 8 and len(unused) >= self.share * len(used):
                yield self._finding(view, embedding, len(unused), len(used))

    def _finding(self, view: View, embedding: Embedding, unused: int, of: int) -> Finding:
        history = view.history(embedding.weight, "gradient")
        summary = (
            f"{unused} of {of} rows of {embedding.module} that were looked at (it has {embedding.rows}) got no "
            f"gradient in any recorded training step: these tokens do not occur."
        )
        shown = [evidence(history, "zero_fraction", "the share of zeros in its gradient")]
        return self.finding(
            view, embedding.weight, "info", summary, shown, step=view.training[0].number, confidence=0.6
        )
