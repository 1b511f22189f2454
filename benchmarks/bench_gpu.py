"""What recording costs on a GPU: a transformer of GPT-2 small's size, bfloat16 autocast, batch 8 x 1024.

    python benchmarks/bench_gpu.py                    # needs CUDA; says so and ends without it
    python benchmarks/bench_gpu.py --batch 2 --steps 5

Steps are timed with CUDA events, interleaved in one process; the median ratio within a round is shown. "waits" counts
the operations of one step in which torch waits for the device. The recorder's queue is drained between steps.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from gpt import gpt_training
from machine import describe
from ours import NoProbe
from table import markdown, mebibytes
from workloads import Training

from stepscope.recorder import Every, Recorder, Schedule, Steps

HEAD = ("step", "ms on the GPU", "over plain", "ms until launched", "waits", "peak MiB on the GPU", "KiB on disk")
BAR = 1.10


@dataclass
class Way:
    """One way to run a step, and what was measured of it."""

    name: str
    run: Callable[[], None]
    drain: Callable[[], None] = lambda: None
    on_gpu: list[float] = field(default_factory=list)
    launched: list[float] = field(default_factory=list)
    waits: int = 0
    peak: int = 0


def with_recorder(
    name: str, training: Training, folder: str, schedule: Schedule, *, health: bool = False
) -> tuple[Way, Recorder]:
    recorder = Recorder(folder, trial=name, schedule=schedule, health=health)
    recorder.watch(training.modules, training.optimizer)

    def run() -> None:
        with recorder.step() as step:
            training.step(step)

    return Way(name, run, recorder.flush), recorder


def measure(way: Way) -> None:
    """One timed step. What the writer's thread still does is waited for before and after."""
    way.drain()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    began = time.perf_counter()
    start.record()
    way.run()
    end.record()
    way.launched.append(1000 * (time.perf_counter() - began))
    torch.cuda.synchronize()
    way.on_gpu.append(start.elapsed_time(end))
    way.peak = max(way.peak, torch.cuda.max_memory_allocated())
    way.drain()


def count_waits(way: Way) -> int:
    """Operations of one step that wait for the device, as torch itself reports them."""
    way.drain()
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        way.run()
        torch.cuda.set_sync_debug_mode("default")
    way.drain()
    return sum("synchronizing" in str(warning.message) for warning in found)


def compare(ways: list[Way], steps: int) -> None:
    for number in range(steps + 3):
        for way in ways:
            measure(way)
            if number < 3:
                way.on_gpu.clear()
                way.launched.clear()
    for way in ways:
        way.waits = count_waits(way)


def row(way: Way, plain: Way, size: str) -> list[str]:
    ratio = statistics.median(one / other for one, other in zip(way.on_gpu, plain.on_gpu, strict=True))
    launched = statistics.median(way.launched)
    return [
        way.name,
        f"{statistics.median(way.on_gpu):.2f}",
        f"{ratio:.3f}x",
        f"{launched:.2f}",
        str(way.waits),
        mebibytes(way.peak),
        size,
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--check", action="store_true", help="exit with 1 if the bar is not held")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("bench_gpu: torch finds no CUDA device here; nothing was measured")
        return 0
    training = gpt_training("cuda", options.batch)
    with tempfile.TemporaryDirectory() as folder:
        plain = Way("plain", lambda: training.step(NoProbe()))
        unrecorded, idle = with_recorder("unrecorded", training, folder, Steps({-1}))
        checked, checker = with_recorder("unrecorded, health check", training, folder, Steps({-1}), health=True)
        recorded, recorder = with_recorder("recorded", training, folder, Every(1))
        compare([plain, unrecorded, checked, recorded], options.steps)
        idle.close()
        checker.close()
        recorder.close()
        assert recorder.path is not None
        size = sum(file.stat().st_size for file in recorder.path.iterdir()) / 1024 / (options.steps + 4)
    rows = [*(row(way, plain, "") for way in (plain, unrecorded, checked)), row(recorded, plain, f"{size:,.0f}")]
    print(f"{torch.cuda.get_device_name()}; {describe()}\n\n{markdown(HEAD, rows)}")
    held = statistics.median(recorded.on_gpu) <= BAR * statistics.median(plain.on_gpu)
    if not held:
        print(f"bar not held: a recorded step may take {BAR:.2f}x the plain one")
    return 1 if options.check and not held else 0


if __name__ == "__main__":
    raise SystemExit(main())
