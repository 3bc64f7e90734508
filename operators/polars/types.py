"""Polars' names for the IR's types, and its literals.

HUGEINT, which is ``decimal128(38, 0)`` in the IR, is ``pl.Decimal(38, 0)`` here: its sums and
products are checked for overflow where those of ``pl.Int128`` wrap around, and it enters and leaves
through Arrow as it is.
"""

from __future__ import annotations

import datetime
import decimal
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from operators.errors import UnsupportedPlan
from operators.expr import Lit
from operators.polars.text import Strength, Text, quoted
from operators.types import canonical

__all__ = ["NAMES", "VALUES", "literal", "polars_type", "value_text"]

NAMES: Mapping[str, str] = MappingProxyType(
    {
        "pl": "import polars as pl",
        "date": "from datetime import date",
        "datetime": "from datetime import datetime",
        "Decimal": "from decimal import Decimal",
    }
)
"""The names that texts use, each with the statement that imports it."""

VALUES = "values"
"""The name that a term gives to a part of itself."""

_TYPES = {
    pa.int8(): "pl.Int8",
    pa.int16(): "pl.Int16",
    pa.int32(): "pl.Int32",
    pa.int64(): "pl.Int64",
    pa.uint8(): "pl.UInt8",
    pa.uint16(): "pl.UInt16",
    pa.uint32(): "pl.UInt32",
    pa.uint64(): "pl.UInt64",
    pa.float32(): "pl.Float32",
    pa.float64(): "pl.Float64",
    pa.bool_(): "pl.Boolean",
    pa.string(): "pl.String",
    pa.binary(): "pl.Binary",
    pa.date32(): "pl.Date",
    pa.timestamp("us"): 'pl.Datetime("us")',
    pa.null(): "pl.Null",
}


def polars_type(type: pa.DataType) -> str:
    """Source of the Polars type that holds what the IR's `type` holds.

    Raises
    ------
    UnsupportedPlan
        If there is none: intervals and times of day.
    """
    type = canonical(type)
    if pt.is_decimal(type):
        return f"pl.Decimal({type.precision}, {type.scale})"
    if type not in _TYPES:
        raise UnsupportedPlan(f"a value of type {type}")
    return _TYPES[type]


def value_text(lit: Lit) -> Text:
    """A constant as a plain Python value, for beside an expression; a NULL is an expression."""
    type = canonical(lit.type)
    if lit.value is None:
        return Text(f"pl.lit(None, dtype={polars_type(type)})")
    if pt.is_boolean(type):
        return Text(str(bool(lit.value)), bare=True)
    if pt.is_string(type):
        return Text(quoted(str(lit.value)), bare=True)
    if pt.is_integer(type) or (pt.is_decimal(type) and not type.scale):
        return _number(str(int(lit.value)))
    if pt.is_decimal(type):
        with decimal.localcontext(prec=60):
            digits = decimal.Decimal(lit.value).quantize(decimal.Decimal(1).scaleb(-type.scale))
        return Text(f'Decimal("{digits:f}")', bare=True)
    if pt.is_floating(type):
        number = float(pa.scalar(lit.value, type).as_py())
        if math.isfinite(number):
            return _number(repr(number))
        return Text(f'float("{number}")', bare=True)
    value = _moment(lit.value, type) if pt.is_temporal(type) else None
    if isinstance(value, datetime.datetime):
        parts = [value.year, value.month, value.day, value.hour, value.minute, value.second]
        parts += [value.microsecond]
        while len(parts) > 3 and not parts[-1]:
            parts.pop()
        return Text(f"datetime({', '.join(map(str, parts))})", bare=True)
    if isinstance(value, datetime.date):
        return Text(f"date({value.year}, {value.month}, {value.day})", bare=True)
    raise UnsupportedPlan(f"a constant of type {type}")


def _moment(value: Any, type: pa.DataType) -> Any:
    try:
        return pa.scalar(value, type).as_py()
    except OverflowError:
        raise UnsupportedPlan(f"a constant of type {type} beyond Python's years") from None


def literal(lit: Lit) -> Text:
    """A constant as an expression of exactly its type."""
    type = canonical(lit.type)
    text = value_text(lit)
    if not text.bare:
        return text
    natural = (
        pt.is_boolean(type)
        or pt.is_string(type)
        or pt.is_temporal(type)
        or type == pa.float64()
        or (type == pa.int32() and int(lit.value) > -(2**31))
    )
    if natural:
        return Text(f"pl.lit({text.code})")
    if pt.is_decimal(type):
        if not type.scale:
            text = Text(f'Decimal("{text.code}")')
        return Text(f"pl.lit({text.code}, dtype={polars_type(type)})")
    return Text(f"pl.lit({text.code}, dtype={polars_type(type)})")


def _number(code: str) -> Text:
    return Text(code, Strength.UNARY if code.startswith("-") else Strength.TIGHT, bare=True)
