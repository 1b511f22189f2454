"""Steps of a recording as records again: all that is in them, or only what Comgra records too."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace

import numpy as np

from stepscope.store import Step, Trial, TrialWriter
from stepscope.store.records import SAMPLE_STATISTICS, STATISTICS, Neurons, StepRecord, TrialEnd


def as_record(step: Step) -> StepRecord:
    """All of a step."""
    rows = step.rows()
    return StepRecord(
        number=step.number,
        kind=step.kind,
        time=step.time,
        seconds=step.seconds,
        tensors=tuple(row.info for row in rows),
        shapes=tuple(row.shape for row in rows),
        strides=tuple(row.strides for row in rows),
        statistics=step.statistics(),
        aggregates=step.aggregates(),
        per_sample=step.per_sample(),
        histograms=np.stack([step.detail.histogram(row.index) for row in rows]).astype(np.uint32),
        neurons=tuple(step.detail.neurons(row.index) for row in rows),
        graphs=tuple(step.graph(iteration) for iteration in step.iterations),
        samples=step.samples,
        categories=step.categories,
        facts=step.facts,
    )


def comgra_content(record: StepRecord) -> StepRecord:
    """What Comgra has as well: values and gradients, no histograms; four statistics of samples, neurons and parameters.

    Of parameters it keeps no neurons, and of tensors with a batch no statistics over all elements.
    """
    kept = [row for row, tensor in enumerate(record.tensors) if _is_recorded(tensor.quantity)]
    neurons = [_neurons(record, row) for row in kept]
    statistics = np.full((len(kept), len(STATISTICS)), np.nan)
    for place, row in enumerate(kept):
        if record.tensors[row].batch_dim is None:
            for name in (*SAMPLE_STATISTICS, "spectral_norm"):
                column = STATISTICS.index(name)
                statistics[place, column] = record.statistics[row, column]
    return replace(
        record,
        tensors=tuple(record.tensors[row] for row in kept),
        shapes=tuple(record.shapes[row] for row in kept),
        strides=tuple(record.strides[row] for row in kept),
        statistics=statistics,
        aggregates=record.aggregates[kept],
        per_sample=record.per_sample[kept],
        histograms=np.zeros_like(record.histograms[kept]),
        neurons=tuple(neurons),
    )


def _is_recorded(quantity: str) -> bool:
    return quantity == "value" or quantity.startswith("gradient")


def _neurons(record: StepRecord, row: int) -> Neurons | None:
    return None if record.tensors[row].batch_dim is None else record.neurons[row]


def comgra_bytes(trial: Trial) -> int:
    """What the files of a trial would take with no more in them than what Comgra has as well."""
    with tempfile.TemporaryDirectory() as folder:
        writer = TrialWriter(folder, trial.info)
        for number in trial.steps.tolist():
            writer.write_step(comgra_content(as_record(trial.step(number))))
        writer.close(TrialEnd("finished", time.time()))
        return sum(file.stat().st_size for file in writer.path.iterdir())
