"""Which share of rows a predicate keeps, and the ranges in which it holds columns.

The formulas are the textbook ones: values are spread evenly over their column's range, columns
are independent; where nothing is known, constants say what to assume.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from operators.expr import Call, Cast, Column, Expr, InList, Lit
from operators.stats import ColumnStats, TableStats, as_number

__all__ = ["bounds_of", "selectivity", "share_inside", "terms_of"]

_EQUAL = 0.05
_RANGE = 1 / 3
_LIKE = 0.1
_OTHER = 0.25


def selectivity(predicate: Expr, stats: TableStats) -> float:
    """The share of rows, 0 to 1, for which `predicate` is true."""
    return min(max(_selectivity(predicate, stats), 0.0), 1.0)


def _selectivity(expr: Expr, stats: TableStats) -> float:
    match expr:
        case Lit(value=value):
            return 1.0 if value else 0.0
        case Call(function="and"):
            return _conjunction(terms_of(expr), stats)
        case Call(function="or", args=args):
            return 1 - math.prod(1 - selectivity(a, stats) for a in args)
        case Call(function="not", args=(arg,)):
            return 1 - selectivity(arg, stats)
        case Call(function="is_null", args=(Column(index=i),)):
            return stats.columns[i].null_fraction
        case Call(function="is_not_null", args=(Column(index=i),)):
            return 1 - stats.columns[i].null_fraction
        case InList(arg=arg, options=options):
            return len(options) * _equal(arg, stats)
        case Call(function="equal", args=(left, right)):
            return _equality(left, right, stats)
        case Call(function="not_equal", args=(left, right)):
            return 1 - _equality(left, right, stats)
        case Call(
            function="less" | "less_equal" | "greater" | "greater_equal" as name, args=(a, b)
        ):
            return _range(name, a, b, stats)
        case Call(function="like" | "ilike" | "contains" | "starts_with" | "regexp_matches"):
            return _LIKE
    return _OTHER


def _conjunction(terms: list[Expr], stats: TableStats) -> float:
    """Independent terms, but for comparisons of one column: they make one range."""
    ranges = bounds_of(terms)
    share = 1.0
    for i, bounds in ranges.items():
        share *= share_inside(stats.columns[i], bounds) * (1 - stats.columns[i].null_fraction)
    for term in terms:
        match term:
            case Call(function=name, args=(Column(index=i), other)) if (
                name in _COMPARED and i in ranges and _constant(other) is not None
            ):
                continue
        share *= selectivity(term, stats)
    return share


def terms_of(expr: Expr) -> list[Expr]:
    """The terms of a conjunction, also of those inside it."""
    if isinstance(expr, Call) and expr.function == "and":
        return [t for a in expr.args for t in terms_of(a)]
    return [expr]


def bounds_of(terms: Sequence[Expr]) -> dict[int, tuple[float, float]]:
    """The ranges in which comparisons with constants hold bare columns."""
    found: dict[int, tuple[float, float]] = {}
    for term in terms:
        match term:
            case Call(function=name, args=(Column(index=i), other)) if name in _COMPARED:
                value = _constant(other)
            case _:
                continue
        if value is None:
            continue
        low, high = found.get(i, (-math.inf, math.inf))
        if name.startswith("less"):
            high = min(high, value)
        else:
            low = max(low, value)
        found[i] = low, high
    return found


_COMPARED = frozenset(("less", "less_equal", "greater", "greater_equal"))


def share_inside(column: ColumnStats, bounds: tuple[float, float]) -> float:
    """The share of a column's values, NULLs left out, that lie in a closed range."""
    if column.min is None or column.max is None:
        return _RANGE if math.inf in map(abs, bounds) else _RANGE / 3
    low, high = column.clipped(*bounds)
    if low is None or high is None or low > high:
        return 0.0
    span = column.max - column.min
    if span <= 0:
        return 1.0
    # One of d evenly spread values stands for 1/d of the range.
    grain = span / max(column.distinct or math.inf, 1.0) if column.distinct else 0.0
    return min((high - low + grain) / (span + grain), 1.0)


def _equal(expr: Expr, stats: TableStats) -> float:
    """The share of rows in which `expr` has one particular value."""
    column = _column(expr, stats)
    if column is None or not column.distinct:
        return _EQUAL
    return (1 - column.null_fraction) / column.distinct


def _equality(left: Expr, right: Expr, stats: TableStats) -> float:
    for one, other in ((left, right), (right, left)):
        column, value = _column(one, stats), _constant(other)
        if column is not None and value is not None and column.min is not None:
            outside = value < column.min or (column.max is not None and value > column.max)
            if outside:
                return 0.0
    if isinstance(right, Lit):
        return _equal(left, stats)
    if isinstance(left, Lit):
        return _equal(right, stats)
    return min(_equal(left, stats), _equal(right, stats))


def _range(name: str, left: Expr, right: Expr, stats: TableStats) -> float:
    column, value, below = _column(left, stats), _constant(right), name.startswith("less")
    if column is None or value is None:
        column, value, below = _column(right, stats), _constant(left), not below
    if column is None or value is None or column.min is None or column.max is None:
        return _RANGE
    span = column.max - column.min
    if span <= 0:
        inside = value >= column.min if below else value <= column.max
        return float(inside) * (1 - column.null_fraction)
    share = (value - column.min) / span if below else (column.max - value) / span
    return min(max(share, 0.0), 1.0) * (1 - column.null_fraction)


def _column(expr: Expr, stats: TableStats) -> ColumnStats | None:
    while isinstance(expr, Cast):
        expr = expr.arg
    return stats.columns[expr.index] if isinstance(expr, Column) else None


def _constant(expr: Expr) -> float | None:
    while isinstance(expr, Cast):
        expr = expr.arg
    return as_number(expr.value) if isinstance(expr, Lit) else None
