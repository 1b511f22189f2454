"""The command line that the examples share."""

from __future__ import annotations

import argparse
from pathlib import Path


def parse(arguments: list[str] | None, description: str, *, out: str, steps: int) -> argparse.Namespace:
    """Read ``--out FOLDER`` and ``--steps N``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--out", type=Path, default=Path(out), metavar="FOLDER", help=f"the group's folder (default: {out})"
    )
    parser.add_argument(
        "--steps", type=positive, default=steps, metavar="N", help=f"training steps a trial (default: {steps})"
    )
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number of steps, 1 or more")
    return int(text)
