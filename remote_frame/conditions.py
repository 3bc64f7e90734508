"""Which parts of a frame can hold rows that meet simple conditions, by the handle's statistics.

A condition compares a stored column with constants. Parts of which no row can meet all conditions
need not be read; of the others every row is, so that conditions are a hint and never an answer.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, get_args

import pyarrow as pa
import pyarrow.types as pt

from remote_frame.errors import ColumnNotFoundError, ExpressionError

if TYPE_CHECKING:
    from remote_frame.handle import FieldSpec, Part, Stat

__all__ = ["Bound", "Condition", "Operator", "bind", "may_match"]

Operator = Literal["=", "<", "<=", ">", ">=", "in", "is_null", "is_not_null"]

_EPOCH = dt.datetime(1970, 1, 1)
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


@dataclass(frozen=True, slots=True)
class Condition:
    """``column operator value``, as SQL understands it: NULLs meet only ``is_null``.

    Attributes
    ----------
    column
        Name of a stored column.
    operator
        A comparison, ``in``, ``is_null`` or ``is_not_null``.
    value
        A Python value of the column's type (date, datetime, Decimal, int, float, str); for ``in`` a
        sequence of them; nothing for the tests of NULL.

    Raises
    ------
    ExpressionError
        If there is no such operator.
    """

    column: str
    operator: Operator
    value: Any = None

    def __post_init__(self) -> None:
        if self.operator not in get_args(Operator):
            raise ExpressionError(
                f"no operator {self.operator!r}; there are {', '.join(get_args(Operator))}"
            )


Bound = tuple[int, pa.DataType, Condition]
"""A condition with the position and the type of its column."""


def bind(conditions: Sequence[Condition], schema: Sequence[FieldSpec]) -> tuple[Bound, ...]:
    """Conditions over the columns of a stored frame; those of ambiguous names are left out.

    Raises
    ------
    ColumnNotFoundError
        If a condition names no column.
    """
    names = [field.name for field in schema]
    bound = []
    for one in conditions:
        if one.column not in names:
            raise ColumnNotFoundError(one.column, names)
        if names.count(one.column) == 1:
            position = names.index(one.column)
            bound.append((position, schema[position].type, one))
    return tuple(bound)


def may_match(part: Part, conditions: Sequence[Bound]) -> bool:
    """Whether some row of `part` can meet all conditions."""
    return all(_may_meet(part, column, type, one) for column, type, one in conditions)


def _may_meet(part: Part, column: int, type: pa.DataType, condition: Condition) -> bool:
    nulls = part.nulls[column]
    if condition.operator == "is_null":
        return nulls > 0
    if nulls == part.rows:
        return False
    least = part.min[column] if part.min else None
    most = part.max[column] if part.max else None
    if condition.operator == "is_not_null" or (least is None and most is None):
        return True
    values = condition.value if condition.operator == "in" else (condition.value,)
    return any(_may_hold(condition.operator, value, type, least, most) for value in values)


def _may_hold(operator: Operator, value: Any, type: pa.DataType, least: Stat, most: Stat) -> bool:
    if value is None:
        return False
    stored = _stored(value, type)
    if stored is None:
        return True
    below: bool | None
    above: bool | None
    if isinstance(stored, bytes):
        if not isinstance(least, str | None) or not isinstance(most, str | None):
            return True
        low = None if least is None else least.encode()
        high = None if most is None else most.encode()
        # Of the greatest only the first bytes are known: what begins like it may be greater.
        reach = None if high is None else stored[: len(high)]
        below = low is not None and stored < low
        at_least = low is not None and stored <= low
        above = reach is not None and high is not None and reach > high
        at_most = above
    else:
        if isinstance(least, str) or isinstance(most, str):
            return True
        below = least is not None and stored < least
        at_least = least is not None and stored <= least
        above = most is not None and stored > most
        at_most = most is not None and stored >= most
    match operator:
        case "<":
            return not at_least
        case "<=":
            return not below
        case ">":
            return not at_most
        case ">=":
            return not above
    return not (below or above)


def _stored(value: Any, type: pa.DataType) -> Fraction | float | bytes | None:
    """A constant as the statistics hold values of the type; None if it has no place among them."""
    for takes, convert in _CONVERSIONS:
        if takes(type):
            try:
                return convert(value, type)
            except (TypeError, ValueError, OverflowError):
                return None
    return None


def _text(value: Any, type: pa.DataType) -> bytes | None:
    return value.encode() if isinstance(value, str) else None


def _number(value: Any, type: pa.DataType) -> Fraction | None:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    return Fraction(value) * 10 ** (type.scale if pt.is_decimal(type) else 0)


def _float(value: Any, type: pa.DataType) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    number = float(value)
    if pt.is_float32(type) and not isinstance(value, float) and Fraction(number) != value:
        return None
    return None if math.isnan(number) else number


def _day(value: Any, type: pa.DataType) -> Fraction | None:
    if isinstance(value, dt.datetime):
        since = (value - _EPOCH) / dt.timedelta(days=1) if value.tzinfo is None else None
    elif isinstance(value, dt.date):
        since = (value - _EPOCH.date()).days
    else:
        return _number(value, type) if isinstance(value, int) else None
    if since is None:
        return None
    return Fraction(since) * (86_400_000 if pt.is_date64(type) else 1)


def _instant(value: Any, type: pa.DataType) -> Fraction | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return Fraction(value)
    if not isinstance(value, dt.date):
        return None
    if not isinstance(value, dt.datetime):
        value = dt.datetime(value.year, value.month, value.day)
    if value.tzinfo is not None:
        if type.tz is None:
            return None
        value = value.astimezone(dt.UTC).replace(tzinfo=None)
    elif type.tz is not None:
        return None
    microseconds = (value - _EPOCH) // dt.timedelta(microseconds=1)
    return Fraction(microseconds, 10**6) * _PER_SECOND[type.unit]


_Convert = Callable[[Any, pa.DataType], "Fraction | float | bytes | None"]
_CONVERSIONS: tuple[tuple[Callable[[pa.DataType], bool], _Convert], ...] = (
    (lambda t: pt.is_string(t) or pt.is_large_string(t), _text),
    (lambda t: pt.is_integer(t) or pt.is_decimal(t), _number),
    (lambda t: pt.is_float32(t) or pt.is_float64(t), _float),
    (pt.is_date, _day),
    (pt.is_timestamp, _instant),
)
