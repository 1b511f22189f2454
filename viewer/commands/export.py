"""``stepscope export``: the statistics as a tidy table, in a file that other tools read."""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from stepscope.store import Group
from stepscope.store.address import place
from stepscope.store.table import Table
from stepscope.viewer.commands.opening import opened
from stepscope.viewer.numbers import count


def add(commands: Any) -> None:
    text = "Write the statistics of a trial, or of all trials of a group, as one table: a row a tensor and step."
    parser = commands.add_parser("export", help="write the statistics as a table", description=text)
    parser.add_argument("path", type=place, metavar="TRIAL", help="the folder or address of a trial, or of a group")
    parser.add_argument("--format", choices=sorted(_WRITERS), default="csv", help="(default: csv)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file to write")
    parser.add_argument("--quantity", action="append", metavar="NAME", help="only this quantity; may be repeated")
    parser.add_argument("--node", action="append", metavar="NAME", help="only this node; may be repeated")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    group = opened(options.path)
    temporary = options.out.with_name(options.out.name + ".part")
    try:
        rows = _WRITERS[options.format](temporary, _parts(group, options))
        temporary.replace(options.out)
    finally:
        temporary.unlink(missing_ok=True)
    print(f"{options.out}: {count(rows)} rows of {count(len(group.names))} trials", file=sys.stderr)
    return 0


def _parts(group: Group, options: argparse.Namespace) -> Iterator[Table]:
    """The tables of all trials, part by part, with the trial's name in front."""
    for name in group.names:
        for part in group[name].tables(nodes=options.node, quantities=options.quantity):
            yield {"trial": np.full(len(part["step"]), name, object), **part}


def _write_csv(path: Path, parts: Iterator[Table]) -> int:
    rows = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        for part in parts:
            if not rows:
                writer.writerow(part)
            writer.writerows(zip(*(values.tolist() for values in part.values()), strict=True))
            rows += len(part["step"])
    return rows


def _write_jsonl(path: Path, parts: Iterator[Table]) -> int:
    rows = 0
    with path.open("w", encoding="utf-8") as file:
        for part in parts:
            rows += _write_lines(file, part)
    return rows


def _write_lines(file: IO[str], part: Table) -> int:
    """JSON knows no NaN: it becomes null."""
    for row in zip(*(values.tolist() for values in part.values()), strict=True):
        plain = [None if isinstance(value, float) and not math.isfinite(value) else value for value in row]
        file.write(json.dumps(dict(zip(part, plain, strict=True)), ensure_ascii=False) + "\n")
    return len(part["step"])


def _write_parquet(path: Path, parts: Iterator[Table]) -> int:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ValueError("--format parquet needs pyarrow: pip install pyarrow; or take --format csv") from error
    rows, writer = 0, None
    for part in parts:
        table = arrow.table(
            {name: values.tolist() if values.dtype == object else values for name, values in part.items()}
        )
        writer = writer or parquet.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
        rows += table.num_rows
    if writer is not None:
        writer.close()
    return rows


_WRITERS: dict[str, Callable[[Path, Iterator[Table]], int]] = {
    "csv": _write_csv,
    "jsonl": _write_jsonl,
    "parquet": _write_parquet,
}
