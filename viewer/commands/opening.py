"""What several commands open."""

from __future__ import annotations

import argparse
from pathlib import Path

from stepscope.store import Group, Trial, open_group
from stepscope.store.group import is_trial

PORT = 8051


def add_server(parser: argparse.ArgumentParser) -> None:
    """The options of commands that serve the dashboard."""
    parser.add_argument("--port", type=int, default=PORT, help=f"the first port to try (default: {PORT})")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: this machine only)")
    parser.add_argument("--no-browser", action="store_true", help="print the address, open nothing")


def opened(path: Path | str) -> Group:
    """A group with at least one trial.

    Raises:
        ValueError: there is none.
    """
    group = open_group(path)
    if not group.names:
        more = "".join(f" ({name}: {why})" for name, why in group.problems.items())
        raise ValueError(f"there is no recording in {path}{more}")
    return group


def opened_trial(path: Path | str) -> Trial:
    """The trial of a folder, or at an address.

    Raises:
        ValueError: it is a group's folder, or holds no recording.
    """
    group = opened(path)
    if not is_trial(path):
        trials = ", ".join(f"{str(path).rstrip('/')}/{name}" for name in group.names[:5])
        raise ValueError(f"{path} is a group of trials; give one of them: {trials}")
    return group[group.names[0]]
