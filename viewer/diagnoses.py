"""The findings of trials, each computed once; a live trial's again when it has grown."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import numpy as np

from stepscope.analysis import Finding, diagnose
from stepscope.analysis.divergence import Divergence, first_divergence
from stepscope.analysis.hints import Hints, hints
from stepscope.store import Trial
from stepscope.viewer.at import diagnosed_at

_COMPARED_STEPS = 400
"""How many common steps are compared at most; reading thousands would keep the page waiting."""

log = logging.getLogger("stepscope.viewer")


class Diagnoses:
    """Findings by trial."""

    def __init__(self) -> None:
        self._found: dict[Path, tuple[str, tuple[Finding, ...]]] = {}
        self._hints: dict[Path, tuple[str, Hints]] = {}
        self._parted: dict[tuple[Path, Path], tuple[str, tuple[Divergence | None, int]]] = {}
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

    def known_hints(self, trial: Trial) -> Hints | None:
        """The hints as of now if they have been computed already."""
        when, found = self._hints.get(trial.path, ("", Hints()))
        return found if when == diagnosed_at(trial) else None

    def parted(self, trial: Trial, other: Trial) -> tuple[Divergence | None, int]:
        """Where two trials part first, and how many common steps were looked at."""
        when, pair = f"{diagnosed_at(trial)}, {diagnosed_at(other)}", (trial.path, other.path)
        with self._lock:
            known = self._parted.get(pair)
            if known is None or known[0] != when:
                known = self._parted[pair] = (when, _parted(trial, other))
            return known[1]

    def known(self, trial: Trial) -> tuple[Finding, ...]:
        """The findings that were computed last, without computing any."""
        return self._found.get(trial.path, ("", ()))[1]


def _parted(trial: Trial, other: Trial) -> tuple[Divergence | None, int]:
    common = min(len(np.intersect1d(trial.steps, other.steps)), _COMPARED_STEPS)
    try:
        return first_divergence(trial, other, limit=_COMPARED_STEPS), common
    except Exception:
        log.exception("%s and %s could not be compared", trial.name, other.name)
        return None, 0


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
