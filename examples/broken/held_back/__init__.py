"""Runs that nobody who writes rules has read: what the findings are worth is measured on these.

A set that has been read moves one folder up, and a new one, written by somebody else, takes its place here.
"""
