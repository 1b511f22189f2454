"""The command line. Dash is imported only by the command that needs it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stepscope.store import Group, StoreError, Trial, open_group
from stepscope.store.records import STATISTICS
from stepscope.viewer.numbers import count, size

_PORT = 8051
_EXAMPLES = """examples:
  stepscope demo                      train a broken network and its fix, record both, open the dashboard
  stepscope view runs/sums            open the dashboard on a folder of trials
  stepscope doctor runs/sums/bugged   what is wrong with it, in the terminal
  stepscope info runs/sums/bugged     what it holds
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 2 for a mistake in what was given, or what the command says."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        return code
    except (StoreError, OSError, ValueError) as error:
        print(f"stepscope: {_sentence(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _sentence(error: Exception) -> str:
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stepscope",
        description="A flight recorder and debugger for neural-network training in PyTorch.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"stepscope {version('stepscope')}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_view(commands)
    _add_doctor(commands)
    _add_info(commands)
    _add_demo(commands)
    return parser


def _add_view(commands: Any) -> None:
    view = commands.add_parser(
        "view", help="open the dashboard", description="Open the dashboard on a folder of trials."
    )
    view.add_argument("folder", type=Path, metavar="FOLDER", help="what the recorder wrote to: a group, or one trial")
    _add_server(view)
    view.add_argument(
        "--visualization", type=Path, metavar="FILE.py",
        help="a page of your own: a file with a function visualize(trial, selection), read again when it changes",
    )  # fmt: skip
    view.set_defaults(run=_view)


def _add_server(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, default=_PORT, help=f"the first port to try (default: {_PORT})")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: this machine only)")
    parser.add_argument("--no-browser", action="store_true", help="print the address, open nothing")


def _add_info(commands: Any) -> None:
    info = commands.add_parser(
        "info", help="say what a trial holds", description="Say what a trial, or a group, holds."
    )
    info.add_argument("path", type=Path, metavar="TRIAL", help="a trial's folder, or a group's")
    info.add_argument("--json", action="store_true", help="as JSON, for scripts")
    info.set_defaults(run=_info)


def _add_doctor(commands: Any) -> None:
    text = "Say what is wrong with a trial, where, since when, and what to try. Exits with 1 if anything is."
    doctor = commands.add_parser("doctor", help="say what is wrong with a trial", description=text)
    doctor.add_argument("path", type=Path, metavar="TRIAL", help="a trial's folder, or a group's")
    doctor.add_argument("--json", action="store_true", help="as JSON, for scripts; one document a trial")
    doctor.set_defaults(run=_doctor)


def _add_demo(commands: Any) -> None:
    text = "Train a recurrent network that cannot learn, and its fix; record both; open the dashboard."
    demo = commands.add_parser("demo", help="record a broken run and its fix, and open them", description=text)
    demo.add_argument("--out", type=Path, default=Path("runs/demo"), metavar="FOLDER", help="(default: runs/demo)")
    demo.add_argument("--steps", type=int, default=None, metavar="N", help="training steps a trial")
    demo.add_argument("--no-view", action="store_true", help="only record")
    _add_server(demo)
    demo.set_defaults(run=_demo, visualization=None)


def _view(options: argparse.Namespace) -> int:
    from stepscope.viewer.open import open_view

    folder = options.folder
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; give the folder that the recorder wrote to")
    if not folder.exists():
        raise ValueError(f"there is no folder {folder}; give the folder that the recorder writes to, or make it first")
    return open_view(folder, options.host, options.port, browser=not options.no_browser, custom=options.visualization)


def _doctor(options: argparse.Namespace) -> int:
    from stepscope.viewer.doctor import report, report_json

    group = _opened(options.path)
    reports = [(report_json if options.json else report)(group[name]) for name in group.names]
    print("\n\n".join(text for text, _ in reports))
    return int(any(sick for _, sick in reports))


def _opened(path: Path) -> Group:
    group = open_group(path)
    if not group.names:
        more = "".join(f" ({name}: {why})" for name, why in group.problems.items())
        raise ValueError(f"there is no recording in {path}{more}")
    return group


def _info(options: argparse.Namespace) -> int:
    group = _opened(options.path)
    facts = [trial_facts(group[name]) for name in group.names]
    if options.json:
        print(json.dumps(facts[0] if _is_one(group, options.path) else facts, indent=2, ensure_ascii=False))
    else:
        print("\n\n".join(_text(fact) for fact in facts))
    return 0


def _is_one(group: Group, path: Path) -> bool:
    return len(group.names) == 1 and path.resolve() == (group.path / group.names[0]).resolve()


def trial_facts(trial: Trial) -> dict[str, Any]:
    """What a trial holds, as plain values."""
    steps = trial.steps.tolist()
    kinds = trial.step_kinds
    return {
        "trial": trial.name,
        "state": trial.state,
        "exception": trial.exception,
        "steps": {"count": len(steps), "first": steps[0] if steps else None, "last": steps[-1] if steps else None},
        "kinds": {kind: kinds.count(kind) for kind in trial.kinds},
        "nodes": [node.name for node in trial.nodes],
        "quantities": list(trial.quantities),
        "statistics": list(STATISTICS),
        "scalars": ["/".join(filter(None, key)) for key in trial.scalar_names],
        "config": dict(trial.config),
        "environment": dict(trial.environment),
        "bytes": trial.bytes,
        "problems": list(trial.problems),
    }


def _text(facts: dict[str, Any]) -> str:
    steps = facts["steps"]
    span = f", {steps['first']} to {steps['last']}" if steps["count"] else ""
    kinds = ", ".join(f"{name or '(no kind)'} ({number})" for name, number in facts["kinds"].items())
    lines = [
        ("state", facts["state"] + (f": {facts['exception']}" if facts["exception"] else "")),
        ("steps", f"{count(steps['count'])} recorded{span}"),
        ("kinds", kinds),
        ("nodes", f"{count(len(facts['nodes']))}"),
        ("quantities", ", ".join(facts["quantities"])),
        ("scalars", ", ".join(facts["scalars"])),
        ("config", ", ".join(f"{name}={value}" for name, value in facts["config"].items())),
        ("size", size(facts["bytes"])),
        *(("damaged", problem) for problem in facts["problems"]),
    ]
    return "\n".join([facts["trial"], *(f"  {name:<11} {text}" for name, text in lines if text)])


def _demo(options: argparse.Namespace) -> int:
    try:
        from stepscope.examples import find_the_bug
    except ImportError as error:
        raise ValueError(f"the demo needs torch and the recorder ({error}); pip install stepscope") from error

    if options.steps is not None and options.steps < 1:
        raise ValueError(f"--steps {options.steps}: give at least 1")
    steps = find_the_bug.STEPS if options.steps is None else options.steps
    for trial, loss in find_the_bug.run(options.out, steps).items():
        print(f"{trial:8} loss on longer sequences: {loss:.3g}", file=sys.stderr)
    if options.no_view:
        print(f"Recorded both trials. Look at them with: stepscope view {options.out}", file=sys.stderr)
        return 0
    from stepscope.viewer.open import open_view

    return open_view(options.out, options.host, options.port, browser=not options.no_browser, custom=None)
