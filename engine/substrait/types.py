"""Types and literals of Substrait as the IR's."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa

from engine.errors import PlanningError
from operators.expr import Lit
from operators.types import INTERVAL, TIMESTAMP, decimal

__all__ = ["literal", "type_of"]

_EPOCH = datetime.date(1970, 1, 1)
_SIMPLE: dict[str, tuple[pa.DataType, pa.DataType | None]] = {
    # The second is DataFusion's "type variation 1": the unsigned integer of that width.
    "bool": (pa.bool_(), None),
    "i8": (pa.int8(), pa.uint8()),
    "i16": (pa.int16(), pa.uint16()),
    "i32": (pa.int32(), pa.uint32()),
    "i64": (pa.int64(), pa.uint64()),
    "fp32": (pa.float32(), None),
    "fp64": (pa.float64(), None),
    "string": (pa.string(), None),
    "varchar": (pa.string(), None),
    "fixed_char": (pa.string(), None),
    "binary": (pa.binary(), None),
    "date": (pa.date32(), None),
    "precision_timestamp": (TIMESTAMP, None),
    "timestamp": (TIMESTAMP, None),
    "time": (pa.time64("us"), None),
    "precision_time": (pa.time64("us"), None),
    "interval_compound": (INTERVAL, None),
    "interval_year": (INTERVAL, None),
    "interval_day": (INTERVAL, None),
}
_NUMBERS = {"boolean": "bool", "i8": "i8", "i16": "i16", "i32": "i32", "i64": "i64"}


def type_of(message: Any) -> pa.DataType:
    """The IR's type of a Substrait type.

    Raises
    ------
    PlanningError
        If the IR has no such type.
    """
    kind = message.WhichOneof("kind")
    if kind == "decimal":
        return decimal(message.decimal.precision, message.decimal.scale)
    if kind not in _SIMPLE:
        raise PlanningError(f"the Substrait type {kind} is not understood")
    signed, unsigned = _SIMPLE[kind]
    variation = getattr(getattr(message, kind), "type_variation_reference", 0)
    return unsigned if unsigned is not None and variation == 1 else signed


def literal(message: Any) -> Lit:
    """A Substrait literal.

    Raises
    ------
    PlanningError
        If it is of a kind that the IR does not have.
    """
    kind = message.WhichOneof("literal_type")
    value = getattr(message, kind)
    match kind:
        case "null":
            return Lit(type_of(value), None)
        case "boolean" | "i8" | "i16" | "i32" | "i64":
            signed, unsigned = _SIMPLE[_NUMBERS[kind]]
            if message.type_variation_reference == 1 and unsigned is not None:
                return Lit(unsigned, value % (1 << unsigned.bit_width))
            return Lit(signed, value)
        case "fp64":
            return Lit(pa.float64(), value)
        case "fp32":
            return Lit(pa.float32(), value)
        case "string" | "fixed_char":
            return Lit(pa.string(), value)
        case "var_char":
            return Lit(pa.string(), value.value)
        case "binary":
            return Lit(pa.binary(), bytes(value))
        case "date":
            return Lit(pa.date32(), _date(value))
        case "precision_timestamp":
            return Lit(TIMESTAMP, _timestamp(value.value * 10 ** (6 - value.precision)))
        case "precision_time":
            since = datetime.timedelta(microseconds=value.value * 10 ** (6 - value.precision))
            return Lit(pa.time64("us"), (_MIDNIGHT + since).time())
        case "decimal":
            number = int.from_bytes(value.value, "little", signed=True)
            return Lit(decimal(value.precision, value.scale), _scaled(number, value.scale))
        case "interval_compound":
            months, days = value.interval_year_to_month, value.interval_day_to_second
            nanos = days.subseconds * 10 ** (9 - days.precision)
            total = months.years * 12 + months.months
            return Lit(INTERVAL, (total, days.days, days.seconds * 10**9 + nanos))
    raise PlanningError(f"Substrait literals of type {kind} are not understood")


_MIDNIGHT = datetime.datetime(1970, 1, 1)


def _scaled(number: int, scale: int) -> Decimal:
    # Built from its digits: Decimal arithmetic would round to the context's 28.
    digits = tuple(int(d) for d in str(abs(number)))
    return Decimal((int(number < 0), digits, -scale))


def _date(days: int) -> datetime.date | int:
    try:
        return _EPOCH + datetime.timedelta(days=days)
    except OverflowError:
        return days


def _timestamp(micros: int) -> datetime.datetime | int:
    try:
        return datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=micros)
    except OverflowError:
        return micros
