"""Functions that make expressions: of all rows, of several columns, of the columns of a kind.

Some are called like Python's own; they are meant to be used as ``remote_frame.sum("price")``.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import pyarrow as pa

from operators import build
from operators import expr as ir
from remote_frame.core import aggregate, as_expr, derived, flat, spread, typed, window
from remote_frame.errors import ExpressionError
from remote_frame.expressions import Expr, col
from remote_frame.scopes import AggregateCall
from remote_frame.selectors import Selector

__all__ = [
    "all",
    "all_horizontal",
    "any_horizontal",
    "coalesce",
    "concat_str",
    "corr",
    "count",
    "cov",
    "date",
    "exclude",
    "len",
    "max",
    "max_horizontal",
    "mean",
    "mean_horizontal",
    "median",
    "min",
    "min_horizontal",
    "n_unique",
    "row_number",
    "sum",
    "sum_horizontal",
]


def all(*names: Any) -> Expr:
    """All columns; with names, whether these conditions are false for no row.

    Examples
    --------
    >>> sales.select(remote_frame.all().exclude("day", "price")).columns
    ['item', 'store', 'qty']
    """
    if names:
        return col(*names).all()
    return Selector(lambda schema: list(schema.names), "all()")


def exclude(*names: Any) -> Expr:
    """All columns but those of these names (patterns between ``^`` and ``$``) or types.

    Examples
    --------
    >>> sales.select(remote_frame.exclude("^.*e$", "day")).columns
    ['item', 'qty']
    """
    return Selector(lambda schema: list(schema.names), "all()").exclude(*names)


def len() -> Expr:
    """How many rows there are.

    Examples
    --------
    >>> sales.select(remote_frame.len()).collect().to_pydict()
    {'len': [5]}
    """
    return _rows("len")


def count(*names: Any) -> Expr:
    """How many rows there are, or how many values of these columns are not null."""
    return col(*names).count() if names else _rows("count")


def _rows(name: str) -> Expr:
    made = AggregateCall("count", name)
    return Expr(lambda scope: scope.aggregate(made), f"{name}()", name, aggregates=True, rows=False)


def sum(*names: Any) -> Expr:
    """The sum of each of these columns."""
    return col(*names).sum()


def mean(*names: Any) -> Expr:
    """The mean of each of these columns."""
    return col(*names).mean()


def median(*names: Any) -> Expr:
    """The median of each of these columns."""
    return col(*names).median()


def min(*names: Any) -> Expr:
    """The least value of each of these columns."""
    return col(*names).min()


def max(*names: Any) -> Expr:
    """The greatest value of each of these columns."""
    return col(*names).max()


def n_unique(*names: Any) -> Expr:
    """How many different values each of these columns has."""
    return col(*names).n_unique()


def corr(a: str | Expr, b: str | Expr) -> Expr:
    """Pearson's correlation of two columns.

    Examples
    --------
    >>> line = sales.with_columns(twice=col("qty") * 2)
    >>> line.select(remote_frame.corr("qty", "twice").round(6)).collect().to_pydict()
    {'qty': [1.0]}
    """
    return aggregate("corr", _column(a), _column(b), shown="corr")


def cov(a: str | Expr, b: str | Expr, ddof: int = 1) -> Expr:
    """The covariance of two columns: of a sample, or (`ddof` 0) of all there is."""
    if ddof not in (0, 1):
        raise ExpressionError(f"ddof={ddof} is not supported: it is 1 (a sample) or 0 (all)")
    function = "covar_samp" if ddof else "covar_pop"
    return aggregate(function, _column(a), _column(b), shown="cov")


def row_number() -> Expr:
    """The number of the row, from 1, in the order of ``.over(order_by=…)``.

    Examples
    --------
    >>> number = remote_frame.row_number().over("store", order_by="qty").alias("n")
    >>> sales.filter(col("store") == "a").select("qty", number).sort("n").collect().to_pydict()
    {'qty': [2, 5, 7], 'n': [1, 2, 3]}
    """
    return window("row_number", shown="row_number")


def coalesce(*exprs: Any) -> Expr:
    """The first of several values that is not null.

    Examples
    --------
    >>> sales.select(remote_frame.coalesce("qty", "item", lit(0))).collect().to_pydict()
    {'qty': [5, 1, 7, 1, 2]}
    """
    return _across("coalesce", exprs, lambda *e: build.call("coalesce", *e))


def concat_str(*exprs: Any, separator: str = "", ignore_nulls: bool = False) -> Expr:
    """Values one after the other as a string; null if one of them is, unless `ignore_nulls`.

    Examples
    --------
    >>> both = remote_frame.concat_str("store", "item", separator="-").alias("key")
    >>> sales.select(both).collect().to_pydict()
    {'key': ['a-1', 'b-1', 'a-2', None, None]}
    """
    between = build.lit(separator)

    def make(*parts: ir.Expr) -> ir.Expr:
        texts = [build.cast(p, pa.string()) for p in parts]
        if not ignore_nulls:
            return reduce(
                lambda a, b: build.call(
                    "concat_operator", build.call("concat_operator", a, between), b
                ),
                texts,
            )
        # A separator goes before each value that is there; the first one is cut off.
        pieces = [build.call("concat_operator", between, t) for t in texts]
        joined = build.call("concat", *pieces)
        return build.call("substring", joined, build.lit(builtins.len(separator) + 1))

    return _across("concat_str", exprs, make)


def max_horizontal(*exprs: Any) -> Expr:
    """The greatest of several values, nulls left out.

    Examples
    --------
    >>> sales.select(remote_frame.max_horizontal("qty", "item")).collect().to_pydict()
    {'qty': [5, 1, 7, 3, 2]}
    """
    return _across("max_horizontal", exprs, lambda *e: build.call("greatest", *e))


def min_horizontal(*exprs: Any) -> Expr:
    """The least of several values, nulls left out."""
    return _across("min_horizontal", exprs, lambda *e: build.call("least", *e))


def sum_horizontal(*exprs: Any) -> Expr:
    """The sum of several values, nulls being 0.

    Examples
    --------
    >>> sales.select(remote_frame.sum_horizontal("qty", "item")).collect().to_pydict()
    {'qty': [6, 1, 9, 4, 2]}
    """
    return _across("sum_horizontal", exprs, lambda *e: _total([_or_zero(x) for x in e]))


def mean_horizontal(*exprs: Any) -> Expr:
    """The mean of several values as a float, nulls left out."""

    def make(*values: ir.Expr) -> ir.Expr:
        known = [
            build.case([(build.call("is_not_null", v), build.lit(1))], build.lit(0)) for v in values
        ]
        count = build.call("nullif", _total(known), build.lit(0))
        return build.call("divide", _total([_or_zero(v) for v in values]), count)

    return _across("mean_horizontal", exprs, make)


def all_horizontal(*exprs: Any) -> Expr:
    """Whether all of several conditions are true."""
    return _across("all_horizontal", exprs, lambda *e: build.call("and", *e))


def any_horizontal(*exprs: Any) -> Expr:
    """Whether one of several conditions is true."""
    return _across("any_horizontal", exprs, lambda *e: build.call("or", *e))


def date(year: Any, month: Any, day: Any) -> Expr:
    """The date of a year, a month and a day, each a column or a number.

    Examples
    --------
    >>> first = remote_frame.date(2020, lit(2), 1).alias("first")
    >>> sales.select(first).head(1).collect().to_pydict()
    {'first': [datetime.date(2020, 2, 1)]}
    """
    parts = [_column(p) if isinstance(p, str) else as_expr(p) for p in (year, month, day)]
    shown = ", ".join(p.text for p in parts)
    return derived(
        parts,
        lambda *e: typed(e, lambda *x: build.call("make_date", *x), f"date({shown})").alias("date"),
    )


def _column(value: str | Expr) -> Expr:
    return col(value) if isinstance(value, str) else as_expr(value)


def _across(shown: str, exprs: Any, make: Callable[..., ir.Expr]) -> Expr:
    """A function of the columns of one row; strings are names, a selector is all its columns."""
    parts = [_column(e) if isinstance(e, str) else as_expr(e) for e in flat(exprs)]
    if not parts:
        raise ExpressionError(f"{shown}() needs a column")

    def one(*found: Expr) -> Expr:
        if not found:
            raise ExpressionError(f"{shown}(): there are no such columns")
        return typed(found, make, f"{shown}({', '.join(e.text for e in found)})")

    return spread(parts, one)


def _or_zero(value: ir.Expr) -> ir.Expr:
    return build.call("coalesce", value, build.lit(0))


def _total(values: Sequence[ir.Expr]) -> ir.Expr:
    return reduce(lambda a, b: build.call("add", a, b), values)
