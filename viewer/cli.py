"""The command line. Dash is imported only by the commands that need it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version

from stepscope.store import StoreError
from stepscope.viewer.commands import demo, diff, doctor, download, export, info, repair, upload, verify, view

_EXAMPLES = """examples:
  stepscope demo                      train a broken network and its fix, record both, open the dashboard
  stepscope view runs/sums            open the dashboard on a folder of trials
  stepscope doctor runs/sums/bugged   what is wrong with it, in the terminal
  stepscope diff runs/sums/bugged runs/sums/fixed
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
    for command in (view, doctor, diff, info, export, verify, repair, upload, download, demo):
        command.add(commands)
    return parser
