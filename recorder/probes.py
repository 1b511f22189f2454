"""Active probes: they run a copy of a model on changed inputs and look at what changes in its outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from stepscope.recorder.errors import RecorderError
from stepscope.recorder.probe_copy import ProbeCopy, Seen

ProbeName = Literal["batch", "input", "time"]
PROBES: tuple[ProbeName, ...] = ("batch", "input", "time")

_Arguments = tuple[tuple[Any, ...], dict[str, Any]]
_Change = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Probed:
    """What one probe says.

    Attributes:
        probe: which one.
        found: whether there is a problem.
        module: the path of the first module in which it shows; empty for the model itself, or if there is none.
        value: the largest change that decides, as a part of the size of the tensor it was seen in.
        summary: one sentence.
        remedy: what to try; empty if nothing was found.
    """

    probe: ProbeName
    found: bool
    module: str
    value: float
    summary: str
    remedy: str = ""


def probe(
    model: nn.Module,
    batch: Any,
    *,
    probes: Sequence[ProbeName] = ("batch", "input"),
    batch_dim: int = 0,
    time_dim: int = 1,
    tolerance: float = 1e-5,
) -> list[Probed]:
    """Ask a model, by a few extra forward passes, whether samples or times influence each other, and its input at all.

    Nothing is changed: a copy runs, in the model's mode, without gradients, and random numbers go on as before.
    Batch normalisations run in evaluation mode, since in training they mix samples on purpose.

    >>> probe(nn.Linear(4, 2), torch.randn(8, 4))[0].found
    False

    Args:
        model: any module that can be copied (its hooks are, too).
        batch: what it is called with: a tensor, a tuple or list of arguments, or a dict of arguments by name.
        probes: ``"batch"``: another sample's input changes a sample's output. ``"input"``: an argument changes nothing.
            ``"time"``: a later input changes an earlier output; ask for it where the model must not look ahead.
        batch_dim: the dimension of samples, of inputs and outputs.
        time_dim: the dimension of time, of inputs and outputs.
        tolerance: changes up to this part of a tensor's size (root mean square) are rounding.

    Returns:
        One result for each probe, in the order given; for ``"input"`` one for each argument that is a tensor.

    Raises:
        RecorderError: a probe is not known, the batch has fewer than two samples, or the model cannot be copied.
    """
    for name in probes:
        if name not in PROBES:
            raise RecorderError(f"probe(probes={name!r}): expected some of {', '.join(PROBES)}")
    given = _arguments(batch)
    tensors = list(_named_tensors(given))
    samples = {tensor.shape[batch_dim] for _, tensor in tensors if tensor.dim() > batch_dim}
    if not samples or max(samples) < 2:
        raise RecorderError("probe(): the batch holds fewer than two samples; give it at least two that differ")
    copy = ProbeCopy(model)
    plain = copy.run(*given)
    results: list[Probed] = []
    for name in probes:
        if name == "batch":
            results.append(_over_batch(copy, given, plain, batch_dim, max(samples), tolerance))
        elif name == "time":
            results.append(_over_time(copy, given, plain, batch_dim, time_dim, tolerance))
        else:
            results += [_of_input(copy, given, plain, batch_dim, key, tolerance) for key, _ in tensors]
    return results


def _over_batch(
    copy: ProbeCopy, given: _Arguments, plain: list[Seen], dim: int, samples: int, tolerance: float
) -> Probed:
    chosen = samples // 2
    others = [index for index in range(samples) if index != chosen]

    def change(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dim() <= dim or tensor.shape[dim] != samples:
            return tensor
        changed = tensor.clone()
        changed.select(dim, chosen).copy_(_other(tensor, dim).select(dim, chosen))
        return changed

    def kept(tensor: torch.Tensor) -> torch.Tensor | None:
        fits = tensor.dim() > dim and tensor.shape[dim] == samples
        return tensor.index_select(dim, torch.tensor(others, device=tensor.device)) if fits else None

    module, value = _first_change(plain, copy.run(*_changed(given, change)), kept, tolerance)
    norms = f" ({len(copy.norms_in_training)} batch normalisations were put in evaluation mode for this)"
    said = norms if copy.norms_in_training else ""
    if value <= tolerance:
        return Probed("batch", False, "", value, f"No sample has an influence on the output of another one{said}.")
    where = f", first in {module}" if module else ""
    summary = f"Changing the input of sample {chosen} changes what other samples give, by {value:.2g}{where}{said}."
    remedy = "Look for a reshape, softmax, norm or mean over the dimension of samples."
    return Probed("batch", True, module, value, summary, remedy)


def _over_time(copy: ProbeCopy, given: _Arguments, plain: list[Seen], batch: int, dim: int, tolerance: float) -> Probed:
    lengths = [tensor.shape[dim] for _, tensor in _named_tensors(given) if tensor.dim() > dim]
    if not lengths or max(lengths) < 2:
        raise RecorderError(f"probe(probes=['time']): no input has two or more positions in dimension {dim}")
    length = max(lengths)
    now = length // 2

    def change(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dim() <= dim or tensor.shape[dim] != length:
            return tensor
        before, other = tensor.narrow(dim, 0, now), _other(tensor, batch)
        return torch.cat([before, other.narrow(dim, now, length - now)], dim)

    def kept(tensor: torch.Tensor) -> torch.Tensor | None:
        return tensor.narrow(dim, 0, now) if tensor.dim() > dim and tensor.shape[dim] == length else None

    module, value = _first_change(plain, copy.run(*_changed(given, change)), kept, tolerance)
    if value <= tolerance:
        return Probed("time", False, "", value, "No output depends on later inputs.")
    where = f", first in {module}" if module else ""
    summary = f"Changing inputs from position {now} on changes outputs before it, by {value:.2g}{where}."
    return Probed("time", True, module, value, summary, "Mask the future: is_causal=True, or causal padding.")


def _of_input(
    copy: ProbeCopy, given: _Arguments, plain: list[Seen], dim: int, key: int | str, tolerance: float
) -> Probed:
    args, kwargs = given
    if isinstance(key, int):
        changed = (*args[:key], _other(args[key], dim), *args[key + 1 :]), kwargs
    else:
        changed = args, {**kwargs, key: _other(kwargs[key], dim)}
    after = copy.run(*changed)
    value = max((_change(one.tensor, two.tensor) for one, two in _outputs(plain, after)), default=0.0)
    name = f"argument {key}" if isinstance(key, int) else key
    if value > tolerance:
        return Probed("input", False, "", value, f"The output depends on {name}: it changes by {value:.2g}.")
    still = next((one.path for one, two in zip(plain, after, strict=False) if not _differs(one, two, tolerance)), "")
    summary = f"The output does not depend on {name}: with other values it changes by {value:.2g}."
    return Probed("input", True, still, value, summary, "Follow the input into the model, to where it is lost.")


def _first_change(
    plain: list[Seen],
    after: list[Seen],
    kept: Callable[[torch.Tensor], torch.Tensor | None],
    tolerance: float,
) -> tuple[str, float]:
    """How much the kept part of the model's outputs changes, and the first module in whose output it does."""
    value, module = 0.0, ""
    for one, two in _outputs(plain, after):
        first, second = kept(one.tensor), kept(two.tensor)
        if first is not None and second is not None:
            value = max(value, _change(first, second))
    for one, two in zip(plain, after, strict=False):
        first, second = kept(one.tensor), kept(two.tensor)
        if first is not None and second is not None and _change(first, second) > tolerance:
            module = one.path
            break
    return module, value


