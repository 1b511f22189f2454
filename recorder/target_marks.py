"""Targets that say nothing to a loss: all ignored, of one class but for those, or, of a CTC loss, blanks or nothing."""

from __future__ import annotations

from typing import Any

import torch

_LARGEST = 1 << 17
"""Elements of targets beyond which they are not looked at."""
HARDLY = "hardly any"
"""The mark of targets of which almost all are ignored: it is told if nothing else is."""
_OF_CLASSES = frozenset(["cross_entropy", "nll_loss"])
_IGNORED = -100
_FEW = 0.05
_IGNORE_POSITION = 4
"""Where ``ignore_index`` stands among the arguments of the functional forms."""
_OF_CTC = ("targets", "input_lengths", "target_lengths", "blank")
"""The arguments of ``ctc_loss`` behind the first one."""


def mark_of_targets(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """What is odd about the numbers of a loss's targets; only of such as can be read without waiting.

    Which class is left is told, as is what is ignored; how much is not, so that the steps of a run share their graphs.
    """
    try:
        return _mark(name, args, kwargs)
    except RuntimeError:  # one of many within vmap
        return ""


def _mark(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    if name == "ctc_loss":
        return _of_ctc(args, kwargs)
    target = _given(args, kwargs, "target", 1)
    if name not in _OF_CLASSES or not _is_plain(target) or target.is_floating_point():
        return ""
    ignored = _given(args, kwargs, "ignore_index", _IGNORE_POSITION)
    ignored = ignored if isinstance(ignored, int) else _IGNORED
    return _of_kept(target, ignored)


def _of_ctc(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    targets, of_inputs, of_targets, blank = (
        _given(args, kwargs, key, place) for place, key in enumerate(_OF_CTC, start=1)
    )  # fmt: skip
    available, lengths = _numbers(of_inputs), _numbers(of_targets)
    if lengths is not None and not any(lengths):
        return "no targets: target_lengths=0"
    if available is not None and lengths is not None:
        short = sum(wanted > given for wanted, given in zip(lengths, available, strict=False))
        if 2 * short > len(lengths):
            return "too short: input_lengths < target_lengths"
    blank = blank if isinstance(blank, int) else 0
    return f"holds blank: blank={blank}" if _is_plain(targets) and _holds(targets, lengths, blank) else ""


def _numbers(lengths: Any) -> list[int] | None:
    """Lengths, if they can be read without waiting."""
    if isinstance(lengths, torch.Tensor):
        return [int(length) for length in lengths.reshape(-1).tolist()] if lengths.device.type == "cpu" else None
    return [int(length) for length in lengths] if isinstance(lengths, (list, tuple)) else None


def _given(args: tuple[Any, ...], kwargs: dict[str, Any], name: str, position: int) -> Any:
    return kwargs.get(name, args[position] if len(args) > position else None)


def _is_plain(tensor: Any) -> bool:
    """Whether these are numbers that nothing has to be waited for."""
    if tensor.__class__ is not torch.Tensor or tensor.device.type != "cpu" or tensor.is_sparse:
        return False
    return 1 < tensor.numel() <= _LARGEST


def _of_kept(target: torch.Tensor, ignored: int) -> str:
    with torch._C.DisableTorchFunction():
        kept = target[target != ignored]
        if not kept.numel():
            return f"all ignored: ignore_index={ignored}"
        if kept.numel() == target.numel():
            return ""
        if kept.numel() > 1 and bool(kept.min() == kept.max()):
            return f"one class left: {int(kept[0])}, ignore_index={ignored}"
        return f"{HARDLY}: ignore_index={ignored}" if kept.numel() < _FEW * target.numel() else ""


def _holds(targets: torch.Tensor, lengths: list[int] | None, blank: int) -> bool:
    """Whether a blank is among the targets, as far as their lengths reach."""
    if targets.dim() == 2 and lengths is None:
        return False
    with torch._C.DisableTorchFunction():
        found = targets == blank
        if targets.dim() == 2:
            found = found & (torch.arange(targets.shape[1]) < torch.tensor(lengths).reshape(-1, 1))
        return bool(found.any())
