"""Binding of FROM: tables, subqueries, VALUES and joins, and the columns that they offer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sqlglot import exp

from engine.dialect.bound import Term
from engine.dialect.expressions import Clause, ExpressionBinder
from engine.dialect.oracle import quote
from engine.dialect.outputs import BoundQuery, Output, renamed
from engine.dialect.scope import Attribute, Item, Scope
from engine.dialect.syntax import duckdb_sql
from engine.errors import SqlError, UnsupportedSqlError

if TYPE_CHECKING:
    from engine.dialect.query import QueryBinder

__all__ = ["Ctes", "SourceBinder"]

Ctes = Mapping[str, BoundQuery]
"""Common table expressions in sight, by lower-case name; the text of each is the name that it has
for DataFusion.
"""


class SourceBinder:
    """Binds the FROM clauses of one statement."""

    def __init__(self, queries: QueryBinder) -> None:
        self._queries = queries

    def text(self, node: exp.Select, scope: Scope, ctes: Ctes) -> str:
        """The FROM clause for DataFusion; its items are added to `scope`."""
        clause = node.args.get("from_")
        if clause is None:
            return ""
        text = self._item(clause.this, scope, ctes)
        for join in node.args.get("joins") or ():
            text += self._join(join, scope, ctes)
        return f" FROM {text}"

    def _item(self, node: exp.Expr, scope: Scope, ctes: Ctes) -> str:
        if node.args.get("sample"):
            raise UnsupportedSqlError("TABLESAMPLE is not supported")
        if node.args.get("pivots"):
            raise UnsupportedSqlError("PIVOT and UNPIVOT are not supported")
        match node:
            case exp.Table():
                text = self._table(node, scope, ctes)
            case exp.Subquery() if isinstance(
                node.this, exp.Table | exp.Subquery
            ) and not isinstance(node.this, exp.Query):
                text = self._nested(node, scope, ctes)
            case exp.Subquery():
                text = self._derived(node, scope, ctes)
            case exp.Values():
                item, text = self._values(node)
                scope.items.append(item)
            case _:
                name = type(node).__name__.upper()
                raise UnsupportedSqlError(f"{name} in FROM is not supported")
        for join in node.args.get("joins") or ():
            text += self._join(join, scope, ctes)
        return text

    def _table(self, node: exp.Table, scope: Scope, ctes: Ctes) -> str:
        if not isinstance(node.this, exp.Identifier):
            raise UnsupportedSqlError(
                f"the table function {duckdb_sql(node.this)} is not supported"
            )
        alias = node.alias or node.name
        unique = self._queries.unique(alias)
        columns = node.args["alias"].args.get("columns") if node.args.get("alias") else None
        cte = ctes.get(node.name.lower()) if not node.db else None
        if cte is not None:
            outputs = renamed(cte.outputs, columns)
            scope.items.append(_as_item(alias, unique, outputs))
            return f"{quote(cte.text)} AS {quote(unique)}"
        qualified = ".".join(p.name for p in node.parts)
        if qualified.lower() == f"main.{node.name.lower()}":
            qualified = node.name
        name, attributes = self._queries.tables.resolve(qualified)
        outputs = renamed(tuple(Output(n, n, t) for n, t in attributes), columns)
        scope.items.append(_as_item(alias, unique, outputs))
        return f"{quote(name)} AS {quote(unique)}"

    def _derived(self, node: exp.Subquery, scope: Scope, ctes: Ctes) -> str:
        alias = node.alias or "unnamed_subquery"
        bound = self._queries.bind(node.this, None, ctes)
        unique = self._queries.unique(alias)
        columns = node.args["alias"].args.get("columns") if node.args.get("alias") else None
        scope.items.append(_as_item(alias, unique, renamed(bound.outputs, columns)))
        return f"({bound.text}) AS {quote(unique)}"

    def _nested(self, node: exp.Subquery, scope: Scope, ctes: Ctes) -> str:
        """A parenthesized join."""
        if node.alias:
            raise UnsupportedSqlError("an alias for a parenthesized join is not supported")
        return f"({self._item(node.this, scope, ctes)})"

    def _values(self, node: exp.Values) -> tuple[Item, str]:
        """VALUES in FROM: constants only, every column of one type."""
        described = self._queries.oracle.describe(f"FROM ({duckdb_sql(_bare_values(node))}) AS v")
        binder = self._queries.binder(Scope())
        rows = []
        for row in node.expressions:
            cells = []
            for cell, (_, type) in zip(row.expressions, described, strict=True):
                term = binder.cast(binder.bind(cell, Clause("VALUES", {}, False, False)), type)
                cells.append(term.text)
            rows.append(f"({', '.join(cells)})")
        alias = node.alias or "valueslist"
        unique = self._queries.unique(alias)
        given = node.args["alias"].args.get("columns") if node.args.get("alias") else None
        outputs = tuple(Output(n, f"column{i + 1}", t) for i, (n, t) in enumerate(described))
        item = _as_item(alias, unique, renamed(outputs, given))
        return item, f"(VALUES {', '.join(rows)}) AS {quote(unique)}"

    def _join(self, join: exp.Join, scope: Scope, ctes: Ctes) -> str:
        method = str(join.args.get("method") or "").upper()
        side = str(join.args.get("side") or "").upper()
        kind = str(join.args.get("kind") or "").upper()
        if method not in ("", "NATURAL"):
            raise UnsupportedSqlError(f"{method} JOIN is not supported")
        if kind not in ("", "INNER", "OUTER", "CROSS", "SEMI", "ANTI"):
            raise UnsupportedSqlError(f"{kind} JOIN is not supported")
        right = Scope(parent=None)
        text = self._item(join.this, right, ctes)
        if join.this.args.get("joins"):  # `a JOIN b JOIN c ON … ON …`
            text = f"({text})"
        left = Scope(list(scope.items), dict(scope.merged))
        on, using = join.args.get("on"), [u.name for u in join.args.get("using") or ()]
        if method == "NATURAL":
            names = {a.name.lower() for a in right.star()}
            using = [a.name for a in left.star() if a.name.lower() in names]
            if not using:
                raise SqlError("NATURAL JOIN of tables that have no column in common")
        scope.items += right.items
        scope.merged.update({k: v for k, v in right.merged.items() if k not in scope.merged})
        if not (on or using):
            if kind == "CROSS":
                return f" CROSS JOIN {text}"
            if side or kind in ("SEMI", "ANTI", "INNER"):
                raise SqlError("a join needs ON or USING")
            return f", {text}"
        binder = self._queries.binder(scope, None, ctes)
        if using:
            condition = " AND ".join(
                self._merge(name, side, kind, left, right, scope, binder) for name in using
            )
        else:
            assert on is not None
            clause = Clause("ON", {}, aggregates=False, windows=False)
            condition = binder.condition(on, clause)
        if kind in ("SEMI", "ANTI"):
            del scope.items[len(left.items) :]
            scope.merged = left.merged
        words = " ".join(
            w for w in (side or ("LEFT" if kind in ("SEMI", "ANTI") else ""), kind, "JOIN") if w
        )
        return f" {words} {text} ON {condition}"

    def _merge(
        self,
        name: str,
        side: str,
        kind: str,
        left: Scope,
        right: Scope,
        scope: Scope,
        binder: ExpressionBinder,
    ) -> str:
        one, other = left.find(name, None), right.find(name, None)
        if one is None or other is None:
            raise SqlError(f"USING names {name!r}, which is not a column of both sides")
        common = binder.common(one.type, other.type)
        a = binder.cast(Term(one.text, one.type), common)
        b = binder.cast(Term(other.text, other.type), common)
        chosen = other if side == "RIGHT" else one
        if side == "FULL":
            text = f"(CASE WHEN {a.text} IS NOT NULL THEN {a.text} ELSE {b.text} END)"
            chosen = Attribute(one.name, text, common)
        if kind not in ("SEMI", "ANTI"):
            scope.merged[name.lower()] = Attribute(one.name, chosen.text, chosen.type)
        return f"({a.text} = {b.text})"


def _as_item(alias: str, unique: str, outputs: Sequence[Output]) -> Item:
    return Item(
        alias,
        tuple(Attribute(o.name, f"{quote(unique)}.{quote(o.alias)}", o.type) for o in outputs),
    )


def _bare_values(node: exp.Values) -> exp.Values:
    bare = node.copy()
    bare.set("alias", None)
    return bare
