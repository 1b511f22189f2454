"""The rule ``ignored-targets``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Evidence, Finding, Level
from stepscope.analysis.flow import Place
from stepscope.analysis.occurrences import occurrences
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence
from stepscope.store.records import Call, SourceLine

_LOSSES = frozenset(["cross_entropy", "nll_loss", "ctc_loss"])
_OF_CTC = (
    (
        "no targets",
        "is given empty targets (target_lengths=0): nothing but blanks is asked for",
        "All signs were left out on the way, as unknown to the vocabulary (capitals, say).",
        "Look at the targets of a batch as text; compare the vocabulary's signs with the texts'.",
    ),
    (
        "too short",
        "is given inputs that are shorter than their targets, for most of the samples (input_lengths < "
        "target_lengths): their loss is infinite, or 0 with zero_infinity",
        "Lengths from before the net shortened its input, lengths that were swapped, or too large a stride.",
        "Compute input_lengths from the output of the net; shorten less, or cut the targets.",
    ),
)
"""What the recorder noted of a CTC loss, what is wrong with it, what causes it, and what helps."""
_FEWEST = 3
"""Steps by which a habit can be told from chance."""


@dataclass(frozen=True)
class IgnoredTargets(Rule):
    """All targets of a loss are ignored, or all but those of one class; or a CTC loss is asked for blanks, or nothing.

    Symptom: the loss is 0, or NaN, and no gradient flows; or it falls to zero at once, and the net always says the
    same.

    How it is measured: in each recorded step the targets of cross_entropy and nll_loss are compared with their
    ``ignore_index`` (-100 unless given), and those of ctc_loss, within their lengths, with its ``blank``; besides,
    whether these lengths are 0, or longer than those of what is to be written down, for which no loss is finite.
    Targets on other devices, and very many, are not looked at. That most targets are ignored is usual (prompts,
    padding, masked words), and told only where fewer than one in twenty is left, as worth knowing.

    Causes: texts that are cut before their answer begins; a mask that hides what was to be learned; a number of the
    data, such as 255, that the loss takes for "ignore"; labels that begin at 0 beside a blank of 0.

    Remedy: look at the targets of a batch, and at what the loss ignores; keep ``ignore_index`` and ``blank`` apart from
    the numbers of the classes.

    Source: the documentation of PyTorch's losses.

    Attributes:
        often: the part of the steps in which all targets are ignored that is more than an accident. Source: of ours;
            a few texts without an answer are usual.
        always: the part in which it is an error, and not worth knowing only, as where labels are rare. Source: of ours.
    """

    name = "ignored-targets"
    about = "loss"
    causes = "Texts cut before their answer begins, a mask the wrong way round, or a class with the ignored number."
    remedy = "Look at the targets of a batch; keep ignore_index and blank apart from the numbers of the classes."
    often: float = 0.5
    always: float = 0.9

    def check(self, view: View) -> Iterable[Finding]:
        yield from self._ignored(view)
        yield from self._one_left(view)
        yield from self._hardly_any(view)
        yield from self._blank(view)
        yield from self._nothing(view)

    def _ignored(self, view: View) -> Iterable[Finding]:
        steps = [step for part in view.readings if part.trains for step in part.steps]
        steps.sort(key=lambda step: step.number)
        found = occurrences(view, "all ignored", steps)
        for source in dict.fromkeys(call.source for calls in found for call in calls):
            hit = [step for step, calls in zip(steps, found, strict=True) if _whole(view, calls, source)]
            is_broken = bool(view.broken) and min(view.broken) in [step.number for step in hit]
            if not hit or (len(hit) < self.often * len(steps) and not is_broken):
                continue
            number = _number(next(call for calls in found for call in calls if call.source == source))
            left = "nothing is left to learn from"
            if is_broken:
                left = f"the mean over none is not a number (NaN), as at step {min(view.broken)}"
            summary = (
                f"All targets of the loss are ignored in {len(hit)} of {len(steps)} training steps (they equal "
                f"ignore_index={number}): {left}."
            )
            is_sure = is_broken or len(hit) >= self.always * len(steps)
            first = min(view.broken) if is_broken else hit[0].number
            yield self._told(view, source, "error" if is_sure else "info", summary, first)

    def _one_left(self, view: View) -> Iterable[Finding]:
        found = occurrences(view, "one class left")
        calls = [call for calls in found for call in calls]
        for source, operation in dict.fromkeys((call.source, call.operation) for call in calls):
            if len(found) < _FEWEST or not all(_whole(view, _alike(here, operation), source) for here in found):
                continue
            left, _, number = operation.partition("(")[2].rstrip(")").partition(", ignore_index=")
            summary = (
                f"All targets that the loss does not ignore are of one class, {left}, in every training step: the "
                f"others equal ignore_index={number}, so that always saying {left} is all there is to learn."
            )
            yield self._told(view, source, "warning", summary, view.began)

    def _hardly_any(self, view: View) -> Iterable[Finding]:
        found = occurrences(view, "hardly any")
        for source in dict.fromkeys(call.source for calls in found for call in calls):
            hit = sum(any(call.source == source for call in calls) for calls in found)
            if hit >= self.often * len(found):
                summary = (
                    f"Fewer than one in twenty targets are left by ignore_index in {hit} of {len(found)} training "
                    f"steps: the others are ignored."
                )
                yield self._told(view, source, "info", summary, view.began, confidence=0.5)

    def _blank(self, view: View) -> Iterable[Finding]:
        found = occurrences(view, "holds blank")
        hit = [step for step, calls in zip(view.training, found, strict=True) if calls]
        if hit:
            call = _first(found)
            summary = (
                f"The targets of ctc_loss hold its blank ({call.operation.partition('=')[2].rstrip(')')}) in "
                f"{len(hit)} of {len(found)} training steps: what has that number can never be told from nothing."
            )
            yield self._told(
                view, call.source, "error", summary, hit[0].number,
                causes="Signs that are counted from 0, which is the blank unless another one is given.",
                remedy="Count signs from 1, or give ctc_loss a blank that no sign has; leave padding out by lengths.",
            )  # fmt: skip

    def _nothing(self, view: View) -> Iterable[Finding]:
        """CTC losses without targets, or with inputs too short for them."""
        for kind, what, causes, remedy in _OF_CTC:
            found = occurrences(view, kind)
            hit = [step for step, calls in zip(view.training, found, strict=True) if calls]
            if hit and len(hit) >= self.often * len(found):
                summary = f"In {len(hit)} of {len(found)} training steps ctc_loss {what}."
                source, step = _first(found).source, hit[0].number
                yield self._told(view, source, "error", summary, step, causes=causes, remedy=remedy)

    def _told(
        self, view: View, source: SourceLine, level: Level, summary: str, step: int, *,
        confidence: float = 0.95, causes: str = "", remedy: str = "",
    ) -> Finding:  # fmt: skip
        loss = next(iter(_at(view, source)), None)
        behind = () if loss is None else (link.place for link in view.flow.sources.get(loss, ()))
        targets = [place for place in behind if view.flow.vertices[place].type in ("target", "input")]
        shown: list[Evidence] = []
        if targets:
            shown = [evidence(view.history(targets[0].node, role=targets[0].role), "min", "its smallest numbers")]
        return self.finding(
            view, loss.node if loss else "", level, summary, shown, step=step, source=source, confidence=confidence,
            nodes=[place.node for place in targets], causes=causes, remedy=remedy,
        )  # fmt: skip


def _at(view: View, source: SourceLine) -> list[Place]:
    """The results of loss functions that a line calls."""
    found = view.flow.vertices.items()
    return [place for place, vertex in found if vertex.source == source and vertex.operation in _LOSSES]


def _first(found: list[list[Call]]) -> Call:
    return next(call for calls in found for call in calls)


def _alike(calls: list[Call], operation: str) -> list[Call]:
    return [call for call in calls if call.operation == operation]


def _whole(view: View, calls: list[Call], source: SourceLine) -> bool:
    """Whether all that a line computes in a step is odd: as many calls as it has results."""
    here = [call for call in calls if call.source == source]
    return len(here) >= max(1, len(_at(view, source)))


def _number(call: Call) -> str:
    return call.operation.partition("=")[2].rstrip(")")
