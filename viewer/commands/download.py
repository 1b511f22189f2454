"""``stepscope download``: trials from an address to a local folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from stepscope.store import download


def add(commands: Any) -> None:
    text = "Fetch a trial, or all trials of a group, from an address into a local folder."
    parser = commands.add_parser("download", help="fetch trials from an address", description=text)
    parser.add_argument("address", metavar="ADDRESS", help="that of a trial or a group, such as s3://bucket/runs")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the group's folder; made if it is missing")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    for path in download(options.address, options.folder):
        print(path, file=sys.stderr)
    return 0
