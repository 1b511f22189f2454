"""What ended a trial that failed: the exception and the user's line, or what is known of a process that is gone."""

from __future__ import annotations

import re

from stepscope.store import Trial
from stepscope.store.records import SourceLine
from stepscope.viewer.markup import Markup, el
from stepscope.viewer.numbers import count
from stepscope.viewer.views.code_line import code_line

_FRAME = re.compile(r'^  File "(?P<file>[^"\n]+)", line (?P<line>\d+), in (?P<function>\S+)\n {4}(?P<text>.+)$', re.M)
_LIBRARIES = ("/site-packages/", "/dist-packages/", "/lib/python", "<frozen")
_BETWEEN = "__torch_function__"
"""Where the recorder looks on while an operation fails."""


def failure(trial: Trial) -> Markup | None:
    """The card above the findings; None if the trial did not fail."""
    if trial.state != "failed":
        return None
    if trial.end is None or not trial.end.traceback:
        return _gone(trial)
    return el(
        "section.card.error",
        el("div.top", el("span.mark.error", "exception"), el("b", "this ended the training"), _after(trial)),
        el("p", trial.exception or "an exception"),
        code_line(users_line(trial.end.traceback)),
        el("button.link", "the whole traceback", act={"view": "notes"}),
    )


def _gone(trial: Trial) -> Markup:
    why = trial.exception or "it did not end by itself"
    text = (
        f"{why[:1].upper()}{why[1:]}: it was killed, ran out of memory, or the machine went down. All steps that were "
        "recorded until then are here; the terminal or the job's log may say more."
    )
    head = el("div.top", el("span.mark.error", "gone"), el("b", "the training ended without a word"), _after(trial))
    return el("section.card.error", head, el("p", text))


def _after(trial: Trial) -> Markup | None:
    return el("span.when", f"after step {count(int(trial.steps[-1]))}") if len(trial.steps) else None


def users_line(traceback: str) -> SourceLine | None:
    """The innermost line of a traceback that is the user's own, not a library's."""
    own = [found for found in _FRAME.finditer(traceback) if not _is_library(found["file"], found["function"])]
    if not own:
        return None
    last = own[-1]
    return SourceLine(last["file"], int(last["line"]), last["text"].strip(), last["function"])


def _is_library(file: str, function: str) -> bool:
    return function == _BETWEEN or any(part in file for part in _LIBRARIES)
