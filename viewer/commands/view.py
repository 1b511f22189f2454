"""``stepscope view``: the dashboard."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from stepscope.store.address import place
from stepscope.viewer.commands.opening import add_server


def add(commands: Any) -> None:
    text = "Open the dashboard on a folder of trials."
    parser = commands.add_parser("view", help="open the dashboard", description=text)
    parser.add_argument(
        "folder",
        type=place,
        metavar="FOLDER",
        help="what the recorder wrote to: the folder or address of a group or a trial",
    )
    add_server(parser)
    parser.add_argument(
        "--visualization", type=Path, metavar="FILE.py",
        help="a page of your own: a file with a function visualize(trial, selection), read again when it changes",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from stepscope.viewer.open import open_view

    if isinstance(options.folder, Path):
        _check_folder(options.folder)
    return open_view(
        options.folder, options.host, options.port, browser=not options.no_browser, custom=options.visualization
    )


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; give the folder that the recorder wrote to")
    if not folder.exists():
        raise ValueError(f"there is no folder {folder}; give the folder that the recorder writes to, or make it first")
