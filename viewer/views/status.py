"""The badge of a trial, and the sentences that stand where there is nothing to show yet."""

from __future__ import annotations

import time
from collections.abc import Sequence

from stepscope.store import Trial
from stepscope.viewer.markup import Markup, el
from stepscope.viewer.numbers import ago, count

_SILENT = 60.0
_SCRIPT = """from stepscope.recorder import Recorder, Every

recorder = Recorder("{folder}", schedule=Every(100))
recorder.watch(model, optimizer)

for batch, target in loader:
    with recorder.step():
        ...                # your training step, as it is"""


def badge(trial: Trial, now: float | None = None) -> Markup:
    """Live, finished or failed, and how far."""
    last = f"step {count(int(trial.steps[-1]))}" if len(trial.steps) else "no step yet"
    if trial.state == "finished":
        return el("span.badge.finished", f"finished, {last}", title=f"{count(len(trial.steps))} steps were recorded")
    if trial.state == "failed":
        return el("span.badge.failed", f"failed, {last}", title=trial.exception or "it did not end by itself")
    silent = (time.time() if now is None else now) - trial.last_change
    if silent > _SILENT:
        title = "the process lives, but has recorded nothing for a while"
        return el("span.badge.silent", f"silent, {last}, {ago(silent)}", title=title)
    return el("span.badge.live", f"live, {last}", title=f"{count(len(trial.steps))} steps were recorded")


def notices(trial: Trial, notice: str, unreadable: dict[str, str]) -> Markup:
    """What the page has to say: what ended the trial, its damage, a wish that was not fulfilled, damage in others."""
    lines = []
    if trial.state == "failed" and trial.exception:
        lines.append(_line("This trial failed: ", trial.exception, "traceback" if _traceback(trial) else ""))
    if trial.problems:
        lines.append(_line("Damaged, the rest is shown: ", _first(trial.problems), "what, and how to repair it"))
    if notice:
        lines.append(el("p.notice", notice))
    others = [f"{name}: {text}" for name, text in unreadable.items()]
    if others:
        lines.append(el("p.notice", f"Another trial cannot be opened: {_first(others)}", title="\n".join(others[:20])))
    return el("div", *lines)


def _line(what: str, text: str, link: str) -> Markup:
    """A line in red, with a link to the page that has more of it."""
    more = el("button.link", link, act={"view": "notes"}) if link else None
    return el("p.notice.failed", el("span", what + text, title=text), more)


def _first(texts: Sequence[str]) -> str:
    return texts[0] + (f" (and {len(texts) - 1} more)" if len(texts) > 1 else "")


def _traceback(trial: Trial) -> str:
    return trial.end.traceback if trial.end is not None else ""


def no_trials(folder: str, exists: bool) -> Markup:
    """The page of a folder in which there is nothing yet."""
    first = "There is no recording yet" if exists else "This folder does not exist yet"
    return el(
        "div.welcome",
        el("h2", first),
        el("p", "Looking at ", el("code", folder), ". This page fills as soon as a training run records there:"),
        el("pre", _SCRIPT.format(folder=folder)),
        el("p", "Or see a broken run and its fix: ", el("code", "stepscope demo")),
    )


def no_steps(trial: Trial) -> Markup:
    """The page of a trial that has no step yet."""
    if trial.state == "running":
        lines = ("Recording has started", "The first step appears here by itself.")
    else:
        why = f"It ended before its first recorded step: {trial.exception}" if trial.exception else "It has ended."
        lines = ("No step was recorded", why)
    return el("div.welcome", el("h2", lines[0]), el("p", lines[1]))


def unreadable(name: str, why: str) -> Markup:
    """The page of a trial that cannot be opened."""
    return el(
        "div.welcome",
        el("h2", f"The trial {name!r} cannot be opened"),
        el("p", why),
        el("p", "What is damaged, ", el("code", "stepscope verify"), " says; what is written twice, ",
           el("code", "stepscope repair"), " rebuilds. The other trials are not affected."),
    )  # fmt: skip
