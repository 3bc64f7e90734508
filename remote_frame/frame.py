"""`RemoteFrame`: a lazy data frame over the plan IR.

Every method returns a new frame and computes nothing; `collect`, `write` and the conversions
(`remote_frame.results`) do. Names follow Polars, meaning and types are SQL's. Column names are
checked when an operation is written down, not when it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

import pyarrow as pa
import pyarrow.types as pt

from operators import build
from operators import expr as ir
from operators.rel import Rel
from remote_frame import joins
from remote_frame.building import built, check_unique, reverse_keys, row_count, stands_for_null
from remote_frame.core import as_expr, as_order, as_type, flat
from remote_frame.display import as_html, as_text
from remote_frame.errors import ExpressionError
from remote_frame.executor import Executor, common_executor
from remote_frame.expressions import Expr, col
from remote_frame.functions import count, row_number
from remote_frame.grouping import GroupBy, aggregate, expanded
from remote_frame.results import Results
from remote_frame.scopes import Order, RowScope, ordering, position

__all__ = ["JoinHow", "RemoteFrame"]

JoinHow = Literal["inner", "left", "right", "full", "semi", "anti", "cross"]

P = ParamSpec("P")
T = TypeVar("T")


class RemoteFrame(Results):
    """A table that is a plan.

    Parameters
    ----------
    plan
        What to compute.
    executor
        Who computes it.

    Examples
    --------
    >>> frame = remote_frame.from_dict({"item": ["a", "b", "a"], "qty": [1, 2, 3]})
    >>> frame.filter(col("qty") > 1).sort("qty", descending=True).collect().to_pydict()
    {'item': ['a', 'b'], 'qty': [3, 2]}
    >>> frame
    RemoteFrame of 2 columns, computed in this process
      item  string
      qty   int64
    from Arrow data (3 rows)
    """

    __slots__ = ("_executor", "_plan")

    def __init__(self, plan: Rel, executor: Executor) -> None:
        self._plan = plan
        self._executor = executor

    @property
    def plan(self) -> Rel:
        """The plan."""
        return self._plan

    @property
    def executor(self) -> Executor:
        """Who computes it."""
        return self._executor

    @property
    def columns(self) -> list[str]:
        """Column names in order."""
        return list(self._plan.schema.names)

    @property
    def dtypes(self) -> list[pa.DataType]:
        """Column types in order."""
        return list(self._plan.schema.types)

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self._plan.schema)

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns."""
        return self._plan.schema.to_arrow()

    def collect_schema(self) -> pa.Schema:
        """Names and types of the columns; they are known without computing."""
        return self.schema

    def lazy(self) -> RemoteFrame:
        """The frame itself."""
        return self

    def __repr__(self) -> str:
        return as_text(self._plan, self._executor)

    def _repr_html_(self) -> str:
        return as_html(self._plan, self._executor)

    def __getitem__(self, name: object) -> None:
        raise ExpressionError(
            f"a frame has no items: use select({name!r}), head() or filter() and collect()"
        )

    def __iter__(self) -> Iterator[Any]:
        raise ExpressionError(
            "a frame cannot be gone through before it is computed: use to_dicts() for its rows, "
            "columns for its names"
        )

    def __bool__(self) -> bool:
        raise ExpressionError("a frame has no truth value: what should be counted is not computed")

    def pipe(
        self,
        function: Callable[Concatenate[RemoteFrame, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """What `function` makes of the frame, so that calls can be written in a chain."""
        return function(self, *args, **kwargs)

    # Columns.

    def select(self, *exprs: Any, **named: Any) -> RemoteFrame:
        """These columns only: names, expressions, lists of them, or ``name=expression`` (a string
        is a name here, too).

        If they are nothing but aggregates, the result has one row; an aggregate beside other
        columns has the same value in every row.

        Examples
        --------
        >>> sales.select("item", half=col("qty") / 2).head(1).collect().to_pydict()
        {'item': [1], 'half': [2.5]}
        >>> sales.select(col("qty").max(), remote_frame.len()).collect().to_pydict()
        {'qty': [7], 'len': [5]}
        >>> sales.select("qty", best=col("qty") == col("qty").max()).head(1).collect().to_pydict()
        {'qty': [5], 'best': [False]}
        """
        wanted = self._expressions(exprs, named)
        if not wanted:
            raise ExpressionError("select() needs at least one column")
        check_unique([e.output_name for e in wanted], "select")
        if any(e.aggregates for e in wanted) and not any(e.rows for e in wanted):
            return self._with(built("select", aggregate, self._plan, [], wanted))
        return self._project(wanted, "select")

    def with_columns(self, *exprs: Any, **named: Any) -> RemoteFrame:
        """All columns, and these: one of the same name is replaced where it stands.

        Examples
        --------
        >>> sales.with_columns(col("qty").fill_null(0), dear=col("price") > 2).columns
        ['item', 'store', 'qty', 'price', 'day', 'dear']
        """
        wanted = self._expressions(exprs, named)
        check_unique([e.output_name for e in wanted], "with_columns")
        new = {e.output_name: e for e in wanted}
        if not new:
            return self
        kept = [new.pop(name) if name in new else Expr.column(name) for name in self.columns]
        return self._project([*kept, *new.values()], "with_columns")

    def drop(self, *names: Any, strict: bool = True) -> RemoteFrame:
        """All columns but these: names or selectors; `strict`: each must exist.

        Examples
        --------
        >>> sales.drop("day", "price").columns
        ['item', 'store', 'qty']
        """
        given = [n for n in flat(names) if strict or not isinstance(n, str) or n in self.columns]
        gone = {position(self._plan.schema, name) for name in self._names(given, "drop")}
        kept = [i for i in range(len(self._plan.schema)) if i not in gone]
        if not kept:
            raise ExpressionError("drop() would leave no column")
        return self._with(build.select_columns(self._plan, kept))

    def rename(self, names: Mapping[str, str] | Callable[[str], str]) -> RemoteFrame:
        """The same columns, some under other names: a mapping, or a function of the name.

        Examples
        --------
        >>> sales.rename({"qty": "amount"}).rename(str.upper).columns
        ['ITEM', 'STORE', 'AMOUNT', 'PRICE', 'DAY']
        """
        if callable(names):
            renamed = [names(name) for name in self.columns]
        else:
            for name in names:
                position(self._plan.schema, name)
            renamed = [names.get(name, name) for name in self.columns]
        check_unique(renamed, "rename")
        columns = [build.col(self._plan.schema, i) for i in range(self.width)]
        return self._with(built("rename", build.project, self._plan, columns, renamed))

    def cast(self, dtypes: Any, *, strict: bool = True) -> RemoteFrame:
        """Columns as other types: a mapping from names (or selectors) to types, or one for all.

        Examples
        --------
        >>> sales.cast({"qty": "int8"}).schema.field("qty").type
        DataType(int8)
        """
        if not isinstance(dtypes, Mapping):
            wanted = dict.fromkeys(self.columns, as_type(dtypes))
        else:
            wanted = {
                name: as_type(dtype)
                for given, dtype in dtypes.items()
                for name in self._names([given], "cast")
            }
        return self.with_columns(*(col(n).cast(t, strict=strict) for n, t in wanted.items()))

    def with_row_index(
        self,
        name: str = "index",
        offset: int = 0,
        *,
        order_by: Any,
        descending: bool | Sequence[bool] = False,
    ) -> RemoteFrame:
        """A first column that numbers the rows in an order.

        Examples
        --------
        >>> frame = sales.select("qty").with_row_index(order_by="qty").sort("index")
        >>> frame.collect().to_pydict()
        {'index': [0, 1, 2, 3, 4], 'qty': [1, 2, 5, 7, None]}
        """
        number = row_number().over(order_by=order_by, descending=descending) + (offset - 1)
        return self.select(number.alias(name), *map(Expr.column, self.columns))

    def fill_null(self, value: Any, *, subset: Any = None) -> RemoteFrame:
        """`value` instead of null in the columns whose type it fits (or those named).

        Examples
        --------
        >>> sales.select("store", "qty").fill_null(0).collect().to_pydict()
        {'store': ['a', 'b', 'a', None, 'a'], 'qty': [5, 0, 7, 1, 2]}
        """
        if subset is not None:
            names = self._names(flat([subset]), "fill_null")
        else:
            type = as_expr(value).lower(RowScope(self._plan.schema)).type
            names = [f.name for f in self._plan.schema if stands_for_null(type, f.type)]
        return self.with_columns(*(col(n).fill_null(value) for n in names))

    def fill_nan(self, value: Any) -> RemoteFrame:
        """`value` instead of NaN in columns of floats."""
        return self.with_columns(*(col(n).fill_nan(value) for n in self._floats()))

    # Rows.

    def filter(self, *conditions: Any, **equal: Any) -> RemoteFrame:
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

    def remove(self, *conditions: Any) -> RemoteFrame:
        """Rows for which not every condition is true: those that `filter` leaves out."""
        terms = [t for c in flat(conditions) for t in as_expr(c).expand(self._plan.schema)]
        if not terms:
            return self
        condition = terms[0]
        for more in terms[1:]:
            condition = condition & more
        return self.filter(~condition.fill_null(False))

    def drop_nulls(self, subset: Any = None) -> RemoteFrame:
        """Rows without a null (in some columns).

        Examples
        --------
        >>> sales.drop_nulls("qty").select("qty").collect().to_pydict()
        {'qty': [5, 7, 1, 2]}
        """
        names = self.columns if subset is None else self._names(flat([subset]), "drop_nulls")
        return self.filter(*(col(n).is_not_null() for n in names))

    def drop_nans(self, subset: Any = None) -> RemoteFrame:
        """Rows without a NaN (in some columns)."""
        names = self._floats() if subset is None else self._names(flat([subset]), "drop_nans")
        return self.filter(*(col(n).is_not_nan().fill_null(True) for n in names))

    def sort(
        self,
        by: Any,
        *more_by: Any,
        descending: bool | Sequence[bool] = False,
        nulls_last: bool | Sequence[bool] = True,
    ) -> RemoteFrame:
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

    def _sorted(self, order: Sequence[Order], *, limit: int | None = None) -> RemoteFrame:
        schema = self._plan.schema
        scope = RowScope(schema)
        keys = [k for o in order for k in o.lower(scope)]
        plan = built("sort", build.sort, scope.extend(self._plan), keys)
        if limit is not None:
            plan = built("limit", build.limit, plan, limit)
        return self._with(build.select_columns(plan, range(len(schema))))

    def top_k(self, k: int, *, by: Any, reverse: bool | Sequence[bool] = False) -> RemoteFrame:
        """The `k` rows with the greatest values, in that order; `reverse`: the least.

        Examples
        --------
        >>> sales.top_k(2, by="qty").select("qty").collect().to_pydict()
        {'qty': [7, 5]}
        """
        flags = (not reverse) if isinstance(reverse, bool) else [not r for r in reverse]
        return self._sorted(as_order(by, flags), limit=row_count("top_k", k))

    def bottom_k(self, k: int, *, by: Any, reverse: bool | Sequence[bool] = False) -> RemoteFrame:
        """The `k` rows with the least values, in that order; `reverse`: the greatest."""
        return self._sorted(as_order(by, reverse), limit=row_count("bottom_k", k))

    def limit(self, n: int = 5, offset: int = 0) -> RemoteFrame:
        """The first `n` rows, after skipping `offset`; which they are only `sort` decides."""
        return self._limited("limit", n, offset)

    def head(self, n: int = 5) -> RemoteFrame:
        """The first `n` rows."""
        return self._limited("head", n)

    def tail(self, n: int = 5) -> RemoteFrame:
        """The last `n` rows of a sorted frame.

        Examples
        --------
        >>> sales.select("qty").drop_nulls().sort("qty").tail(2).collect().to_pydict()
        {'qty': [5, 7]}
        """
        keys = self._order("tail")
        return self._with(build.sort(self._end(n, keys), keys))

    def slice(self, offset: int, length: int | None = None) -> RemoteFrame:
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

    def reverse(self) -> RemoteFrame:
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

    def _limited(self, what: str, n: int | None, offset: int = 0) -> RemoteFrame:
        rows = None if n is None and what == "slice" else row_count(what, n)
        return self._with(built(what, build.limit, self._plan, rows, row_count(what, offset)))

    def unique(
        self,
        subset: Any = None,
        *,
        keep: Literal["any", "first", "last", "none"] = "any",
        order_by: Any = None,
    ) -> RemoteFrame:
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

    def group_by(self, *by: Any, **named: Any) -> GroupBy:
        """Groups of rows with equal keys (nulls are equal); continue with ``.agg(…)``.

        Examples
        --------
        >>> groups = sales.group_by("store").agg(most=col("qty").max())
        >>> groups.sort("store").collect().to_pydict()
        {'store': ['a', 'b', None], 'most': [7, None, 1]}
        """
        keys = self._expressions(by, named)
        if not keys:
            raise ExpressionError("group_by() needs at least one key; for one row use select()")
        check_unique([k.output_name for k in keys], "group_by")
        return GroupBy(self._plan, keys, self._with)

    def unpivot(
        self,
        on: Any = None,
        *,
        index: Any = None,
        variable_name: str = "variable",
        value_name: str = "value",
    ) -> RemoteFrame:
        """Columns as rows: for each of `on` a row with its name and its value beside `index`.

        Examples
        --------
        >>> long = sales.head(1).unpivot(["qty", "item"], index="store")
        >>> long.sort("variable").collect().to_pydict()
        {'store': ['a', 'a'], 'variable': ['item', 'qty'], 'value': [1, 5]}
        """
        kept = [] if index is None else self._names(flat([index]), "unpivot")
        if on is None:
            wanted = [n for n in self.columns if n not in kept]
        else:
            wanted = self._names(flat([on]), "unpivot")
        if not wanted:
            raise ExpressionError("unpivot() needs a column")
        parts = [
            self.select(
                *kept, as_expr(name).alias(variable_name), Expr.column(name).alias(value_name)
            )
            for name in wanted
        ]
        plans = [p.plan for p in parts]
        return self._with(built("unpivot", _united, plans))

    # Several frames.

    def join(
        self,
        other: RemoteFrame,
        on: Any = None,
        how: JoinHow = "inner",
        *,
        left_on: Any = None,
        right_on: Any = None,
        suffix: str = "_right",
        nulls_equal: bool = False,
        coalesce: bool | None = None,
    ) -> RemoteFrame:
        """Join with another frame on equal keys.

        Parameters
        ----------
        other
            The right side.
        on
            Names of key columns that both sides have; they appear once in the result.
        how
            ``inner``, ``left``, ``right``, ``full``, ``semi`` (rows with a match, left columns
            only), ``anti`` (rows without), ``cross`` (no keys).
        left_on, right_on
            Keys whose names differ. An inner or left join keeps the left ones, a right join
            the right ones, a full join both.
        suffix
            Added to the name of a right column that the left side has too.
        nulls_equal
            Whether null keys match one another; by default they match nothing.
        coalesce
            Whether a key of both sides becomes one column, or (False) stays two. By default as
            said above.

        Raises
        ------
        ColumnNotFoundError, AmbiguousColumnError
            If a key is not exactly one column, or `suffix` does not make names different.
        ExpressionError
            If keys cannot be compared or the arguments contradict one another.

        Examples
        --------
        >>> towns = remote_frame.from_dict({"store": ["a", "b"], "town": ["Ulm", "Bonn"]})
        >>> sales.join(towns, on="store").select("town").unique().sort("town").collect().to_pydict()
        {'town': ['Bonn', 'Ulm']}
        """
        _require_frame(other, "join")
        keys = joins.keys(on, left_on, right_on, how)
        plan = built(
            "join", joins.join, self._plan, other._plan, keys, how, suffix, nulls_equal, coalesce
        )
        return self._beside(other, plan)

    def join_where(
        self, other: RemoteFrame, *predicates: Any, suffix: str = "_right"
    ) -> RemoteFrame:
        """All pairs of rows for which conditions hold, which name columns as in the result.

        Examples
        --------
        >>> steps = remote_frame.from_dict({"low": [0, 5], "high": [5, 10]})
        >>> inside = sales.join_where(steps, col("qty") >= col("low"), col("qty") < col("high"))
        >>> inside.select("qty", "low").sort("qty").collect().to_pydict()
        {'qty': [1, 2, 5, 7], 'low': [0, 0, 5, 5]}
        """
        _require_frame(other, "join_where")
        plan = built("join_where", joins.join_where, self._plan, other._plan, predicates, suffix)
        return self._beside(other, plan)

    def join_asof(
        self,
        other: RemoteFrame,
        *,
        on: Any = None,
        left_on: Any = None,
        right_on: Any = None,
        by: Any = None,
        by_left: Any = None,
        by_right: Any = None,
        strategy: joins.AsofStrategy = "backward",
        suffix: str = "_right",
        tolerance: Any = None,
        coalesce: bool = True,
        allow_exact_matches: bool = True,
    ) -> RemoteFrame:
        """Every row beside the row of another frame whose key is nearest.

        Neither side needs to be sorted. Where several right rows are equally near and on the same
        side, any of them is taken.

        Parameters
        ----------
        other
            The right side.
        on, left_on, right_on
            The key that is compared: one column of each side.
        by, by_left, by_right
            Columns that must be equal.
        strategy
            ``backward``: the greatest right key that is not greater than the left one;
            ``forward``: the least that is not less; ``nearest``: the nearer of these two, of
            equally near ones the greater.
        suffix
            Added to the name of a right column that the left side has too.
        tolerance
            The greatest distance: a number, or for dates and timestamps a span of time such as
            ``"2h"`` or a `datetime.timedelta`.
        coalesce
            Whether the right key of `on` is left out of the result.
        allow_exact_matches
            Whether an equal key counts.

        Examples
        --------
        >>> quotes = remote_frame.from_dict({"at": [1, 5, 9], "bid": [10, 11, 12]})
        >>> trades = remote_frame.from_dict({"at": [4, 5, 20]})
        >>> trades.join_asof(quotes, on="at").sort("at").collect().to_pydict()
        {'at': [4, 5, 20], 'bid': [10, 11, 12]}
        >>> near = trades.join_asof(quotes, on="at", strategy="nearest", tolerance=2)
        >>> near.sort("at").collect().to_pydict()
        {'at': [4, 5, 20], 'bid': [11, 11, None]}
        """
        _require_frame(other, "join_asof")
        keys = joins.by_keys("join_asof", on, left_on, right_on)
        if keys is None:
            raise ExpressionError(
                "join_asof: a key is needed: `on`, or both `left_on` and `right_on`"
            )
        equal = joins.by_keys("join_asof", by, by_left, by_right, "by")
        plan = built(
            "join_asof",
            joins.join_asof,
            self._plan,
            other._plan,
            keys,
            equal,
            strategy,
            suffix,
            tolerance,
            coalesce,
            allow_exact_matches,
        )
        return self._beside(other, plan)

    def sql(self, text: str, *, table_name: str = "self") -> RemoteFrame:
        """A frame that is what a SELECT statement says, in which this one is a table.

        Examples
        --------
        >>> sales.sql("select store, max(qty) as most from self group by store order by store")\
            .collect().to_pydict()
        {'store': ['a', 'b', None], 'most': [7, None, 1]}
        """
        from remote_frame.api import sql

        return sql(text, **{table_name: self})

    def explain(self, *, analyze: bool = False) -> str:
        """How the frame would be computed, for people; with `analyze` it is, and the text says what
        that took.
        """
        return self._executor.explain(self._plan, analyze=analyze)

    def describe(self, percentiles: Sequence[float] = (0.25, 0.5, 0.75)) -> pa.Table:
        """Computes a summary of every column: counts, mean, deviation, least, quantiles, greatest.

        Examples
        --------
        >>> sales.select("qty", "store").describe().to_pylist()[1]
        {'statistic': 'null_count', 'qty': 1.0, 'store': '1'}
        """
        from remote_frame.describe import describe

        return describe(self, percentiles)

    # Inside.

    def _with(self, plan: Rel) -> RemoteFrame:
        return RemoteFrame(plan, self._executor)

    def _beside(self, other: RemoteFrame, plan: Rel) -> RemoteFrame:
        executor = common_executor([(self._plan, self._executor), (other._plan, other._executor)])
        return RemoteFrame(plan, executor)

    def _expressions(self, exprs: Sequence[Any], named: dict[str, Any]) -> list[Expr]:
        return expanded(exprs, named, self._plan.schema)

    def _names(self, given: Sequence[Any], what: str) -> list[str]:
        """Names of columns that exist, from names and selectors."""
        found: dict[str, None] = {}
        scope = RowScope(self._plan.schema)
        for one in self._expressions(given, {}):
            if one.text != one.root_name:
                raise ExpressionError(f"{what}: {one!r} is not a column")
            scope.column(one.text)
            found[one.text] = None
        return list(found)

    def _floats(self) -> list[str]:
        return [f.name for f in self._plan.schema if pt.is_floating(f.type)]

    def _project(self, exprs: Sequence[Expr], what: str) -> RemoteFrame:
        schema = self._plan.schema
        scope = RowScope(schema)
        lowered = [e.lower(scope) for e in exprs]
        names = [e.output_name for e in exprs]
        positions = [e.index for e in lowered if isinstance(e, ir.Column)]
        plain = len(positions) == len(lowered) and not scope.extended
        if plain and names == [schema.names[i] for i in positions]:
            return self._with(build.select_columns(self._plan, positions))
        return self._with(built(what, scope.project, self._plan, lowered, names))


def _united(plans: Sequence[Rel]) -> Rel:
    return plans[0] if len(plans) == 1 else build.set_operation("union", plans, all=True)


def _require_frame(other: object, what: str) -> None:
    if not isinstance(other, RemoteFrame):
        raise ExpressionError(f"{what}() wants a RemoteFrame, not {type(other).__name__}")
