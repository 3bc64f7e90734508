"""`RemoteFrame`: a lazy data frame over the plan IR.

Every method returns a new frame and computes nothing; `collect`, `write` and the conversions
(`remote_frame.results`) do. Names follow Polars, meaning and types are SQL's. Column names are
checked when an operation is written down, not when it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

import pyarrow as pa

from operators import build
from operators.rel import Rel
from remote_frame import joins
from remote_frame.building import built, check_unique
from remote_frame.columns import Columns
from remote_frame.core import as_expr, flat
from remote_frame.display import as_html, as_text
from remote_frame.errors import ExpressionError
from remote_frame.executor import common_executor
from remote_frame.expressions import Expr
from remote_frame.grouping import GroupBy
from remote_frame.results import Results
from remote_frame.rows import Rows

__all__ = ["JoinHow", "RemoteFrame"]

JoinHow = Literal["inner", "left", "right", "full", "semi", "anti", "cross"]

P = ParamSpec("P")
T = TypeVar("T")


class RemoteFrame(Columns, Rows, Results):
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

    __slots__ = ()

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

    def _beside(self, other: RemoteFrame, plan: Rel) -> RemoteFrame:
        executor = common_executor([(self._plan, self._executor), (other._plan, other._executor)])
        return RemoteFrame(plan, executor)


def _united(plans: Sequence[Rel]) -> Rel:
    return plans[0] if len(plans) == 1 else build.set_operation("union", plans, all=True)


def _require_frame(other: object, what: str) -> None:
    if not isinstance(other, RemoteFrame):
        raise ExpressionError(f"{what}() wants a RemoteFrame, not {type(other).__name__}")
