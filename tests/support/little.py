"""Recordings that say little: of one step, of the last one, of evaluations alone, or with all of it broken."""

from __future__ import annotations

from unittest import mock

import numpy as np

from stepscope.analysis import view as views
from stepscope.analysis.registry import make_rules
from stepscope.analysis.view import View
from stepscope.store import Trial


def check_on_little(trial: Trial) -> None:
    """Ask every rule about small parts of a trial; one that fails raises here, where ``diagnose`` would excuse it."""
    steps, kinds = trial.steps.tolist(), trial.step_kinds
    evaluations = [step for step, kind in zip(steps, kinds, strict=True) if kind != "train"]
    for part in (steps[:1], steps[:2], steps[-1:], evaluations, sorted({*evaluations[:1], steps[-1]})):
        _ask_all(trial, part)
    _ask_all(trial, steps, broken=True)


def _ask_all(trial: Trial, steps: list[int], *, broken: bool = False) -> None:
    with mock.patch.object(views, "choose_steps", lambda _: steps):
        view = View(trial)
    if broken:
        view.__dict__["broken"] = frozenset(steps)
    with np.errstate(all="ignore"):
        for rule in make_rules():
            for finding in rule.check(view):
                assert finding.summary
