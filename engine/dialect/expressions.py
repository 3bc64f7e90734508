"""Binding of expressions: leaves are resolved here, everything between them by DuckDB.

An expression is cut at its leaves (columns, aggregates, windows, subqueries, constants that DuckDB
can evaluate). What is left is a template over typed placeholders. DuckDB binds it, and the
translator writes the bound tree for DataFusion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlglot import exp

from engine.dialect.bound import Term, Translator
from engine.dialect.functions import WINDOWS
from engine.dialect.literals import arrow_cast, datafusion_literal, duck_literal
from engine.dialect.oracle import Oracle
from engine.dialect.plain import plain_condition, plain_constant
from engine.dialect.scope import Scope
from engine.dialect.signatures import Signatures
from engine.dialect.syntax import (
    DUCKDB,
    REFUSED,
    always_one_row,
    arguments,
    dependent_nodes,
    duckdb_sql,
    find_aggregate,
    frame,
    function_names,
    is_aggregate,
    joined,
    name_of,
    ordering,
    unwrap_aggregate,
)
from engine.dialect.types import ir_type
from engine.errors import SqlError, UnsupportedSqlError

__all__ = ["Clause", "ExpressionBinder", "SubqueryBinder"]

SubqueryBinder = Callable[[exp.Expr, Scope], tuple[str, list[tuple[str, str]]]]
"""Binds a subquery inside a scope: its SQL for DataFusion, and name and DuckDB type of each column.
"""

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
_FRAMELESS = (
    "row_number",
    "rank",
    "dense_rank",
    "percent_rank",
    "cume_dist",
    "ntile",
    "lag",
    "lead",
)
_UNSIGNED = ("row_number", "rank", "dense_rank", "ntile")


@dataclass(slots=True)
class Clause:
    """Where an expression stands.

    Attributes
    ----------
    name
        As users call it: ``WHERE``, ``the SELECT list``.
    aliases
        SELECT aliases that it may use where no column has that name, lower case.
    aggregates, windows
        Whether it may hold such calls.
    filter
        Whether it only selects rows, so that NULL and false are one.
    keys
        DataFusion's SQL of what is grouped by, where no other column goes before an alias of its
        name (HAVING).
    guard
        What is false in every row but not known to be, for conditions that depend on no row: an
        alternative to them that does.
    """

    name: str
    aliases: Mapping[str, exp.Expr] = field(default_factory=dict)
    aggregates: bool = True
    windows: bool = True
    filter: bool = False
    keys: frozenset[str] | None = None
    guard: str = ""


class ExpressionBinder:
    """Binds expressions of one SELECT."""

    def __init__(
        self,
        oracle: Oracle,
        signatures: Signatures,
        scope: Scope,
        subquery: SubqueryBinder,
        named_windows: Mapping[str, exp.Window] | None = None,
    ) -> None:
        self._oracle = oracle
        self._signatures = signatures
        self._scope = scope
        self._subquery = subquery
        self._named_windows = named_windows or {}
        self._expanding: list[str] = []

    def bind(self, node: exp.Expr, clause: Clause) -> Term:
        """The expression for DataFusion.

        Raises
        ------
        SqlError
            If DuckDB's rules forbid it.
        UnsupportedSqlError
            If the IR cannot say it.
        """
        while isinstance(node, exp.Paren):
            node = node.this
        if isinstance(node, exp.Column):
            return self.column(node, clause)
        attempt = _Attempt(self, clause, node, fold=True)
        template = attempt.cut(node)
        if isinstance(template, exp.Column) and len(attempt.leaves) == 1:
            return attempt.leaves[0]
        plain = plain_condition(template, attempt.leaves, self._translator(attempt.leaves))
        if plain is not None:
            return plain
        try:
            return self._resolve(template, attempt.leaves)
        except UnsupportedSqlError:
            raise
        except SqlError:
            # Some functions insist on a literal where a folded constant is only a placeholder.
            unfolded = _Attempt(self, clause, node, fold=False)
            return self._resolve(unfolded.cut(node), unfolded.leaves)

    def condition(self, node: exp.Expr, clause: Clause) -> str:
        """A condition that selects rows; its conjuncts are bound one by one."""
        while isinstance(node, exp.Paren):
            node = node.this
        if isinstance(node, exp.And):
            parts = [self.condition(n, clause) for n in node.flatten()]
            return joined("AND", parts)
        if isinstance(node, exp.Not):
            inner = node.this.unnest()
            if isinstance(inner, exp.In) and inner.args.get("query") is not None:
                return self._not_in(inner, clause)
        before, self._scope.touched = self._scope.touched, False
        term = self.cast(self.bind(node, clause), "BOOLEAN")
        free = not self._scope.touched
        self._scope.touched = before or self._scope.touched
        if free and clause.guard and term.constant is None and not any(map(_joins, node.walk())):
            return joined("OR", [term.text, clause.guard])
        return term.text

    def is_of_outer_query(self, aggregate: exp.Expr) -> bool:
        """Whether an aggregate's columns are all of queries around, to which it belongs then."""
        columns = [(c.name, c.table or None) for c in aggregate.find_all(exp.Column)]
        return bool(columns) and all(self._scope.is_outer(*c) for c in columns)

    def is_volatile(self, name: str) -> bool:
        """Whether a function's value differs from row to row."""
        return name in self._oracle.volatile_functions

    def translate(self, node: Mapping[str, Any], leaves: list[Term]) -> Term:
        """Translate a bound tree over given leaves."""
        return self._translator(leaves)(node)

    def cast(self, term: Term, target: str) -> Term:
        """A cast of a bound expression."""
        return self._translator(()).cast(term, target)

    def _translator(self, leaves: Sequence[Term]) -> Translator:
        return Translator(self._oracle, self._signatures, leaves)

    def common(self, left: str, right: str) -> str:
        """The type in which DuckDB compares columns of two types."""
        if left == right and left not in ("NULL", '"NULL"'):
            return left
        node = self._oracle.bind(["c0 = c1"], [left, right])["expressions"][0]
        return self._translator([Term("l", left), Term("r", right)])(node["left"]).type

    def _resolve(self, template: exp.Expr, leaves: list[Term]) -> Term:
        text = duckdb_sql(template, copy=False)
        plan = self._oracle.bind([text], [leaf.type for leaf in leaves])
        if plan["type"] != "LOGICAL_PROJECTION":
            raise UnsupportedSqlError(f"{text} is not supported")
        return self.translate(plan["expressions"][0], leaves)

    # Leaves. Each method binds one kind.

    def column(self, node: exp.Column, clause: Clause) -> Term:
        """A column, an enclosing query's column, or a SELECT alias."""
        if node.args.get("db") or isinstance(node.this, exp.Star):
            raise UnsupportedSqlError(f"{duckdb_sql(node)} is not supported here")
        found = self._scope.find(node.name, node.table or None)
        alias = clause.aliases.get(node.name.lower()) if not node.table else None
        hidden = clause.keys is not None and alias is not None and not self._expanding
        if hidden and found is not None and clause.keys is not None:
            found = found if found.text in clause.keys else None
        if found is None and alias is not None and node.name.lower() not in self._expanding:
            self._expanding.append(node.name.lower())
            try:
                return self.bind(alias, clause)
            finally:
                self._expanding.pop()
        if found is None:
            raise SqlError(f"there is no column {duckdb_sql(node)} ({clause.name})")
        ir_type(found.type)
        return Term(found.text, found.type)

    def constant(self, node: exp.Expr) -> Term | None:
        """A constant's value by DuckDB's rules; None if it has none."""
        text = f"({duckdb_sql(node)})"
        plain = plain_constant(node)
        if plain is not None:
            return Term(datafusion_literal(*plain), plain[0], text, plain[1])
        stable = not any(n in self._oracle.unstable_functions for n in function_names(node))
        value = self._oracle.evaluate(text, cache=stable)
        if value is None:
            return None
        try:
            return Term(datafusion_literal(*value), value[0], text, value[1])
        except UnsupportedSqlError:
            return None

    def subquery(self, node: exp.Expr) -> Term:
        """A scalar subquery."""
        text, columns, _ = self._bound(node)
        if len(columns) != 1:
            raise SqlError(f"a subquery used as a value has {len(columns)} columns, not one")
        ir_type(columns[0][1])
        return Term(f"({text})", columns[0][1])

    def _bound(self, query: exp.Expr) -> tuple[str, list[tuple[str, str]], bool]:
        """A subquery as `SubqueryBinder` gives it, and whether it has a column of this query or of
        one around it.

        Raises
        ------
        UnsupportedSqlError
            If it has a window function besides: the planner would take the correlated conditions
            out of the subquery, past the window, which would have more rows then.
        """
        before, self._scope.reached = self._scope.reached, False
        text, columns = self._subquery(query, self._scope)
        correlated, self._scope.reached = self._scope.reached, before or self._scope.reached
        if correlated and query.find(exp.Window) is not None:
            raise UnsupportedSqlError("a window function in a correlated subquery is not supported")
        return text, columns, correlated

    def exists(self, node: exp.Exists) -> Term:
        """EXISTS (subquery)."""
        if not isinstance(node.this, exp.Query):
            raise UnsupportedSqlError("EXISTS of anything but a query is not supported")
        text, _ = self._subquery(node.this, self._scope)
        return Term(f"EXISTS ({text})", "BOOLEAN")

    def membership(self, node: exp.In, clause: Clause) -> Term:
        """`x IN (subquery)` where only true matters."""
        needle, column, text, correlated = self._needle(node, clause)
        if not correlated:
            inner = f"(SELECT {column} FROM ({text}) AS {_INNER})"
            return Term(f"({needle.text} IN {inner})", "BOOLEAN")
        # The planner finds correlated conditions in the subquery itself, not in one around it.
        query = node.args["query"].unnest()
        if not isinstance(query, exp.Select):
            raise UnsupportedSqlError("IN (correlated set operation) is not supported")
        text, ((_, type),) = self._subquery(query, self._scope)
        if always_one_row(query):
            # Of no rows, too: a join on what it is correlated by would not find that one.
            value = self.cast(Term(f"({text})", type), needle.type)
            return Term(f"({needle.text} = {value.text})", "BOOLEAN")
        if type != needle.type:
            text, _ = self._subquery(_with_cast(query, needle.type), self._scope)
        return Term(f"({needle.text} IN ({text}))", "BOOLEAN")

    def aggregate(self, node: exp.Expr, clause: Clause, windowed: bool = False) -> tuple[str, str]:
        """An aggregate call's SQL for DataFusion, and its type."""
        node, condition, order, distinct = unwrap_aggregate(node)
        inner = Clause(
            "the arguments of an aggregate", clause.aliases, aggregates=windowed, windows=False
        )
        attempt = _Attempt(self, inner, node, fold=True)
        template = attempt.cut_children(node)
        types = [leaf.type for leaf in attempt.leaves]
        self._scope.touched = True
        call = find_aggregate(self._oracle.bind([duckdb_sql(template, copy=False)], types))
        if call is None:
            raise UnsupportedSqlError(f"the aggregate {duckdb_sql(node)} is not supported")
        extra: list[Term] = []
        if call["name"] in ("string_agg", "listagg", "group_concat"):
            # DuckDB writes its default down, and leaves out what is empty.
            separator = str(call.get("function_data", {}).get("separator", ""))
            extra = [Term(datafusion_literal("VARCHAR", separator), "VARCHAR")]
        if call["name"] in ("quantile_cont", "quantile_disc", "quantile"):
            extra = [self._quantile(call)]
        function, args, result = self._translator(attempt.leaves).aggregate(
            call, extra, distinct and windowed
        )
        ordering = ""
        if order:
            keys = [self.sort_key(o, inner) for o in order]
            ordering = f" ORDER BY {', '.join(keys)}"
        listed = ", ".join(a.text for a in args) or "*"
        word = "DISTINCT " if distinct and not windowed else ""
        text = f"{function}({word}{listed}{ordering})"
        if condition is not None:
            text += f" FILTER (WHERE {self.condition(condition, inner)})"
        return text, result

    def _quantile(self, call: Mapping[str, Any]) -> Term:
        """Which quantile: DuckDB keeps it apart from the arguments."""
        data = call.get("function_data", {})
        given = data.get("quantiles", [])
        if len(given) != 1 or data.get("desc"):
            raise UnsupportedSqlError(
                f"{call['name']} of anything but one quantile is not supported"
            )
        value = self._oracle.evaluate(f"CAST({duck_literal(given[0])} AS DOUBLE)")
        if value is None:
            raise UnsupportedSqlError(f"{call['name']}: this quantile is not supported")
        return Term(datafusion_literal("DOUBLE", value[1]), "DOUBLE")

    def sort_key(self, node: exp.Expr, clause: Clause) -> str:
        """One ORDER BY term; the place of NULLs is always spelled out."""
        this, direction = ordering(node)
        return f"{self.bind(this, clause).text} {direction}"

    def window(self, node: exp.Window, clause: Clause) -> Term:
        """A window call."""
        node = self._named(node)
        function = node.this
        if isinstance(function, exp.IgnoreNulls) and not isinstance(function.this, exp.AnyValue):
            raise UnsupportedSqlError("IGNORE NULLS is not supported")
        if isinstance(function, exp.RespectNulls):
            function = function.this
        if any(isinstance(n, exp.Order) for n in function.walk(prune=_is_query)):
            raise UnsupportedSqlError(
                "ORDER BY among the arguments of a window function is not supported"
            )
        inner = Clause("a window", clause.aliases, windows=False)
        call, type = self._window_call(function, inner)
        parts = []
        if keys := node.args.get("partition_by"):
            bound = ", ".join(self.bind(k, inner).text for k in keys)
            parts.append(f"PARTITION BY {bound}")
        if order := node.args.get("order"):
            keys = ", ".join(self.sort_key(o, inner) for o in order.expressions)
            parts.append(f"ORDER BY {keys}")
        name = name_of(function)
        if (spec := node.args.get("spec")) and name not in _FRAMELESS:
            parts.append(frame(spec))
        text = f"{call} OVER ({' '.join(parts)})"
        return Term(arrow_cast(text, type) if name in _UNSIGNED else text, type)

    def grouping(self, node: exp.Grouping, clause: Clause) -> Term:
        """GROUPING(keys…)."""
        keys = ", ".join(self.bind(k, clause).text for k in node.expressions)
        return Term(arrow_cast(f"GROUPING({keys})", "BIGINT"), "BIGINT")

    def _window_call(self, function: exp.Expr, clause: Clause) -> tuple[str, str]:
        name = name_of(function)
        if name not in WINDOWS:
            if isinstance(function, exp.Filter):
                raise UnsupportedSqlError("FILTER on a window function is not supported")
            if not is_aggregate(function):
                raise UnsupportedSqlError(f"the window function {name} is not supported")
            return self.aggregate(function, clause, windowed=True)
        word, type = WINDOWS[name]
        terms = [self.bind(a, clause) for a in arguments(function)]
        for index, term in enumerate(terms):
            if index == 1 or name == "ntile":
                if term.constant is None:
                    raise UnsupportedSqlError(f"{name} wants a literal number")
                terms[index] = self.cast(term, "BIGINT")
            elif index == 2:
                terms[index] = self.cast(term, terms[0].type)
        return f"{word}({', '.join(t.text for t in terms)})", type or terms[0].type

    def _named(self, node: exp.Window) -> exp.Window:
        name = node.args.get("alias")
        if name is None:
            return node
        definition = self._named_windows.get(name.name.lower())
        if definition is None:
            raise SqlError(f"there is no window {name.name!r}")
        merged = node.copy()
        merged.set("alias", None)
        for part in ("partition_by", "order", "spec"):
            if not merged.args.get(part) and definition.args.get(part):
                merged.set(part, definition.args[part])
        return merged

    def _needle(self, node: exp.In, clause: Clause) -> tuple[Term, str, str, bool]:
        """The left side of IN, the subquery's column cast to the same type, the subquery, and
        whether it is correlated.
        """
        if isinstance(node.this, exp.Tuple):
            raise UnsupportedSqlError("(a, b) IN (subquery) is not supported")
        needle = self.bind(node.this, clause)
        text, columns, correlated = self._bound(node.args["query"].unnest())
        if len(columns) != 1:
            raise SqlError(f"the subquery of IN has {len(columns)} columns, not one")
        name, type = columns[0]
        common = self.common(needle.type, type)
        column = self.cast(Term(f'{_INNER}."{name}"', type), common).text
        return self.cast(needle, common), column, text, correlated

    def _aggregates(self, node: exp.Expr, clause: Clause) -> bool:
        """Whether an expression has an aggregate, perhaps in a SELECT alias that it names."""
        for one in node.walk(prune=_is_query):
            aliased = clause.aliases.get(one.name.lower()) if isinstance(one, exp.Column) else None
            if is_aggregate(one) or (
                aliased is not None and any(map(is_aggregate, aliased.walk(prune=_is_query)))
            ):
                return True
        return False

    def _not_in(self, node: exp.In, clause: Clause) -> str:
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


_INNER = '"in"'


def _with_cast(query: exp.Select, type: str) -> exp.Select:
    """A query of one column with that column cast."""
    made = query.copy()
    (item,) = made.expressions
    inner = item.this if isinstance(item, exp.Alias) else item
    inner.replace(exp.Cast(this=inner.copy(), to=exp.DataType.build(type, dialect=DUCKDB)))
    return made


def _joins(node: exp.Expr) -> bool:
    """Whether the planner makes a join of a condition with this node, unless OR hides it."""
    return isinstance(node, exp.Exists) or bool(isinstance(node, exp.In) and node.args.get("query"))


def _is_query(node: exp.Expr) -> bool:
    return isinstance(node, exp.Query)


class _Attempt:
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
                return binder.subquery(node.unnest() if isinstance(node, exp.Subquery) else node)
            case exp.Exists():
                return binder.exists(node)
            case exp.In() if node.args.get("query") is not None:
                if not (clause.filter and positive):
                    raise UnsupportedSqlError(
                        "IN (subquery) is supported only as a condition of WHERE, HAVING or QUALIFY"
                        " that is not negated (NOT IN: only between ANDs)"
                    )
                return binder.membership(node, clause)
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
