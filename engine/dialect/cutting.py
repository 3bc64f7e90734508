"""Cutting an expression into its leaves and a template over them.

Leaves (columns, aggregates, windows, subqueries, constants that DuckDB can evaluate) are bound here
by `ExpressionBinder`; what is left is for DuckDB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlglot import exp

from engine.dialect.bound import Term
from engine.dialect.syntax import REFUSED, dependent_nodes, function_names, is_aggregate
from engine.errors import SqlError, UnsupportedSqlError

if TYPE_CHECKING:
    from engine.dialect.expressions import Clause, ExpressionBinder

__all__ = ["Attempt"]

# Kinds of nodes that are looked for at every node: tuples, where a union would be made each time.
_REFUSED = tuple(kind for kind, _ in REFUSED)
_CONNECTIVES = (exp.And, exp.Or, exp.Paren)
_FOLDABLE = (exp.Condition, exp.Interval)
_BARE = (
    exp.Literal,
    exp.Boolean,
    exp.Null,
    exp.Paren,
    exp.Tuple,
    exp.DataType,
    exp.Star,
    exp.Identifier,
)


class Attempt:
    """One cutting of an expression into leaves and a template."""

    def __init__(
        self,
        binder: ExpressionBinder,
        clause: Clause,
        root: exp.Expr,
        fold: bool,
    ) -> None:
        self._binder = binder
        self._clause = clause
        self._fold = fold
        self._dependent = dependent_nodes(root) if fold else frozenset()
        self.leaves: list[Term] = []

    def cut(self, node: exp.Expr, positive: bool = True) -> exp.Expr:
        """The template of an expression; `positive`: only its being true matters, in a filter."""
        if isinstance(node, _REFUSED):
            what = next(what for kind, what in REFUSED if isinstance(node, kind))
            raise UnsupportedSqlError(f"{what} are not supported")
        leaf = self._leaf(node, positive)
        if leaf is not None:
            return self._placeholder(leaf)
        return self.cut_children(node, positive)

    def cut_children(self, node: exp.Expr, positive: bool = False) -> exp.Expr:
        """The same node over templates of its children."""
        positive = positive and isinstance(node, _CONNECTIVES)
        made: dict[str, Any] = {}
        for key, value in node.args.items():
            if isinstance(value, list):
                made[key] = [self.cut(v, positive) if isinstance(v, exp.Expr) else v for v in value]
            elif isinstance(value, exp.Expr):
                made[key] = self.cut(value, positive)
            else:
                made[key] = value
        return node.__class__(**made)

    def _placeholder(self, term: Term) -> exp.Expr:
        self.leaves.append(term)
        return exp.Column(this=exp.Identifier(this=f"c{len(self.leaves) - 1}", quoted=False))

    def _leaf(self, node: exp.Expr, positive: bool) -> Term | None:
        binder, clause = self._binder, self._clause
        match node:
            case exp.Column():
                return binder.column(node, clause)
            case exp.Window():
                if not clause.windows:
                    raise SqlError(f"window functions are not allowed in {clause.name}")
                return binder.window(node, clause)
            case exp.Subquery() | exp.Query():
                query = node.unnest() if isinstance(node, exp.Subquery) else node
                return binder.subqueries.scalar(query)
            case exp.Exists():
                return binder.subqueries.exists(node)
            case exp.In() if node.args.get("query") is not None:
                if not (clause.filter and positive):
                    raise UnsupportedSqlError(
                        "IN (subquery) is supported only as a condition of WHERE, HAVING or QUALIFY"
                        " that is not negated (NOT IN: only between ANDs)"
                    )
                return binder.subqueries.contains(node, clause)
            case exp.Grouping():
                return binder.grouping(node, clause)
        if is_aggregate(node):
            if binder.is_of_outer_query(node):
                raise UnsupportedSqlError(
                    "an aggregate of the outer query is not supported in a subquery"
                )
            if not clause.aggregates:
                raise SqlError(f"aggregates are not allowed in {clause.name}")
            return Term(*binder.aggregate(node, clause))
        return self._folded(node)

    def _folded(self, node: exp.Expr) -> Term | None:
        if isinstance(node, exp.Func):
            for name in function_names(node, deep=False):
                if self._binder.is_volatile(name):
                    raise UnsupportedSqlError(f"the volatile function {name} is not supported")
        if not self._fold or not isinstance(node, _FOLDABLE):
            return None
        if isinstance(node, _BARE):
            return None
        if isinstance(node, exp.Neg) and isinstance(node.this, exp.Literal):
            return None
        if id(node) in self._dependent:
            return None
        return self._binder.constant(node)
