"""Exceptions of the operators room."""

from __future__ import annotations

from libd.errors import ScadError

__all__ = [
    "DataFileError",
    "FileChangedError",
    "KernelError",
    "KernelMemoryError",
    "OperatorError",
    "PlanError",
    "UnsupportedPlan",
    "UnsupportedTypeError",
]


class OperatorError(ScadError):
    """Base of everything that this room raises on purpose."""


class PlanError(OperatorError):
    """A plan that makes no sense: an unknown function, a column out of range, types that do not
    fit.
    """


class UnsupportedPlan(PlanError):
    """A plan that a kernel would not compute exactly as DuckDB does: `construct`."""

    def __init__(self, construct: str) -> None:
        super().__init__(f"not exactly as DuckDB computes it: {construct}")
        self.construct = construct


class UnsupportedTypeError(OperatorError):
    """A column whose Arrow type an operator cannot handle; the message names the column."""


class DataFileError(OperatorError):
    """A data file that is missing, unreadable or not what the others are; the message names it."""


class FileChangedError(DataFileError):
    """A data file that is not what it was when a plan was made over it; the message names it."""


class KernelError(OperatorError):
    """A fragment failed inside the kernel. `sql` is the statement that was run."""

    def __init__(self, message: str, sql: str = "") -> None:
        super().__init__(message if not sql else f"{message}\nin the statement:\n{sql}")
        self.sql = sql


class KernelMemoryError(KernelError):
    """A fragment needed more memory than the kernel may use. The kernel stays usable."""
