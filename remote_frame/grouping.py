"""Grouping: expressions over aggregates, lowered to one aggregation and a projection above it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from operators import build
from operators import expr as ir
from operators.rel import Rel
from operators.schema import Schema
from remote_frame.errors import (
    AmbiguousColumnError,
    ColumnNotFoundError,
    ExpressionError,
)
from remote_frame.expressions import Expr, RowScope, as_expr

if TYPE_CHECKING:
    from remote_frame.frame import RemoteFrame

__all__ = ["GroupBy", "aggregate"]


class GroupBy:
    """Groups that wait for their aggregates."""

    __slots__ = ("_keys", "_make", "_plan")

    def __init__(self, plan: Rel, keys: Sequence[Expr], make: Callable[[Rel], RemoteFrame]) -> None:
        self._plan = plan
        self._keys = list(keys)
        self._make = make

    def agg(self, *exprs: Expr, **named: Any) -> RemoteFrame:
        """One row per group: the keys, then these expressions over aggregates.

        Raises
        ------
        ExpressionError
            If an expression uses a column outside an aggregate that is not a key.
        """
        wanted = [as_expr(e) for e in exprs] + [as_expr(e).alias(n) for n, e in named.items()]
        return self._make(aggregate(self._plan, self._keys, wanted))


class _GroupScope:
    """One group: keys by name, and aggregates, collected while expressions are lowered."""

    def __init__(self, schema: Schema, keys: Sequence[tuple[str, ir.Expr]]) -> None:
        self._schema = schema
        self._keys = keys
        self.measures: list[ir.Aggregate] = []

    def column(self, name: str) -> ir.Expr:
        """The key called `name`."""
        for i, (key, lowered) in enumerate(self._keys):
            if key == name:
                return ir.Column(lowered.type, i)
        if name not in self._schema.names:
            raise ColumnNotFoundError(name, self._schema.names)
        raise ExpressionError(
            f"column {name!r} is neither a key nor aggregated: which of a group's values is meant?"
        )

    def aggregate(self, function: str, args: Sequence[Expr], distinct: bool) -> ir.Expr:
        """The column that will hold the aggregate; equal ones are computed once."""
        rows = RowScope(self._schema, f"the argument of {function}()")
        made = build.aggregate(function, *(a.lower(rows) for a in args), distinct=distinct)
        if made not in self.measures:
            self.measures.append(made)
        return ir.Column(made.type, len(self._keys) + self.measures.index(made))


def aggregate(plan: Rel, keys: Sequence[Expr], exprs: Sequence[Expr]) -> Rel:
    """Group `plan` by `keys` (none: everything is one group) and compute `exprs` per group."""
    names = [e.name for e in (*keys, *exprs)]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise AmbiguousColumnError(
            f"agg: more than one column would be called {', '.join(map(repr, twice))}; use alias()"
        )
    rows = RowScope(plan.schema, "a key")
    lowered = [(k.name, k.lower(rows)) for k in keys]
    scope = _GroupScope(plan.schema, lowered)
    results = [e.lower(scope) for e in exprs]
    inner = [f"_m{i}" for i in range(len(scope.measures))]
    grouped = build.aggregation(
        plan, [k for _, k in lowered], scope.measures, names=[*(n for n, _ in lowered), *inner]
    )
    columns = [build.col(grouped.schema, i) for i in range(len(lowered))]
    return build.project(grouped, [*columns, *results], names)
