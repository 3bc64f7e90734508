"""The IR's types: which Arrow types there are, their canonical form, and what two of them have in
common.

A column has one *canonical* Arrow type, which is also what the DuckDB kernel exports: decimals are
as narrow as their precision allows (``decimal32`` up to 9 digits, ``decimal64`` up to 18, else
``decimal128``), strings are ``utf8``, bytes are ``binary``, timestamps count microseconds,
dictionaries are decoded. Other layouts of the same values (``large_utf8``, ``decimal128(7, 2)``,
…) are accepted wherever data enters and never appear in a plan made by `operators.build`.

``decimal128(38, 0)`` stands for DuckDB's HUGEINT, the type of a sum of integers: Arrow has no
128-bit integer, and this is how DuckDB itself exports it. It follows the rules of an integer
(``//`` and ``%`` stay integral, a common type with ``decimal(7, 2)`` keeps the two places), so it
cannot be told from a true DECIMAL(38, 0), which follows them too.
"""

from __future__ import annotations

from functools import lru_cache

import pyarrow as pa
import pyarrow.types as pt

from operators.errors import PlanError, UnsupportedTypeError
from operators.schema import Field, Schema

__all__ = [
    "BOOL",
    "DATE",
    "FLOAT64",
    "HUGEINT",
    "INT32",
    "INT64",
    "INTERVAL",
    "STRING",
    "TIMESTAMP",
    "as_decimal",
    "canonical",
    "canonical_schema",
    "carried",
    "common_type",
    "decimal",
    "is_hugeint",
    "is_integer",
    "is_numeric",
    "is_temporal",
    "same_type",
]

BOOL = pa.bool_()
INT32 = pa.int32()
INT64 = pa.int64()
FLOAT64 = pa.float64()
STRING = pa.string()
DATE = pa.date32()
TIMESTAMP = pa.timestamp("us")
INTERVAL = pa.month_day_nano_interval()
HUGEINT = pa.decimal128(38, 0)

_SIGNED = (pa.int8(), pa.int16(), pa.int32(), pa.int64())
_INTEGER_DIGITS = {8: 3, 16: 5, 32: 10, 64: 19}


