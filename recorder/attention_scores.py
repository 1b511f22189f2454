"""The masked scores of an attention, of some queries of some heads, whichever call computes them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

PAIRS = 8
"""Heads and batch entries that are looked at, together; heads come first."""
QUERIES = 32
"""Queries of each of them; evenly many over the sequence."""


@dataclass(frozen=True)
class Scores:
    """A sample of the scores of one attention.

    Attributes:
        values: ``(pairs, queries, keys)``, float32; -inf, or very small, where a key must not be looked at.
        every: each how-manieth query was taken.
        queries: how many there are in all.
    """

    values: torch.Tensor
    every: int
    queries: int


def of_product(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Scores:
    """Of a call of ``scaled_dot_product_attention``; the arguments are its own."""
    del value, dropout_p
    *lead, queries, width = query.shape
    every, picked = _every(queries, QUERIES), _pick(lead)
    chosen = query[(*picked, slice(None, None, every))].float()
    if enable_gqa and key.shape[-3] != lead[-1]:
        heads = range(0, lead[-1], picked[-1].step)
        key = torch.stack([key.select(-3, head * key.shape[-3] // lead[-1]) for head in heads], -3)
        keys = key[picked[:-1]].float()
    else:
        keys = key.expand(*lead, *key.shape[-2:])[picked].float()
    values = chosen @ keys.transpose(-1, -2) * (1 / math.sqrt(width) if scale is None else scale)
    if attn_mask is not None:
        mask = attn_mask.expand(*lead, queries, keys.shape[-2])[(*picked, slice(None, None, every))]
        values = values.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else values + mask.float()
    if is_causal:
        values = values.masked_fill(ahead(values, every), -math.inf)
    return Scores(values.flatten(0, -3) if lead else values.unsqueeze(0), every, queries)


def of_softmax(scores: torch.Tensor) -> Scores:
    """Of a softmax over ``(..., queries, keys)``."""
    *lead, queries, _ = scores.shape
    every = _every(queries, QUERIES)
    return Scores(scores[(*_pick(lead), slice(None, None, every))].float().flatten(0, -3), every, queries)


def of_module(*args: Any, **kwargs: Any) -> Scores | None:
    """Of a call of ``multi_head_attention_forward``; None for what is seldom used: added keys, static ones."""
    given = dict(zip(_MODULE_ARGUMENTS, args, strict=False)) | kwargs
    if any(given.get(name) is not None for name in ("bias_k", "static_k")) or given.get("add_zero_attn"):
        return None
    query, key, heads = given["query"], given["key"], given["num_heads"]
    if query.dim() == 2:
        query, key = query.unsqueeze(1), key.unsqueeze(1)
    queries, batch, width = query.shape
    entries, picked = _pick([batch, heads])
    every = _every(queries, QUERIES)
    weights, bias = _projections(given, width)
    chosen = _projected(query[::every, entries], weights[0], bias[0], heads, picked)
    keys = _projected(key[:, entries], weights[1], bias[1], heads, picked)
    values = chosen @ keys.transpose(-1, -2) / math.sqrt(width // heads)
    mask = given.get("attn_mask")
    if mask is not None:
        mask = mask.view(batch, heads, *mask.shape[-2:])[entries, picked] if mask.dim() == 3 else mask
        values = _without(values, mask[..., ::every, :])
    padding = given.get("key_padding_mask")
    if padding is not None:
        values = _without(values, padding.view(batch, 1, 1, -1)[entries])
    return Scores(values.flatten(0, 1), every, queries)


def ahead(values: torch.Tensor, every: int) -> torch.Tensor:
    """``(queries, keys)``: whether a key comes after the query, for queries of which every so-manieth was kept."""
    rows, columns = (torch.arange(size, device=values.device) for size in values.shape[-2:])
    return columns > rows.unsqueeze(-1) * every


_MODULE_ARGUMENTS = (
    "query", "key", "value", "embed_dim_to_check", "num_heads", "in_proj_weight", "in_proj_bias", "bias_k", "bias_v",
    "add_zero_attn", "dropout_p", "out_proj_weight", "out_proj_bias", "training", "key_padding_mask", "need_weights",
    "attn_mask", "use_separate_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "static_k", "static_v",
)  # fmt: skip

CALLS: dict[str, Callable[..., Scores | None]] = {
    "scaled_dot_product_attention": of_product,
    "multi_head_attention_forward": of_module,
}
"""What computes an attention in one call, by its name."""


def _every(size: int, most: int) -> int:
    return max(1, -(-size // most))


def _pick(lead: list[int]) -> tuple[slice, ...]:
    """Evenly many of the leading dimensions, from the last one (the heads) to the first, ``PAIRS`` together."""
    left, found = PAIRS, []
    for size in reversed(lead):
        step = _every(size, left)
        found.append(slice(None, None, step))
        left = max(1, left // max(1, -(-size // step)))
    return tuple(reversed(found))


def _projections(given: dict[str, Any], width: int) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """The weights and the biases of queries and keys."""
    bias = given.get("in_proj_bias")
    biases = (None, None) if bias is None else (bias[:width], bias[width : 2 * width])
    if given.get("use_separate_proj_weight"):
        return (given["q_proj_weight"], given["k_proj_weight"]), biases
    weight = given["in_proj_weight"]
    return (weight[:width], weight[width : 2 * width]), biases


def _projected(inputs: torch.Tensor, weight: Any, bias: Any, heads: int, picked: slice) -> torch.Tensor:
    """``(entries, chosen heads, length, width of a head)`` of inputs ``(length, entries, width)``."""
    each = weight.shape[0] // heads
    rows = weight.view(heads, each, -1)[picked].flatten(0, 1).float()
    shift = None if bias is None else bias.view(heads, each)[picked].flatten().float()
    parts: torch.Tensor = F.linear(inputs.float(), rows, shift).unflatten(-1, (-1, each))
    return parts.permute(1, 2, 0, 3)


def _without(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Scores without what a mask of ``MultiheadAttention`` takes away: True there, or a number that is added."""
    return values.masked_fill(mask, -math.inf) if mask.dtype == torch.bool else values + mask.float()
