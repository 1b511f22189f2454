"""``stepscope verify``: reads every byte of a recording and says what is damaged."""

from __future__ import annotations

import argparse
from typing import Any

from stepscope.store.address import place
from stepscope.store.verify import verify
from stepscope.viewer.commands.opening import opened
from stepscope.viewer.numbers import count


def add(commands: Any) -> None:
    text = "Read every byte of a trial, or of a group, and say what is damaged. Exits with 1 if anything is."
    parser = commands.add_parser("verify", help="say what of a recording is damaged", description=text)
    parser.add_argument("path", type=place, metavar="TRIAL", help="the folder or address of a trial, or of a group")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    group = opened(options.path)
    problems = verify(options.path)
    for problem in problems:
        print(problem)
    if not problems:
        steps = sum(len(group[name].steps) for name in group.names)
        print(f"{options.path}: all of {count(steps)} steps of {count(len(group.names))} trials can be read.")
    return int(bool(problems))
