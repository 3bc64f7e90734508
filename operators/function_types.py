"""The types of what functions give: DuckDB's rules, each from the argument expressions to a type.

A rule raises `PlanError` where it has none; `operators.functions` says which function has which.

What surprises people:

- ``divide`` is DuckDB's ``/``: double for integers and decimals alike; ``integer_divide`` is
  ``//``.
- ``add``, ``subtract`` and ``multiply`` keep decimals exact. Two operands of at most 18 digits
  give at most 18 (DuckDB then computes in 64 bits and raises on overflow); a decimal and a float
  give a float.
- ``sum`` of integers is HUGEINT (see `operators.types`), of decimals ``decimal(38, s)``, of floats
  double; ``avg`` and the deviations are double; ``count`` is int64.
- ``date + interval`` is a timestamp, ``date + integer`` a date, ``date - date`` an int64 count of
  days.
- ``concat`` skips NULLs; ``concat_operator`` (``||``) does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import pyarrow as pa
import pyarrow.types as pt

from operators.errors import PlanError
from operators.expr import Call, Cast, Expr, Lit
from operators.types import (
    BOOL,
    DATE,
    FLOAT64,
    HUGEINT,
    INT32,
    INT64,
    INTERVAL,
    STRING,
    TIMESTAMP,
    as_decimal,
    canonical,
    common_type,
    decimal,
    is_hugeint,
    is_integer,
    is_numeric,
    is_temporal,
)

__all__ = [
    "Rule",
    "always",
    "argument",
    "bits",
    "bitwise",
    "boolean",
    "clock_part",
    "common",
    "comparable",
    "date_diff",
    "date_trunc",
    "divide",
    "each",
    "integer_divide",
    "lag",
    "like",
    "literal_integer",
    "median",
    "modulo",
    "multiply",
    "nullif",
    "numeric_to",
    "padded",
    "plus_minus",
    "quantile",
    "regexp_extract",
    "rounded",
    "same_number",
    "strftime",
    "string",
    "strings",
    "temporal_part",
    "time_bucket",
    "total",
    "truncate",
    "whole",
]

Rule = Callable[[Sequence[Expr]], pa.DataType]


def literal_integer(expr: Expr) -> int | None:
    """The value of an integer literal, looking through casts and negation, else None."""
    match expr:
        case Lit(value=int() as value) if not isinstance(value, bool):
            return value
        case Cast(arg=arg) if is_integer(expr.type):
            return literal_integer(arg)
        case Call(function="negate", args=(arg,)):
            inner = literal_integer(arg)
            return None if inner is None else -inner
    return None


def always(type: pa.DataType) -> Rule:
    return lambda args: type


def _number(type: pa.DataType) -> pa.DataType:
    """The numeric type as which a value takes part in arithmetic (NULL counts as an int32)."""
    if pt.is_null(type):
        return INT32
    if not is_numeric(type):
        raise PlanError(f"{type} is not a number")
    return canonical(type)


def numeric_to(type: pa.DataType) -> Rule:
    def rule(args: Sequence[Expr]) -> pa.DataType:
        for arg in args:
            _number(arg.type)
        return type

    return rule


def each(check: Callable[[pa.DataType], bool], what: str, type: pa.DataType) -> Rule:
    def rule(args: Sequence[Expr]) -> pa.DataType:
        for arg in args:
            if not check(arg.type) and not pt.is_null(arg.type):
                raise PlanError(f"{arg.type} is not {what}")
        return type

    return rule


def _is_string(type: pa.DataType) -> bool:
    return bool(pt.is_string(type) or pt.is_large_string(type) or pt.is_string_view(type))


def strings(type: pa.DataType, *others: Callable[[pa.DataType], bool]) -> Rule:
    """String arguments, the last ones being of other kinds if `others` says so."""

    def rule(args: Sequence[Expr]) -> pa.DataType:
        checks = [_is_string] * (len(args) - len(others[: max(len(args) - 1, 0)])) + list(others)
        for arg, check in zip(args, checks, strict=False):
            if not check(arg.type) and not pt.is_null(arg.type):
                raise PlanError(f"{arg.type} does not fit")
        return type

    return rule


def plus_minus(sign: Literal["+", "-"]) -> Rule:
    def rule(args: Sequence[Expr]) -> pa.DataType:
        left, right = (canonical(a.type) for a in args)
        if is_temporal(left) or is_temporal(right) or INTERVAL in (left, right):
            return _temporal_arithmetic(sign, left, right)
        return _arithmetic(_number(left), _number(right), _sum_type)

    return rule


def _temporal_arithmetic(sign: str, left: pa.DataType, right: pa.DataType) -> pa.DataType:
    if right == INTERVAL and (is_temporal(left) or left == INTERVAL):
        return INTERVAL if left == INTERVAL else TIMESTAMP
    if sign == "+":
        if left == INTERVAL and is_temporal(right):
            return TIMESTAMP
        for one, other in ((left, right), (right, left)):
            if one == DATE and pt.is_integer(other):
                return DATE
    elif is_temporal(left) and is_temporal(right):
        return INT64 if left == right == DATE else INTERVAL
    elif left == DATE and pt.is_integer(right):
        return DATE
    raise PlanError("no such date arithmetic")


def _arithmetic(
    left: pa.DataType, right: pa.DataType, exact: Callable[[pa.DataType, pa.DataType], pa.DataType]
) -> pa.DataType:
    """The rule that +, -, * share: floats and integers by their common type, decimals by
    `exact`.
    """
    if pt.is_floating(left) or pt.is_floating(right) or (is_integer(left) and is_integer(right)):
        return common_type(left, right)
    return exact(left, right)


def _capped(precision: int, scale: int, widest: int) -> pa.DataType:
    """A result of `precision` digits from operands of at most `widest`: 64-bit arithmetic stays
    64-bit.
    """
    if precision > 18 >= widest and scale < 18:
        precision = 18
    return decimal(min(precision, 38), scale)


def _sum_type(left: pa.DataType, right: pa.DataType) -> pa.DataType:
    (p1, s1), (p2, s2) = as_decimal(left), as_decimal(right)
    scale = max(s1, s2)
    return _capped(max(p1 - s1, p2 - s2) + scale + 1, scale, max(p1, p2))


def _product_type(left: pa.DataType, right: pa.DataType) -> pa.DataType:
    (p1, s1), (p2, s2) = as_decimal(left), as_decimal(right)
    if s1 + s2 > 38:
        raise PlanError(f"the product would need {s1 + s2} decimal places; 38 is the most")
    return _capped(p1 + p2, s1 + s2, max(p1, p2))


def multiply(args: Sequence[Expr]) -> pa.DataType:
    left, right = (_number(a.type) for a in args)
    return _arithmetic(left, right, _product_type)


def divide(args: Sequence[Expr]) -> pa.DataType:
    types = [_number(a.type) for a in args]
    return pa.float32() if pa.float32() in types and FLOAT64 not in types else FLOAT64


def integer_divide(args: Sequence[Expr]) -> pa.DataType:
    left, right = (_number(a.type) for a in args)
    if is_integer(left) and is_integer(right):
        return common_type(left, right)
    return divide(args)


def modulo(args: Sequence[Expr]) -> pa.DataType:
    left, right = (_number(a.type) for a in args)
    both_integer = is_integer(left) and is_integer(right)
    if both_integer or pt.is_floating(left) or pt.is_floating(right):
        return common_type(left, right)
    (p1, s1), (p2, s2) = as_decimal(left), as_decimal(right)
    whole, scale = max(p1 - s1, p2 - s2), max(s1, s2)
    return FLOAT64 if whole + scale > 38 else decimal(whole + scale, scale)


def same_number(args: Sequence[Expr]) -> pa.DataType:
    return _number(args[0].type)


def rounded(args: Sequence[Expr]) -> pa.DataType:
    type = _number(args[0].type)
    if not pt.is_decimal(type):
        return type
    places = 0
    if len(args) == 2:
        given = literal_integer(args[1])
        if given is None:
            raise PlanError("the places to round a decimal to must be a literal")
        places = given
    return decimal(type.precision, min(type.scale, max(places, 0)))


def whole(args: Sequence[Expr]) -> pa.DataType:
    """CEIL and FLOOR: decimals lose their places, integers (surprisingly) become doubles."""
    type = _number(args[0].type)
    if is_hugeint(type) or pt.is_integer(type):
        return FLOAT64
    return decimal(type.precision, 0) if pt.is_decimal(type) else type


def truncate(args: Sequence[Expr]) -> pa.DataType:
    type = _number(args[0].type)
    return decimal(type.precision, 0) if pt.is_decimal(type) else type


def comparable(args: Sequence[Expr]) -> pa.DataType:
    common_type(args[0].type, args[1].type)
    return BOOL


def common(args: Sequence[Expr]) -> pa.DataType:
    type = args[0].type
    for arg in args[1:]:
        type = common_type(type, arg.type)
    return canonical(type)


def nullif(args: Sequence[Expr]) -> pa.DataType:
    common_type(args[0].type, args[1].type)
    return canonical(args[0].type)


def bitwise(args: Sequence[Expr]) -> pa.DataType:
    for arg in args:
        if not is_integer(arg.type):
            raise PlanError(f"{arg.type} is not an integer")
    return common_type(args[0].type, args[1].type)


def date_trunc(args: Sequence[Expr]) -> pa.DataType:
    if not _is_string(args[0].type) or not is_temporal(args[1].type):
        raise PlanError("wants a part's name and a date or timestamp")
    return TIMESTAMP


def time_bucket(args: Sequence[Expr]) -> pa.DataType:
    if args[0].type != INTERVAL or any(not pt.is_timestamp(a.type) for a in args[1:]):
        raise PlanError("wants an interval and timestamps")
    return TIMESTAMP


def strftime(args: Sequence[Expr]) -> pa.DataType:
    if not is_temporal(args[0].type) or not _is_string(args[1].type):
        raise PlanError("wants a date or timestamp and a format")
    return STRING


def regexp_extract(args: Sequence[Expr]) -> pa.DataType:
    for arg in args[:2]:
        if not _is_string(arg.type) and not pt.is_null(arg.type):
            raise PlanError(f"{arg.type} is not a string")
    if len(args) == 3 and literal_integer(args[2]) is None:
        raise PlanError("the group must be an integer literal")
    return STRING


def padded(args: Sequence[Expr]) -> pa.DataType:
    text, length, fill = (a.type for a in args)
    if not is_integer(length):
        raise PlanError("the length must be an integer")
    for type in (text, fill):
        if not _is_string(type) and not pt.is_null(type):
            raise PlanError(f"{type} is not a string")
    return STRING


def date_diff(args: Sequence[Expr]) -> pa.DataType:
    if not _is_string(args[0].type) or not all(is_temporal(a.type) for a in args[1:]):
        raise PlanError("wants a part's name and two dates or timestamps")
    common_type(args[1].type, args[2].type)
    return INT64


def total(args: Sequence[Expr]) -> pa.DataType:
    type = args[0].type
    if pt.is_boolean(type):
        return HUGEINT
    type = _number(type)
    if pt.is_floating(type):
        return FLOAT64
    return HUGEINT if is_integer(type) else decimal(38, type.scale)


def argument(args: Sequence[Expr]) -> pa.DataType:
    return canonical(args[0].type)


def median(args: Sequence[Expr]) -> pa.DataType:
    type = _number(args[0].type)
    return FLOAT64 if is_integer(type) else type


def bits(args: Sequence[Expr]) -> pa.DataType:
    if not pt.is_integer(args[0].type) and not is_hugeint(args[0].type):
        raise PlanError("not an integer")
    return canonical(args[0].type)


def quantile(args: Sequence[Expr]) -> pa.DataType:
    share = args[1].value if isinstance(args[1], Lit) else None
    if not isinstance(share, float | int) or not 0 <= share <= 1:
        raise PlanError("the quantile must be a literal between 0 and 1")
    return median(args[:1])


def lag(args: Sequence[Expr]) -> pa.DataType:
    if len(args) > 1 and not pt.is_integer(args[1].type):
        raise PlanError("the distance must be an integer")
    if len(args) > 2 and common_type(args[0].type, args[2].type) != canonical(args[0].type):
        raise PlanError("the default must have the argument's type")
    return canonical(args[0].type)


boolean = each(lambda t: bool(pt.is_boolean(t)), "a boolean", BOOL)
temporal_part = each(is_temporal, "a date or timestamp", INT64)
clock_part = each(lambda t: bool(pt.is_timestamp(t)), "a timestamp", INT64)
string = strings(STRING)
like = strings(BOOL)
