"""``python -m stepscope.examples.broken NAME [--fixed] --out FOLDER``: train and record one of the runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from stepscope.examples.broken import BROKEN, HEALTHY, record


def main(arguments: list[str] | None = None) -> int:
    names = [*BROKEN, *HEALTHY]
    parser = argparse.ArgumentParser(
        prog="python -m stepscope.examples.broken", description="Train and record a run with a known mistake.",
        epilog=f"names: {', '.join(names)}",
    )  # fmt: skip
    parser.add_argument("name", metavar="NAME", choices=names, help="one of the names below")
    parser.add_argument("--fixed", action="store_true", help="train it without the mistake")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/broken"), metavar="FOLDER",
        help="the group's folder (default: runs/broken)",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    case = BROKEN.get(options.name)
    trial = record(options.name, case.train if case else HEALTHY[options.name], options.out, fixed=options.fixed)
    if case is not None:
        print(f"The mistake: {case.cause}", file=sys.stderr)
    print(f"Recorded the trial. What the findings say: stepscope doctor '{trial.path}'", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
