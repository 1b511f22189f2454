"""How often the true cause is found in broken runs, and how often healthy ones are accused: ``make bench-findings``.

    python benchmarks/bench_findings.py                    # all runs
    python benchmarks/bench_findings.py missing_values     # some of them, with everything that is said

The runs are those of ``stepscope.examples.broken``; they were written from published collections of bugs, without
looking at the rules. Those in ``held_back/`` are measured before anybody who writes rules reads them: what is said of
each of them is only shown if it is asked for by name.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from scoring import Alarms, Score, accusations, alarms, judge
from table import markdown

from stepscope.examples.broken import BROKEN, HEALTHY, UNREAD, Case
from stepscope.store import open_trial
from stepscope.store.group import is_trial
from support.healthy_objectives import HEALTHY_OBJECTIVES
from support.healthy_runs import HEALTHY as HEALTHY_IN_TESTS

HEAD = ("run", "rank", "localised", "line", "onset", "seconds", "first three findings")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="How good the findings are.")
    parser.add_argument("names", nargs="*", choices=[[], *BROKEN, *HEALTHY], help="these runs only (default: all)")
    parser.add_argument("--open", action="store_true", help="leave out the runs that are held back")
    parser.add_argument(
        "--recordings", type=Path, metavar="FOLDER", help="keep the recordings there, and use them again"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.recordings or Path(temporary)
        wanted = [case for case in BROKEN.values() if _is_wanted(case.name, options)]
        scores = [_shown(judge(case, folder)) for case in wanted]
        quiet = _alarms(wanted, folder, options)
    print_scores(scores, with_held_back=bool(options.names))
    print_alarms(quiet, with_held_back=bool(options.names))
    return 0


def _is_wanted(name: str, options: argparse.Namespace) -> bool:
    return (not options.names or name in options.names) and not (options.open and name in UNREAD)


def _shown(score: Score) -> Score:
    """Say on the terminal how far it is."""
    print(f"judged {score.name}", file=sys.stderr, flush=True)
    return score


def _alarms(cases: Sequence[Case], folder: Path, options: argparse.Namespace) -> dict[str, list[Alarms]]:
    """What fixed twins, healthy runs and the healthy runs of the tests are accused of."""
    twins = [alarms(case.name, case.train, folder, case.held_back, fixed=True) for case in cases]
    healthy = [
        alarms(name, train, folder, name in UNREAD, fixed=False)
        for name, train in HEALTHY.items()
        if _is_wanted(name, options)
    ]
    from_tests = []
    for name, make in {**HEALTHY_IN_TESTS, **HEALTHY_OBJECTIVES}.items():
        if not options.names and not options.open:
            torch.manual_seed(0)
            known = folder / "tests" / name / "trial"
            trial = open_trial(known) if is_trial(known) else make(folder / "tests" / name)
            from_tests.append(accusations(name, trial, False))
    return {"fixed twins": twins, "healthy runs": healthy, "healthy runs of the tests": from_tests}


def print_scores(scores: Sequence[Score], *, with_held_back: bool) -> None:
    rows = [
        (s.name, str(s.rank or "–"), _mark(s.localised), _mark(s.line), _mark(s.onset), f"{s.seconds:.2f}", s.told)
        for s in scores
        if with_held_back or not s.held_back
    ]
    print(markdown(HEAD, rows), end="\n\n")
    parts = {"open": [s for s in scores if not s.held_back], "held back": [s for s in scores if s.held_back]}
    head = (
        "broken runs",
        "runs",
        "detected",
        "in top 3",
        "as warning or error",
        "first",
        "localised",
        "line",
        "within the lines shown",
        "onset",
        "s a diagnosis",
    )
    print(markdown(head, [_sums(name, part) for name, part in parts.items() if part]), end="\n\n")


def _sums(name: str, scores: Sequence[Score]) -> tuple[str, ...]:
    counts = (
        len(scores),
        sum(s.rank is not None for s in scores),
        sum(s.in_top for s in scores),
        sum(s.warned for s in scores),
        sum(s.rank == 1 for s in scores),
        sum(s.localised for s in scores),
    )
    shares = (_share([s.line for s in scores]), _share([s.shown for s in scores]), _share([s.onset for s in scores]))
    seconds = sum(s.seconds for s in scores) / len(scores)
    return (name, *map(str, counts), *shares, f"{seconds:.2f}")


def _share(marks: Sequence[bool | None]) -> str:
    """How many of those that could be asked are true."""
    asked = [mark for mark in marks if mark is not None]
    return f"{sum(asked)} of {len(asked)}"


def print_alarms(quiet: dict[str, list[Alarms]], *, with_held_back: bool) -> None:
    rows = []
    for kind, runs in quiet.items():
        for held_back, label in ((False, "open"), (True, "held back")):
            part = [run for run in runs if run.held_back == held_back]
            if part:
                accused = sum(bool(run.false) for run in part)
                rows.append((f"{kind}, {label}", str(len(part)), str(accused), str(sum(run.notes > 0 for run in part))))
    print(markdown(("nothing is wrong", "runs", "accused", "with a note"), rows), end="\n\n")
    for kind, runs in quiet.items():
        for run in runs:
            for text in run.false if with_held_back or not run.held_back else ():
                print(f"- {kind}: {run.name}: {text}")


def _mark(value: bool | None) -> str:
    return "" if value is None else "yes" if value else "no"


if __name__ == "__main__":
    sys.exit(main())
