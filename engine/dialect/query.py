"""Binding of queries: SELECT, set operations, CTEs, FROM; names and types by DuckDB's rules."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlglot import exp

from engine.dialect.bound import Term
from engine.dialect.expressions import Clause, ExpressionBinder
from engine.dialect.oracle import Constant, Oracle, quote
from engine.dialect.outputs import BoundQuery, Output, TableLookup, renamed
from engine.dialect.scope import Attribute, Item, Scope
from engine.dialect.signatures import Signatures
from engine.dialect.sources import Ctes, SourceBinder
from engine.dialect.syntax import (
    ALL_ROWS,
    duckdb_sql,
    has_total,
    is_aggregate,
    ordering,
    output_name,
    star_of,
    union_branches,
)
from engine.errors import SqlError, UnsupportedSqlError

__all__ = ["BoundQuery", "Output", "QueryBinder", "TableLookup"]


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


class QueryBinder:
    """Binds one statement."""

    def __init__(self, oracle: Oracle, signatures: Signatures, tables: TableLookup) -> None:
        self.oracle = oracle
        self._signatures = signatures
        self.tables = tables
        self._numbers = itertools.count()
        self._sources = SourceBinder(self)

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
                bound = self._select(node, parent, ctes)
            case exp.SetOperation():
                bound = self._set_operation(node, parent, ctes)
            case exp.Subquery():
                bound = self._parenthesized(node, parent, ctes)
            case exp.Values():
                bound = self._select(exp.select("*").from_(node.copy()), parent, ctes)
            case exp.Table():
                select = exp.select("*").from_(node.copy())
                bound = self._select(select, parent, ctes)
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
        order, limit = node.args.get("order"), self._limit(node)
        if order is not None:
            item = Item("", tuple(Attribute(o.name, quote(o.alias), o.type) for o in outputs))
            state = _Select(Scope([item]), self.binder(Scope([item])), outputs=list(outputs))
            state.terms = [Term(quote(o.alias), o.type) for o in outputs]
            text += self._order(order, state)
        return BoundQuery(text + limit, outputs)

    def _parenthesized(self, node: exp.Subquery, parent: Scope | None, ctes: Ctes) -> BoundQuery:
        inner = self.bind(node.this, parent, ctes)
        if not (node.args.get("order") or node.args.get("limit") or node.args.get("offset")):
            return inner
        name = quote(self.unique("query"))
        columns = ", ".join(quote(o.alias) for o in inner.outputs)
        text = f"SELECT {columns} FROM ({inner.text}) AS {name}"
        return self._ordered_set(node, text, inner.outputs)

    # SELECT

    def binder(
        self,
        scope: Scope,
        windows: Mapping[str, exp.Window] | None = None,
        ctes: Ctes | None = None,
    ) -> ExpressionBinder:
        def subquery(node: exp.Expr, inner: Scope) -> tuple[str, list[tuple[str, str]]]:
            bound = self.bind(node, inner, ctes)
            return bound.text, [(o.alias, o.type) for o in bound.outputs]

        return ExpressionBinder(self.oracle, self._signatures, scope, subquery, windows)

    def _select(self, node: exp.Select, parent: Scope | None, ctes: Ctes) -> BoundQuery:
        for key, what in _UNSUPPORTED_SELECT.items():
            if node.args.get(key):
                raise UnsupportedSqlError(f"{what} is not supported")
        scope = Scope(parent=parent)
        source = self._sources.text(node, scope, ctes)
        windows = {w.this.name.lower(): w for w in node.args.get("windows") or ()}
        state = _Select(scope, self.binder(scope, windows, ctes))
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
        limit = self._limit(node)
        if total and parent is None and not limit:
            limit = _BARRIER
        text = f"{word} {_listed(state)}{text}{order}{limit}"
        return BoundQuery(text, tuple(state.outputs))

    def _qualified(self, node: exp.Select, state: _Select, tail: str, word: str) -> BoundQuery:
        """QUALIFY: a subquery computes the condition as a column, and a WHERE around it filters."""
        hidden = quote(self.unique("qualify"))
        clause = Clause("QUALIFY", state.aliases)
        condition = state.binder.bind(node.args["qualify"].this, clause)
        condition = state.binder.cast(condition, "BOOLEAN")
        extra, keys = [f"{condition.text} AS {hidden}"], []
        for ordered in self._order_terms(node.args.get("order"), state):
            term, direction = ordered
            name = quote(self.unique("order"))
            extra.append(f"{term} AS {name}")
            keys.append(f"{name} {direction}")
        inner = f"SELECT {_listed(state)}, {', '.join(extra)}{tail}"
        order = f" ORDER BY {', '.join(keys)}" if keys else ""
        if keys and word != "SELECT":
            raise UnsupportedSqlError("DISTINCT with QUALIFY and ORDER BY is not supported")
        name = quote(self.unique("qualified"))
        columns = ", ".join(quote(o.alias) for o in state.outputs)
        text = f"{word} {columns} FROM ({inner}) AS {name} WHERE {hidden}{order}{self._limit(node)}"
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
        state.outputs.append(Output(name, self.unique(name), term.type))

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

    def _limit(self, node: exp.Expr) -> str:
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
        return self.oracle.evaluate(f"CAST(({duckdb_sql(node)}) AS BIGINT)")


def _listed(state: _Select) -> str:
    return ", ".join(
        f"{t.text} AS {quote(o.alias)}" for t, o in zip(state.terms, state.outputs, strict=True)
    )


def _ordinal(node: exp.Literal, state: _Select) -> int:
    position = int(node.name)
    if not 1 <= position <= len(state.terms):
        raise SqlError(f"position {position} is not between 1 and {len(state.terms)}")
    return position - 1
