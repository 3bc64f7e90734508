"""Casts of the IR as Polars casts, where both give the same values or both raise."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.types as pt

from operators.errors import UnsupportedPlan
from operators.polars.text import Text
from operators.polars.types import polars_type
from operators.types import FLOAT64, canonical, is_hugeint

__all__ = ["HALF_AWAY", "cast"]

HALF_AWAY = 'mode="half_away_from_zero"'


def cast(text: Text, given: pa.DataType, wanted: pa.DataType, *, trying: bool = False) -> Text:
    """`text`, of IR type `given`, as IR type `wanted`.

    Raises
    ------
    UnsupportedPlan
        If DuckDB's cast may give something else.
    """
    given, wanted = canonical(given), canonical(wanted)
    target = polars_type(wanted)
    if trying:
        if _whole(given) and _whole(wanted):
            return text.then(f"cast({target}, strict=False)")
        raise UnsupportedPlan(f"TRY_CAST of {given} to {wanted}")
    places = _places_kept(given, wanted)
    if places is not None:
        if pt.is_decimal(given) and given.scale > places:
            text = text.then(f"round({places}, {HALF_AWAY})")
        return text.then(f"cast({target})")
    if pt.is_float64(given) and pt.is_integer(wanted):
        return text.then("round(0)").then(f"cast({target})")  # half to even, in both
    simple = (
        (pt.is_boolean(given) and pt.is_integer(wanted))
        or (wanted == FLOAT64 and (pt.is_integer(given) or pt.is_decimal(given)))
        or (wanted == FLOAT64 and pt.is_float32(given))
        or (wanted == pa.float32() and pt.is_integer(given))
        or (pt.is_date(given) and pt.is_timestamp(wanted))
        or (pt.is_timestamp(given) and pt.is_date(wanted))
        or (pt.is_string(wanted) and _prints_alike(given))
    )
    if simple:
        return text.then(f"cast({target})")
    raise UnsupportedPlan(f"a cast of {given} to {wanted}")


def _whole(type: pa.DataType) -> bool:
    return bool(pt.is_integer(type)) or is_hugeint(type)


def _places_kept(given: pa.DataType, wanted: pa.DataType) -> int | None:
    """Places to round an integer or decimal to before it becomes an integer or decimal; None if it
    is about other types.
    """
    exact = [pt.is_integer(t) or pt.is_decimal(t) for t in (given, wanted)]
    if not all(exact):
        return None
    return wanted.scale if pt.is_decimal(wanted) else 0


def _prints_alike(type: pa.DataType) -> bool:
    """Whether both print values of `type` in the same way; DuckDB leaves out a zero that the
    precision of a decimal has no room for.
    """
    if pt.is_decimal(type):
        return bool(type.precision > type.scale)
    return bool(pt.is_integer(type) or pt.is_boolean(type))
