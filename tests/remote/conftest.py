"""The rooms together, with a group at an address between them."""

from __future__ import annotations

from support.addresses import memory, places, s3, s3_endpoint

__all__ = ["memory", "places", "s3", "s3_endpoint"]
