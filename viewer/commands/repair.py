"""``stepscope repair``: takes out what is damaged of a trial, and rebuilds what is written twice."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from stepscope.store.address import place
from stepscope.store.repair import Repair, repair
from stepscope.viewer.numbers import count

_MOST_LINES = 40


def add(commands: Any) -> None:
    text = (
        "Take out what is damaged of a trial, and rebuild what is written twice; what can be read stays as it is. "
        "Exits with 0 if nothing is lost, with 1 if something is, and says what."
    )
    parser = commands.add_parser("repair", help="repair a damaged trial", description=text)
    parser.add_argument("path", type=place, metavar="TRIAL", help="a trial's folder")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="leave the trial as it is, and make a repaired copy in this new folder (default: repair it in its place, "
        "and keep the damaged files in a folder 'damaged-1' in it)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    done = repair(options.path, options.out)
    for line in _lines(done):
        print(line)
    return int(bool(done.lost or done.left))


def _lines(done: Repair) -> list[str]:
    steps = f"{count(done.steps)} {'step' if done.steps == 1 else 'steps'}"
    if not done.damaged:
        return [f"{done.trial}: nothing is damaged; it has {steps}."]
    return [
        *_section("damaged", done.damaged),
        *_section("rebuilt", done.rebuilt),
        *_section("lost", done.lost),
        *_section("still damaged", done.left),
        f"{done.trial}: {steps} can be read" + (", and nothing is lost." if not done.lost else "."),
        *([f"The damaged files are kept in {done.originals}."] if done.originals is not None else []),
    ]


def _section(title: str, sentences: tuple[str, ...]) -> list[str]:
    if not sentences:
        return []
    more = [f"  and {count(len(sentences) - _MOST_LINES)} more"] if len(sentences) > _MOST_LINES else []
    return [f"{title}:", *(f"  {sentence}" for sentence in sentences[:_MOST_LINES]), *more]
