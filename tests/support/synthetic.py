"""Synthetic recordings for tests: a small transformer's training, written by the real ``TrialWriter``.

>>> from support.synthetic import write_trial
>>> path = write_trial(tmp_path, steps=20, blocks=4, nan_from=150)       # doctest: +SKIP

Recorded steps are ``0, every, 2 * every, ...``; their kinds go round ``train, train, long, train, validation``.
``long`` steps have twice the iterations, ``validation`` steps have values only. Nodes: ``input``, ``model`` and all
inside it (``model.blocks.1.attn.q_proj``, ``model.blocks.0.mlp.up.weight``, ...), ``memory`` (roles ``initial`` and
``new``, carried over iterations), ``confidence`` (behind a blocked edge), ``unused mask`` (unconnected), ``target``,
``loss``; ``model.embed.position`` is a buffer. Scalars: ``loss``, ``optimizer/lr``, ``eval/accuracy``. The same
arguments give the same recording, byte for byte of what is measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stepscope.store import TrialWriter, lock
from stepscope.store.records import (
    STATISTICS,
    Graph,
    Note,
    Scalar,
    StepRecord,
    TensorInfo,
    TrialEnd,
    TrialInfo,
)
from support.synthetic_model import SyntheticModel
from support.synthetic_numbers import Arrays, Measured, measure

State = Literal["finished", "failed", "running", "died"]
STARTED = 1_760_000_000.0
KINDS = ("train", "train", "long", "train", "validation")
CATEGORIES = ("easy", "hard")


@dataclass(frozen=True)
class Synthetic:
    """What a synthetic recording is like; ``record(i)`` makes its i-th recorded step.

    Attributes:
        trial, seed, started: its name, what its numbers are drawn from, when it started (seconds since the epoch).
        every: the distance of recorded steps; kinds: their kinds, in turn.
        blocks, width, batch: the size of the model and of its input; about 27 * blocks + 15 nodes.
        iterations: passes through the model in one step (twice as many in steps of the kind ``long``).
        samples, neuron_limit: how many samples, and how many neurons of each tensor, are kept.
        gradients: one for each loss group: ``("gradient", "gradient:adversarial")``.
        nan_from: from this step number on, the second block's (else the only one's) attention and what comes after
            it hold NaN, and its gradients too.
        dead_from: from this step number on, the last block's ``mlp.act`` is all zeros.
        categories: whether the kept samples have categories (``easy``, ``hard``).
        config: the trial's config.
    """

    trial: str = "synthetic"
    every: int = 10
    blocks: int = 2
    width: int = 12
    batch: int = 8
    iterations: int = 3
    samples: int = 4
    neuron_limit: int = 1000
    kinds: Sequence[str] = KINDS
    gradients: Sequence[str] = ("gradient",)
    nan_from: int | None = None
    dead_from: int | None = None
    categories: bool = True
    seed: int = 0
    started: float = STARTED
    config: dict[str, object] = field(default_factory=lambda: {"lr": 1e-3, "optimizer": {"name": "AdamW"}})

    @cached_property
    def model(self) -> SyntheticModel:
        return SyntheticModel(self.blocks, self.width)

    @cached_property
    def sick_nodes(self) -> frozenset[str]:
        """The nodes that hold NaN from ``nan_from`` on."""
        return frozenset(self.model.downstream(f"model.blocks.{min(1, self.blocks - 1)}.attn"))

    @property
    def kept_samples(self) -> int:
        return min(self.samples, self.batch)

    @property
    def dead_node(self) -> str:
        return f"model.blocks.{self.blocks - 1}.mlp.act"

    def info(self) -> TrialInfo:
        environment = {"python": "3.11.7", "torch": "2.13.0", "device": "cpu", "revision": "0123abc"}
        return TrialInfo(self.trial, self.started, self.config, environment, self.samples, self.neuron_limit)

    def kind(self, index: int) -> str:
        return self.kinds[index % len(self.kinds)]

    def record(self, index: int) -> StepRecord:
        """The i-th recorded step."""
        number, kind = index * self.every, self.kind(index)
        frame = self._frame(kind)
        arrays = Arrays(len(frame.tensors), self.kept_samples)
        for group in frame.groups:
            arrays.put(group.rows, self._measured(group, number, frame))
        return StepRecord(
            number=number, kind=kind, time=self.started + 0.05 * number, seconds=0.04, tensors=frame.tensors,
            shapes=frame.shapes, strides=frame.strides, statistics=arrays.statistics, aggregates=arrays.aggregates,
            per_sample=arrays.per_sample, histograms=arrays.histograms, neurons=tuple(arrays.neurons),
            graphs=frame.graphs, samples=tuple(range(self.kept_samples)),
            categories=tuple(CATEGORIES[i % 2] for i in range(self.kept_samples)) if self.categories else (),
            facts={"optimizers": {"optimizer": [{"lr": self.learning_rate(number)}]}},
        )  # fmt: skip

    def learning_rate(self, number: int) -> float:
        return 1e-3 * 0.5 ** (number / 1000)

    def loss(self, number: int) -> float:
        noise = np.random.default_rng([self.seed, number, 1]).normal()
        return float(0.1 + 2.0 * np.exp(-number / 300) + 0.02 * noise)

    def scalars(self, index: int) -> Iterator[Scalar]:
        """What the training logged in the i-th recorded step."""
        number, kind = index * self.every, self.kind(index)
        time = self.started + 0.05 * number
        yield Scalar("loss", "", number, self.loss(number), kind, time)
        yield Scalar("lr", "optimizer", number, self.learning_rate(number), kind, time)
        if kind == "validation":
            yield Scalar("accuracy", "eval", number, 1 - 0.5 * float(np.exp(-number / 300)), kind, time)

    # ------------------------------------------------------------------ numbers

    def _measured(self, group: _Group, number: int, frame: _Frame) -> Measured:
        data = self._data(group, number, frame)
        measured = measure(data, batched=group.batched, samples=self.kept_samples, neuron_limit=self.neuron_limit)
        if group.matrix:
            matrices = np.nan_to_num(data.reshape(-1, *group.shape), posinf=0, neginf=0)
            spectral = np.linalg.norm(matrices, 2, axis=(1, 2))
            values = [at for at, row in enumerate(group.rows) if frame.tensors[row].quantity == "value"]
            measured.statistics[values, STATISTICS.index("spectral_norm")] = spectral[values]
        return measured

    def _data(self, group: _Group, number: int, frame: _Frame) -> NDArray[np.float32]:
        """``(rows, batch, neurons)``: each row has its own scale, offset and pace of change."""
        random = np.random.default_rng([self.seed, number, group.rows[0]])
        size = int(np.prod(group.shape, dtype=int))
        data = random.standard_normal((len(group.rows), self.batch if group.batched else 1, size), np.float32)
        scale = frame.scales[group.rows] * (1 + 0.5 * np.sin(number / (200 + 10 * np.arange(len(group.rows)))))
        data *= scale.astype(np.float32)[:, None, None]
        data += frame.offsets[group.rows].astype(np.float32)[:, None, None]
        for at, row in enumerate(group.rows):
            self._shape_row(data[at], frame.tensors[row], number)
        return data

    def _shape_row(self, data: NDArray[np.float32], tensor: TensorInfo, number: int) -> None:
        if tensor.node.endswith(".act") and tensor.quantity == "value":
            np.maximum(data, 0, out=data)
        elif tensor.node == "loss" and tensor.quantity == "value":
            data[:] = self.loss(number)
        elif tensor.quantity == "exp_avg_sq":
            np.square(data, out=data)
        if self.dead_from is not None and number >= self.dead_from and tensor.node == self.dead_node:
            data[:] = 0
        if self.nan_from is not None and number >= self.nan_from and self._is_sick(tensor):
            data[:, ::3] = np.nan
            data[0, 1::3] = np.inf

    def _is_sick(self, tensor: TensorInfo) -> bool:
        return tensor.node in self.sick_nodes or (tensor.quantity != "value" and tensor.type == "parameter")

    # ------------------------------------------------------------------ what does not change

    def _frame(self, kind: str) -> _Frame:
        if kind not in self._frames:
            iterations = self.iterations * (2 if kind == "long" else 1)
            tensors = self.model.tensors(iterations, gradients=() if kind == "validation" else self.gradients)
            inner = self.model.graph(1) if iterations > 1 else None
            graphs = (self.model.graph(0), *(inner for _ in range(iterations - 1) if inner))
            self._frames[kind] = self._new_frame(tensors, graphs)
        return self._frames[kind]

    @cached_property
    def _frames(self) -> dict[str, _Frame]:
        return {}

    def _new_frame(self, tensors: tuple[TensorInfo, ...], graphs: tuple[Graph, ...]) -> _Frame:
        places = {place.key: place for place in self.model.places}
        groups: dict[tuple[tuple[int, ...], bool], list[int]] = {}
        shapes = []
        for row, tensor in enumerate(tensors):
            place = places[tensor.node, tensor.role]
            groups.setdefault((place.shape, place.batched), []).append(row)
            shapes.append((self.batch, *place.shape) if place.batched else place.shape)
        random = np.random.default_rng(self.seed)
        scales = 10 ** random.uniform(-1, 0.3, len(tensors))
        scales *= [1.0 if tensor.quantity == "value" else 1e-3 for tensor in tensors]
        offsets = random.normal(0, 0.3, len(tensors)) * scales
        return _Frame(
            tensors, tuple(shapes), tuple(map(_strides, shapes)), graphs, scales, offsets,
            [_Group(np.array(rows), shape, batched) for (shape, batched), rows in groups.items()],
        )  # fmt: skip


class SyntheticTrial:
    """A synthetic recording that is being written: to test what follows a live trial.

    >>> with SyntheticTrial(tmp_path, Synthetic(blocks=1)) as live:       # doctest: +SKIP
    ...     live.write(3); trial = open_trial(live.path); live.write(2); trial.refresh()
    """

    def __init__(self, folder: Path | str, synthetic: Synthetic) -> None:
        self.synthetic = synthetic
        self.written = 0
        self.writer = TrialWriter(folder, synthetic.info())
        self.path = self.writer.path
        self.writer.write_network(synthetic.model.modules)
        self.writer.write_note(Note("started with the default settings", 0, synthetic.started))

    def write(self, steps: int) -> None:
        """Write this many further steps, and what was logged in them."""
        for index in range(self.written, self.written + steps):
            self.writer.write_step(self.synthetic.record(index))
            self.writer.write_scalars(list(self.synthetic.scalars(index)))
        self.written += steps

    def close(self, state: State = "finished") -> None:
        """End the trial; ``running`` leaves it as if this process still wrote to it, ``died`` as if it were killed."""
        time = self.synthetic.started + 0.05 * self.written * self.synthetic.every
        if state == "failed":
            self.writer.close(TrialEnd("failed", time, "ValueError: the loss is NaN", "Traceback ...\n"))
        else:
            self.writer.close(TrialEnd("finished", time) if state == "finished" else None)
        if state == "running":
            lock.take(self.path)

    def __enter__(self) -> SyntheticTrial:
        return self

    def __exit__(self, *_: object) -> None:
        self.close("died")


def write_trial(
    folder: Path | str,
    *,
    steps: int = 12,
    blocks: int = 2,
    iterations: int = 3,
    state: State = "finished",
    **options: Any,
) -> Path:
    """Write a synthetic trial into a group's folder.

    Args:
        folder: the group's folder.
        steps: how many steps are recorded.
        blocks, iterations: the size of the model, and the passes through it in one step.
        state: ``finished``; ``failed`` (with an exception); ``running`` (this process holds the lock); ``died``.
        **options: further fields of ``Synthetic``: ``trial="b"``, ``nan_from=50``, ``dead_from=50``, ``seed=1``, ...

    Returns:
        The trial's own folder.
    """
    synthetic = Synthetic(blocks=blocks, iterations=iterations, **options)
    trial = SyntheticTrial(folder, synthetic)
    trial.write(steps)
    if synthetic.nan_from is not None and steps * synthetic.every > synthetic.nan_from:
        trial.writer.write_note(Note("the loss is NaN from here on", synthetic.nan_from, synthetic.started))
    trial.close(state)
    return trial.path


def write_whole(folder: Path, synthetic: Synthetic, steps: int) -> Path:
    """Write a trial and close it; returns its own folder."""
    trial = SyntheticTrial(folder, synthetic)
    trial.write(steps)
    trial.close()
    return trial.path


@dataclass(frozen=True)
class _Group:
    """Rows whose tensors have the same shape; they are drawn and measured together."""

    rows: NDArray[np.int64]
    shape: tuple[int, ...]
    batched: bool

    @property
    def matrix(self) -> bool:
        return not self.batched and len(self.shape) == 2


@dataclass(frozen=True)
class _Frame:
    """What steps of one kind have in common."""

    tensors: tuple[TensorInfo, ...]
    shapes: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    graphs: tuple[Graph, ...]
    scales: NDArray[np.float64]
    offsets: NDArray[np.float64]
    groups: list[_Group]


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    steps = [1]
    for size in reversed(shape[1:]):
        steps.insert(0, steps[0] * size)
    return tuple(steps) if shape else ()
