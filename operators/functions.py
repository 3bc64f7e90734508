"""The IR's vocabulary: scalar, aggregate and window functions with the types of their results.

Names are the IR's own. Meaning and result types are DuckDB's; `tests/operators/test_functions.py`
checks every rule against DuckDB itself. A rule takes the argument *expressions* (ROUND's type
depends on a literal) and gives the type of the result, or raises `PlanError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import pyarrow as pa

from operators import function_types as rules
from operators.errors import PlanError
from operators.expr import Expr
from operators.types import (
    BOOL,
    DATE,
    FLOAT64,
    INT32,
    INT64,
    INTERVAL,
    STRING,
    TIMESTAMP,
    is_integer,
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
    "scalar_type",
    "window_type",
]


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
    rule: rules.Rule
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

_SCALAR_TABLE: tuple[tuple[str, int, int | None, rules.Rule], ...] = (
    ("add", 2, 2, rules.plus_minus("+")),
    ("subtract", 2, 2, rules.plus_minus("-")),
    ("multiply", 2, 2, rules.multiply),
    ("divide", 2, 2, rules.divide),
    ("integer_divide", 2, 2, rules.integer_divide),
    ("modulo", 2, 2, rules.modulo),
    ("negate", 1, 1, rules.same_number),
    ("abs", 1, 1, rules.same_number),
    ("round", 1, 2, rules.rounded),
    ("ceil", 1, 1, rules.whole),
    ("floor", 1, 1, rules.whole),
    ("trunc", 1, 1, rules.truncate),
    ("sign", 1, 1, rules.numeric_to(pa.int8())),
    ("sqrt", 1, 1, rules.numeric_to(FLOAT64)),
    ("exp", 1, 1, rules.numeric_to(FLOAT64)),
    ("ln", 1, 1, rules.numeric_to(FLOAT64)),
    ("log10", 1, 1, rules.numeric_to(FLOAT64)),
    ("log2", 1, 1, rules.numeric_to(FLOAT64)),
    ("cbrt", 1, 1, rules.numeric_to(FLOAT64)),
    ("sin", 1, 1, rules.numeric_to(FLOAT64)),
    ("cos", 1, 1, rules.numeric_to(FLOAT64)),
    ("tan", 1, 1, rules.numeric_to(FLOAT64)),
    ("asin", 1, 1, rules.numeric_to(FLOAT64)),
    ("acos", 1, 1, rules.numeric_to(FLOAT64)),
    ("atan", 1, 1, rules.numeric_to(FLOAT64)),
    ("degrees", 1, 1, rules.numeric_to(FLOAT64)),
    ("radians", 1, 1, rules.numeric_to(FLOAT64)),
    ("log", 2, 2, rules.numeric_to(FLOAT64)),
    ("atan2", 2, 2, rules.numeric_to(FLOAT64)),
    ("ascii", 1, 1, rules.strings(INT32)),
    ("unicode", 1, 1, rules.strings(INT32)),
    ("chr", 1, 1, rules.each(is_integer, "an integer", STRING)),
    ("translate", 3, 3, rules.string),
    ("concat_ws", 2, None, rules.always(STRING)),
    ("md5", 1, 1, rules.string),
    ("sha256", 1, 1, rules.string),
    ("day_name", 1, 1, rules.each(is_temporal, "a date or timestamp", STRING)),
    ("month_name", 1, 1, rules.each(is_temporal, "a date or timestamp", STRING)),
    ("epoch", 1, 1, rules.each(is_temporal, "a date or timestamp", FLOAT64)),
    *(
        (f"to_{unit}", 1, 1, rules.numeric_to(INTERVAL))
        for unit in ("years", "months", "weeks", "days", "hours", "minutes", "seconds")
    ),
    ("power", 2, 2, rules.numeric_to(FLOAT64)),
    ("isnan", 1, 1, rules.numeric_to(BOOL)),
    ("isinf", 1, 1, rules.numeric_to(BOOL)),
    ("isfinite", 1, 1, rules.numeric_to(BOOL)),
    *((name, 2, 2, rules.comparable) for name in COMPARISONS),
    ("and", 1, None, rules.boolean),
    ("or", 1, None, rules.boolean),
    ("not", 1, 1, rules.boolean),
    ("is_null", 1, 1, rules.always(BOOL)),
    ("is_not_null", 1, 1, rules.always(BOOL)),
    ("coalesce", 1, None, rules.common),
    ("nullif", 2, 2, rules.nullif),
    ("greatest", 1, None, rules.common),
    ("least", 1, None, rules.common),
    ("like", 2, 3, rules.like),
    ("ilike", 2, 3, rules.like),
    ("starts_with", 2, 2, rules.like),
    ("ends_with", 2, 2, rules.like),
    ("contains", 2, 2, rules.like),
    ("regexp_matches", 2, 2, rules.like),
    ("upper", 1, 1, rules.string),
    ("lower", 1, 1, rules.string),
    ("trim", 1, 2, rules.string),
    ("ltrim", 1, 2, rules.string),
    ("rtrim", 1, 2, rules.string),
    ("replace", 3, 3, rules.string),
    ("regexp_replace", 3, 4, rules.string),
    ("regexp_extract", 2, 3, rules.regexp_extract),
    ("reverse", 1, 1, rules.string),
    ("repeat", 2, 2, rules.strings(STRING, is_integer)),
    ("lpad", 3, 3, rules.padded),
    ("rpad", 3, 3, rules.padded),
    ("byte_length", 1, 1, rules.strings(INT64)),
    ("length", 1, 1, rules.strings(INT64)),
    ("strpos", 2, 2, rules.strings(INT64)),
    ("substring", 2, 3, rules.strings(STRING, is_integer, is_integer)),
    ("left", 2, 2, rules.strings(STRING, is_integer)),
    ("right", 2, 2, rules.strings(STRING, is_integer)),
    ("concat", 1, None, rules.always(STRING)),
    ("concat_operator", 2, 2, rules.string),
    ("bitwise_and", 2, 2, rules.bitwise),
    ("bitwise_or", 2, 2, rules.bitwise),
    ("bitwise_xor", 2, 2, rules.bitwise),
    ("shift_left", 2, 2, rules.bitwise),
    ("shift_right", 2, 2, rules.bitwise),
    ("year", 1, 1, rules.temporal_part),
    ("quarter", 1, 1, rules.temporal_part),
    ("month", 1, 1, rules.temporal_part),
    ("week", 1, 1, rules.temporal_part),
    ("day", 1, 1, rules.temporal_part),
    ("day_of_week", 1, 1, rules.temporal_part),
    ("iso_day_of_week", 1, 1, rules.temporal_part),
    ("day_of_year", 1, 1, rules.temporal_part),
    ("hour", 1, 1, rules.clock_part),
    ("minute", 1, 1, rules.clock_part),
    ("second", 1, 1, rules.clock_part),
    ("microsecond", 1, 1, rules.clock_part),
    ("epoch_us", 1, 1, rules.temporal_part),
    ("last_day", 1, 1, rules.each(is_temporal, "a date or timestamp", DATE)),
    ("make_date", 3, 3, rules.each(is_integer, "an integer", DATE)),
    ("time_bucket", 2, 3, rules.time_bucket),
    ("strftime", 2, 2, rules.strftime),
    ("strptime", 2, 2, rules.strings(TIMESTAMP)),
    ("try_strptime", 2, 2, rules.strings(TIMESTAMP)),
    ("date_trunc", 2, 2, rules.date_trunc),
    ("date_diff", 3, 3, rules.date_diff),
)

_AGGREGATE_TABLE: tuple[tuple[str, int, int | None, rules.Rule], ...] = (
    ("count", 0, 1, rules.always(INT64)),
    ("sum", 1, 1, rules.total),
    ("avg", 1, 1, rules.numeric_to(FLOAT64)),
    ("min", 1, 1, rules.argument),
    ("max", 1, 1, rules.argument),
    ("first", 1, 1, rules.argument),
    ("last", 1, 1, rules.argument),
    ("any_value", 1, 1, rules.argument),
    ("stddev_samp", 1, 1, rules.numeric_to(FLOAT64)),
    ("stddev_pop", 1, 1, rules.numeric_to(FLOAT64)),
    ("var_samp", 1, 1, rules.numeric_to(FLOAT64)),
    ("var_pop", 1, 1, rules.numeric_to(FLOAT64)),
    ("corr", 2, 2, rules.numeric_to(FLOAT64)),
    ("covar_samp", 2, 2, rules.numeric_to(FLOAT64)),
    ("covar_pop", 2, 2, rules.numeric_to(FLOAT64)),
    ("median", 1, 1, rules.median),
    ("quantile_cont", 2, 2, rules.quantile),
    ("quantile_disc", 2, 2, rules.argument),
    ("arg_max", 2, 2, rules.argument),
    ("arg_min", 2, 2, rules.argument),
    *((name, 1, 1, rules.bits) for name in ("bit_and", "bit_or", "bit_xor")),
    ("kurtosis", 1, 1, rules.numeric_to(FLOAT64)),
    ("skewness", 1, 1, rules.numeric_to(FLOAT64)),
    *((f"regr_{what}", 2, 2, rules.numeric_to(FLOAT64)) for what in ("slope", "intercept", "r2")),
    ("regr_count", 2, 2, rules.numeric_to(pa.uint32())),
    ("product", 1, 1, rules.numeric_to(FLOAT64)),
    ("bool_and", 1, 1, rules.boolean),
    ("bool_or", 1, 1, rules.boolean),
    ("approx_count_distinct", 1, 1, rules.always(INT64)),
    ("string_agg", 2, 2, rules.string),
)

_WINDOW_TABLE: tuple[tuple[str, int, int | None, rules.Rule], ...] = (
    ("row_number", 0, 0, rules.always(INT64)),
    ("rank", 0, 0, rules.always(INT64)),
    ("dense_rank", 0, 0, rules.always(INT64)),
    ("percent_rank", 0, 0, rules.always(FLOAT64)),
    ("cume_dist", 0, 0, rules.always(FLOAT64)),
    ("ntile", 1, 1, rules.each(is_integer, "an integer", INT64)),
    ("lag", 1, 3, rules.lag),
    ("lead", 1, 3, rules.lag),
    ("first_value", 1, 1, rules.argument),
    ("last_value", 1, 1, rules.argument),
    ("nth_value", 2, 2, rules.argument),
)


def _table(
    kind: Literal["scalar", "aggregate", "window"],
    rows: tuple[tuple[str, int, int | None, rules.Rule], ...],
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
