"""``stepscope upload``: local trials to an address."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from stepscope.store import StoreError
from stepscope.store.remote.folder import RemoteFolder
from stepscope.store.remote.transfer import upload_trial
from stepscope.viewer.commands.opening import opened


def add(commands: Any) -> None:
    text = (
        "Upload a trial, or all trials of a group, to an address; what is there already is not uploaded again. "
        "Exits with 1 if any of them could not be uploaded."
    )
    parser = commands.add_parser("upload", help="upload trials to an address", description=text)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a trial's folder, or a group's; also a spool")
    parser.add_argument("address", metavar="ADDRESS", help="that of the group, such as s3://bucket/runs")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    remote, group = RemoteFolder(options.address), opened(options.folder)
    failed = False
    for name in group.names:
        try:
            print(f"{name} is at {upload_trial(group.path / name, remote)}", file=sys.stderr)
        except (StoreError, OSError) as error:
            print(f"{name} was not uploaded: {error}", file=sys.stderr)
            failed = True
    return int(failed)
