"""Methods of a frame that choose and order its rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

from operators import build
from operators import expr as ir
from operators.rel import Rel
from remote_frame.building import built, reverse_keys, row_count
from remote_frame.core import as_expr, as_order, flat
from remote_frame.errors import ExpressionError
from remote_frame.expressions import Expr, col
from remote_frame.functions import count, row_number
from remote_frame.planned import Planned
from remote_frame.scopes import Order, RowScope, ordering

__all__ = ["Rows"]


class Rows(Planned):
    """The methods of a `RemoteFrame` that are about rows."""

    __slots__ = ()

    def filter(self, *conditions: Any, **equal: Any) -> Self:
        """Rows for which every condition is true (not null); ``name=value`` is one, too.

        Examples
        --------
        >>> sales.filter(col("qty") > 1, store="a").select("qty").collect().to_pydict()
        {'qty': [5, 7, 2]}
        >>> sales.filter(col("qty") > col("qty").mean()).select("qty").collect().to_pydict()
        {'qty': [5, 7]}
        """
        terms: list[Expr] = []
        for one in flat(conditions):
            terms += as_expr(one).expand(self._plan.schema)
        terms += [col(name) == value for name, value in equal.items()]
        plan, schema = self._plan, self._plan.schema
        for term in terms:
            scope = RowScope(schema)
            predicate = term.lower(scope)
            plan = scope.extend(plan)
            plan = built(f"filter({term.text})", build.filter, plan, predicate)
            plan = build.select_columns(plan, range(len(schema)))
        return self._with(plan)

    def remove(self, *conditions: Any) -> Self:
        """Rows for which not every condition is true: those that `filter` leaves out."""
        terms = [t for c in flat(conditions) for t in as_expr(c).expand(self._plan.schema)]
        if not terms:
            return self
        condition = terms[0]
        for more in terms[1:]:
            condition = condition & more
        return self.filter(~condition.fill_null(False))

    def drop_nulls(self, subset: Any = None) -> Self:
        """Rows without a null (in some columns).

        Examples
        --------
        >>> sales.drop_nulls("qty").select("qty").collect().to_pydict()
        {'qty': [5, 7, 1, 2]}
        """
        names = self.columns if subset is None else self._names(flat([subset]), "drop_nulls")
        return self.filter(*(col(n).is_not_null() for n in names))

    def drop_nans(self, subset: Any = None) -> Self:
        """Rows without a NaN (in some columns)."""
        names = self._floats() if subset is None else self._names(flat([subset]), "drop_nans")
        return self.filter(*(col(n).is_not_nan().fill_null(True) for n in names))

    def sort(
        self,
        by: Any,
        *more_by: Any,
        descending: bool | Sequence[bool] = False,
        nulls_last: bool | Sequence[bool] = True,
    ) -> Self:
        """Rows in order, nulls last unless `nulls_last` is False.

        The order holds for what follows directly; joins, groups and sets have none.

        Examples
        --------
        >>> sales.select("store", "qty").sort("store", "qty", descending=[True, False]).collect()\
            .to_pydict()
        {'store': ['b', 'a', 'a', 'a', None], 'qty': [None, 2, 5, 7, 1]}
        """
        order = as_order([by, *more_by], descending, nulls_last)
        if not order:
            raise ExpressionError("sort() needs at least one column")
        return self._sorted(order)

    def _sorted(self, order: Sequence[Order], *, limit: int | None = None) -> Self:
        schema = self._plan.schema
        scope = RowScope(schema)
        keys = [k for o in order for k in o.lower(scope)]
        plan = built("sort", build.sort, scope.extend(self._plan), keys)
        if limit is not None:
            plan = built("limit", build.limit, plan, limit)
        return self._with(build.select_columns(plan, range(len(schema))))

    def top_k(self, k: int, *, by: Any, reverse: bool | Sequence[bool] = False) -> Self:
        """The `k` rows with the greatest values, in that order; `reverse`: the least.

        Examples
        --------
        >>> sales.top_k(2, by="qty").select("qty").collect().to_pydict()
        {'qty': [7, 5]}
        """
        flags = (not reverse) if isinstance(reverse, bool) else [not r for r in reverse]
        return self._sorted(as_order(by, flags), limit=row_count("top_k", k))

    def bottom_k(self, k: int, *, by: Any, reverse: bool | Sequence[bool] = False) -> Self:
        """The `k` rows with the least values, in that order; `reverse`: the greatest."""
        return self._sorted(as_order(by, reverse), limit=row_count("bottom_k", k))

    def limit(self, n: int = 5, offset: int = 0) -> Self:
        """The first `n` rows, after skipping `offset`; which they are only `sort` decides."""
        return self._limited("limit", n, offset)

    def head(self, n: int = 5) -> Self:
        """The first `n` rows."""
        return self._limited("head", n)

    def tail(self, n: int = 5) -> Self:
        """The last `n` rows of a sorted frame.

        Examples
        --------
        >>> sales.select("qty").drop_nulls().sort("qty").tail(2).collect().to_pydict()
        {'qty': [5, 7]}
        """
        keys = self._order("tail")
        return self._with(build.sort(self._end(n, keys), keys))

    def slice(self, offset: int, length: int | None = None) -> Self:
        """`length` rows (or all) from row `offset`, from the end of a sorted frame if negative.

        Examples
        --------
        >>> sales.select("qty").sort("qty").slice(-3, 2).collect().to_pydict()
        {'qty': [5, 7]}
        """
        offset = row_count("slice", offset)
        if offset >= 0:
            return self._limited("slice", length, offset)
        end = self.tail(-offset)
        return end if length is None else end._limited("slice", length)

    def reverse(self) -> Self:
        """The rows of a sorted frame in the opposite order."""
        return self._with(build.sort(self._plan, reverse_keys(self._order("reverse"))))

    def _order(self, what: str) -> list[ir.SortKey]:
        keys = ordering(self._plan)
        if not keys:
            raise ExpressionError(f"{what}() needs the rows in an order: sort() first")
        return keys

    def _end(self, n: int, keys: Sequence[ir.SortKey]) -> Rel:
        rows = row_count("tail", n)
        return built("tail", build.limit, build.sort(self._plan, reverse_keys(keys)), rows)

    def _limited(self, what: str, n: int | None, offset: int = 0) -> Self:
        rows = None if n is None and what == "slice" else row_count(what, n)
        return self._with(built(what, build.limit, self._plan, rows, row_count(what, offset)))

    def unique(
        self,
        subset: Any = None,
        *,
        keep: Literal["any", "first", "last", "none"] = "any",
        order_by: Any = None,
    ) -> Self:
        """Every different row once, in no particular order.

        Parameters
        ----------
        subset
            The columns that are compared; all by default.
        keep
            Which of the rows that agree stays: ``any``, the ``first`` or ``last`` by `order_by`,
            or ``none`` if there are several.

        Examples
        --------
        >>> newest = sales.unique("store", keep="last", order_by="qty").sort("store")
        >>> newest.select("store", "qty").head(1).collect().to_pydict()
        {'store': ['a'], 'qty': [7]}
        """
        if keep not in ("any", "first", "last", "none"):
            raise ExpressionError(f"unique: keep={keep!r}; it is any, first, last or none")
        if (keep in ("first", "last")) != (order_by is not None):
            raise ExpressionError("unique: `order_by` goes with keep='first' or keep='last'")
        names = self.columns if subset is None else self._names(flat([subset]), "unique")
        if subset is None and keep != "none":
            keys = [build.col(self._plan.schema, i) for i in range(self.width)]
            return self._with(build.aggregation(self._plan, keys, [], names=self.columns))
        if keep == "none":
            return self.filter(count().over(*map(Expr.column, names)) == 1)
        order = names if order_by is None else order_by
        number = row_number().over(
            *map(Expr.column, names), order_by=order, descending=keep == "last"
        )
        return self.filter(number == 1)
