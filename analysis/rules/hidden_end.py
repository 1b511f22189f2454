"""The rule ``hidden-end``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding
from stepscope.analysis.lines import sites_of
from stepscope.analysis.rule import Rule
from stepscope.analysis.shifts import IGNORED, Shift, known, shifts
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class HiddenEnd(Rule):
    """The loss of a language model ignores what comes after the last token of a text: is the end hidden with it?

    Symptom: the model never stops; it writes on until the limit, or repeats itself.

    How it is measured: the targets are the next tokens of an input. Where the first ignored target (-100, or
    ``ignore_index``) follows one that counts, the input goes on with the same token in all known samples, and that
    token is never a target that counts. If it is padding alone, this is right: hence worth knowing only.

    Causes: the end token serves as padding (``pad_token = eos_token``), and all padding is ignored; texts to which no
    end token was appended.

    Remedy: mask by the length of the text, not by the token; or let padding be a token of its own.

    Attributes:
        least: fewer such places are not judged. Source: of ours; by chance eight rows of words end alike seldom.
    """

    name = "hidden-end"
    about = "targets"
    causes = "The end token serves as padding, and all padding is ignored; or no end token was appended to the texts."
    remedy = "Mask by the text's length, so that its first end token is a target; or let padding be a token of its own."
    least: int = 8

    def check(self, view: View) -> Iterable[Finding]:
        for shift in shifts(view):
            if shift.places == 1 and shift.target != shift.input:
                yield from self._look(view, shift, self._ignored(view, shift))

    def _ignored(self, view: View, shift: Shift) -> float:
        sites = (site for site in sites_of(view, "ignores") if shift.comparison.loss in site.after)
        return next((float(site.operation.partition("=")[2].rstrip(")")) for site in sites), IGNORED)

    def _look(self, view: View, shift: Shift, ignored: float) -> Iterable[Finding]:
        hidden: Counter[float] = Counter()
        last: Counter[float] = Counter()
        asked: set[float] = set()
        for given, wanted in known(view, shift.input, shift.target):
            asked.update(value for value in wanted.values() if value not in (ignored, IGNORED))
            for (sample, position), value in wanted.items():
                before, next_token = wanted.get((sample, position - 1)), given.get((sample, position + 1))
                if value in (ignored, IGNORED) and before not in (None, ignored, IGNORED) and next_token is not None:
                    hidden[next_token] += 1
                    last[before or 0.0] += 1
        if len(hidden) == 1 and hidden.total() >= self.least and not asked & set(hidden):
            yield self._finding(view, shift, next(iter(hidden)), is_sure=len(last) > 1)

    def _finding(self, view: View, shift: Shift, token: float, *, is_sure: bool) -> Finding:
        summary = (
            f"Token {token:g} is never a target: wherever it follows the last one that counts, {shift.target.node} is "
            f"ignored (ignore_index). Right if it is padding alone; if it is the end of a text, too, the net never "
            f"learns to stop."
        )
        history = view.history(shift.target.node, role=shift.target.role)
        return self.finding(
            view, shift.target.node, "info", summary, [evidence(history, "mean", "the targets, with what is ignored")],
            step=view.began, confidence=0.7 if is_sure else 0.5,
            nodes=[shift.comparison.loss.node, shift.input.node],
        )  # fmt: skip
