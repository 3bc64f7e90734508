"""Binding of expressions: leaves are resolved here, everything between them by DuckDB.

An expression is cut at its leaves (columns, aggregates, windows, subqueries, constants that DuckDB
can evaluate). What is left is a template over typed placeholders. DuckDB binds it, and the
translator writes the bound tree for DataFusion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlglot import exp

from engine.dialect.bound import Term, Translator
from engine.dialect.cutting import Attempt
from engine.dialect.functions import WINDOWS
from engine.dialect.literals import arrow_cast, datafusion_literal, duck_literal
from engine.dialect.oracle import Oracle
from engine.dialect.plain import plain_condition, plain_constant
from engine.dialect.scope import Scope
from engine.dialect.signatures import Signatures
from engine.dialect.subqueries import Subqueries, SubqueryBinder, is_joined
from engine.dialect.syntax import (
    arguments,
    duckdb_sql,
    find_aggregate,
    frame,
    function_names,
    is_aggregate,
    is_query,
    joined,
    name_of,
    ordering,
    unwrap_aggregate,
)
from engine.dialect.types import ir_type
from engine.errors import SqlError, UnsupportedSqlError

__all__ = ["Clause", "ExpressionBinder"]

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
        self.subqueries = Subqueries(self, scope, subquery)
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
        attempt = Attempt(self, clause, node, fold=True)
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
            unfolded = Attempt(self, clause, node, fold=False)
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
                return self.subqueries.lacks(inner, clause)
        before, self._scope.touched = self._scope.touched, False
        term = self.cast(self.bind(node, clause), "BOOLEAN")
        free = not self._scope.touched
        self._scope.touched = before or self._scope.touched
        if free and clause.guard and term.constant is None and not any(map(is_joined, node.walk())):
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

    def aggregate(self, node: exp.Expr, clause: Clause, windowed: bool = False) -> tuple[str, str]:
        """An aggregate call's SQL for DataFusion, and its type."""
        node, condition, order, distinct = unwrap_aggregate(node)
        inner = Clause(
            "the arguments of an aggregate", clause.aliases, aggregates=windowed, windows=False
        )
        attempt = Attempt(self, inner, node, fold=True)
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
        if any(isinstance(n, exp.Order) for n in function.walk(prune=is_query)):
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
