"""Nothing of the user's is kept alive, and nothing is left behind: no tensor, no hook, no mode."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import _get_current_function_mode_stack

from stepscope.recorder import Every, Recorder, Step, Steps
from support.architectures import ARCHITECTURES
from support.training import Training, fingerprint, seed_everything


@pytest.fixture(autouse=True)
def _no_garbage_collection() -> Iterator[None]:
    """Tensors must go when their last user goes, not when the collector comes by."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Watcher:
    """Weak references to every tensor that passed."""

    def __init__(self) -> None:
        self._kept: list[tuple[str, weakref.ref[torch.Tensor]]] = []

    def see(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        self._kept.append((name, weakref.ref(tensor)))
        return tensor

    @property
    def alive(self) -> list[str]:
        return [name for name, reference in self._kept if reference() is not None]


def model_and_optimizer() -> tuple[nn.Sequential, torch.optim.Optimizer]:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 2))
    return model, torch.optim.Adam(model.parameters())


def one_step(model: nn.Module, optimizer: torch.optim.Optimizer, step: Step, watcher: Watcher) -> None:
    """Trains once, and leaves no tensor behind itself but the parameters and their gradients."""

    def see_output(module: nn.Module, args: object, output: torch.Tensor) -> None:
        watcher.see(type(module).__name__, output)

    for module in model.children():
        module.register_forward_hook(see_output)
    x = watcher.see("x", torch.randn(8, 4))
    step.record("mine", watcher.see("mine", x * 2))
    out = watcher.see("out", model(x))
    loss = watcher.see("loss", F.cross_entropy(out, watcher.see("target", torch.randint(2, (8,)))))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    for module in model.children():
        module._forward_hooks.clear()


@pytest.mark.supports("Training is not changed", "no tensor is kept alive past its step")
def test_no_tensor_outlives_its_step(tmp_path: Path) -> None:
    model, optimizer = model_and_optimizer()
    watcher = Watcher()
    with Recorder(tmp_path, schedule=Every(1), strict=True) as recorder:
        recorder.watch(model, optimizer)
        for _ in range(3):
            with recorder.step() as step:
                one_step(model, optimizer, step, watcher)
            assert watcher.alive == []


def test_no_tensor_outlives_a_step_that_is_dropped(tmp_path: Path) -> None:
    model, optimizer = model_and_optimizer()
    watcher = Watcher()
    with Recorder(tmp_path, schedule=Steps(()), strict=True) as recorder:
        recorder.watch(model, optimizer)
        with recorder.step(kind=None) as step:
            one_step(model, optimizer, step, watcher)
            step.decide("train")
        assert watcher.alive == []


def test_the_graph_of_a_tensor_goes_with_the_tensor(tmp_path: Path) -> None:
    """Inside a step too, recorded tensors do not keep what autograd saved for them."""
    watcher = Watcher()
    with Recorder(tmp_path, schedule=Every(1), strict=True) as recorder, recorder.step() as step:
        weight = torch.randn(50, 50, requires_grad=True)
        h = watcher.see("h", weight.exp())
        y = h.sin()
        step.record("y", y)
        del h, y
        assert watcher.alive == []


@pytest.mark.supports("Training is not changed", "nothing is kept alive after `close()`")
def test_models_and_recorders_go_after_close(tmp_path: Path) -> None:
    model, optimizer = model_and_optimizer()
    recorder = Recorder(tmp_path, schedule=Every(1), strict=True)
    recorder.watch(model, optimizer)
    with recorder.step() as step:
        one_step(model, optimizer, step, Watcher())
    recorder.close()
    kept = [weakref.ref(model), weakref.ref(optimizer), *(weakref.ref(parameter) for parameter in model.parameters())]
    optimizer.zero_grad()
    del model, optimizer, step
    gc.collect()
    assert [reference() for reference in kept] == [None] * len(kept)
    del recorder


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
@pytest.mark.supports("Training is not changed", "no hook and no mode stays behind, also after an exception")
def test_a_step_leaves_no_hook_and_no_mode(error: type[BaseException] | None, tmp_path: Path) -> None:
    model, optimizer = model_and_optimizer()
    training = Training({"model": model}, {"optimizer": optimizer}, lambda number: [])
    with Recorder(tmp_path, schedule=Every(1), strict=True) as recorder:
        recorder.watch(model, optimizer)
        before = {key: value for key, value in fingerprint(training, []).items() if is_attachment(key)}
        try:
            with recorder.step() as step:
                model(torch.randn(8, 4)).sum().backward()
                if error is not None:
                    with step.iteration(), step.loss_group("a"):
                        raise error
        except (RuntimeError, KeyboardInterrupt):
            pass
        after = {key: value for key, value in fingerprint(training, []).items() if is_attachment(key)}
    assert after == before


def is_attachment(key: str) -> bool:
    return key.endswith(("hooks", "modes", "attributes", "grad mode"))


@pytest.mark.supports("Training is not changed", "an unrecorded step runs without any hook")
def test_an_unrecorded_step_touches_nothing(tmp_path: Path) -> None:
    model, optimizer = model_and_optimizer()
    with Recorder(tmp_path, schedule=Steps(()), strict=True) as recorder:
        recorder.watch(model, optimizer)
        with recorder.step() as step:
            assert _get_current_function_mode_stack() == []
            assert not nn.modules.module._global_forward_hooks
            assert not optimizer._optimizer_step_pre_hooks
            x = torch.randn(8, 4)
            step.record("x", x)
            reference = weakref.ref(x)
            del x
            assert reference() is None


@pytest.mark.parametrize("name", ["resnet", "gpt_with_tied_embeddings", "lbfgs_with_closure", "checkpointing", "gan"])
def test_recording_leaves_no_more_tensors_than_training(name: str, tmp_path: Path) -> None:
    def tensors_after(recorder: Recorder | None) -> int:
        seed_everything()
        training = ARCHITECTURES[name]()
        if recorder is not None:
            recorder.watch(training.models, training.optimizers)
        for number in range(3):
            if recorder is None:
                training.step(number)
            else:
                with recorder.step():
                    training.step(number)
        if recorder is not None:
            recorder.close()
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    tensors_after(Recorder(tmp_path, schedule=Every(1)))  # fills the caches, of torch's and of ours
    expected = tensors_after(None)
    assert tensors_after(Recorder(tmp_path, schedule=Every(1), strict=True)) == expected
