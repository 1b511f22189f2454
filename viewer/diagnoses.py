"""The findings of trials, each computed once; a live trial's again when it has grown."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from stepscope.analysis import Finding, diagnose
from stepscope.analysis.hints import Hints, hints
from stepscope.store import Trial
from stepscope.viewer.at import diagnosed_at

log = logging.getLogger("stepscope.viewer")


class Diagnoses:
    """Findings by trial."""

    def __init__(self) -> None:
        self._found: dict[Path, tuple[str, tuple[Finding, ...]]] = {}
        self._hints: dict[Path, tuple[str, Hints]] = {}
        self._lock = threading.Lock()

    def of(self, trial: Trial) -> tuple[Finding, ...]:
        """The trial's findings as of now."""
        when = diagnosed_at(trial)
        with self._lock:  # two pages that ask at once wait for one answer
            known = self._found.get(trial.path)
            if known is None or known[0] != when:
                known = self._found[trial.path] = (when, _diagnose(trial))
            return known[1]

    def hints_of(self, trial: Trial) -> Hints:
        """What moves with the loss of the trial, as of now."""
        when = diagnosed_at(trial)
        with self._lock:
            known = self._hints.get(trial.path)
            if known is None or known[0] != when:
                known = self._hints[trial.path] = (when, _hints(trial))
            return known[1]

    def known(self, trial: Trial) -> tuple[Finding, ...]:
        """The findings that were computed last, without computing any."""
        return self._found.get(trial.path, ("", ()))[1]


def _hints(trial: Trial) -> Hints:
    try:
        return hints(trial)
    except Exception:
        log.exception("the hints of %s failed", trial.name)
        return Hints()


def _diagnose(trial: Trial) -> tuple[Finding, ...]:
    """A rule that fails on a damaged or unheard-of recording must not take the page with it."""
    try:
        return diagnose(trial)
    except Exception:
        log.exception("the diagnosis of %s failed", trial.name)
        return ()
