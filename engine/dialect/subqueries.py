"""Subqueries in expressions: values, EXISTS, IN and NOT IN, as the planner can join them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sqlglot import exp

from engine.dialect.bound import Term
from engine.dialect.scope import Scope
from engine.dialect.syntax import DUCKDB, always_one_row, is_aggregate, is_query
from engine.dialect.types import ir_type
from engine.errors import SqlError, UnsupportedSqlError

if TYPE_CHECKING:
    from engine.dialect.expressions import Clause, ExpressionBinder

__all__ = ["Subqueries", "SubqueryBinder", "is_joined"]

SubqueryBinder = Callable[[exp.Expr, Scope], tuple[str, list[tuple[str, str]]]]
"""Binds a subquery inside a scope: its SQL for DataFusion, and name and DuckDB type of each column.
"""

_INNER = '"in"'


class Subqueries:
    """Binds the subqueries in expressions of one SELECT.

    Parameters
    ----------
    binder
        Binds what stands beside them.
    scope
        Of the SELECT.
    bind
        Binds a query.
    """

    def __init__(self, binder: ExpressionBinder, scope: Scope, bind: SubqueryBinder) -> None:
        self._binder = binder
        self._scope = scope
        self._bind = bind

    def scalar(self, node: exp.Expr) -> Term:
        """A scalar subquery."""
        text, columns, _ = self._query(node)
        if len(columns) != 1:
            raise SqlError(f"a subquery used as a value has {len(columns)} columns, not one")
        ir_type(columns[0][1])
        return Term(f"({text})", columns[0][1])

    def exists(self, node: exp.Exists) -> Term:
        """EXISTS (subquery)."""
        if not isinstance(node.this, exp.Query):
            raise UnsupportedSqlError("EXISTS of anything but a query is not supported")
        text, _ = self._bind(node.this, self._scope)
        return Term(f"EXISTS ({text})", "BOOLEAN")

    def contains(self, node: exp.In, clause: Clause) -> Term:
        """`x IN (subquery)` where only true matters."""
        needle, column, text, correlated = self._needle(node, clause)
        if not correlated:
            inner = f"(SELECT {column} FROM ({text}) AS {_INNER})"
            return Term(f"({needle.text} IN {inner})", "BOOLEAN")
        # The planner finds correlated conditions in the subquery itself, not in one around it.
        query = node.args["query"].unnest()
        if not isinstance(query, exp.Select):
            raise UnsupportedSqlError("IN (correlated set operation) is not supported")
        text, ((_, type),) = self._bind(query, self._scope)
        if always_one_row(query):
            # Of no rows, too: a join on what it is correlated by would not find that one.
            value = self._binder.cast(Term(f"({text})", type), needle.type)
            return Term(f"({needle.text} = {value.text})", "BOOLEAN")
        if type != needle.type:
            text, _ = self._bind(_with_cast(query, needle.type), self._scope)
        return Term(f"({needle.text} IN ({text}))", "BOOLEAN")

    def lacks(self, node: exp.In, clause: Clause) -> str:
        """NOT IN with its three-valued logic, in terms that decorrelate to joins on equal keys.

        It is true if nothing in the subquery equals the value, and either the subquery is empty or
        neither it nor the value holds a NULL. DataFusion has a NULL-aware anti join of its own, but
        Substrait does not carry it.
        """
        needle, column, text, correlated = self._needle(node, clause)
        if self._aggregates(node.this, clause):
            raise UnsupportedSqlError(
                "NOT IN (subquery) of an aggregate is not supported: filter in a query around it"
            )
        inner = f"({text}) AS {_INNER}"
        if correlated:
            either = f"{column} = {needle.text} OR {column} IS NULL OR {needle.text} IS NULL"
            return f"(NOT EXISTS (SELECT 1 FROM {inner} WHERE {either}))"
        count = "SELECT count(*) FROM "
        guard = f" OR {clause.guard}" if clause.guard else ""
        return (
            f"(NOT EXISTS (SELECT 1 FROM {inner} WHERE {column} = {needle.text})"
            f" AND ({needle.text} IS NOT NULL OR ({count}{inner}) = 0{guard})"
            f" AND (({count}{inner} WHERE {column} IS NULL) = 0{guard}))"
        )

    def _needle(self, node: exp.In, clause: Clause) -> tuple[Term, str, str, bool]:
        """The left side of IN, the subquery's column cast to the same type, the subquery, and
        whether it is correlated.
        """
        if isinstance(node.this, exp.Tuple):
            raise UnsupportedSqlError("(a, b) IN (subquery) is not supported")
        needle = self._binder.bind(node.this, clause)
        text, columns, correlated = self._query(node.args["query"].unnest())
        if len(columns) != 1:
            raise SqlError(f"the subquery of IN has {len(columns)} columns, not one")
        name, type = columns[0]
        common = self._binder.common(needle.type, type)
        column = self._binder.cast(Term(f'{_INNER}."{name}"', type), common).text
        return self._binder.cast(needle, common), column, text, correlated

    def _query(self, query: exp.Expr) -> tuple[str, list[tuple[str, str]], bool]:
        """A subquery as `SubqueryBinder` gives it, and whether it has a column of this query or of
        one around it.

        Raises
        ------
        UnsupportedSqlError
            If it has a window function besides: the planner would take the correlated conditions
            out of the subquery, past the window, which would have more rows then.
        """
        before, self._scope.reached = self._scope.reached, False
        text, columns = self._bind(query, self._scope)
        correlated, self._scope.reached = self._scope.reached, before or self._scope.reached
        if correlated and query.find(exp.Window) is not None:
            raise UnsupportedSqlError("a window function in a correlated subquery is not supported")
        return text, columns, correlated

    def _aggregates(self, node: exp.Expr, clause: Clause) -> bool:
        """Whether an expression has an aggregate, perhaps in a SELECT alias that it names."""
        for one in node.walk(prune=is_query):
            aliased = clause.aliases.get(one.name.lower()) if isinstance(one, exp.Column) else None
            if is_aggregate(one) or (
                aliased is not None and any(map(is_aggregate, aliased.walk(prune=is_query)))
            ):
                return True
        return False


def _with_cast(query: exp.Select, type: str) -> exp.Select:
    """A query of one column with that column cast."""
    made = query.copy()
    (item,) = made.expressions
    inner = item.this if isinstance(item, exp.Alias) else item
    inner.replace(exp.Cast(this=inner.copy(), to=exp.DataType.build(type, dialect=DUCKDB)))
    return made


def is_joined(node: exp.Expr) -> bool:
    """Whether the planner makes a join of a condition with this node, unless OR hides it."""
    return isinstance(node, exp.Exists) or bool(isinstance(node, exp.In) and node.args.get("query"))
