"""The rules, one a file; ``stepscope.analysis.registry`` knows them all."""
