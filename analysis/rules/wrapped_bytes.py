"""The rule ``wrapped-bytes``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding
from stepscope.analysis.lines import sites_of
from stepscope.analysis.robust import median
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class WrappedBytes(Rule):
    """Bytes that are subtracted from each other: they know no negative numbers, and -1 becomes 255.

    Symptom: a net that is to see changes sees noise of full contrast wherever something became a little darker.

    How it is measured: the recorder sees a subtraction whose result is of ``uint8``, and that a loss is computed from.
    The bytes come from an input that goes beyond ``most``; differences of masks are left out.

    Causes: frames of a video, or pictures, that are subtracted as they were loaded.

    Remedy: convert to float (or int16) before the subtraction.

    Attributes:
        most: the largest value of a mask. Source: zeros and ones.
    """

    name = "wrapped-bytes"
    causes = "Pictures or frames are subtracted as they were loaded, as unsigned bytes."
    remedy = "Convert to float (or int16) before you subtract."
    most: float = 1.0

    def check(self, view: View) -> Iterable[Finding]:
        towards_loss = view.flow.upstream(view.losses)
        for site in {site.source: site for site in sites_of(view, "wraps")}.values():
            peaks = {p: median(view.history(p.node, role=p.role).of("max")) for p in site.before}
            given = [place.node for place, peak in peaks.items() if peak > self.most]
            after = [place.node for place in site.after if place in towards_loss]
            if given and after:
                summary = (
                    f"Bytes (uint8) of {given[0]} are subtracted as they are, on the way to {after[0]}: differences "
                    f"below zero wrap around, and -1 becomes 255."
                )
                yield self.finding(
                    view, given[0], "error", summary, [evidence(view.history(given[0]), "max", "bytes")],
                    step=view.began, nodes=after, confidence=0.95, source=site.source,
                )  # fmt: skip
