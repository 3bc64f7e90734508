"""What the methods of frames share: plans are built with errors in this room's terms, and arguments
are checked.
"""

from __future__ import annotations

import contextlib
import operator
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from operators import expr as ir
from operators.errors import OperatorError
from operators.rel import Rel
from remote_frame.errors import AmbiguousColumnError, ExpressionError, FrameError

__all__ = ["built", "check_unique", "reverse_keys", "row_count", "stands_for_null"]


def reverse_keys(keys: Sequence[ir.SortKey]) -> list[ir.SortKey]:
    """The opposite order."""
    return [ir.SortKey(k.expr, not k.descending, not k.nulls_first) for k in keys]


def stands_for_null(value: pa.DataType, column: pa.DataType) -> bool:
    """Whether a constant can stand for a null of a column without changing its kind."""
    kinds = (pt.is_integer, pt.is_floating, pt.is_decimal)
    if any(k(value) for k in kinds) and any(k(column) for k in kinds):
        return True
    return bool(value == column or (pt.is_null(column) and not pt.is_null(value)))


def check_unique(names: Sequence[str], what: str) -> None:
    """Refuse two columns of one name.

    Raises
    ------
    AmbiguousColumnError
        With the names, and what to do.
    """
    twice = sorted(n for n, times in Counter(names).items() if times > 1)
    if twice:
        shown = ", ".join(map(repr, twice))
        raise AmbiguousColumnError(f"{what}: two columns would be called {shown}; use alias()")


def row_count(what: str, value: Any) -> int:
    """A number of rows as an int, whosever integer it is."""
    if not isinstance(value, bool):
        with contextlib.suppress(TypeError):
            return operator.index(value)
    raise ExpressionError(f"{what}() takes whole numbers of rows, not {value!r}")


def built(what: str, make: Any, *args: Any) -> Rel:
    """Call a constructor of the IR, its errors in this room's terms."""
    try:
        plan: Rel = make(*args)
    except FrameError:
        raise
    except OperatorError as error:
        raise ExpressionError(f"{what}: {error}") from error
    return plan
