"""The rule ``unused-embeddings``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.embeddings import Embedding, MostLookedUp, embeddings, most_looked_up, used_rows
from stepscope.analysis.finding import Finding
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_FEWEST_ROWS = 50
"""Small tables (of positions, of distances) cost nothing."""
_FEWEST_TO_CHOOSE_FROM = 8
"""Of small tables one row alone may be meant: the segments of BERT are 0 in most of its uses."""
_UNKNOWN = "A vocabulary that was written down in another way (case, cut, language) than the texts, or numbers cut off."
_ALWAYS_ONE = "Positions, or other numbers, that are all the same: zeros_like(...), a wrong argument, a default."


@dataclass(frozen=True)
class UnusedEmbeddings(Rule):
    """Most rows of an embedding are never looked up: the table is larger than what occurs.

    Symptom: a model that is larger than it needs to be; rare tokens that stay random.

    How it is measured: an embedding's gradient is zero in each row that was not looked up. Of the rows of which an
    element was kept (64 elements, spread evenly), the share that got no gradient in any of up to two hundred recorded
    training steps. If all rows but one are so, the table gives the same everywhere: a warning. Or one row takes nearly
    all look-ups of texts, among other words, and not only before or behind them, as padding does.

    Causes: positions that are all 0, a vocabulary size taken from elsewhere, tokens that are mapped to "unknown" or
    shifted, too few data.

    Remedy: count the tokens of the data, and make the table as large as that.

    Attributes:
        share: of the rows. Source: of ours; words are rare by nature, so this is worth knowing only.
        least: recorded training steps below which nothing is said.
        one: the share of all look-ups that one row takes. Source: of ours; the most frequent word of a language has
            less than a tenth, the empty squares of a board a half.
        last: the same of the last row of a table, which is what larger numbers are cut off to (``clamp``).
    """

    name = "unused-embeddings"
    causes = "A vocabulary size taken from elsewhere, tokens that are mapped to one or shifted, or too few data."
    remedy = "Count the tokens that occur in the data, and make the table as large as that."
    share: float = 0.75
    least: int = 20
    one: float = 0.85
    last: float = 0.5

    def check(self, view: View) -> Iterable[Finding]:
        if len(view.training) < self.least:
            return
        steps = view.training[:: max(1, len(view.training) // 200)]
        for embedding in embeddings(view):
            used = used_rows(steps, embedding)
            unused = [row for row, is_used in used.items() if not is_used]
            only = [row for row, is_used in used.items() if is_used]
            nearly = most_looked_up(view, steps, embedding) if len(only) != 1 else None
            if len(only) == 1 and len(used) == embedding.rows >= _FEWEST_TO_CHOOSE_FROM:
                yield self._one(view, embedding, only[0])
            elif nearly is not None and nearly.share >= self._limit(embedding, nearly) and used.get(nearly.row, True):
                yield self._nearly_one(view, embedding, nearly)
            elif embedding.rows >= _FEWEST_ROWS and len(used) >= 8 and len(unused) >= self.share * len(used):
                yield self._finding(view, embedding, len(unused), len(used))

    def _limit(self, embedding: Embedding, most: MostLookedUp) -> float:
        is_last = embedding.rows >= _FEWEST_ROWS and most.row == embedding.rows - 1
        return self.last if is_last else self.one

    def _one(self, view: View, embedding: Embedding, row: int) -> Finding:
        summary = (
            f"{embedding.module} is always asked for row {row}: its other {embedding.rows - 1} rows are never looked "
            f"up, and what it gives is the same everywhere."
        )
        shown = [evidence(view.history(embedding.weight, "gradient"), "zero_fraction", "the share of zeros")]
        return self.finding(
            view, embedding.weight, "warning", summary, shown, step=view.began, confidence=0.85,
            causes=_ALWAYS_ONE, remedy=f"Print what {embedding.module} is called with, for two different samples.",
        )  # fmt: skip

    def _nearly_one(self, view: View, embedding: Embedding, most: MostLookedUp) -> Finding:
        summary = (
            f"{most.share:.0%} of what {embedding.module} is asked for is row {most.row}, among other words: nearly "
            f"every one is the same token, as if it were unknown."
        )
        shown = [evidence(view.history(most.place.node, role=most.place.role), "zero_fraction", "the share of zeros")]
        return self.finding(
            view, most.place.node, "warning", summary, shown, step=view.began, confidence=0.8,
            nodes=[embedding.module, embedding.weight], causes=_UNKNOWN,
            remedy="Count how many words of a text the vocabulary has; write both down, and cut them, alike.",
        )  # fmt: skip

    def _finding(self, view: View, embedding: Embedding, unused: int, of: int) -> Finding:
        history = view.history(embedding.weight, "gradient")
        summary = (
            f"{unused} of {of} rows of {embedding.module} that were looked at (it has {embedding.rows}) got no "
            f"gradient in any recorded training step: these tokens do not occur."
        )
        shown = [evidence(history, "zero_fraction", "the share of zeros in its gradient")]
        return self.finding(view, embedding.weight, "info", summary, shown, step=view.began, confidence=0.6)
