"""From a wish to what can be shown: only legal combinations, as near to the wish as the recording allows.

A wish is never forgotten: what cannot be shown at one step comes back at the next. When filters have to be relaxed,
it is in this order: role, sample, iteration; never the one that was just chosen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from stepscope.store import Group, Step, Trial
from stepscope.store.errors import StoreError
from stepscope.store.records import BATCH_AGGREGATES, SAMPLE_STATISTICS, STATISTICS, WHOLE_STEP, TensorInfo
from stepscope.viewer.selection import ALL, Selection

_SAMPLE_LABELS = {
    ALL: "all elements",
    "batch_mean": "mean over the batch",
    "batch_std": "std over the batch",
    "batch_abs_max": "abs-max over the batch",
}

_LOOK_BACK = 20

Option = tuple[str, str]
"""Value and label."""


@dataclass(frozen=True)
class Resolved:
    """What is shown, and what else could be.

    ``recorded`` says whether the selected node was recorded at this step; ``nearby`` are the nearest steps at which
    it was, if not. ``notice`` tells in a sentence what of the wish could not be had.
    """

    selection: Selection
    trials: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    iterations: tuple[int, ...] = ()
    roles: tuple[Option, ...] = ()
    quantities: tuple[str, ...] = ("value",)
    samples: tuple[Option, ...] = ((ALL, _SAMPLE_LABELS[ALL]),)
    recorded: bool = False
    nearby: tuple[int, ...] = ()
    notice: str = ""


def role_key(role: str, lag: int) -> str:
    """A role and its lag as one value of a control."""
    return f"{role}@{lag}" if lag else role


def split_role_key(key: str) -> tuple[str, int]:
    role, at, lag = key.rpartition("@")
    return (role, int(lag)) if at and lag.isdigit() else (key, 0)


def resolve(wish: Selection, group: Group, *, changed: str = "") -> Resolved:
    """What of a wish can be shown.

    Args:
        wish: what was asked for.
        group: the recordings.
        changed: the field that the person just changed; it is kept above the others.
    """
    if not group.names:
        return Resolved(wish.with_changes(trial="", compare="", step=None, iteration=None))
    name = wish.trial if wish.trial in group.names else _default_trial(group)
    compare = wish.compare if wish.compare in group.names and wish.compare != name else ""
    selection = wish.with_changes(trial=name, compare=compare)
    notice = "" if not wish.trial or wish.trial == name else f"There is no trial {wish.trial!r}; this is {name!r}."
    try:
        resolved = _resolve_in_trial(selection, group[name], changed)
    except StoreError as error:
        resolved = Resolved(selection, notice=str(error))
    return replace(resolved, trials=group.names, notice=resolved.notice or notice)


def _default_trial(group: Group) -> str:
    """The newest running trial, else the newest one."""
    return next((name for name in reversed(group.names) if group.is_live(name)), group.names[-1])


def _resolve_in_trial(wish: Selection, trial: Trial, changed: str) -> Resolved:
    kinds = trial.kinds
    if len(trial.steps) == 0:
        return Resolved(wish.with_changes(step=None, iteration=None), kinds=kinds)
    kind = wish.kind if wish.kind in kinds else ""
    number = _step_number(wish, trial, kind)
    step = trial.step(number)
    if changed == "step" and kind and step.kind != kind:
        kind = ""
    selection = wish.with_changes(kind=kind, step=number)
    notice = ""
    if wish.step is not None and wish.step != number and not wish.follow:
        notice = f"Step {wish.step} was not recorded{f' as {kind!r}' if kind else ''}; this is the nearest, {number}."
    selection = selection.with_changes(iteration=_iteration(selection, step, changed))
    resolved = _resolve_tensor(selection, trial, step, changed)
    return replace(resolved, kinds=kinds, iterations=step.iterations, notice=notice)


def _step_number(wish: Selection, trial: Trial, kind: str) -> int:
    if wish.follow or wish.step is None:
        of_kind = [n for n, own in zip(trial.steps.tolist(), trial.step_kinds, strict=True) if not kind or own == kind]
        return of_kind[-1] if wish.follow else _last_with_gradients(trial, of_kind)
    nearest = trial.nearest_step(wish.step, kind=kind or None)
    assert nearest is not None  # kinds have steps
    return nearest


def _last_with_gradients(trial: Trial, numbers: list[int]) -> int:
    """The last training step: a test step has less to show."""
    for number in reversed(numbers[-_LOOK_BACK:]):
        if _has_gradients(trial, number):
            return number
    return numbers[-1]


def _has_gradients(trial: Trial, number: int) -> bool:
    try:
        return any(tensor.quantity.startswith("gradient") for tensor in trial.step(number).layout.tensors)
    except StoreError:
        return False


def _iteration(wish: Selection, step: Step, changed: str) -> int:
    last = len(step.iterations) - 1
    wanted = last if wish.iteration is None else min(max(wish.iteration, 0), last)
    if changed == "iteration" or not wish.node:
        return wanted
    there = {t.iteration for t in step.layout.tensors if t.node == wish.node}
    if not there or WHOLE_STEP in there or wanted in there:
        return wanted
    return min(there, key=lambda iteration: abs(iteration - wanted))


def node_rows(step: Step, node: str, iteration: int) -> list[tuple[TensorInfo, int]]:
    """The tensors of a node that an iteration shows, each with its lag: its own, and those carried into it."""
    carried = {(v.role, v.lag) for v in step.graph(iteration).vertices if v.node == node and v.lag}
    found = []
    for tensor in step.layout.tensors:
        if tensor.node != node:
            continue
        lag = iteration - tensor.iteration
        if tensor.iteration in (iteration, WHOLE_STEP):
            found.append((tensor, 0))
        elif (tensor.role, lag) in carried:
            found.append((tensor, lag))
    return found


def _resolve_tensor(wish: Selection, trial: Trial, step: Step, changed: str) -> Resolved:
    assert wish.iteration is not None
    quantities_of_step = tuple(dict.fromkeys(tensor.quantity for tensor in step.layout.tensors))
    if not wish.node:
        quantity = wish.quantity if wish.quantity in quantities_of_step else "value"
        return Resolved(wish.with_changes(role="", lag=0, quantity=quantity), quantities=quantities_of_step)
    rows = node_rows(step, wish.node, wish.iteration)
    if not rows:
        nearby = _nearby(trial, wish.node, step.number)
        gone = wish.with_changes(role="", lag=0)
        return Resolved(gone, quantities=quantities_of_step, nearby=nearby)
    keys = dict.fromkeys((tensor.role, lag) for tensor, lag in rows)
    role, lag = (wish.role, wish.lag) if (wish.role, wish.lag) in keys else _default_role(wish, list(keys), rows)
    of_role = [tensor for tensor, own in rows if (tensor.role, own) == (role, lag)]
    quantities = tuple(dict.fromkeys(tensor.quantity for tensor in of_role))
    quantity = wish.quantity if wish.quantity in quantities else quantities[0]
    tensor = next(tensor for tensor in of_role if tensor.quantity == quantity)
    samples = sample_options(step, tensor)
    sample = wish.sample if wish.sample in dict(samples) else ALL
    return Resolved(
        wish.with_changes(role=role, lag=lag, quantity=quantity, sample=sample),
        roles=tuple((role_key(r, k), role_label(r, k)) for r, k in keys),
        quantities=quantities,
        samples=samples,
        recorded=True,
    )


def _default_role(wish: Selection, keys: list[tuple[str, int]], rows: list[tuple[TensorInfo, int]]) -> tuple[str, int]:
    """The last role of this iteration that has the wanted quantity, else the last role."""
    fitting = [(t.role, lag) for t, lag in rows if t.quantity == wish.quantity and lag == 0]
    return (fitting or [key for key in keys if key[1] == 0] or keys)[-1]


def role_label(role: str, lag: int) -> str:
    """How a role is called on the screen."""
    if lag == 0:
        return role
    return f"{role} (previous iteration)" if lag == 1 else f"{role} ({lag} iterations ago)"


def quantity_label(quantity: str) -> str:
    """How a quantity is called on the screen.

    >>> quantity_label("gradient:adversarial")
    'gradient (adversarial)'
    """
    name, colon, group = quantity.partition(":")
    return f"{name} ({group})" if colon else name


def sample_options(step: Step, tensor: TensorInfo) -> tuple[Option, ...]:
    """Over what the statistics of a tensor can be looked at."""
    if tensor.batch_dim is None:
        return ((ALL, _SAMPLE_LABELS[ALL]),)
    labels = step.categories or ("",) * len(step.samples)
    samples = [
        (f"sample:{position}", f"sample {index}{f' | {label}' if label else ''}")
        for position, (index, label) in enumerate(zip(step.samples, labels, strict=False))
    ]
    return (*((key, _SAMPLE_LABELS[key]) for key in (ALL, *BATCH_AGGREGATES)), *samples)


def statistics_of(sample: str) -> tuple[str, ...]:
    """Which statistics there are for a choice of sample."""
    return STATISTICS if sample == ALL else SAMPLE_STATISTICS


def _nearby(trial: Trial, node: str, number: int) -> tuple[int, ...]:
    """The nearest steps before and after at which a node was recorded."""
    numbers = trial.steps.tolist()
    at = numbers.index(number)
    before = next((n for n in reversed(numbers[:at]) if _has(trial, n, node)), None)
    after = next((n for n in numbers[at + 1 :] if _has(trial, n, node)), None)
    return tuple(n for n in (before, after) if n is not None)


def _has(trial: Trial, number: int, node: str) -> bool:
    try:
        return trial.step(number).layout.has(node)
    except StoreError:
        return False
