"""The errors and the warning of the recorder."""

from __future__ import annotations


class RecorderError(Exception):
    """Base of all errors that the recorder raises for a wrong call."""


class RecorderClosedError(RecorderError):
    """The recorder was used after ``close()``."""


class StepError(RecorderError):
    """Steps, iterations or loss groups were opened or closed in a wrong order."""


class DuplicateNameError(RecorderError):
    """The same name and role were recorded twice in one iteration."""


class BatchDimensionError(RecorderError, ValueError):
    """A given batch dimension does not exist in the tensor."""


class UnknownModuleError(RecorderError, KeyError):
    """A module was asked for that no watched model contains."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class SelectionError(RecorderError, ValueError):
    """``watch(include=..., exclude=..., depth=..., types=...)`` cannot be meant as it was given."""


class RecorderWarning(UserWarning):
    """Something could not be recorded; training goes on without that piece."""
