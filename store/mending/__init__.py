"""Mending recordings: what ``stepscope.store.repair`` is made of."""