def _outputs(plain: list[Seen], after: list[Seen]) -> Iterator[tuple[Seen, Seen]]:
    yield from ((one, two) for one, two in zip(plain, after, strict=False) if not one.path)


def _differs(one: Seen, two: Seen, tolerance: float) -> bool:
    return _change(one.tensor, two.tensor) > tolerance


def _change(one: torch.Tensor, two: torch.Tensor) -> float:
    """The largest difference as a part of the size; infinite for other shapes, or where NaN comes or goes."""
    if one.shape != two.shape:
        return float("inf")
    if not one.numel() or torch.equal(one, two):
        return 0.0
    one, two = one.double(), two.double()
    if not torch.equal(one.isnan(), two.isnan()):
        return float("inf")
    size = float(one.nan_to_num().square().mean().sqrt())
    return float((one - two).nan_to_num().abs().max()) / max(size, 1e-30)


def _other(tensor: torch.Tensor, dim: int) -> torch.Tensor:
    """Other values of the same kind: those of the neighbouring samples, and noise on top where numbers may be any."""
    rolled = tensor.roll(1, dim) if tensor.dim() > dim else tensor
    if tensor.is_floating_point():
        spread = float(tensor.double().std(correction=0)) or 1.0
        noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        return (rolled + spread * noise.to(tensor.device)).to(tensor.dtype)
    if tensor.dtype == torch.bool:
        return ~tensor
    same = rolled == tensor  # of whole numbers only those that occur are sure to be allowed
    low, high = int(tensor.min()), int(tensor.max())
    return torch.where(same, (tensor - low + 1) % max(1, high - low + 1) + low, rolled)


def _arguments(batch: Any) -> _Arguments:
    if isinstance(batch, Mapping):
        given: _Arguments = ((), dict(batch))
    else:
        given = (tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)), {}
    return _changed(given, torch.Tensor.detach)


def _named_tensors(given: _Arguments) -> Iterator[tuple[int | str, torch.Tensor]]:
    args, kwargs = given
    yield from ((index, value) for index, value in enumerate(args) if isinstance(value, torch.Tensor))
    yield from ((name, value) for name, value in kwargs.items() if isinstance(value, torch.Tensor))


def _changed(given: _Arguments, change: _Change) -> _Arguments:
    args, kwargs = given
    return (
        tuple(change(value) if isinstance(value, torch.Tensor) else value for value in args),
        {name: change(value) if isinstance(value, torch.Tensor) else value for name, value in kwargs.items()},
    )
