"""Active probes: they run a copy of a model on changed inputs and look at what changes in its outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from stepscope.recorder.errors import RecorderError
from stepscope.recorder.probe_changes import change_of, differs, first_change, outputs_of
from stepscope.recorder.probe_copy import ProbeCopy, Seen
from stepscope.recorder.probe_inputs import Arguments, arguments_of, changed, named_tensors, other_values

ProbeName = Literal["batch", "input", "time", "gradient"]
PROBES: tuple[ProbeName, ...] = ("batch", "input", "time", "gradient")
_WRONG = 1e-3
"""The part by which a derivative in float64 may differ from that of finite differences."""


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
            ``"gradient"``: the backward of a module is not the derivative of what it computes (a custom function, a
            ``detach``); it asks each module in float64, and names the first one that is wrong by itself.
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
    given = arguments_of(batch)
    tensors = list(named_tensors(given))
    samples = {tensor.shape[batch_dim] for _, tensor in tensors if tensor.dim() > batch_dim}
    if not samples or max(samples) < 2:
        raise RecorderError("probe(): the batch holds fewer than two samples; give it at least two that differ")
    copy = ProbeCopy(model)
    plain = copy.run(*given)
    results: list[Probed] = []
    for name in probes:
        if name == "batch":
            results.append(_over_batch(copy, given, plain, batch_dim, max(samples), tolerance))
        elif name == "gradient":
            results.append(_of_gradient(copy, given))
        elif name == "time":
            results.append(_over_time(copy, given, plain, batch_dim, time_dim, tolerance))
        else:
            results += [_of_input(copy, given, plain, batch_dim, key, tolerance) for key, _ in tensors]
    return results


def _over_batch(
    copy: ProbeCopy, given: Arguments, plain: list[Seen], dim: int, samples: int, tolerance: float
) -> Probed:
    chosen = samples // 2
    others = [index for index in range(samples) if index != chosen]

    def change(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dim() <= dim or tensor.shape[dim] != samples:
            return tensor
        changed = tensor.clone()
        changed.select(dim, chosen).copy_(other_values(tensor, dim).select(dim, chosen))
        return changed

    def kept(tensor: torch.Tensor) -> torch.Tensor | None:
        fits = tensor.dim() > dim and tensor.shape[dim] == samples
        return tensor.index_select(dim, torch.tensor(others, device=tensor.device)) if fits else None

    module, value = first_change(plain, copy.run(*changed(given, change)), kept, tolerance)
    norms = f" ({len(copy.norms_in_training)} batch normalisations were put in evaluation mode for this)"
    said = norms if copy.norms_in_training else ""
    if value <= tolerance:
        return Probed("batch", False, "", value, f"No sample has an influence on the output of another one{said}.")
    where = f", first in {module}" if module else ""
    summary = f"Changing the input of sample {chosen} changes what other samples give, by {value:.2g}{where}{said}."
    remedy = "Look for a reshape, softmax, norm or mean over the dimension of samples."
    return Probed("batch", True, module, value, summary, remedy)


def _of_gradient(copy: ProbeCopy, given: Arguments) -> Probed:
    """Inner modules come first, so that the first wrong one is wrong by itself, and not by a part of it."""
    every = copy.slopes(given)
    wrong = next((slopes for slopes in every if slopes.apart > _WRONG), None)
    if wrong is None:
        value = max((slopes.apart for slopes in every), default=0.0)
        return Probed(
            "gradient", False, "", value, f"The gradients of {len(every)} calls are those of what they compute."
        )
    where = wrong.path or "the model"
    summary = (
        f"The backward of {where} is not the derivative of what it computes: along one direction it says "
        f"{wrong.backward:.3g}, where the outputs change by {wrong.forward:.3g}."
    )
    remedy = (
        "Correct the backward of its custom function, or take out a detach; a straight-through estimator is meant so."
    )
    return Probed("gradient", True, wrong.path, wrong.apart, summary, remedy)


def _over_time(copy: ProbeCopy, given: Arguments, plain: list[Seen], batch: int, dim: int, tolerance: float) -> Probed:
    lengths = [tensor.shape[dim] for _, tensor in named_tensors(given) if tensor.dim() > dim]
    if not lengths or max(lengths) < 2:
        raise RecorderError(f"probe(probes=['time']): no input has two or more positions in dimension {dim}")
    length = max(lengths)
    now = length // 2

    def change(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dim() <= dim or tensor.shape[dim] != length:
            return tensor
        before, other = tensor.narrow(dim, 0, now), other_values(tensor, batch)
        return torch.cat([before, other.narrow(dim, now, length - now)], dim)

    def kept(tensor: torch.Tensor) -> torch.Tensor | None:
        return tensor.narrow(dim, 0, now) if tensor.dim() > dim and tensor.shape[dim] == length else None

    module, value = first_change(plain, copy.run(*changed(given, change)), kept, tolerance)
    if value <= tolerance:
        return Probed("time", False, "", value, "No output depends on later inputs.")
    where = f", first in {module}" if module else ""
    summary = f"Changing inputs from position {now} on changes outputs before it, by {value:.2g}{where}."
    return Probed("time", True, module, value, summary, "Mask the future: is_causal=True, or causal padding.")


def _of_input(
    copy: ProbeCopy, given: Arguments, plain: list[Seen], dim: int, key: int | str, tolerance: float
) -> Probed:
    args, kwargs = given
    if isinstance(key, int):
        exchanged: Arguments = (*args[:key], other_values(args[key], dim), *args[key + 1 :]), kwargs
    else:
        exchanged = args, {**kwargs, key: other_values(kwargs[key], dim)}
    after = copy.run(*exchanged)
    value = max((change_of(one.tensor, two.tensor) for one, two in outputs_of(plain, after)), default=0.0)
    name = f"argument {key}" if isinstance(key, int) else key
    if value > tolerance:
        return Probed("input", False, "", value, f"The output depends on {name}: it changes by {value:.2g}.")
    still = next((one.path for one, two in zip(plain, after, strict=False) if not differs(one, two, tolerance)), "")
    summary = f"The output does not depend on {name}: with other values it changes by {value:.2g}."
    return Probed("input", True, still, value, summary, "Follow the input into the model, to where it is lost.")