# Kinds of types of which every one is canonical: most of those that are asked for.
_CANONICAL = frozenset(
    t.id
    for t in (
        *(pa.bool_(), pa.null(), pa.float32(), pa.float64(), STRING, pa.binary(), DATE, INTERVAL),
        *(pa.int8(), pa.int16(), pa.int32(), pa.int64()),
        *(pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
    )
)


@lru_cache(maxsize=1024)
def decimal(precision: int, scale: int) -> pa.DataType:
    """The canonical decimal type of `precision` digits, `scale` of them behind the point."""
    if not (1 <= precision <= 38 and 0 <= scale <= precision):
        raise PlanError(f"there is no decimal({precision}, {scale})")
    if precision <= 9:
        return pa.decimal32(precision, scale)
    if precision <= 18:
        return pa.decimal64(precision, scale)
    return pa.decimal128(precision, scale)


def canonical(type: pa.DataType) -> pa.DataType:
    """The canonical form of an Arrow type.

    Raises
    ------
    UnsupportedTypeError
        For types that the IR does not have (nested ones, decimal256, time zones, …).
    """
    if type.id in _CANONICAL:
        return type
    if pt.is_dictionary(type):
        return canonical(type.value_type)
    if pt.is_decimal(type):
        if type.precision > 38 or type.scale < 0 or type.scale > type.precision:
            raise UnsupportedTypeError(f"type {type} is outside DECIMAL(38, s)")
        return decimal(type.precision, type.scale)
    if pt.is_string(type) or pt.is_large_string(type) or pt.is_string_view(type):
        return STRING
    if pt.is_binary(type) or pt.is_large_binary(type) or pt.is_binary_view(type):
        return pa.binary()
    if pt.is_date(type):
        return DATE
    if pt.is_timestamp(type) and type.tz is None:
        return TIMESTAMP
    if (
        pt.is_integer(type)
        or pt.is_boolean(type)
        or pt.is_float32(type)
        or pt.is_float64(type)
        or pt.is_null(type)
        or type == INTERVAL
        or type == pa.time64("us")
    ):
        return type
    raise UnsupportedTypeError(f"type {type} is not supported")


def canonical_schema(schema: pa.Schema | Schema) -> Schema:
    """The plan schema of Arrow data: the same names, every type in its canonical form."""
    fields = []
    for f in schema:
        try:
            fields.append(Field(f.name, canonical(f.type), f.nullable))
        except UnsupportedTypeError as error:
            raise UnsupportedTypeError(f"column {f.name!r}: {error}") from None
    return Schema(tuple(fields))


def carried(schema: pa.Schema) -> tuple[list[int], dict[str, str]]:
    """Which columns of Arrow data plans can name, and which they cannot.

    Returns
    -------
    positions : list of int
        Of the columns whose types have a canonical form.
    hidden : dict
        Why each of the others is left out, by its name.
    """
    positions, hidden = [], {}
    for i, field in enumerate(schema):
        try:
            canonical(field.type)
        except UnsupportedTypeError as error:
            hidden[field.name] = str(error)
        else:
            positions.append(i)
    return positions, hidden


def same_type(left: pa.DataType, right: pa.DataType) -> bool:
    """Whether two types hold the same values, however they are laid out."""
    return bool(left == right or canonical(left) == canonical(right))


def is_hugeint(type: pa.DataType) -> bool:
    """Whether `type` is the IR's 128-bit integer."""
    return bool(pt.is_decimal(type) and type.precision == 38 and type.scale == 0)


def is_integer(type: pa.DataType) -> bool:
    """Whether `type` is an integer, the 128-bit one included."""
    return bool(pt.is_integer(type)) or is_hugeint(type)


def is_numeric(type: pa.DataType) -> bool:
    """Whether `type` is an integer, a decimal or a floating-point number."""
    return bool(pt.is_integer(type) or pt.is_decimal(type) or pt.is_floating(type))


def is_temporal(type: pa.DataType) -> bool:
    """Whether `type` is a date or a timestamp."""
    return bool(pt.is_date(type) or pt.is_timestamp(type))


def as_decimal(type: pa.DataType) -> tuple[int, int]:
    """Precision and scale with which an integer or decimal takes part in decimal arithmetic."""
    if pt.is_decimal(type):
        return type.precision, type.scale
    if pt.is_unsigned_integer(type) and type.bit_width == 64:
        return 20, 0
    return _INTEGER_DIGITS[type.bit_width], 0


def common_type(left: pa.DataType, right: pa.DataType) -> pa.DataType:
    """The type in which DuckDB compares, unites and chooses between two types (CASE, COALESCE,
    UNION, `=`).

    Raises
    ------
    PlanError
        If there is none without an explicit cast.
    """
    left, right = canonical(left), canonical(right)
    if left == right or pt.is_null(right):
        return left
    if pt.is_null(left):
        return right
    if is_numeric(left) and is_numeric(right):
        return _common_number(left, right)
    for one, other in ((left, right), (right, left)):
        if pt.is_date(one) and pt.is_timestamp(other):
            return other
        if pt.is_boolean(one) and is_integer(other):
            return other
    raise PlanError(f"{left} and {right} have no common type: cast one of them")


def _common_number(left: pa.DataType, right: pa.DataType) -> pa.DataType:
    if pt.is_floating(left) or pt.is_floating(right):
        return FLOAT64 if FLOAT64 in (left, right) else pa.float32()
    if is_integer(left) and is_integer(right):
        return _common_integer(left, right)
    if is_hugeint(left) or is_hugeint(right):
        return decimal(
            38,
            max(
                left.scale if pt.is_decimal(left) else 0, right.scale if pt.is_decimal(right) else 0
            ),
        )
    (p1, s1), (p2, s2) = as_decimal(left), as_decimal(right)
    whole, scale = max(p1 - s1, p2 - s2), max(s1, s2)
    if whole + scale > 38:
        return decimal(38, 38 - whole)
    return decimal(whole + scale, scale)


def _common_integer(left: pa.DataType, right: pa.DataType) -> pa.DataType:
    if HUGEINT in (left, right):
        return HUGEINT
    if pt.is_signed_integer(left) == pt.is_signed_integer(right):
        return left if left.bit_width >= right.bit_width else right
    signed, unsigned = (left, right) if pt.is_signed_integer(left) else (right, left)
    bits = max(signed.bit_width, unsigned.bit_width * 2)
    return HUGEINT if bits > 64 else next(t for t in _SIGNED if t.bit_width == bits)
