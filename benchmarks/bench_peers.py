"""Stepscope beside other recorders: time of a recorded step over the plain one, interleaved, in the same process.

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
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from machine import describe
from ours import plain, recorded
from peers.comgra_peer import comgra
from peers.hooks_peer import hooks
from peers.tensorboard_peer import tensorboard
from peers.torchlens_peer import torchlens
from peers.wandb_peer import wandb_watch
from table import kibibytes, markdown, times
from timing import Contender, interleave, ratio
from workload_list import WORKLOADS
from workloads import Workload

MAKERS: dict[str, Callable[[Workload, Path], Contender]] = {
    "Stepscope": recorded,
    "hooks with .item()": hooks,
    "wandb.watch": wandb_watch,
    "TensorBoard": tensorboard,
    "TorchLens": torchlens,
    "Comgra": comgra,
}
SKIPPED = ("demo, 1 iteration",)
SECONDS = 8.0


def measure(workload: Workload, make: Callable[[Workload, Path], Contender]) -> tuple[str, str]:
    """Two cells: how many times the plain step, and the KiB that a step leaves on disk."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            contender = make(workload, Path(folder))
            contender.run()
            start = time.perf_counter()
            contender.run()
            rounds = min(15, max(2, int(SECONDS / (time.perf_counter() - start))))
            found = interleave([plain(workload, Path(folder)), contender], rounds, warm_up=1)
            contender.close()
            size = contender.bytes_on_disk() / (rounds + 3)
        except ImportError as error:
            return f"not installed ({error.name})", ""
        except Exception as error:
            return f"fails: {type(error).__name__}", ""
    return times(ratio(found, contender.name, "plain")), kibibytes(size) if size else "none"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="words that the workload's name contains")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable()
    chosen = [w for w in WORKLOADS if w.name not in SKIPPED and any(word in w.name for word in options.only)]
    slowness, sizes = [], []
    for workload in chosen:
        cells = [measure(workload, make) for make in MAKERS.values()]
        print(workload.name, *cells, file=sys.stderr, flush=True)
        slowness.append([workload.name, *(cell for cell, _ in cells)])
        sizes.append([workload.name, *(size for _, size in cells)])
    print(describe())
    print(f"\nA recorded step over the plain one:\n\n{markdown(('workload', *MAKERS), slowness)}")
    print(f"\nKiB a step on disk:\n\n{markdown(('workload', *MAKERS), sizes)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
