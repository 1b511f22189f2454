"""A fault in any function of the recorder whatsoever: training stays bitwise the same, with one warning at most.

The functions are found by watching a recorded training run, so that none is forgotten.
"""

from __future__ import annotations

import gc
import inspect
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

import pytest
import torch

import stepscope.recorder
from stepscope.recorder import Every, Recorder, RecorderWarning, leaf_calls
from support.faulty_training import train, without_recorder

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]

ROOM = Path(str(stepscope.recorder.__file__)).parent
FILES = sorted(path.stem for path in ROOM.glob("*.py") if path.stem not in ("__init__", "guard", "errors"))

OUTERMOST = {
    "recorder.Recorder.__init__", "recorder.Recorder.step", "recorder.Recorder.begin_step",
    "recorder.Recorder.end_step", "recorder.Recorder.__enter__", "recorder.Recorder.__exit__",
    "step.Step.__init__", "step.Step.__enter__", "step.Step.__exit__", "step.Step.undecided",
    "step.Step.record", "step.Step.iteration",
    "tracer.Tracer.__torch_function__", "module_watch.ModuleWatch._before_module",
    "leaf_calls._call_impl",
    "background.Background._run", "background.Background._next",
}  # fmt: skip
"""What faults are caught in, or what the user calls: there is nothing around it but training."""

TAKING_OFF = {
    "backward_shares.BackwardShares.stop", "fast_path.FastPath.close", "gradient_watch.GradientWatch.stop",
    "gradient_watch.GradientWatch.close_group", "gradient_watch._remove", "module_watch.ModuleWatch.stop",
    "leaf_calls.LeafCalls.stop",
    "optimizer_watch.OptimizerWatch.stop", "session.StepSession.stop", "tracer.Tracer.remove",
}  # fmt: skip
"""What takes hooks off: without it, they stay. The other hooks go nevertheless."""


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[FunctionType]]:
    """The functions that run while training is recorded, by their files."""
    codes: set[CodeType] = set()

    def watch(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(str(ROOM)):
            codes.add(frame.f_code)

    with watching(watch), Recorder(tmp_path_factory.mktemp("watched"), schedule=Every(1)) as recorder:
        train(recorder)
    found: dict[str, list[FunctionType]] = {file: [] for file in FILES}
    for function in gc.get_objects():
        if type(function) is FunctionType and function.__code__ in codes and can_fail(function.__code__):
            found.get(Path(function.__code__.co_filename).stem, []).append(function)
    return found


def can_fail(code: CodeType) -> bool:
    """Whether another code can stand for it."""
    return not code.co_freevars and not code.co_flags & inspect.CO_GENERATOR


@contextmanager
def watching(watch: Any) -> Iterator[None]:
    threading.setprofile(watch)
    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


@contextmanager
def failing(function: FunctionType) -> Iterator[None]:
    """Let a function fail, by whichever name it is called."""

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("injected")  # a builtin: the code runs among the names of another module

    code, function.__code__ = function.__code__, without_closure(fail)
    try:
        yield
    finally:
        function.__code__ = code


def without_closure(function: Any) -> CodeType:
    code: CodeType = function.__code__
    assert not code.co_freevars
    return code


@pytest.fixture(autouse=True)
def _hooks_that_stay_are_taken_off() -> Iterator[None]:
    gc.freeze()  # all that is there already would be looked through again, a hundred times
    yield
    take_off_everything()
    with warnings.catch_warnings():  # files that a fault left open would be found while another test runs
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    gc.unfreeze()


def take_off_everything() -> None:
    while torch._C._len_torch_function_stack():
        torch._C._pop_torch_function_stack()
    for kind in ("forward_hooks", "forward_pre_hooks", "forward_hooks_with_kwargs", "forward_hooks_always_called"):
        getattr(torch.nn.modules.module, f"_global_{kind}").clear()
    for calls in list(leaf_calls._active):
        calls.stop()


def trouble_with(function: FunctionType, name: str, folder: Path) -> str:
    """What goes wrong when a function fails; nothing should."""
    expected = without_recorder(folder)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with Recorder(folder / name, schedule=Every(1)) as recorder, failing(function):
            found = train(recorder, steps=1)
            recorder.close()
    take_off_everything()
    changed = {key for a, b in zip(found, expected[:1], strict=True) for key in {*a, *b} if a.get(key) != b.get(key)}
    lines = [Path(warning.filename).name for warning in told if warning.category is RecorderWarning]
    users = ("test_every_border.py", "faulty_training.py")
    if name in TAKING_OFF:
        return ""
    if changed or len(lines) > 1 or any(line not in users for line in lines):
        return f"{name}: {sorted(changed)[:5]} {[str(warning.message) for warning in told]}"
    return ""


@pytest.mark.parametrize("file", FILES)
@pytest.mark.supports("Training is not stopped", "a fault in any function of the recorder, one after the other")
def test_a_fault_in_any_function(file: str, functions: dict[str, list[FunctionType]], tmp_path: Path) -> None:
    names = {f"{file}.{function.__qualname__}": function for function in functions[file]}
    trouble = [
        trouble_with(function, name, tmp_path) for name, function in names.items() if name not in OUTERMOST
    ]  # fmt: skip
    assert [text for text in trouble if text] == []


def test_the_functions_are_found(functions: dict[str, list[FunctionType]]) -> None:
    assert sum(len(found) for found in functions.values()) > 300
    names = {f"{file}.{function.__qualname__}" for file, found in functions.items() for function in found}
    assert names >= (OUTERMOST | TAKING_OFF) - {"recorder.Recorder.__init__"}
