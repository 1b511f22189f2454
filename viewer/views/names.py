"""What a tensor is called where there is room for one name."""

from __future__ import annotations

_USUAL = ("output", "tensor", "parameter")
"""Roles that say nothing that the name of a node does not."""


def name_of(node: str, role: str) -> str:
    """The node, and its role if that tells more: one of several outputs, a role of the user's.

    >>> name_of("model.rnn", "output.1")
    'model.rnn, output.1'
    >>> name_of("model.rnn", "output")
    'model.rnn'
    """
    return node if role in _USUAL else f"{node}, {role}"
