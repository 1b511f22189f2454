"""The search for hints: all comparisons together, and what of them is hardly an accident."""

from __future__ import annotations

from itertools import chain, groupby

from stepscope.analysis.hints.hint import Hint, Hints
from stepscope.analysis.hints.over_kinds import by_kind
from stepscope.analysis.hints.over_samples import by_sample
from stepscope.analysis.hints.over_time import with_the_loss
from stepscope.store import Trial

_ORDER = ("sample", "with", "before", "spike", "category", "kind")


def hints(trial: Trial, *, most: int = 6, level: float = 0.01) -> Hints:
    """Look for statistics that go with the loss, a kind, a category, or come before a spike.

    >>> for hint in hints(open_trial("runs/demo/bugged")).hints:                # doctest: +SKIP
    ...     print(hint.relation, hint.group, hint.node, hint.statistic, hint.strength)

    Args:
        trial: a recording.
        most: how many are returned of each relation at most, the strongest first.
        level: the probability of an accident that is accepted, over all comparisons together (Bonferroni).
    """
    found = list(chain(with_the_loss(trial), by_kind(trial), by_sample(trial)))
    kept = [candidate.hint for candidate in found if candidate.probability * len(found) < level]
    kept.sort(key=_place)
    return Hints(
        tuple(chain.from_iterable(_first(list(group), most) for _, group in groupby(kept, _relation))), len(found)
    )


def _place(hint: Hint) -> tuple[int, float]:
    return _ORDER.index(hint.relation), -abs(hint.strength)


def _relation(hint: Hint) -> str:
    return hint.relation


def _first(hints: list[Hint], most: int) -> list[Hint]:
    """The strongest, each node once for each group: its other statistics say the same."""
    nodes: dict[tuple[str, str], Hint] = {}
    for hint in hints:
        nodes.setdefault((hint.node, hint.group), hint)
    return list(nodes.values())[:most]
