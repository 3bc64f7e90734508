"""remote_array: NumPy arrays in memory elements, read and written under a hard local budget.

`RemoteArray` is the array, `remote_array.cache` the buffering layer below it. Where the transport
maps memory nothing is buffered at all.
"""

from __future__ import annotations

from remote_array.array import DEFAULT_BUDGET, RemoteArray
from remote_array.errors import (
    ArrayError,
    ArrayHandleError,
    BudgetError,
    PinConflictError,
    SelectionError,
)
from remote_array.spans import ArrayCounters

__all__ = [
    "DEFAULT_BUDGET",
    "ArrayCounters",
    "ArrayError",
    "ArrayHandleError",
    "BudgetError",
    "PinConflictError",
    "RemoteArray",
    "SelectionError",
]
