"""Runs that are measured before anybody who writes rules reads them: what the findings are worth shows on these.

They are drawn from what people report, in the order in which it is found (``drawn_*.md``). A set that has been read
moves one folder up, and a new one, written by somebody else, takes its place here.
"""
