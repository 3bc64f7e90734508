"""Predicates as sets of conjuncts: what two have in common, whether they exclude one another."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.types as pt

from operators.expr import Call, Case, Cast, Column, Expr, InList, Lit, Window
from operators.rewrite import conjuncts
from operators.stats import as_number
from operators.types import BOOL, as_decimal, common_type, is_integer, is_numeric

__all__ = ["cannot_raise", "conjunction", "conjuncts", "disjunction", "exclusive"]


def conjunction(parts: Sequence[Expr]) -> Expr | None:
    """Parts that must all hold, as one expression; None for none."""
    if len(parts) < 2:
        return parts[0] if parts else None
    return Call(BOOL, "and", tuple(parts))


def disjunction(parts: Sequence[Expr]) -> Expr:
    """Parts of which one must hold (at least one part).

    Not an IN list where an IN list would do: DuckDB estimates it as if it kept everything, and then
    chose a join order that took five times as long (q64).
    """
    distinct = list(dict.fromkeys(parts))
    return distinct[0] if len(distinct) == 1 else Call(BOOL, "or", tuple(distinct))


def exclusive(predicates: Sequence[Sequence[Expr]]) -> bool:
    """Whether it can be shown that no two of these conjunctions hold for one row.

    Two do not if literals bound some column to ranges, or to values, that do not meet.
    """
    bounds = [_bounds(p) for p in predicates]
    return all(
        _apart(bounds[i], bounds[j]) for i in range(len(bounds)) for j in range(i + 1, len(bounds))
    )


_Bounds = dict[int, tuple[float, float, frozenset[object] | None]]


def _apart(one: _Bounds, other: _Bounds) -> bool:
    for column in one.keys() & other.keys():
        low, high, values = one[column]
        low2, high2, values2 = other[column]
        if high < low2 or high2 < low:
            return True
        if values is not None and values2 is not None and not values & values2:
            return True
    return False


def _bounds(terms: Iterable[Expr]) -> _Bounds:
    """What the conjuncts say of each column: closed range on the number line, possible values.

    Strict bounds of integers are moved by one; those of other types are kept as if closed, which
    only makes ranges meet that do not.
    """
    found: _Bounds = {}
    for term in terms:
        match term:
            case Call(function=name, args=(Column(type=type, index=i), Lit(value=value))) if (
                value is not None
            ):
                number = as_number(value)
                low, high = -math.inf, math.inf
                values: frozenset[object] | None = None
                step = 1.0 if pt.is_integer(type) or pt.is_date(type) else 0.0
                if name == "equal":
                    values = frozenset([value])
                    if number is not None:
                        low = high = number
                elif number is None:
                    continue
                elif name == "less":
                    high = number - step
                elif name == "less_equal":
                    high = number
                elif name == "greater":
                    low = number + step
                elif name == "greater_equal":
                    low = number
                else:
                    continue
            case InList(arg=Column(index=i), options=options) if all(
                isinstance(o, Lit) and o.value is not None for o in options
            ):
                low, high = -math.inf, math.inf
                values = frozenset(o.value for o in options if isinstance(o, Lit))
            case _:
                continue
        low0, high0, values0 = found.get(i, (-math.inf, math.inf, None))
        both = values if values0 is None else values0 if values is None else values & values0
        found[i] = (max(low, low0), min(high, high0), both)
    return found


# fmt: off
_TOTAL = frozenset((
    "and", "or", "not", "equal", "not_equal", "less", "less_equal", "greater",
    "greater_equal", "is_null", "is_not_null", "is_distinct_from", "is_not_distinct_from",
    "coalesce", "nullif", "add", "subtract", "multiply", "divide", "negate", "substring",
    "upper", "lower", "trim", "ltrim", "rtrim", "concat", "concat_operator", "abs", "like",
    "ilike", "contains", "starts_with", "ends_with", "length", "year", "month", "day",
    "quarter",
))
# fmt: on


def cannot_raise(expr: Expr) -> bool:
    """Whether `expr` may be computed for rows that the query would not have computed it for.

    Arithmetic counts as total although it overflows at its type's limits: SQL does not say whether
    a filter comes first, and the kernel does not promise it either. Casts that read text or
    lose digits, and functions with a domain, do not.
    """
    match expr:
        case Cast(arg=arg, type=type, try_cast=trying):
            if not (trying or _widens(arg.type, type)):
                return False
        case Call(function=name):
            if name not in _TOTAL:
                return False
        case Column() | Lit() | Case() | InList() | Window():
            pass
        case _:
            return False
    return all(cannot_raise(c) for c in expr.children())


def _widens(source: pa.DataType, target: pa.DataType) -> bool:
    if source == target or pt.is_null(source) or pt.is_string(target):
        return True
    if pt.is_floating(target):
        return is_numeric(source)
    if is_integer(target) and is_integer(source):
        return bool(common_type(source, target) == target)
    if pt.is_decimal(target) and (pt.is_decimal(source) or is_integer(source)):
        precision, scale = as_decimal(source)
        whole = target.precision - target.scale
        return bool(target.scale >= scale and whole >= precision - scale)
    return bool(pt.is_timestamp(target) and pt.is_date(source))
