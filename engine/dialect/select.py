"""Binding of one SELECT: its columns, groups, conditions and order, by DuckDB's rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlglot import exp

from engine.dialect.bound import Term
from engine.dialect.expressions import Clause, ExpressionBinder
from engine.dialect.oracle import Constant, quote
from engine.dialect.outputs import BoundQuery, Output
from engine.dialect.scope import Attribute, Item, Scope
from engine.dialect.sources import Ctes, SourceBinder
from engine.dialect.syntax import (
    ALL_ROWS,
    duckdb_sql,
    has_total,
    is_aggregate,
    ordering,
    output_name,
    star_of,
)
from engine.errors import SqlError, UnsupportedSqlError

if TYPE_CHECKING:
    from engine.dialect.query import QueryBinder

__all__ = ["SelectBinder"]


@dataclass(slots=True)
class _Select:
    """One SELECT while it is being bound."""

    scope: Scope
    binder: ExpressionBinder
    nodes: list[exp.Expr] = field(default_factory=list)
    terms: list[Term] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    aliases: dict[str, exp.Expr] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)


_UNSUPPORTED_SELECT = {
    "sample": "USING SAMPLE",
    "pivots": "PIVOT",
    "laterals": "LATERAL",
    "connect": "CONNECT BY",
    "match": "MATCH_RECOGNIZE",
    "into": "INTO",
    "locks": "FOR UPDATE",
    "prewhere": "PREWHERE",
    "cluster": "CLUSTER BY",
    "sort": "SORT BY",
    "distribute": "DISTRIBUTE BY",
    "kind": "SELECT AS",
    "hint": "hints",
    "settings": "SETTINGS",
    "format": "FORMAT",
}


# DataFusion 55 moves a condition in which no column occurs below any aggregate, though one without
# groups, or with a grouping set of none, has a row of no rows, too. Nor does a column occur in a
# condition on one that is a scalar subquery. It moves nothing below a LIMIT; `PlanReader` drops
# this one.
_BARRIER = f" LIMIT {ALL_ROWS}"
_NO_ROW = "count(*) < 0"


class SelectBinder:
    """Binds the SELECTs of one statement."""

    def __init__(self, queries: QueryBinder) -> None:
        self._queries = queries
        self._sources = SourceBinder(queries)

    def bind(self, node: exp.Select, parent: Scope | None, ctes: Ctes) -> BoundQuery:
        """Bind one; see `QueryBinder.bind`."""
        for key, what in _UNSUPPORTED_SELECT.items():
            if node.args.get(key):
                raise UnsupportedSqlError(f"{what} is not supported")
        scope = Scope(parent=parent)
        source = self._sources.text(node, scope, ctes)
        windows = {w.this.name.lower(): w for w in node.args.get("windows") or ()}
        state = _Select(scope, self._queries.binder(scope, windows, ctes))
        self._items(node, state)
        where = node.args.get("where")
        text = source
        if where is not None:
            clause = Clause("WHERE", state.aliases, aggregates=False, windows=False, filter=True)
            text += f" WHERE {state.binder.condition(where.this, clause)}"
        grouped = self._group(node, state)
        text += grouped
        total = has_total(node, grouped)
        having = node.args.get("having")
        if having is not None:
            clause = Clause(
                "HAVING",
                state.aliases,
                windows=False,
                filter=True,
                keys=frozenset(state.keys),
                guard=_NO_ROW if total else "",
            )
            text += f" HAVING {state.binder.condition(having.this, clause)}"
        distinct = node.args.get("distinct")
        if distinct is not None and distinct.args.get("on") is not None:
            raise UnsupportedSqlError("DISTINCT ON is not supported")
        word = "SELECT DISTINCT" if distinct is not None else "SELECT"
        if node.args.get("qualify") is not None:
            return self._qualified(node, state, text, word)
        order = self._order(node.args["order"], state) if node.args.get("order") else ""
        limit = self.limit(node)
        if total and parent is None and not limit:
            limit = _BARRIER
        text = f"{word} {_listed(state)}{text}{order}{limit}"
        return BoundQuery(text, tuple(state.outputs))

    def _qualified(self, node: exp.Select, state: _Select, tail: str, word: str) -> BoundQuery:
        """QUALIFY: a subquery computes the condition as a column, and a WHERE around it filters."""
        hidden = quote(self._queries.unique("qualify"))
        clause = Clause("QUALIFY", state.aliases)
        condition = state.binder.bind(node.args["qualify"].this, clause)
        condition = state.binder.cast(condition, "BOOLEAN")
        extra, keys = [f"{condition.text} AS {hidden}"], []
        for ordered in self._order_terms(node.args.get("order"), state):
            term, direction = ordered
            name = quote(self._queries.unique("order"))
            extra.append(f"{term} AS {name}")
            keys.append(f"{name} {direction}")
        inner = f"SELECT {_listed(state)}, {', '.join(extra)}{tail}"
        order = f" ORDER BY {', '.join(keys)}" if keys else ""
        if keys and word != "SELECT":
            raise UnsupportedSqlError("DISTINCT with QUALIFY and ORDER BY is not supported")
        name = quote(self._queries.unique("qualified"))
        columns = ", ".join(quote(o.alias) for o in state.outputs)
        text = f"{word} {columns} FROM ({inner}) AS {name} WHERE {hidden}{order}{self.limit(node)}"
        return BoundQuery(text, tuple(state.outputs))

    def _items(self, node: exp.Select, state: _Select) -> None:
        for item in node.expressions:
            if isinstance(item, exp.Alias):
                state.aliases.setdefault(item.alias.lower(), item.this)
        clause = Clause("the SELECT list", state.aliases)
        for item in node.expressions:
            star = star_of(item)
            if star is not None:
                self._star(star, item, state, clause)
                continue
            if isinstance(item, exp.Aliases):
                raise UnsupportedSqlError(f"{duckdb_sql(item)} is not supported")
            inner = item.this if isinstance(item, exp.Alias) else item
            self._add(state, output_name(item), inner, state.binder.bind(inner, clause))
        if not state.outputs:
            raise SqlError("a SELECT needs at least one column")

    def _star(self, star: exp.Star, item: exp.Expr, state: _Select, clause: Clause) -> None:
        table = item.args["table"].name if isinstance(item, exp.Column) else None
        excluded = {e.name.lower() for e in star.args.get("except_") or ()}
        replaced = {r.alias.lower(): r.this for r in star.args.get("replace") or ()}
        renamed = {
            r.this.name.lower(): r.alias for r in star.args.get("rename") or ()
        }  # fmt: skip
        known = [a.name.lower() for a in state.scope.star(table)]
        for name in (*excluded, *replaced, *renamed):
            if name not in known:
                raise SqlError(f"there is no column {name!r} in {duckdb_sql(item)}")
        for attribute in list(state.scope.star(table)):
            key = attribute.name.lower()
            if key in excluded:
                continue
            inner = exp.column(attribute.name, quoted=True)
            term = Term(attribute.text, attribute.type)
            if key in replaced:
                inner, term = replaced[key], state.binder.bind(replaced[key], clause)
            self._add(state, renamed.get(key, attribute.name), inner, term)

    def _add(self, state: _Select, name: str, node: exp.Expr, term: Term) -> None:
        state.nodes.append(node)
        state.terms.append(term)
        state.outputs.append(Output(name, self._queries.unique(name), term.type))

    # GROUP BY

    def _group(self, node: exp.Select, state: _Select) -> str:
        group = node.args.get("group")
        if group is None:
            return ""
        if group.args.get("all"):
            keys = [
                t.text
                for n, t in zip(state.nodes, state.terms, strict=True)
                if t.constant is None and not any(is_aggregate(m) for m in n.walk())
            ]
            state.keys.update(keys)
            return f" GROUP BY {', '.join(keys)}" if keys else ""
        parts = [self._grouping_element(e, state) for e in group.expressions]
        for key in ("rollup", "cube", "grouping_sets"):
            parts += [self._grouping_element(e, state) for e in group.args.get(key) or ()]
        parts = [p for p in parts if p]
        return f" GROUP BY {', '.join(parts)}" if parts else ""

    def _grouping_element(self, node: exp.Expr, state: _Select) -> str:
        match node:
            case exp.Rollup() | exp.Cube():
                word = type(node).__name__.upper()
                keys = ", ".join(self._grouping_set(e, state) for e in node.expressions)
                return f"{word} ({keys})"
            case exp.GroupingSets():
                sets = ", ".join(
                    f"({self._grouping_set(e, state).removeprefix('(').removesuffix(')')})"
                    if isinstance(e, exp.Tuple)
                    else f"({self._grouping_set(e, state)})"
                    for e in node.expressions
                )
                return f"GROUPING SETS ({sets})"
            case exp.Tuple():
                return ", ".join(self._key(e, state).text for e in node.expressions)
        return self._key(node, state).text

    def _grouping_set(self, node: exp.Expr, state: _Select) -> str:
        if isinstance(node, exp.Rollup | exp.Cube | exp.GroupingSets):
            raise UnsupportedSqlError("nested grouping sets are not supported")
        if isinstance(node, exp.Tuple):
            return f"({', '.join(self._key(e, state).text for e in node.expressions)})"
        return self._key(node, state).text

    def _key(self, node: exp.Expr, state: _Select) -> Term:
        while isinstance(node, exp.Paren):
            node = node.this
        if isinstance(node, exp.Literal) and node.is_int:
            term = state.terms[_ordinal(node, state)]
        else:
            clause = Clause("GROUP BY", state.aliases, aggregates=False, windows=False)
            term = state.binder.bind(node, clause)
        state.keys.add(term.text)
        return term

    # ORDER BY and LIMIT

    def order_over(self, order: exp.Order, outputs: Sequence[Output]) -> str:
        """The ORDER BY of a whole query that is not a plain SELECT, and has these columns."""
        item = Item("", tuple(Attribute(o.name, quote(o.alias), o.type) for o in outputs))
        scope = Scope([item])
        state = _Select(scope, self._queries.binder(scope), outputs=list(outputs))
        state.terms = [Term(quote(o.alias), o.type) for o in outputs]
        return self._order(order, state)

    def _order(self, order: exp.Order, state: _Select) -> str:
        by_text = {t.text: o for t, o in zip(state.terms, state.outputs, strict=True)}
        keys = []
        for text, direction in self._order_terms(order, state):
            output = by_text.get(text)
            keys.append(f"{quote(output.alias) if output else text} {direction}")
        return f" ORDER BY {', '.join(keys)}" if keys else ""

    def _order_terms(self, order: exp.Order | None, state: _Select) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        for key in order.expressions if order is not None else ():
            node, direction = ordering(key)
            if isinstance(node, exp.Var) and node.name.upper() == "ALL":
                found += [(t.text, direction) for t in state.terms]
                continue
            term = self._order_key(node, state)
            if term.constant is None:
                found.append((term.text, direction))
        return found

    def _order_key(self, node: exp.Expr, state: _Select) -> Term:
        if isinstance(node, exp.Literal) and node.is_int:
            return Term(state.terms[_ordinal(node, state)].text, "")
        if isinstance(node, exp.Column) and not node.table:
            for term, output in zip(state.terms, state.outputs, strict=True):
                if output.name.lower() == node.name.lower():
                    return Term(term.text, term.type)
        return state.binder.bind(node, Clause("ORDER BY", state.aliases))

    def limit(self, node: exp.Expr) -> str:
        """The LIMIT and OFFSET of a query."""
        text = ""
        for key, word in (("limit", "LIMIT"), ("offset", "OFFSET")):
            clause = node.args.get(key)
            if clause is None:
                continue
            options = clause.args.get("limit_options")
            if isinstance(clause, exp.Fetch):
                raise UnsupportedSqlError("FETCH FIRST is not supported: use LIMIT")
            if options is not None and (
                options.args.get("percent") or options.args.get("with_ties")
            ):
                raise UnsupportedSqlError("LIMIT of a percentage or WITH TIES is not supported")
            value = self._number(clause.expression)
            if value is None:
                raise UnsupportedSqlError(f"{word} wants a constant number")
            if value[1] is not None:
                if value[1] < 0:
                    raise SqlError(f"{word} cannot be negative")
                text += f" {word} {value[1]}"
        return text

    def _number(self, node: exp.Expr) -> Constant | None:
        if isinstance(node, exp.Literal) and node.is_int and len(node.name) < 18:
            return "BIGINT", int(node.name)
        return self._queries.oracle.evaluate(f"CAST(({duckdb_sql(node)}) AS BIGINT)")


def _listed(state: _Select) -> str:
    return ", ".join(
        f"{t.text} AS {quote(o.alias)}" for t, o in zip(state.terms, state.outputs, strict=True)
    )


def _ordinal(node: exp.Literal, state: _Select) -> int:
    position = int(node.name)
    if not 1 <= position <= len(state.terms):
        raise SqlError(f"position {position} is not between 1 and {len(state.terms)}")
    return position - 1
