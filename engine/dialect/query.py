"""Binding of what is put together of queries: CTEs, set operations, ORDER BY and LIMIT over them;
names and types by DuckDB's rules.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from sqlglot import exp

from engine.dialect.bound import Term
from engine.dialect.expressions import ExpressionBinder
from engine.dialect.oracle import Oracle, quote
from engine.dialect.outputs import BoundQuery, Output, TableLookup, renamed
from engine.dialect.scope import Scope
from engine.dialect.select import SelectBinder
from engine.dialect.signatures import Signatures
from engine.dialect.sources import Ctes
from engine.dialect.syntax import (
    union_branches,
)
from engine.errors import SqlError, UnsupportedSqlError

__all__ = ["BoundQuery", "Output", "QueryBinder", "TableLookup"]


class QueryBinder:
    """Binds one statement."""

    def __init__(self, oracle: Oracle, signatures: Signatures, tables: TableLookup) -> None:
        self.oracle = oracle
        self._signatures = signatures
        self.tables = tables
        self._numbers = itertools.count()
        self._selects = SelectBinder(self)

    def bind(
        self, node: exp.Expr, parent: Scope | None = None, ctes: Ctes | None = None
    ) -> BoundQuery:
        """Bind a query, which may see the columns of `parent` and the CTEs of the queries around.

        Raises
        ------
        SqlError
            If DuckDB's rules forbid it.
        UnsupportedSqlError
            If it uses what the IR cannot say.
        """
        ctes = dict(ctes or {})
        prefix = self._with(node, parent, ctes)
        match node:
            case exp.Select():
                bound = self._selects.bind(node, parent, ctes)
            case exp.SetOperation():
                bound = self._set_operation(node, parent, ctes)
            case exp.Subquery():
                bound = self._parenthesized(node, parent, ctes)
            case exp.Values():
                bound = self._selects.bind(exp.select("*").from_(node.copy()), parent, ctes)
            case exp.Table():
                select = exp.select("*").from_(node.copy())
                bound = self._selects.bind(select, parent, ctes)
            case _:
                raise UnsupportedSqlError(f"{type(node).__name__} statements are not supported")
        return BoundQuery(prefix + bound.text, bound.outputs)

    def unique(self, name: str) -> str:
        """A name that nothing else in the statement has."""
        return f"{name}_{next(self._numbers)}"

    # WITH

    def _with(self, node: exp.Expr, parent: Scope | None, ctes: dict[str, BoundQuery]) -> str:
        clause = node.args.get("with_")
        if clause is None:
            return ""
        if clause.args.get("recursive"):
            names = {cte.alias.lower() for cte in clause.expressions}
            if any(
                t.name.lower() in names
                for c in clause.expressions
                for t in c.find_all(exp.Table)
                if t.name.lower() == c.alias.lower()
            ):
                raise UnsupportedSqlError("recursive CTEs are not supported")
        texts = []
        for cte in clause.expressions:
            if cte.args.get("key_expressions"):
                raise UnsupportedSqlError("USING KEY is not supported")
            bound = self.bind(cte.this, parent, ctes)
            name = self.unique(cte.alias)
            texts.append(f"{quote(name)} AS ({bound.text})")
            outputs = renamed(bound.outputs, cte.args["alias"].args.get("columns"))
            ctes[cte.alias.lower()] = BoundQuery(name, outputs)
        return f"WITH {', '.join(texts)} "

    # Set operations

    def _set_operation(
        self, node: exp.SetOperation, parent: Scope | None, ctes: Ctes
    ) -> BoundQuery:
        if node.args.get("by_name"):
            raise UnsupportedSqlError("UNION BY NAME is not supported")
        word = type(node).__name__.upper()
        if not node.args.get("distinct") and word != "UNION":
            raise UnsupportedSqlError(f"{word} ALL is not supported")
        if node.args.get("sample"):
            raise UnsupportedSqlError("USING SAMPLE is not supported")
        united = word == "UNION"
        all_ = united and not node.args.get("distinct")
        # DuckDB, too, makes one of the unions that unions of their kind are put together of.
        branches = union_branches(node) if united else [node.left, node.right]
        sides = [self.bind(side, parent, ctes) for side in branches]
        for side in sides[1:]:
            if len(sides[0].outputs) != len(side.outputs):
                widths = f"{len(sides[0].outputs)} and of {len(side.outputs)}"
                raise SqlError(f"{word} of {widths} columns")
        types = self._unified([s.outputs for s in sides])
        outputs = tuple(
            Output(o.name, self.unique(o.name), t)
            for o, t in zip(sides[0].outputs, types, strict=True)
        )
        select, operator = "SELECT", f"{word} ALL" if all_ else word
        if united and not all_ and len(sides) > 2:
            select, operator = "SELECT DISTINCT", "UNION ALL"
        together = f" {operator} ".join(self._conformed(s, types) for s in sides)
        name = quote(self.unique("set"))
        columns = ", ".join(quote(o.alias) for o in outputs)
        text = f"{select} {columns} FROM ({together}) AS {name}({columns})"
        return self._ordered_set(node, text, outputs)

    def _unified(self, sides: Sequence[Sequence[Output]]) -> list[str]:
        kinds = list(dict.fromkeys(tuple(o.type for o in side) for side in sides))
        if len(kinds) == 1:
            return list(kinds[0])
        selects = (
            "SELECT "
            + ", ".join(
                ("NULL" if t == '"NULL"' else f"CAST(NULL AS {t})") + f" AS c{i}"
                for i, t in enumerate(kind)
            )
            for kind in kinds
        )
        return [t for _, t in self.oracle.describe(" UNION ALL ".join(selects))]

    def _conformed(self, side: BoundQuery, types: Sequence[str]) -> str:
        if all(o.type == t for o, t in zip(side.outputs, types, strict=True)):
            return f"({side.text})"
        binder = self.binder(Scope())
        name = quote(self.unique("side"))
        columns = ", ".join(
            f"{binder.cast(Term(f'{name}.{quote(o.alias)}', o.type), t).text} AS {quote(o.alias)}"
            for o, t in zip(side.outputs, types, strict=True)
        )
        return f"(SELECT {columns} FROM ({side.text}) AS {name})"

    def _ordered_set(self, node: exp.Expr, text: str, outputs: tuple[Output, ...]) -> BoundQuery:
        """ORDER BY and LIMIT over a whole query that is not a plain SELECT."""
        limit = self._selects.limit(node)
        if (order := node.args.get("order")) is not None:
            text += self._selects.order_over(order, outputs)
        return BoundQuery(text + limit, outputs)

    def _parenthesized(self, node: exp.Subquery, parent: Scope | None, ctes: Ctes) -> BoundQuery:
        inner = self.bind(node.this, parent, ctes)
        if not (node.args.get("order") or node.args.get("limit") or node.args.get("offset")):
            return inner
        name = quote(self.unique("query"))
        columns = ", ".join(quote(o.alias) for o in inner.outputs)
        text = f"SELECT {columns} FROM ({inner.text}) AS {name}"
        return self._ordered_set(node, text, inner.outputs)

    # Expressions

    def binder(
        self,
        scope: Scope,
        windows: Mapping[str, exp.Window] | None = None,
        ctes: Ctes | None = None,
    ) -> ExpressionBinder:
        """What binds expressions over the columns of `scope`."""

        def subquery(node: exp.Expr, inner: Scope) -> tuple[str, list[tuple[str, str]]]:
            bound = self.bind(node, inner, ctes)
            return bound.text, [(o.alias, o.type) for o in bound.outputs]

        return ExpressionBinder(self.oracle, self._signatures, scope, subquery, windows)
