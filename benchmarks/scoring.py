"""What the findings of a broken run are worth: whether, at which place, and how exactly they tell its cause."""

from __future__ import annotations

import ast
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

from stepscope.analysis import Finding, diagnose
from stepscope.examples.broken import Case, Lab, record
from stepscope.store import Trial, open_trial
from stepscope.store.group import is_trial
from stepscope.viewer.excerpt import AROUND

FIRST = 3


@dataclass(frozen=True)
class Score:
    """How one broken run was judged; None stands for what cannot be asked of it.

    Attributes:
        rank: the place of the first finding that tells the cause, from 1; consequences count with their cause.
        warned: one of the first three findings tells the cause, and is a warning or an error.
        localised: one of the first three findings names the right node, or one next to it.
        line: one of the first three findings names the faulty line, if that line runs within a step.
        shown: the same, or the faulty line is among those that the dashboard shows around the one that is named.
        onset: the finding that tells the cause names the first recorded step that the mistake touches.
        seconds: how long the diagnosis took.
        told: what the first three findings were.
    """

    name: str
    held_back: bool
    rank: int | None
    warned: bool
    localised: bool
    line: bool | None
    shown: bool | None
    onset: bool | None
    seconds: float
    told: str

    @property
    def in_top(self) -> bool:
        return self.rank is not None and self.rank <= FIRST


@dataclass(frozen=True)
class Alarms:
    """What was said of a run in which nothing is wrong; every warning and error is a false alarm.

    Of level info, "worth knowing", there are ``notes``.
    """

    name: str
    held_back: bool
    false: tuple[str, ...]
    notes: int
    seconds: float


def judge(case: Case, folder: Path) -> Score:
    """Train the broken run, and see what the findings say of it."""
    trial = recorded(case.name, case.train, folder, fixed=False)
    findings, seconds = _diagnosed(trial)
    first = findings[:FIRST]
    rank = next((place for place, found in enumerate(findings, 1) if tells(case, found)), None)
    near = neighbours(trial, case.nodes)
    return Score(
        name=case.name,
        held_back=case.held_back,
        rank=rank,
        warned=any(found.level != "info" and tells(case, found) for found in first),
        localised=any({found.node, *found.nodes} & near for found in first),
        line=any(_names_line(case, found) for found in first) if case.line.in_step else None,
        shown=any(_names_line(case, found, AROUND) for found in first) if case.line.in_step else None,
        onset=_onset(case, trial, findings),
        seconds=seconds,
        told="; ".join(f"{found.level} {found.rule} at {found.node or 'no node'}" for found in first) or "nothing",
    )


def alarms(name: str, train: Callable[[Lab], None], folder: Path, held_back: bool, *, fixed: bool) -> Alarms:
    """Train a run in which nothing is wrong, and see what it is accused of."""
    return accusations(name, recorded(name, train, folder, fixed=fixed), held_back)


def accusations(name: str, trial: Trial, held_back: bool) -> Alarms:
    """What a recorded trial in which nothing is wrong is accused of."""
    findings, seconds = _diagnosed(trial)
    false = [f"{f.level} {f.rule} at {f.node or 'no node'}: {f.summary}" for f in findings if f.level != "info"]
    return Alarms(name, held_back, tuple(false), sum(f.level == "info" for f in findings), seconds)


def recorded(name: str, train: Callable[[Lab], None], folder: Path, *, fixed: bool) -> Trial:
    """The trial of an earlier time, if it is there; else a new one."""
    path = folder / (f"{name} fixed" if fixed else name)
    if is_trial(path) and (trial := open_trial(path)).state == "finished":
        return trial
    return record(name, train, folder, fixed=fixed)


class Known(Protocol):
    """What is known to be wrong with a run."""

    @property
    def rules(self) -> tuple[str, ...]: ...

    @property
    def words(self) -> tuple[str, ...]: ...


def tells(case: Known, finding: Finding) -> bool:
    """Whether a finding tells the true cause: by the name of its rule, or by a wanted word in its sentence."""
    return finding.rule in case.rules or any(word in finding.summary.lower() for word in map(str.lower, case.words))


def neighbours(trial: Trial, nodes: Iterable[str]) -> set[str]:
    """The nodes themselves, and those directly connected to them in any graph of the first recorded step."""
    near = set(nodes)
    step = trial.step(int(trial.steps[0]))
    for iteration in step.iterations or (0,):
        graph = step.graph(iteration)
        for edge in graph.edges:
            ends = {graph.vertices[edge.source].node, graph.vertices[edge.sink].node}
            if ends & set(nodes):
                near |= ends
    return near


def _diagnosed(trial: Trial) -> tuple[tuple[Finding, ...], float]:
    started = time.perf_counter()
    return diagnose(trial), time.perf_counter() - started


def _names_line(case: Case, finding: Finding, around: int = 0) -> bool:
    """Whether a finding names the faulty line, another one of its statement, or one that is so many lines from it."""
    source, line = finding.source, case.line
    if source is None or Path(source.file).name != Path(line.file).name:
        return False
    return abs(source.line - line.number) <= around or source.line in _statement(line.file, line.number)


@cache
def _statement(file: str, number: int) -> range:
    """The lines of the statement, of those without others in them, that a line belongs to."""
    for node in ast.walk(ast.parse(Path(file).read_text())):
        if isinstance(node, ast.stmt) and not hasattr(node, "body") and node.end_lineno is not None:
            lines = range(node.lineno, node.end_lineno + 1)
            if number in lines:
                return lines
    return range(0)


def _onset(case: Case, trial: Trial, findings: Iterable[Finding]) -> bool | None:
    """The kind of step in which the mistake shows is left to the finding."""
    if case.onset is None:
        return None
    recorded = [int(step) for step in trial.steps if step >= case.onset]
    return any(tells(case, found) and found.step is not None and found.step in recorded[:2] for found in findings)
