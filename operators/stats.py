"""What is known about columns and tables.

Values are plain numbers: dates as days, timestamps as microseconds, decimals as floats; strings
have no range.
"""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
import pyarrow.types as pt

from operators.rel import Source
from operators.types import canonical

__all__ = ["ColumnStats", "Lookup", "TableStats", "as_number", "bytes_per_row"]

_STRING_BYTES = 16.0


class ColumnStats(NamedTuple):
    """One column; None is unknown, `distinct` leaves NULL out, `width` is bytes per value.

    `domain` is how many distinct values its table had before rows were filtered: against it, a
    filtered key of a dimension says which share of another table's rows finds a partner. `origin`
    is the scan that a column comes from and the rows that it gives: columns of one scan have no
    more combinations than that. `group_share` is the share of the range that an average row
    group has: 1 where values lie anywhere, little where rows lie in their order.
    """

    min: float | None = None
    max: float | None = None
    null_fraction: float = 0.0
    distinct: float | None = None
    width: float | None = None
    domain: float | None = None
    origin: tuple[int, float] | None = None
    group_share: float | None = None

    def with_distinct(self, distinct: float) -> ColumnStats:
        """The same column with another number of distinct values; a third of the time that
        `_replace` takes.
        """
        low, high, nulls, _, width, domain, origin, group_share = self
        return ColumnStats(low, high, nulls, distinct, width, domain, origin, group_share)

    def clipped(self, low: float, high: float) -> tuple[float, float] | tuple[None, None]:
        """What a closed range and the column's have in common: nothing, where the first is above
        the second; None, where the column's is unknown.
        """
        if self.min is None or self.max is None:
            return None, None
        return max(low, self.min), min(high, self.max)


@dataclass(frozen=True, slots=True)
class TableStats:
    """Rows of a relation and what is known of its columns, in order; of files the rows of the
    largest row group, too.
    """

    rows: float
    columns: tuple[ColumnStats, ...]
    row_group: int | None = None


Lookup = Callable[[Source], TableStats | None]
"""Statistics of a source, over its `source_schema`; None if nothing is known."""


def as_number(value: object) -> float | None:
    """A literal's or a footer's value on the number line, None if it has no place there."""
    match value:
        case bool():
            return float(value)
        case int() | float() | decimal.Decimal():
            return float(value)
        case datetime.datetime():
            return value.replace(tzinfo=datetime.UTC).timestamp() * 1e6
        case datetime.date():
            return float((value - datetime.date(1970, 1, 1)).days)
    return None


def bytes_per_row(types: Sequence[pa.DataType], columns: Sequence[ColumnStats] = ()) -> float:
    """Arrow bytes of one row, validity left out; strings by their measured or an assumed width."""
    total = 0.0
    for i, type in enumerate(types):
        fixed = _fixed_bytes(type)
        if fixed is None:
            known = columns[i].width if i < len(columns) else None
            fixed = 4 + (known if known is not None else _STRING_BYTES)
        total += fixed
    return total


def _fixed_bytes(type: pa.DataType) -> float | None:
    """Bytes of one value; None if they differ."""
    type = canonical(type)
    if type.id in _VARIABLE:
        return None
    return 0.0 if pt.is_null(type) else max(type.bit_width / 8, 0.125)


_VARIABLE = frozenset((pa.string().id, pa.binary().id))
