"""Exceptions of the remote_array room."""

from __future__ import annotations

from libd.errors import ScadError

__all__ = ["ArrayError", "ArrayHandleError", "BudgetError", "PinConflictError", "SelectionError"]


class ArrayError(ScadError):
    """Base of everything that this room raises on purpose."""


class ArrayHandleError(ArrayError, ValueError):
    """A handle that is not one of an array: the message names the field."""


class SelectionError(ArrayError, IndexError):
    """An index that is out of range or of a kind that remote arrays do not have."""


class BudgetError(ArrayError, MemoryError):
    """The local budget cannot hold what was asked for; nothing was changed."""


class PinConflictError(ArrayError):
    """A pin wants spans in one piece that a live pin holds elsewhere."""
