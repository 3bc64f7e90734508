"""Exceptions of the remote_frame room."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from libd.errors import ScadError

__all__ = [
    "AmbiguousColumnError",
    "ColumnNotFoundError",
    "ExpressionError",
    "FrameError",
    "HandleError",
    "StorageError",
]


class FrameError(ScadError):
    """Base of everything that this room raises on purpose."""


class HandleError(FrameError, ValueError):
    """A handle that is not one: the message names the field and what was expected there."""


class StorageError(FrameError):
    """Columns that cannot be laid out in, or read from, a memory element."""


class ExpressionError(FrameError, TypeError):
    """An expression or a frame operation whose arguments do not fit their types or places."""


class AmbiguousColumnError(FrameError, ValueError):
    """Two columns of a result would bear, or do bear, one name."""


class ColumnNotFoundError(FrameError, KeyError):
    """A name that is no column of the frame; the message lists near matches."""

    def __init__(self, name: str, columns: Iterable[str]) -> None:
        known = list(columns)
        near = get_close_matches(name, known, n=3, cutoff=0.6)
        if near:
            hint = "did you mean " + " or ".join(repr(n) for n in near) + "?"
        elif known:
            shown = ", ".join(repr(n) for n in known[:10]) + (", …" if len(known) > 10 else "")
            hint = f"the columns are {shown}"
        else:
            hint = "the frame has no columns"
        self.message = f"no column {name!r}; {hint}"
        super().__init__(self.message)

    def __str__(self) -> str:
        # KeyError would show the repr of the message.
        return self.message
