"""The rule ``lost-phase``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding
from stepscope.analysis.lines import sites_of
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_BACK = ("ifft", "irfft", "istft", "ihfft")


@dataclass(frozen=True)
class LostPhase(Rule):
    """Of complex numbers that were made of the data, only the real part goes on.

    Symptom: a net that hears spectra learns far less than it should, and overfits: what it sees depends on when the
    recording began.

    How it is measured: the recorder sees that the real part of a complex tensor is read. It counts if the tensor comes
    from an input without any layer in between, feeds a loss, and neither the imaginary part nor the angle of the same
    tensor is read. Real parts of what layers made are common (Fourier mixing) and left out.

    Causes: ``.real`` where ``.abs()`` was meant; a cast of complex numbers to real ones, with its warning.

    Remedy: take the magnitude (``.abs()``), or both parts as channels (``torch.view_as_real``).

    Source: no threshold.
    """

    name = "lost-phase"
    causes = "The real part of a spectrum depends on the phase: on the moment at which the recording begins."
    remedy = "Take the magnitude, spectrum.abs(), or both parts as channels, torch.view_as_real(spectrum)."

    def check(self, view: View) -> Iterable[Finding]:
        both = {site.before for site in sites_of(view, "imaginary part")}
        towards_loss = view.flow.upstream(view.losses)
        for site in {site.source: site for site in sites_of(view, "real part")}.values():
            kinds = {view.flow.vertices[place].type for place in site.before}
            after = [place for place in site.after if place in towards_loss]
            is_back = any(name in site.source.text for name in _BACK)
            if kinds != {"input"} or not after or site.before in both or is_back:
                continue
            given, first = sorted(place.node for place in site.before)[0], after[0].node
            summary = (
                f"Of the complex numbers that are made of {given}, {first} gets the real part only: it depends on the "
                f"phase; the imaginary part, and with it the magnitude, is lost."
            )
            yield self.finding(
                view, first, "warning", summary, [evidence(view.history(first), "mean", "made of the real part")],
                step=view.began, nodes=[given], confidence=0.7, source=site.source,
            )  # fmt: skip
