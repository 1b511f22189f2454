"""Comgra, as its own example uses it: every tensor registered, 5 samples, gradients taken, files in msgpack."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from ours import size_of
from timing import Contender
from torch import nn
from workloads import NEVER, Workload


class ComgraProbe:
    """Hands a workload's tensors to Comgra; the outputs of modules come from forward hooks."""

    def __init__(self, recorder: Any, modules: dict[str, nn.Module]) -> None:
        self.recorder = recorder
        self._open = False
        self._started = False
        for prefix, root in modules.items():
            for path, module in root.named_modules():
                module.register_forward_hook(self._hook(f"{prefix}.{path}" if path else prefix))

    def start(self) -> None:
        self._open = self._started = False

    def finish(self) -> None:
        """Close the last iteration: gradients must be taken inside it."""
        self.recorder.record_current_gradients("gradients")
        self.recorder.finish_iteration()

    def record(self, name: str, tensor: torch.Tensor, *, role: str | None = None, type: Any = "calculated") -> None:
        flags = {} if type == "calculated" else {f"is_{type}": True}
        if not self._started and type == "input":
            self._begin()
        self.recorder.register_tensor(
            f"{name}_{role}" if role else name,
            tensor,
            node_name=name,
            role_within_node=role or name,
            is_initial_value=not self._started,
            **flags,
        )

    @contextmanager
    def iteration(self) -> Iterator[None]:
        if not self._open:
            self._begin()
        yield
        self._open = False

    def _begin(self) -> None:
        if self._started:
            self.recorder.finish_iteration()
        self.recorder.start_iteration()
        self._open = self._started = True

    def _hook(self, name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            output = output[0] if isinstance(output, tuple) else output
            if not self._started:
                self._begin()
            self.recorder.register_tensor(name, output)

        return hook


def comgra(workload: Workload, folder: Path, *, is_due: bool = True) -> Contender:
    """Every step recorded, or none but the first."""
    from comgra.objects import DecisionMakerForRecordingsFrequencyPerType
    from comgra.recorder import ComgraRecorder

    training = workload.make()
    decision = DecisionMakerForRecordingsFrequencyPerType(min_training_steps_difference=1 if is_due else NEVER)
    recorder = ComgraRecorder(folder, "comgra", "trial", decision, max_num_batch_size_to_record=5)
    for name, module in training.modules.items():
        recorder.track_module(name, module)
    probe = ComgraProbe(recorder, training.modules)
    number = 0

    def run() -> None:
        nonlocal number
        recorder.start_batch(number, training.batch)
        number += 1
        probe.start()
        loss = training.loss(probe)
        training.optimizer.zero_grad()
        loss.backward()
        training.optimizer.step()
        probe.finish()
        recorder.finish_batch()

    return Contender("comgra", run, bytes_on_disk=lambda: size_of(folder / "comgra"))
