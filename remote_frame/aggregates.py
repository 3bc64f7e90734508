"""What an expression computes over several rows: aggregates, and functions of neighbouring rows.

An aggregate has one value for all rows that it is over: those of a group (`group_by`), of a window
(`over`), or all. A window function has a value for each row that depends on others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

from operators import build
from operators import expr as ir
from remote_frame.core import Node, aggregate, as_expr, as_order, counted, derived, typed, window
from remote_frame.errors import ExpressionError
from remote_frame.scopes import WHOLE, Frame, Order

if TYPE_CHECKING:
    from remote_frame.expressions import Expr

__all__ = ["AggregateMethods", "WindowMethods"]

RankMethod = Literal["average", "min", "max", "dense", "ordinal"]


class AggregateMethods(Node):
    """One value for many rows. Nulls are left out by all but `len`, `first` and `last`."""

    __slots__ = ()

    def sum(self) -> Expr:
        """The sum; null over no rows. Of integers it is a decimal(38, 0), which cannot overflow."""
        return aggregate("sum", self, shown="sum")

    def mean(self) -> Expr:
        """The mean as a float."""
        return aggregate("avg", self, shown="mean")

    def min(self) -> Expr:
        """The least value."""
        return aggregate("min", self, shown="min")

    def max(self) -> Expr:
        """The greatest value."""
        return aggregate("max", self, shown="max")

    def count(self) -> Expr:
        """How many values are not null."""
        return aggregate("count", self, shown="count")

    def len(self) -> Expr:
        """How many rows there are, nulls counted."""
        return counted(self)

    def null_count(self) -> Expr:
        """How many values are null.

        Examples
        --------
        >>> sales.select(col("qty", "store").null_count()).collect().to_pydict()
        {'qty': [1], 'store': [1]}
        """
        return self.len() - self.count()

    def n_unique(self) -> Expr:
        """How many different values there are, null not counted."""
        return aggregate("count", self, distinct=True, shown="n_unique")

    def approx_n_unique(self) -> Expr:
        """About how many different values there are, at little cost (HyperLogLog)."""
        return aggregate("approx_count_distinct", self, shown="approx_n_unique")

    def median(self) -> Expr:
        """The median."""
        return aggregate("median", self, shown="median")

    def quantile(self, quantile: float, interpolation: Literal["linear"] = "linear") -> Expr:
        """The value below which a share of the values lie, interpolated between neighbours.

        Examples
        --------
        >>> sales.select(col("qty").quantile(0.25)).collect().to_pydict()
        {'qty': [1.75]}
        """
        if interpolation != "linear":
            raise ExpressionError(
                f"quantile: interpolation={interpolation!r} is not supported; it is 'linear'"
            )
        if not 0 <= quantile <= 1:
            raise ExpressionError(f"quantile: {quantile} is not between 0 and 1")
        return aggregate(
            "quantile_cont", cast("Expr", self).cast("float64"), float(quantile), shown="quantile"
        )

    def std(self, ddof: int = 1) -> Expr:
        """The standard deviation: of a sample, or (`ddof` 0) of all there is."""
        return aggregate(_by_freedom("stddev", ddof), self, shown="std")

    def var(self, ddof: int = 1) -> Expr:
        """The variance: of a sample, or (`ddof` 0) of all there is."""
        return aggregate(_by_freedom("var", ddof), self, shown="var")

    def product(self) -> Expr:
        """The product as a float."""
        return aggregate("product", self, shown="product")

    def any(self) -> Expr:
        """Whether the condition is true for a row; false over no rows."""
        return _or_else(aggregate("bool_or", self, shown="any"), False)

    def all(self) -> Expr:
        """Whether the condition is false for no row; true over no rows."""
        return _or_else(aggregate("bool_and", self, shown="all"), True)

    def first(self, *, order_by: Any = None) -> Expr:
        """The value of the first row in an order: `order_by`, `sort_by` before, or `over`'s.

        Examples
        --------
        >>> sales.group_by("store").agg(col("qty").first(order_by="price")).sort("store").head(1)\
            .collect().to_pydict()
        {'store': ['a'], 'qty': [2]}
        """
        return _one_row("first", self, order_by)

    def last(self, *, order_by: Any = None) -> Expr:
        """The value of the last row in an order; see `first`."""
        return _one_row("last", self, order_by)

    def any_value(self) -> Expr:
        """The value of any row where it is not null."""
        return aggregate("any_value", self, shown="any_value")


def _by_freedom(name: str, ddof: int) -> str:
    if ddof not in (0, 1):
        raise ExpressionError(f"ddof={ddof} is not supported: it is 1 (a sample) or 0 (all)")
    return f"{name}_samp" if ddof else f"{name}_pop"


def _or_else(expr: Expr, value: Any) -> Expr:
    """`value` where an aggregate is over nothing."""
    return derived(
        [expr],
        lambda e: typed([e], lambda x: build.call("coalesce", x, build.lit(value)), e.text),
    )


def _one_row(function: str, arg: Node, order_by: Any) -> Expr:
    order = () if order_by is None else as_order(order_by)
    return aggregate(function, arg, shown=function, order=order)


class WindowMethods(Node):
    """A value for each row that depends on others.

    All but the ranks depend on the order of rows, which ``.over(order_by=…)`` says.
    """

    __slots__ = ()

    def shift(self, n: int = 1, *, fill_value: Any = None) -> Expr:
        """The value of `n` rows before (after, if negative); `fill_value` where there is none.

        Examples
        --------
        >>> before = col("qty").shift(1, fill_value=0).over(order_by="price")
        >>> sales.sort("price").select("qty", before=before).collect().to_pydict()
        {'qty': [2, 5, None, 1, 7], 'before': [0, 2, 5, None, 1]}
        """
        function, rest = ("lag" if n >= 0 else "lead"), [as_expr(abs(n))]
        if fill_value is not None:
            rest.append(as_expr(fill_value))

        def make(e: Expr, *others: Expr) -> Expr:
            fill = others[1:] and [_as(e, others[1])]
            return window(function, e, others[0], *(fill or ()), shown="shift")

        return derived([self, *rest], make)

    def lag(self, n: int = 1) -> Expr:
        """The value of `n` rows before; SQL's name of `shift`."""
        return self.shift(n)

    def lead(self, n: int = 1) -> Expr:
        """The value of `n` rows after."""
        return self.shift(-n)

    def diff(self, n: int = 1) -> Expr:
        """The difference to the value of `n` rows before."""
        return cast("Expr", self) - self.shift(n)

    def pct_change(self, n: int = 1) -> Expr:
        """The change against the value of `n` rows before, as a share of it."""
        return cast("Expr", self) / self.shift(n) - 1

    def cum_sum(self, *, reverse: bool = False) -> Expr:
        """The sum of the values up to this row (from it on, if `reverse`); null for null."""
        return self._so_far("sum", "cum_sum", reverse)

    def cum_min(self, *, reverse: bool = False) -> Expr:
        """The least value up to this row; null for null."""
        return self._so_far("min", "cum_min", reverse)

    def cum_max(self, *, reverse: bool = False) -> Expr:
        """The greatest value up to this row; null for null."""
        return self._so_far("max", "cum_max", reverse)

    def cum_prod(self, *, reverse: bool = False) -> Expr:
        """The product of the values up to this row as a float; null for null."""
        return self._so_far("product", "cum_prod", reverse)

    def cum_count(self, *, reverse: bool = False) -> Expr:
        """How many values up to this row are not null."""
        return window("count", self, shown="cum_count", frame=_running(reverse))

    def _so_far(self, function: str, shown: str, reverse: bool) -> Expr:
        def make(e: Expr) -> Expr:
            return _where_known(e, window(function, e, shown=shown, frame=_running(reverse)))

        return derived([self], make)

    def forward_fill(self) -> Expr:
        """The last value that was not null, up to this row.

        Examples
        --------
        >>> filled = col("qty").forward_fill().over(order_by="price")
        >>> sales.sort("price").select(filled).collect().to_pydict()
        {'qty': [2, 5, 5, 1, 7]}
        """
        return self._filled("forward_fill", reverse=False)

    def backward_fill(self) -> Expr:
        """The next value that is not null, from this row on."""
        return self._filled("backward_fill", reverse=True)

    def _filled(self, shown: str, reverse: bool) -> Expr:
        def make(e: Expr) -> Expr:
            # Rows between two known values have seen as many of them: one each.
            seen = e.cum_count(reverse=reverse)
            return window("any_value", e, shown=shown, partition=[seen], frame=WHOLE)

        return derived([self], make)

    def rank(self, method: RankMethod = "average", *, descending: bool = False) -> Expr:
        """The rank of the value among all (or those of `over`), from 1; null for null.

        Parameters
        ----------
        method
            What equal values get: the ``average`` of their places, the least (``min``) or greatest
            (``max``), the same without gaps after it (``dense``), or different ones
            (``ordinal``).
        descending
            Whether the greatest value is first.

        Examples
        --------
        >>> rank = col("qty").rank("dense", descending=True).alias("rank")
        >>> sales.select("qty", rank).sort("qty").collect().to_pydict()
        {'qty': [1, 2, 5, 7, None], 'rank': [4, 3, 2, 1, None]}
        """
        functions = {"dense": "dense_rank", "ordinal": "row_number"}
        if method not in ("average", "min", "max", "dense", "ordinal"):
            raise ExpressionError(
                f"rank: method={method!r}; it is average, min, max, dense or ordinal"
            )

        def make(e: Expr) -> Expr:
            shown = f"{e.text}.rank({method})"
            function = functions.get(method, "rank")
            rank = window(function, shown="rank", order=[Order(e, descending)], text=shown)
            if method in ("average", "max"):
                peers = window("count", shown="rank", partition=[e], ordered=False, text=shown)
                others = peers - 1
                rank = rank + (others if method == "max" else others / 2)
            return _where_known(e, rank)

        return derived([self], make)

    def is_unique(self) -> Expr:
        """Whether no other row has the value."""
        return derived([self], lambda e: _named_like(e, _peers(e) == 1))

    def is_duplicated(self) -> Expr:
        """Whether another row has the value."""
        return derived([self], lambda e: _named_like(e, _peers(e) > 1))

    def is_first_distinct(self) -> Expr:
        """Whether no row before has the value."""

        def make(e: Expr) -> Expr:
            number = window("row_number", shown="is_first_distinct", partition=[e])
            return _named_like(e, number == 1)

        return derived([self], make)

    def rolling_sum(
        self, window_size: int, *, min_samples: int | None = None, center: bool = False
    ) -> Expr:
        """The sum of this row and those before it, `window_size` in all.

        Parameters
        ----------
        window_size
            Rows in a window.
        min_samples
            Null unless so many of them are not null; `window_size` by default.
        center
            Whether the row stands in the middle of its window.

        Examples
        --------
        >>> moving = col("item").cast("float64").rolling_sum(2, min_samples=1)
        >>> sales.select("qty", moving.over(order_by="qty")).sort("qty").collect().to_pydict()
        {'qty': [1, 2, 5, 7, None], 'item': [3.0, 3.0, 1.0, 3.0, 3.0]}
        """
        return self._rolling("sum", "rolling_sum", window_size, min_samples, center)

    def rolling_mean(
        self, window_size: int, *, min_samples: int | None = None, center: bool = False
    ) -> Expr:
        """The mean of a window of rows; see `rolling_sum`."""
        return self._rolling("avg", "rolling_mean", window_size, min_samples, center)

    def rolling_min(
        self, window_size: int, *, min_samples: int | None = None, center: bool = False
    ) -> Expr:
        """The least value of a window of rows; see `rolling_sum`."""
        return self._rolling("min", "rolling_min", window_size, min_samples, center)

    def rolling_max(
        self, window_size: int, *, min_samples: int | None = None, center: bool = False
    ) -> Expr:
        """The greatest value of a window of rows; see `rolling_sum`."""
        return self._rolling("max", "rolling_max", window_size, min_samples, center)

    def rolling_median(
        self, window_size: int, *, min_samples: int | None = None, center: bool = False
    ) -> Expr:
        """The median of a window of rows; see `rolling_sum`."""
        return self._rolling("median", "rolling_median", window_size, min_samples, center)

    def rolling_std(
        self,
        window_size: int,
        *,
        min_samples: int | None = None,
        center: bool = False,
        ddof: int = 1,
    ) -> Expr:
        """The standard deviation of a window of rows; see `rolling_sum`."""
        function = _by_freedom("stddev", ddof)
        return self._rolling(function, "rolling_std", window_size, min_samples, center)

    def rolling_var(
        self,
        window_size: int,
        *,
        min_samples: int | None = None,
        center: bool = False,
        ddof: int = 1,
    ) -> Expr:
        """The variance of a window of rows; see `rolling_sum`."""
        function = _by_freedom("var", ddof)
        return self._rolling(function, "rolling_var", window_size, min_samples, center)

    def _rolling(
        self, function: str, shown: str, size: int, least: int | None, center: bool
    ) -> Expr:
        least = size if least is None else least
        if size < 1 or not 0 <= least <= size:
            raise ExpressionError(f"{shown}: window_size={size}, min_samples={least}")
        before = size // 2 if center else size - 1
        frame: Frame = ("rows", _preceding(before), _following(size - 1 - before))

        def make(e: Expr) -> Expr:
            value = window(function, e, shown=shown, frame=frame)
            known = window("count", e, shown=shown, frame=frame)
            return derived(
                [value, known],
                lambda v, k: typed(
                    [v, k],
                    lambda x, n: build.case(
                        [(build.call("greater_equal", n, build.lit(least)), x)]
                    ),
                    f"{e.text}.{shown}({size})",
                ),
            )

        return derived([self], make)


def _running(reverse: bool) -> Frame:
    current, unbounded = ir.FrameBound("current"), ir.FrameBound("unbounded")
    return ("rows", current, unbounded) if reverse else ("rows", unbounded, current)


def _preceding(rows: int) -> ir.FrameBound:
    return ir.FrameBound("preceding", rows) if rows else ir.FrameBound("current")


def _following(rows: int) -> ir.FrameBound:
    return ir.FrameBound("following", rows) if rows else ir.FrameBound("current")


def _peers(expr: Expr) -> Expr:
    """How many rows have the value."""
    return window("count", shown="is_unique", partition=[expr], ordered=False)


def _named_like(expr: Expr, made: Expr) -> Expr:
    return made.alias(expr.output_name)


def _where_known(expr: Expr, made: Expr) -> Expr:
    """`made` where `expr` is not null."""
    return typed(
        [expr, made],
        lambda x, y: build.case([(build.call("is_not_null", x), y)]),
        made.text,
    )


def _as(like: Expr, value: Expr) -> Expr:
    """`value` in the type of `like`, which functions of neighbouring rows insist on."""
    return typed([like, value], lambda x, v: build.cast(v, x.type), value.text)
