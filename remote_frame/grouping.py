"""Grouping: expressions over aggregates, lowered to one aggregation and a projection above it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from operators import build
from operators.rel import Rel
from operators.schema import Schema
from remote_frame.core import as_expr, flat
from remote_frame.errors import AmbiguousColumnError, ExpressionError
from remote_frame.expressions import Expr, Several
from remote_frame.functions import len as rows
from remote_frame.scopes import GroupScope, RowScope

if TYPE_CHECKING:
    from remote_frame.frame import RemoteFrame

__all__ = ["GroupBy", "aggregate", "expanded"]


class GroupBy:
    """Groups that wait for their aggregates."""

    __slots__ = ("_keys", "_make", "_plan")

    def __init__(self, plan: Rel, keys: Sequence[Expr], make: Callable[[Rel], RemoteFrame]) -> None:
        self._plan = plan
        self._keys = list(keys)
        self._make = make

    def agg(self, *exprs: Any, **named: Any) -> RemoteFrame:
        """One row per group: the keys, then these expressions over aggregates.

        Raises
        ------
        ExpressionError
            If an expression uses a column outside an aggregate that is not a key.

        Examples
        --------
        >>> (
        ...     sales.group_by("store")
        ...     .agg(remote_frame.len(), spread=col("qty").max() - col("qty").min())
        ...     .sort("store").collect().to_pydict()
        ... )
        {'store': ['a', 'b', None], 'len': [3, 1, 1], 'spread': [5, None, 0]}
        """
        rest = self._rest()
        wanted = expanded(exprs, named, rest, strings=False)
        return self._make(aggregate(self._plan, self._keys, wanted))

    def len(self, name: str = "len") -> RemoteFrame:
        """How many rows each group has.

        Examples
        --------
        >>> sales.group_by("store").len().sort("store").collect().to_pydict()
        {'store': ['a', 'b', None], 'len': [3, 1, 1]}
        """
        return self.agg(rows().alias(name))

    count = len

    def sum(self) -> RemoteFrame:
        """The sum of every other column."""
        return self._each(lambda e: e.sum())

    def mean(self) -> RemoteFrame:
        """The mean of every other column."""
        return self._each(lambda e: e.mean())

    def median(self) -> RemoteFrame:
        """The median of every other column."""
        return self._each(lambda e: e.median())

    def min(self) -> RemoteFrame:
        """The least value of every other column.

        Examples
        --------
        >>> sales.select("store", "qty").group_by("store").min().sort("store").collect().to_pydict()
        {'store': ['a', 'b', None], 'qty': [2, None, 1]}
        """
        return self._each(lambda e: e.min())

    def max(self) -> RemoteFrame:
        """The greatest value of every other column."""
        return self._each(lambda e: e.max())

    def n_unique(self) -> RemoteFrame:
        """How many different values every other column has."""
        return self._each(lambda e: e.n_unique())

    def first(self, *, order_by: Any) -> RemoteFrame:
        """The row of each group that is first in an order."""
        return self._each(lambda e: e.first(order_by=order_by))

    def last(self, *, order_by: Any) -> RemoteFrame:
        """The row of each group that is last in an order."""
        return self._each(lambda e: e.last(order_by=order_by))

    def _rest(self) -> Schema:
        """The columns that are no keys: what selectors stand for in `agg`."""
        keys = {k.output_name for k in self._keys}
        return Schema(tuple(f for f in self._plan.schema if f.name not in keys))

    def _each(self, make: Callable[[Expr], Expr]) -> RemoteFrame:
        rest = [make(Expr.column(name)) for name in self._rest().names]
        return self._make(aggregate(self._plan, self._keys, rest))


def expanded(
    exprs: Sequence[Any],
    named: dict[str, Any],
    schema: Schema,
    *,
    strings: bool = True,
) -> list[Expr]:
    """Expressions from what methods take: names (if `strings`), expressions, lists of them, and
    keywords, every one for one column.
    """
    found: list[Expr] = []
    for one in flat(exprs):
        if isinstance(one, str) and strings:
            found.append(Expr.column(one))
            continue
        made = as_expr(one)
        if made is not one and not hasattr(one, "finished"):
            raise ExpressionError(
                f"expected {'a column name or ' if strings else ''}an expression, not {one!r}"
            )
        found += made.expand(schema)
    for name, value in named.items():
        made = Expr.column(value) if isinstance(value, str) else as_expr(value)
        if isinstance(made, Several):
            several = made.expand(schema)
            if len(several) != 1:
                raise ExpressionError(f"{name}={made.text}: it stands for {len(several)} columns")
            made = several[0]
        found.append(made.alias(name))
    return found


def aggregate(plan: Rel, keys: Sequence[Expr], exprs: Sequence[Expr]) -> Rel:
    """Group `plan` by `keys` (none: everything is one group) and compute `exprs` per group."""
    names = [e.output_name for e in (*keys, *exprs)]
    twice = sorted(n for n, times in Counter(names).items() if times > 1)
    if twice:
        raise AmbiguousColumnError(
            f"agg: more than one column would be called {', '.join(map(repr, twice))}; use alias()"
        )
    known = plan.schema
    scope = RowScope(known)
    lowered = [k.lower(scope) for k in keys]
    plan = scope.extend(plan)
    within = RowScope(known, len(plan.schema), lowered)
    named = [(k.output_name, e) for k, e in zip(keys, lowered, strict=True)]
    group = GroupScope(known, named, within)
    results = [e.lower(group) for e in exprs]
    inner = [f"_m{i}" for i in range(len(group.measures))]
    grouped = build.aggregation(
        within.extend(plan), lowered, list(group.measures), names=[*(n for n, _ in named), *inner]
    )
    columns = [build.col(grouped.schema, i) for i in range(len(lowered))]
    return build.project(grouped, [*columns, *results], names)
