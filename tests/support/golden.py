"""Golden recordings: what each released format version wrote, and what is in it.

Run as a script to write that of the current version: ``python tests/support/golden.py``. A golden recording is made
once and never again: later programs must read it as it is. Names of trials as arguments: only these.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from stepscope.store import Step, Trial, TrialWriter, open_trial
from stepscope.store.files import FORMAT_VERSION
from stepscope.store.records import Graph, Note
from support.synthetic import Synthetic, SyntheticTrial

FOLDER = Path(__file__).parents[1] / "store" / "golden"
TRIALS = {1: ("ended", "died"), 2: ("ended", "died", "resumed")}
"""Those of each version."""


def describe(trial: Trial) -> dict[str, Any]:
    """All of a trial as JSON values; arrays as a digest of their numbers, some as they are."""
    return {
        "info": asdict(trial.info),
        "state": trial.state,
        "end": None if trial.end is None else asdict(trial.end),
        "notes": [asdict(note) for note in trial.notes],
        "messages": [list(message) for message in trial.messages],
        "resumptions": [asdict(resumption) for resumption in trial.resumptions],
        "network": [asdict(module) for module in trial.network],
        "nodes": [asdict(node) for node in trial.nodes],
        "scalars": {
            f"{group}/{name}": [values.tolist() for values in trial.scalars(name, group=group)]
            for group, name in trial.scalar_names
        },
        "series": [values.tolist() for values in trial.series("model.head", statistic="std")],
        "steps": [_describe_step(trial.step(number)) for number in trial.steps.tolist()],
    }


def _describe_step(step: Step) -> dict[str, Any]:
    details = [(step.detail.histogram(row), step.detail.neurons(row)) for row in range(len(step.rows()))]
    neurons = [(found.total, found.statistics, found.samples) for _, found in details if found is not None]
    return {
        "number": step.number, "kind": step.kind, "time": step.time, "seconds": step.seconds,
        "samples": step.samples, "categories": step.categories, "facts": step.facts,
        "rows": _digest(repr([(asdict(row.info), row.shape, row.strides) for row in step.rows()])),
        "graphs": [_digest(json.dumps(_describe_graph(step.graph(i)))) for i in step.iterations],
        "statistics": _digest(step.statistics()), "aggregates": _digest(step.aggregates()),
        "per_sample": _digest(step.per_sample()), "histograms": _digest(*(counts for counts, _ in details)),
        "neurons": _digest(*(part for parts in neurons for part in parts)),
        "loss": step.tensor("loss").statistics["mean"],
    }  # fmt: skip


def _describe_graph(graph: Graph) -> dict[str, Any]:
    """Without what later versions added, where there is none of it."""
    return {name: part for name, part in asdict(graph).items() if part or name in ("vertices", "edges")}


def _digest(*values: Any) -> str:
    """A digest of numbers (NaN are all alike) and texts."""
    found = hashlib.sha256()
    for value in values:
        found.update(value.encode() if isinstance(value, str) else _bytes(value))
    return found.hexdigest()[:16]


def _bytes(value: Any) -> bytes:
    array = np.asarray(np.nan if value is None else value)
    if array.dtype.kind == "f":
        array = np.where(np.isnan(array), np.array(np.nan, array.dtype), array)
    return array.astype(array.dtype.newbyteorder("<")).tobytes()


def plain(described: dict[str, Any]) -> dict[str, Any]:
    """As it comes back from JSON."""
    result: dict[str, Any] = json.loads(json.dumps(described))
    return result


def make(folder: Path, names: Sequence[str]) -> None:
    """Write trials: one that ended, one whose process was killed in the middle of a step, and one that was resumed."""
    for name in names:
        synthetic = Synthetic(
            trial=name, blocks=1, width=2, batch=3, iterations=2, samples=2, neuron_limit=3, nan_from=60, dead_from=30,
            kinds=(*["train"] * 8, "long", "validation"), gradients=("gradient:b",),
        )  # fmt: skip
        live = SyntheticTrial(folder, synthetic)
        live.write(10 if name == "ended" else 3)
        live.writer.write_note(Note("a note — with other letters", 10, 1.5))
        live.writer.write_message("the neurons of 'model.big' were left out", 10)
        live.close("failed" if name == "ended" else "died")
        if name != "ended":
            steps = live.path / "steps.stepscope"
            steps.write_bytes(steps.read_bytes()[:-1000])
        if name == "resumed":
            _go_on(folder, replace(synthetic, seed=1, config={"lr": 0.1}))
        described = describe(open_trial(live.path))
        (folder / f"{name}.json").write_text(json.dumps(described, indent=1) + "\n")


def _go_on(folder: Path, synthetic: Synthetic) -> None:
    """Training goes on at step 5: of the steps 0, 10 (and 20, which was torn), 10 is superseded."""
    with TrialWriter(folder, synthetic.info(), resume=True) as writer:
        writer.rewind(5)
        for index in (2, 3):
            writer.write_step(synthetic.record(index))
            writer.write_scalars(list(synthetic.scalars(index)))


if __name__ == "__main__":
    make(FOLDER / f"v{FORMAT_VERSION}", sys.argv[1:] or TRIALS[FORMAT_VERSION])
