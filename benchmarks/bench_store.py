"""What a large recording costs to write, open and read: a table of times, bytes and memory.

    python benchmarks/bench_store.py              # 10,000 steps x 200 nodes, and 1,000 steps x 2,000 nodes
    python benchmarks/bench_store.py --quick      # a tenth of the steps

Every reading is done in a fresh process with cold caches of its own; the best of five is shown, and the process's
peak memory. The operating system's cache is warm. Exits with 1 if a bar is not held.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from stepscope.store import Trial, open_trial
from support.synthetic import Synthetic, SyntheticTrial

SIZES = ((10_000, 200), (1_000, 2_000))
"""Steps and nodes."""

BARS = {"open": 1000, "nodes": None, "series": 100, "series of a sample": 100, "node at a step": 30}
"""Milliseconds; None where there is no bar."""

NODE = "model.blocks.3.attn.q_proj.weight"
NODES_OF_A_BLOCK = 28
_DIFFERENT_RECORDS = 10
_REPEATS = 5


def write(folder: Path, steps: int, blocks: int) -> dict[str, float]:
    """Write the recording; its numbers differ from step to step, its raw neurons repeat."""
    synthetic = Synthetic(blocks=blocks, width=16, batch=8, iterations=1, kinds=("train", "test"), neuron_limit=16)
    live = SyntheticTrial(folder, synthetic)
    records = [synthetic.record(index) for index in range(_DIFFERENT_RECORDS)]
    rows = len(records[0].tensors)
    start, busy = time.perf_counter(), time.process_time()
    for number in range(steps):
        record = records[number % len(records)]
        live.writer.write_step(replace(record, number=number, statistics=record.statistics * (1 + number / steps)))
    live.close()
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    size = sum(file.stat().st_size for file in live.path.iterdir())
    return {
        "nodes": len(synthetic.model.places),
        "rows": rows,
        "seconds": seconds,
        "busy": busy,
        "bytes": size,
        "peak": peak_memory(),
    }


def read(path: Path, question: str) -> dict[str, float]:
    """Answer one question with a fresh reader, several times."""
    times = []
    for _ in range(_REPEATS):
        trial = open_trial(path)
        prepare(trial, question)
        start = time.perf_counter()
        answer(path, question)(trial)
        times.append(1000 * (time.perf_counter() - start))
    return {"milliseconds": min(times), "worst": max(times), "peak": peak_memory()}


def prepare(trial: Trial, question: str) -> None:
    """What a reader has done before it asks."""
    if question not in ("open", "nodes"):
        trial.node(NODE)


def answer(path: Path, question: str) -> Callable[[Trial], object]:
    if question == "open":
        return lambda _: open_trial(path).steps
    if question == "nodes":
        return lambda trial: trial.nodes
    if question == "series":
        return lambda trial: trial.series(NODE, statistic="std", quantity="gradient")
    if question == "series of a sample":
        return lambda trial: trial.series("model.blocks.3.attn", statistic="std", sample=1)
    return everything_of_a_node


def everything_of_a_node(trial: Trial) -> None:
    """What an inspector shows of one node at one step: all its quantities, histogram and neurons; and the graph."""
    step = trial.step(int(trial.steps[len(trial.steps) // 2]))
    for quantity in trial.node(NODE).quantities:
        tensor = step.tensor(NODE, quantity=quantity)
        assert tensor.statistics and tensor.histogram and tensor.neurons
    step.graph()


def peak_memory() -> float:
    """Of this process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_fresh_process(*arguments: str) -> dict[str, float]:
    command = [sys.executable, __file__, *arguments]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result: dict[str, float] = json.loads(output)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the steps")
    parser.add_argument("--write", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--read", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write:
        folder, steps, blocks = arguments.write
        print(json.dumps(write(Path(folder), int(steps), int(blocks))))
        return 0
    if arguments.read:
        print(json.dumps(read(Path(arguments.read[0]), arguments.read[1])))
        return 0
    held = [measure(steps // 10 if arguments.quick else steps, nodes) for steps, nodes in SIZES]
    return 0 if all(held) else 1


def measure(steps: int, nodes: int) -> bool:
    """Print the table of one recording; returns whether its bars are held."""
    with tempfile.TemporaryDirectory() as folder:
        written = in_fresh_process("--write", folder, str(steps), str(round(nodes / NODES_OF_A_BLOCK)))
        print(f"{steps:,} steps x {written['nodes']:,} nodes, {written['rows']:,} measured tensors a step")
        each = f"{1000 * written['busy'] / steps:.1f} ms and {written['bytes'] / steps / 1000:.0f} kB a step"
        took = f"{written['seconds']:.0f} s, {written['busy']:.0f} s of them processor time"
        print(f"  written in {took}: {each}; peak memory {written['peak']:.0f} MB")
        print(f"  {'question':<20}{'best ms':>9}{'worst ms':>10}{'bar ms':>8}{'peak MB':>9}")
        held = True
        for question, bar in BARS.items():
            found = in_fresh_process("--read", f"{folder}/synthetic", question)
            held &= bar is None or found["milliseconds"] < bar
            shown = "" if bar is None else f"{bar:.0f}"
            print(
                f"  {question:<20}{found['milliseconds']:>9.1f}{found['worst']:>10.1f}{shown:>8}{found['peak']:>9.0f}"
            )
    return held


if __name__ == "__main__":
    sys.exit(main())
