"""The IR's vocabulary: scalar, aggregate and window functions with the types of their results.

Names are the IR's own. Meaning and result types are DuckDB's; `tests/operators/test_functions.py`
checks every rule against DuckDB itself. A rule takes the argument *expressions* (ROUND's type
depends on a literal) and gives the type of the result, or raises `PlanError`.

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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
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
    "AGGREGATES",
    "COMPARISONS",
    "FUNCTIONS",
    "SCALARS",
    "WINDOWS",
    "Function",
    "aggregate_type",
    "literal_integer",
    "scalar_type",
    "window_type",
]

Rule = Callable[[Sequence[Expr]], pa.DataType]


@dataclass(frozen=True, slots=True)
class Function:
    """One word of the vocabulary.

    Attributes
    ----------
    name
        As it stands in `Call`, `Aggregate` or `Window`.
    kind
        Where it may stand. Every aggregate may also stand in a `Window`.
    least, most
        How many arguments it takes; `most` is None where there is no limit.
    rule
        From argument expressions to the result type.
    deterministic
        Always true today; the optimizer asks before it moves or shares a call.
    """

    name: str
    kind: Literal["scalar", "aggregate", "window"]
    least: int
    most: int | None
    rule: Rule
    deterministic: bool = True

    def result(self, args: Sequence[Expr]) -> pa.DataType:
        """The type of the function's value over `args`.

        Raises
        ------
        PlanError
            On a wrong number of arguments or types that do not fit; the message names the function.
        """
        if len(args) < self.least or (self.most is not None and len(args) > self.most):
            wanted = (
                str(self.least)
                if self.most == self.least
                else f"{self.least} to {self.most or 'any'}"
            )
            raise PlanError(f"{self.name} takes {wanted} arguments, not {len(args)}")
        try:
            return self.rule(args)
        except PlanError as error:
            given = ", ".join(str(a.type) for a in args)
            raise PlanError(f"{self.name}({given}): {error}") from None


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


# Rules. Each is a function of the argument expressions.


def _always(type: pa.DataType) -> Rule:
    return lambda args: type


def _number(type: pa.DataType) -> pa.DataType:
    """The numeric type as which a value takes part in arithmetic (NULL counts as an int32)."""
    if pt.is_null(type):
        return INT32
    if not is_numeric(type):
        raise PlanError(f"{type} is not a number")
    return canonical(type)


def _numeric_to(type: pa.DataType) -> Rule:
    def rule(args: Sequence[Expr]) -> pa.DataType:
        for arg in args:
            _number(arg.type)
        return type

    return rule


def _all(check: Callable[[pa.DataType], bool], what: str, type: pa.DataType) -> Rule:
    def rule(args: Sequence[Expr]) -> pa.DataType:
        for arg in args:
            if not check(arg.type) and not pt.is_null(arg.type):
                raise PlanError(f"{arg.type} is not {what}")
        return type

    return rule


def _is_string(type: pa.DataType) -> bool:
    return bool(pt.is_string(type) or pt.is_large_string(type) or pt.is_string_view(type))


def _strings(type: pa.DataType, *others: Callable[[pa.DataType], bool]) -> Rule:
    """String arguments, the last ones being of other kinds if `others` says so."""

    def rule(args: Sequence[Expr]) -> pa.DataType:
        checks = [_is_string] * (len(args) - len(others[: max(len(args) - 1, 0)])) + list(others)
        for arg, check in zip(args, checks, strict=False):
            if not check(arg.type) and not pt.is_null(arg.type):
                raise PlanError(f"{arg.type} does not fit")
        return type

    return rule


def _plus_minus(sign: Literal["+", "-"]) -> Rule:
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


def _multiply(args: Sequence[Expr]) -> pa.DataType:
    left, right = (_number(a.type) for a in args)
    return _arithmetic(left, right, _product_type)


def _divide(args: Sequence[Expr]) -> pa.DataType:
    types = [_number(a.type) for a in args]
    return pa.float32() if pa.float32() in types and FLOAT64 not in types else FLOAT64


def _integer_divide(args: Sequence[Expr]) -> pa.DataType:
    left, right = (_number(a.type) for a in args)
    if is_integer(left) and is_integer(right):
        return common_type(left, right)
    return _divide(args)


def _modulo(args: Sequence[Expr]) -> pa.DataType:
    left, right = (_number(a.type) for a in args)
    both_integer = is_integer(left) and is_integer(right)
    if both_integer or pt.is_floating(left) or pt.is_floating(right):
        return common_type(left, right)
    (p1, s1), (p2, s2) = as_decimal(left), as_decimal(right)
    whole, scale = max(p1 - s1, p2 - s2), max(s1, s2)
    return FLOAT64 if whole + scale > 38 else decimal(whole + scale, scale)


def _same_number(args: Sequence[Expr]) -> pa.DataType:
    return _number(args[0].type)


def _round(args: Sequence[Expr]) -> pa.DataType:
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


def _whole(args: Sequence[Expr]) -> pa.DataType:
    """CEIL and FLOOR: decimals lose their places, integers (surprisingly) become doubles."""
    type = _number(args[0].type)
    if is_hugeint(type) or pt.is_integer(type):
        return FLOAT64
    return decimal(type.precision, 0) if pt.is_decimal(type) else type


def _truncate(args: Sequence[Expr]) -> pa.DataType:
    type = _number(args[0].type)
    return decimal(type.precision, 0) if pt.is_decimal(type) else type


def _comparable(args: Sequence[Expr]) -> pa.DataType:
    common_type(args[0].type, args[1].type)
    return BOOL


def _common(args: Sequence[Expr]) -> pa.DataType:
    type = args[0].type
    for arg in args[1:]:
        type = common_type(type, arg.type)
    return canonical(type)


def _nullif(args: Sequence[Expr]) -> pa.DataType:
    common_type(args[0].type, args[1].type)
    return canonical(args[0].type)


def _bitwise(args: Sequence[Expr]) -> pa.DataType:
    for arg in args:
        if not is_integer(arg.type):
            raise PlanError(f"{arg.type} is not an integer")
    return common_type(args[0].type, args[1].type)


def _date_trunc(args: Sequence[Expr]) -> pa.DataType:
    if not _is_string(args[0].type) or not is_temporal(args[1].type):
        raise PlanError("wants a part's name and a date or timestamp")
    return TIMESTAMP


def _time_bucket(args: Sequence[Expr]) -> pa.DataType:
    if args[0].type != INTERVAL or any(not pt.is_timestamp(a.type) for a in args[1:]):
        raise PlanError("wants an interval and timestamps")
    return TIMESTAMP


def _strftime(args: Sequence[Expr]) -> pa.DataType:
    if not is_temporal(args[0].type) or not _is_string(args[1].type):
        raise PlanError("wants a date or timestamp and a format")
    return STRING


def _regexp_extract(args: Sequence[Expr]) -> pa.DataType:
    for arg in args[:2]:
        if not _is_string(arg.type) and not pt.is_null(arg.type):
            raise PlanError(f"{arg.type} is not a string")
    if len(args) == 3 and literal_integer(args[2]) is None:
        raise PlanError("the group must be an integer literal")
    return STRING


def _padded(args: Sequence[Expr]) -> pa.DataType:
    text, length, fill = (a.type for a in args)
    if not is_integer(length):
        raise PlanError("the length must be an integer")
    for type in (text, fill):
        if not _is_string(type) and not pt.is_null(type):
            raise PlanError(f"{type} is not a string")
    return STRING


def _date_diff(args: Sequence[Expr]) -> pa.DataType:
    if not _is_string(args[0].type) or not all(is_temporal(a.type) for a in args[1:]):
        raise PlanError("wants a part's name and two dates or timestamps")
    common_type(args[1].type, args[2].type)
    return INT64


def _sum(args: Sequence[Expr]) -> pa.DataType:
    type = args[0].type
    if pt.is_boolean(type):
        return HUGEINT
    type = _number(type)
    if pt.is_floating(type):
        return FLOAT64
    return HUGEINT if is_integer(type) else decimal(38, type.scale)


def _argument(args: Sequence[Expr]) -> pa.DataType:
    return canonical(args[0].type)


def _median(args: Sequence[Expr]) -> pa.DataType:
    type = _number(args[0].type)
    return FLOAT64 if is_integer(type) else type


def _quantile(args: Sequence[Expr]) -> pa.DataType:
    share = args[1].value if isinstance(args[1], Lit) else None
    if not isinstance(share, float | int) or not 0 <= share <= 1:
        raise PlanError("the quantile must be a literal between 0 and 1")
    return _median(args[:1])


def _lag(args: Sequence[Expr]) -> pa.DataType:
    if len(args) > 1 and not pt.is_integer(args[1].type):
        raise PlanError("the distance must be an integer")
    if len(args) > 2 and common_type(args[0].type, args[2].type) != canonical(args[0].type):
        raise PlanError("the default must have the argument's type")
    return canonical(args[0].type)


_boolean = _all(lambda t: bool(pt.is_boolean(t)), "a boolean", BOOL)
_temporal_part = _all(is_temporal, "a date or timestamp", INT64)
_clock_part = _all(lambda t: bool(pt.is_timestamp(t)), "a timestamp", INT64)
_string = _strings(STRING)
_like = _strings(BOOL)

COMPARISONS: Mapping[str, str] = MappingProxyType(
    {
        "equal": "equal",
        "not_equal": "not_equal",
        "less": "greater",
        "less_equal": "greater_equal",
        "greater": "less",
        "greater_equal": "less_equal",
        "is_distinct_from": "is_distinct_from",
        "is_not_distinct_from": "is_not_distinct_from",
    }
)
"""Comparisons, each with the one that says the same when its arguments are swapped."""

_SCALAR_TABLE: tuple[tuple[str, int, int | None, Rule], ...] = (
    ("add", 2, 2, _plus_minus("+")),
    ("subtract", 2, 2, _plus_minus("-")),
    ("multiply", 2, 2, _multiply),
    ("divide", 2, 2, _divide),
    ("integer_divide", 2, 2, _integer_divide),
    ("modulo", 2, 2, _modulo),
    ("negate", 1, 1, _same_number),
    ("abs", 1, 1, _same_number),
    ("round", 1, 2, _round),
    ("ceil", 1, 1, _whole),
    ("floor", 1, 1, _whole),
    ("trunc", 1, 1, _truncate),
    ("sign", 1, 1, _numeric_to(pa.int8())),
    ("sqrt", 1, 1, _numeric_to(FLOAT64)),
    ("exp", 1, 1, _numeric_to(FLOAT64)),
    ("ln", 1, 1, _numeric_to(FLOAT64)),
    ("log10", 1, 1, _numeric_to(FLOAT64)),
    ("log2", 1, 1, _numeric_to(FLOAT64)),
    ("cbrt", 1, 1, _numeric_to(FLOAT64)),
    ("sin", 1, 1, _numeric_to(FLOAT64)),
    ("cos", 1, 1, _numeric_to(FLOAT64)),
    ("tan", 1, 1, _numeric_to(FLOAT64)),
    ("asin", 1, 1, _numeric_to(FLOAT64)),
    ("acos", 1, 1, _numeric_to(FLOAT64)),
    ("atan", 1, 1, _numeric_to(FLOAT64)),
    ("degrees", 1, 1, _numeric_to(FLOAT64)),
    ("radians", 1, 1, _numeric_to(FLOAT64)),
    ("power", 2, 2, _numeric_to(FLOAT64)),
    ("isnan", 1, 1, _numeric_to(BOOL)),
    ("isinf", 1, 1, _numeric_to(BOOL)),
    ("isfinite", 1, 1, _numeric_to(BOOL)),
    *((name, 2, 2, _comparable) for name in COMPARISONS),
    ("and", 1, None, _boolean),
    ("or", 1, None, _boolean),
    ("not", 1, 1, _boolean),
    ("is_null", 1, 1, _always(BOOL)),
    ("is_not_null", 1, 1, _always(BOOL)),
    ("coalesce", 1, None, _common),
    ("nullif", 2, 2, _nullif),
    ("greatest", 1, None, _common),
    ("least", 1, None, _common),
    ("like", 2, 3, _like),
    ("ilike", 2, 3, _like),
    ("starts_with", 2, 2, _like),
    ("ends_with", 2, 2, _like),
    ("contains", 2, 2, _like),
    ("regexp_matches", 2, 2, _like),
    ("upper", 1, 1, _string),
    ("lower", 1, 1, _string),
    ("trim", 1, 2, _string),
    ("ltrim", 1, 2, _string),
    ("rtrim", 1, 2, _string),
    ("replace", 3, 3, _string),
    ("regexp_replace", 3, 4, _string),
    ("regexp_extract", 2, 3, _regexp_extract),
    ("reverse", 1, 1, _string),
    ("repeat", 2, 2, _strings(STRING, is_integer)),
    ("lpad", 3, 3, _padded),
    ("rpad", 3, 3, _padded),
    ("byte_length", 1, 1, _strings(INT64)),
    ("length", 1, 1, _strings(INT64)),
    ("strpos", 2, 2, _strings(INT64)),
    ("substring", 2, 3, _strings(STRING, is_integer, is_integer)),
    ("left", 2, 2, _strings(STRING, is_integer)),
    ("right", 2, 2, _strings(STRING, is_integer)),
    ("concat", 1, None, _always(STRING)),
    ("concat_operator", 2, 2, _string),
    ("bitwise_and", 2, 2, _bitwise),
    ("bitwise_or", 2, 2, _bitwise),
    ("bitwise_xor", 2, 2, _bitwise),
    ("shift_left", 2, 2, _bitwise),
    ("shift_right", 2, 2, _bitwise),
    ("year", 1, 1, _temporal_part),
    ("quarter", 1, 1, _temporal_part),
    ("month", 1, 1, _temporal_part),
    ("week", 1, 1, _temporal_part),
    ("day", 1, 1, _temporal_part),
    ("day_of_week", 1, 1, _temporal_part),
    ("iso_day_of_week", 1, 1, _temporal_part),
    ("day_of_year", 1, 1, _temporal_part),
    ("hour", 1, 1, _clock_part),
    ("minute", 1, 1, _clock_part),
    ("second", 1, 1, _clock_part),
    ("microsecond", 1, 1, _clock_part),
    ("epoch_us", 1, 1, _temporal_part),
    ("last_day", 1, 1, _all(is_temporal, "a date or timestamp", DATE)),
    ("make_date", 3, 3, _all(is_integer, "an integer", DATE)),
    ("time_bucket", 2, 3, _time_bucket),
    ("strftime", 2, 2, _strftime),
    ("strptime", 2, 2, _strings(TIMESTAMP)),
    ("try_strptime", 2, 2, _strings(TIMESTAMP)),
    ("date_trunc", 2, 2, _date_trunc),
    ("date_diff", 3, 3, _date_diff),
)

_AGGREGATE_TABLE: tuple[tuple[str, int, int | None, Rule], ...] = (
    ("count", 0, 1, _always(INT64)),
    ("sum", 1, 1, _sum),
    ("avg", 1, 1, _numeric_to(FLOAT64)),
    ("min", 1, 1, _argument),
    ("max", 1, 1, _argument),
    ("first", 1, 1, _argument),
    ("last", 1, 1, _argument),
    ("any_value", 1, 1, _argument),
    ("stddev_samp", 1, 1, _numeric_to(FLOAT64)),
    ("stddev_pop", 1, 1, _numeric_to(FLOAT64)),
    ("var_samp", 1, 1, _numeric_to(FLOAT64)),
    ("var_pop", 1, 1, _numeric_to(FLOAT64)),
    ("corr", 2, 2, _numeric_to(FLOAT64)),
    ("covar_samp", 2, 2, _numeric_to(FLOAT64)),
    ("covar_pop", 2, 2, _numeric_to(FLOAT64)),
    ("median", 1, 1, _median),
    ("quantile_cont", 2, 2, _quantile),
    ("product", 1, 1, _numeric_to(FLOAT64)),
    ("bool_and", 1, 1, _boolean),
    ("bool_or", 1, 1, _boolean),
    ("approx_count_distinct", 1, 1, _always(INT64)),
    ("string_agg", 2, 2, _string),
)

_WINDOW_TABLE: tuple[tuple[str, int, int | None, Rule], ...] = (
    ("row_number", 0, 0, _always(INT64)),
    ("rank", 0, 0, _always(INT64)),
    ("dense_rank", 0, 0, _always(INT64)),
    ("percent_rank", 0, 0, _always(FLOAT64)),
    ("cume_dist", 0, 0, _always(FLOAT64)),
    ("ntile", 1, 1, _all(is_integer, "an integer", INT64)),
    ("lag", 1, 3, _lag),
    ("lead", 1, 3, _lag),
    ("first_value", 1, 1, _argument),
    ("last_value", 1, 1, _argument),
    ("nth_value", 2, 2, _argument),
)


def _table(
    kind: Literal["scalar", "aggregate", "window"],
    rows: tuple[tuple[str, int, int | None, Rule], ...],
) -> Mapping[str, Function]:
    return MappingProxyType({row[0]: Function(row[0], kind, *row[1:]) for row in rows})


SCALARS: Mapping[str, Function] = _table("scalar", _SCALAR_TABLE)
AGGREGATES: Mapping[str, Function] = _table("aggregate", _AGGREGATE_TABLE)
WINDOWS: Mapping[str, Function] = _table("window", _WINDOW_TABLE)
FUNCTIONS: Mapping[str, Function] = MappingProxyType({**SCALARS, **AGGREGATES, **WINDOWS})


def _look_up(tables: Sequence[Mapping[str, Function]], name: str, what: str) -> Function:
    for table in tables:
        if name in table:
            return table[name]
    raise PlanError(f"there is no {what} function named {name!r}")


def scalar_type(name: str, args: Sequence[Expr]) -> pa.DataType:
    """The result type of a scalar function; `PlanError` if there is none."""
    return _look_up([SCALARS], name, "scalar").result(args)


def aggregate_type(name: str, args: Sequence[Expr]) -> pa.DataType:
    """The result type of an aggregate; `PlanError` if there is none."""
    return _look_up([AGGREGATES], name, "aggregate").result(args)


def window_type(name: str, args: Sequence[Expr]) -> pa.DataType:
    """The result type of a window function or of an aggregate over a window; `PlanError` if there
    is none.
    """
    return _look_up([WINDOWS, AGGREGATES], name, "window").result(args)
