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
from content import comgra_bytes
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

from stepscope.store import open_trial

MAKERS: dict[str, Callable[[Workload, Path], Contender]] = {
    "Stepscope": recorded,
    "hooks with .item()": hooks,
    "wandb.watch": wandb_watch,
    "TensorBoard": tensorboard,
    "TorchLens": torchlens,
    "Comgra": comgra,
}
SAME_CONTENT = "Stepscope, Comgra's content"
SKIPPED = ("demo, 1 iteration",)
SECONDS = 8.0


def measure(workload: Workload, make: Callable[[Workload, Path], Contender]) -> tuple[str, float, float]:
    """How many times the plain step; the bytes that a step leaves on disk; and those with Comgra's content only."""
    same_content = 0.0
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
            if make is recorded:
                same_content = comgra_bytes(open_trial(Path(folder) / contender.name)) / (rounds + 3)
        except ImportError as error:
            return f"not installed ({error.name})", 0, 0
        except Exception as error:
            return f"fails: {type(error).__name__}", 0, 0
    return times(ratio(found, contender.name, "plain")), size, same_content


def shown(size: float) -> str:
    return kibibytes(size) if size else ""


def against_comgra(workload: Workload, sizes: dict[str, float]) -> str:
    """How many times Comgra's bytes are ours."""
    return f"{workload.name}: Comgra's bytes are {sizes['Comgra'] / sizes['Stepscope']:.1f} times Stepscope's, " + (
        f"and {sizes['Comgra'] / sizes[SAME_CONTENT]:.1f} times those with the same content"
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="words that the workload's name contains")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable()
    chosen = [w for w in WORKLOADS if w.name not in SKIPPED and any(word in w.name for word in options.only)]
    slowness, sizes, ratios = [], [], []
    for workload in chosen:
        found = {name: measure(workload, make) for name, make in MAKERS.items()}
        print(workload.name, found, file=sys.stderr, flush=True)
        slowness.append([workload.name, *(cell for cell, _, _ in found.values())])
        own = {SAME_CONTENT: found["Stepscope"][2], **{name: size for name, (_, size, _) in found.items()}}
        sizes.append([workload.name, *map(shown, own.values())])
        ratios += [against_comgra(workload, own)] if own["Comgra"] else []
    print(describe())
    print(f"\nA recorded step over the plain one:\n\n{markdown(('workload', *MAKERS), slowness)}")
    print(f"\nKiB a step on disk:\n\n{markdown(('workload', SAME_CONTENT, *MAKERS), sizes)}\n")
    print(*ratios, sep="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
