"""A long recording leaves the memory of who writes it, and of who follows it, flat."""

from __future__ import annotations

import gc
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from stepscope.store import open_trial
from support.synthetic import Synthetic, SyntheticTrial

SYNTHETIC = Synthetic(blocks=1, width=2, batch=2, samples=2, iterations=1, neuron_limit=2)


def _megabytes() -> float:
    gc.collect()
    return tracemalloc.get_traced_memory()[0] / 2**20


@pytest.mark.exhaustive
def test_ten_thousand_steps(tmp_path: Path) -> None:
    live = SyntheticTrial(tmp_path, SYNTHETIC)
    records = [SYNTHETIC.record(index) for index in range(5)]
    trial = open_trial(live.path)
    tracemalloc.start()
    try:
        sizes = []
        for number in range(10_000):
            live.writer.write_step(replace(records[number % 5], number=number))
            if number % 1000 == 999:
                trial.refresh()
                trial.series("model", statistic="std")
                sizes.append(_megabytes())
    finally:
        tracemalloc.stop()
    live.close()
    assert len(trial.steps) == 10_000
    # The follower keeps some hundred bytes a step; the writer nothing but its last chunk of columns.
    assert sizes[-1] - sizes[1] < 8, sizes
