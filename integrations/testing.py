"""For tests: train a few steps, and fail with the findings as the message."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stepscope.analysis import LEVELS, Finding, Level, diagnose, rule_names
from stepscope.analysis.wording import counted, in_words, is_at_least
from stepscope.integrations.first_call import DEFAULT_PROBES, FirstCall
from stepscope.recorder import Probed, Recorder
from stepscope.recorder.probes import ProbeName
from stepscope.store import open_trial

TRIAL = "assert_trains"


def assert_trains(
    model: nn.Module,
    loss_fn: Callable[..., torch.Tensor] | None = None,
    batches: Iterable[Sequence[Any]] | None = None,
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None = None,
    *,
    train: Callable[[], object] | None = None,
    steps: int = 30,
    level: Level = "warning",
    ignore: Collection[str] = (),
    keep: Path | str | None = None,
    probe: bool | Sequence[ProbeName] = False,
) -> tuple[Finding, ...]:
    """Train some steps, each of them recorded, and fail if the findings say that something is wrong.

    >>> def test_my_net_trains():
    ...     model = MyNet()
    ...     optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    ...     assert_trains(model, nn.CrossEntropyLoss(), loader, optimizer, steps=50)

    or with your own training code, of which every optimizer step counts:

    >>> def test_my_loop_trains():
    ...     trainer = Trainer(MyNet())
    ...     assert_trains(trainer.model, optimizer=trainer.optimizer, train=trainer.one_epoch, steps=50)

    Args:
        model: what is trained; its modules and parameters are recorded.
        loss_fn: gets the model's output and the last part of the batch, and gives the loss.
        batches: tuples of what the model takes, and last what ``loss_fn`` compares with: a loader, or a list. They are
            used again from the start when they run out.
        optimizer: one, or several; the steps of the first are counted.
        train: trains for one step or many each time it is called; instead of ``loss_fn`` and ``batches``.
        steps: how many steps are recorded, at least. Much fewer than 30 show little.
        level: the mildest level that fails: ``"error"``, ``"warning"`` or ``"info"``.
        ignore: names of rules whose findings do not count.
        keep: a folder in which the recording stays, to look at it: ``stepscope view FOLDER``.
        probe: ask the trained model, too, by some more forward passes on the first batch that it was called with:
            whether samples influence each other, and whether its inputs have any effect; or the names of the probes
            to run, such as ``("batch", "time")`` for a model that must not look ahead (``stepscope.recorder.probe``).

    Returns:
        All findings, also those that do not fail.

    Raises:
        AssertionError: something is wrong; the message says what, where, since when and what to try.
        ValueError: the arguments do not fit together.
    """
    __tracebackhide__ = True  # pytest then points at the line of the test
    optimizers = _optimizers(optimizer)
    _check(loss_fn, batches, train, steps, level, ignore)
    probes = DEFAULT_PROBES if probe is True else tuple(probe or ())
    with _folder(keep) as folder:
        with Recorder(folder, trial=TRIAL, schedule=1) as recorder, FirstCall(model, probes) as first:
            if train is not None:
                _run(recorder, model, optimizers, train, steps)
            elif loss_fn is not None and batches is not None:
                _fit(recorder, model, loss_fn, islice(_repeated(batches), steps), optimizers)
        findings = _findings(folder / recorder.name, first.probed())
    _judge(findings, level, ignore, "" if keep is None else f"\n\nLook at it: stepscope view {keep}")
    return findings


def _findings(folder: Path, probed: Sequence[Probed]) -> tuple[Finding, ...]:
    trial = open_trial(folder)
    if len(trial.steps) == 0:
        raise ValueError("no step was trained; give at least one batch")
    return diagnose(trial, probed=probed)


def _optimizers(given: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None) -> list[torch.optim.Optimizer]:
    optimizers = [given] if isinstance(given, torch.optim.Optimizer) else list(given or ())
    if not optimizers:
        raise ValueError("no optimizer is given; give the one that trains the model, as optimizer=...")
    return optimizers


def _check(loss_fn: object, batches: object, train: object, steps: int, level: str, ignore: Collection[str]) -> None:
    if (train is None) != (loss_fn is not None and batches is not None):
        raise ValueError("give either loss_fn and batches, or train, a function that trains for a step or more")
    if steps < 1:
        raise ValueError(f"steps={steps}; give at least 1")
    if level not in LEVELS:
        raise ValueError(f"level={level!r}; give one of {', '.join(LEVELS)}")
    unknown = [name for name in ([ignore] if isinstance(ignore, str) else ignore) if name not in rule_names()]
    if unknown:
        raise ValueError(f"ignore: there is no rule {unknown[0]!r}; there are {', '.join(sorted(rule_names()))}")


@contextmanager
def _folder(keep: Path | str | None) -> Iterator[Path]:
    if keep is not None:
        yield Path(keep)
        return
    with tempfile.TemporaryDirectory(prefix="stepscope-") as folder:
        yield Path(folder)


def _repeated(batches: Iterable[Sequence[Any]]) -> Iterator[Sequence[Any]]:
    """The batches, and again from the start as long as that gives any; those of an iterator come once."""
    found = True
    while found:
        found = False
        for batch in batches:
            found = True
            yield batch


def _fit(
    recorder: Recorder,
    model: nn.Module,
    loss_fn: Callable[..., torch.Tensor],
    batches: Iterable[Sequence[Any]],
    optimizers: list[torch.optim.Optimizer],
) -> None:
    recorder.watch(model, _named(optimizers))
    for *inputs, target in batches:
        with recorder.step():
            loss = loss_fn(model(*inputs), target)
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()


def _named(optimizers: list[torch.optim.Optimizer]) -> torch.optim.Optimizer | list[torch.optim.Optimizer]:
    """A single one is called ``optimizer``, several are numbered."""
    return optimizers[0] if len(optimizers) == 1 else optimizers


def _run(
    recorder: Recorder,
    model: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    train: Callable[[], object],
    steps: int,
) -> None:
    __tracebackhide__ = True
    done = 0

    def counted_step(*_: object) -> None:
        nonlocal done
        done += 1

    handle = optimizers[0].register_step_post_hook(counted_step)
    try:
        recorder.watch(model, _named(optimizers), auto_step=True)
        while done < steps:
            before = done
            train()
            if done == before:
                raise AssertionError("the training function returned without a step of the (first) optimizer")
    finally:
        handle.remove()
        recorder.drop_step()  # the one that the last optimizer step began


def _judge(findings: Sequence[Finding], level: Level, ignore: Collection[str], hint: str) -> None:
    __tracebackhide__ = True
    ignored = {ignore} if isinstance(ignore, str) else set(ignore)
    wrong = [finding for finding in _without(findings, ignored) if is_at_least(finding, level)]
    if wrong:
        text = "\n\n".join(in_words(finding) for finding in wrong)
        raise AssertionError(f"the training is not healthy: {counted(wrong)}\n\n{text}{hint}")


def _without(findings: Iterable[Finding], ignored: Collection[str]) -> Iterator[Finding]:
    """What remains; what an ignored finding would explain stands for itself."""
    for finding in findings:
        if finding.rule in ignored:
            yield from _without(finding.consequences, ignored)
        else:
            yield finding
