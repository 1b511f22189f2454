"""Stepscope beside other recorders: time of steps over the plain one, interleaved, in one process; memory; disk.

    python benchmarks/bench_peers.py                         # the MLP, the demo, the LSTM, the ResNet, the transformer
    python benchmarks/bench_peers.py --only demo MLP

Each peer logs every step with its own best settings for seeing everything it can see. Peers that are not installed
are left out with a sentence: ``pip install comgra wandb tensorboard torchlens`` into an environment of your own.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from content import comgra_bytes
from machine import describe
from memory import answer, peak_memory
from ours import ours, plain
from peers.comgra_peer import comgra
from peers.hooks_peer import hooks
from peers.tensorboard_peer import tensorboard
from peers.torchlens_peer import torchlens
from peers.wandb_peer import wandb_watch
from table import kibibytes, markdown, mebibytes, times
from timing import Contender, interleave, ratio
from workload_list import WORKLOADS
from workloads import Workload

from stepscope.store import open_trial


class Maker(Protocol):
    """Makes a contender that logs every step, or, where none ``is_due``, none."""

    def __call__(self, workload: Workload, folder: Path, *, is_due: bool = True) -> Contender: ...


MAKERS: dict[str, Maker] = {
    "Stepscope": ours,
    "hooks with .item()": hooks,
    "wandb.watch": wandb_watch,
    "TensorBoard": tensorboard,
    "TorchLens": torchlens,
    "Comgra": comgra,
}
SAME_CONTENT = "Stepscope, Comgra's content"
SKIPPED = ("demo, 1 iteration",)
SECONDS = 8.0
"""For how long each recorder runs at least, unless two steps take longer."""


@dataclass(frozen=True)
class Found:
    """What one recorder takes of one workload; the texts are cells of tables.

    Attributes:
        recorded: a recorded step over the plain one.
        idle: a step that is not recorded over the plain one.
        peak: of the process's memory while steps are recorded.
        size: bytes that a recorded step leaves on disk; 0 for none.
        same_content: those with Comgra's content only.
    """

    recorded: str
    idle: str = ""
    peak: str = ""
    size: float = 0
    same_content: float = 0


def measure(workload: Workload, name: str, seconds: float) -> Found:
    """One recorder on one workload, for about so many seconds."""
    make = MAKERS[name]
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            slowness, steps, size = _slowness(workload, make, Path(folder), seconds)
            same_content = comgra_bytes(open_trial(Path(folder) / "recorded")) / steps if make is ours else 0.0
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            idle, _, _ = _slowness(workload, partial(make, is_due=False), Path(folder), seconds)
    except ImportError as error:
        return Found(f"not installed ({error.name})")
    except Exception as error:
        return Found(f"fails: {type(error).__name__}")
    peak = mebibytes(peak_memory(__file__, workload.name, name))
    return Found(times(slowness), times(idle), peak, size / steps, same_content)


def _slowness(
    workload: Workload, make: Callable[[Workload, Path], Contender], folder: Path, seconds: float
) -> tuple[float, int, float]:
    """How many times the plain step; how many steps there were; the bytes they left on disk."""
    contender = make(workload, folder)
    contender.run()
    start = time.perf_counter()
    contender.run()
    rounds = min(15, max(2, int(seconds / (time.perf_counter() - start))))
    found = interleave([plain(workload, folder), contender], rounds, warm_up=1)
    contender.close()
    return ratio(found, contender.name, "plain"), rounds + 3, contender.bytes_on_disk()


def shown(size: float) -> str:
    return kibibytes(size) if size else ""


def against_comgra(workload: str, sizes: dict[str, float]) -> str:
    """How many times Comgra's bytes are ours."""
    return f"{workload}: Comgra's bytes are {sizes['Comgra'] / sizes['Stepscope']:.1f} times Stepscope's, " + (
        f"and {sizes['Comgra'] / sizes[SAME_CONTENT]:.1f} times those with the same content"
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="words that the workload's name contains")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long each recorder runs (default: 8)")
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable()
    if options.memory:
        workload, peer = options.memory
        answer(workload, MAKERS.get(peer, plain))
        return 0
    chosen = [w for w in WORKLOADS if w.name not in SKIPPED and any(word in w.name for word in options.only)]
    table = {}
    for workload in chosen:
        table[workload.name] = {name: measure(workload, name, options.seconds) for name in MAKERS}
        print(workload.name, table[workload.name], file=sys.stderr, flush=True)
    print_tables(table)
    return 0


def print_tables(table: dict[str, dict[str, Found]]) -> None:
    head = ("workload", *MAKERS)
    print(describe())
    rows = [[name, *(one.recorded for one in found.values())] for name, found in table.items()]
    print(f"\nA recorded step over the plain one:\n\n{markdown(head, rows)}")
    rows = [[name, *(one.idle for one in found.values())] for name, found in table.items()]
    print(f"\nA step that is not recorded over the plain one:\n\n{markdown(head, rows)}")
    rows = [
        [name, mebibytes(peak_memory(__file__, name, "plain")), *(one.peak for one in found.values())]
        for name, found in table.items()
    ]
    print(f"\nPeak MiB of a process that records six steps:\n\n{markdown(('workload', 'plain', *MAKERS), rows)}")
    sizes = {
        name: {SAME_CONTENT: found["Stepscope"].same_content, **{peer: one.size for peer, one in found.items()}}
        for name, found in table.items()
    }
    rows = [[name, *map(shown, own.values())] for name, own in sizes.items()]
    print(f"\nKiB a step on disk:\n\n{markdown(('workload', SAME_CONTENT, *MAKERS), rows)}\n")
    print(*(against_comgra(name, own) for name, own in sizes.items() if own["Comgra"]), sep="\n")


if __name__ == "__main__":
    raise SystemExit(main())
