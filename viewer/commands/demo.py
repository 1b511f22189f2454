"""``stepscope demo``: a broken run and its fix, recorded and opened."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from stepscope.viewer.commands.opening import add_server


def add(commands: Any) -> None:
    text = "Train a recurrent network that cannot learn, and its fix; record both; open the dashboard."
    parser = commands.add_parser("demo", help="record a broken run and its fix, and open them", description=text)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), metavar="FOLDER", help="(default: runs/demo)")
    parser.add_argument("--steps", type=int, default=None, metavar="N", help="training steps a trial")
    parser.add_argument("--no-view", action="store_true", help="only record")
    add_server(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
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

    browser, bugged = not options.no_browser, "?trial=bugged"
    return open_view(options.out, options.host, options.port, browser=browser, custom=None, query=bugged)
