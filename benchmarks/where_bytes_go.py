"""Where the bytes of a recording go: kilobytes a step by file and part, and what they would be with Comgra's content.

    python benchmarks/where_bytes_go.py runs/demo/bugged
    python benchmarks/where_bytes_go.py --demo               # the demo's step with 20 iterations, recorded anew

Comgra records values and gradients: of samples and neurons, and four statistics of parameters. Stepscope records more:
statistics and histograms of everything, neurons of parameters, updates, the optimizer's state, and each statistic a
second time by node ("columns"). The last line is what the same steps take without all of this.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from content import comgra_bytes
from table import markdown

from stepscope.store import Trial, open_trial
from stepscope.store.block_file import BlockFile
from stepscope.store.blocks import PREFIX_SIZE
from stepscope.store.files import FILE_NAMES, file_path
from stepscope.store.frames import array_entries

STREAMS = ("histograms", "statistics", "samples", "differences of statistics", "differences of samples",
           "choices of statistics", "choices of samples")  # fmt: skip
DEMO_STEPS = 15


def parts(trial: Trial) -> Iterator[tuple[str, int]]:
    """All bytes of a trial but the files' first ones, by what they are."""
    for name in FILE_NAMES:
        for place, header in BlockFile(file_path(trial.path, name)).new_blocks():
            if name not in ("steps", "detail"):
                yield name, place.end - place.offset
                continue
            yield f"{name}: headers", PREFIX_SIZE + place.header_length
            for entry in array_entries(header["arrays"], place.payload_length).values():
                yield f"{name}: {entry.name}", entry.length
    for number in trial.steps.tolist():
        for page in trial.step(number).detail.packed().pages:
            yield f"detail: pages of {STREAMS[page.stream]}", len(page.stored)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trial", nargs="?", help="the folder of a recorded trial")
    parser.add_argument("--demo", action="store_true", help="record the demo's step with 20 iterations")
    options = parser.parse_args()
    if options.trial is None and not options.demo:
        parser.error("give the folder of a trial, or --demo")
    with tempfile.TemporaryDirectory() as folder:
        show(open_trial(options.trial or record_demo(Path(folder))))
    return 0


def record_demo(folder: Path) -> Path:
    """The demo with 20 iterations, every step recorded."""
    from ours import recorded
    from workload_list import WORKLOADS

    contender = recorded(next(workload for workload in WORKLOADS if workload.name == "demo, 20 iterations"), folder)
    for _ in range(DEMO_STEPS):
        contender.run()
    contender.close()
    return folder / contender.name


def show(trial: Trial) -> None:
    """Print the table."""
    sums = Counter[str]()
    for name, size in parts(trial):
        sums[name] += size
    total, steps = sum(sums.values()), len(trial.steps)
    rows = [[name, f"{size / steps / 1000:.1f}", f"{100 * size / total:.1f} %"] for name, size in sums.most_common()]
    rows.append(["all", f"{total / steps / 1000:.1f}", ""])
    rows.append(["with Comgra's content only", f"{comgra_bytes(trial) / steps / 1000:.1f}", ""])
    print(f"{steps} steps of {trial.name!r}\n\n{markdown(('part', 'kB a step', 'share'), rows)}")


if __name__ == "__main__":
    sys.exit(main())
