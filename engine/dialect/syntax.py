"""Questions about syntax trees that need no scope."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlglot import exp
from sqlglot.dialects.dialect import Dialect

from engine.dialect.functions import AGGREGATES
from engine.errors import UnsupportedSqlError

__all__ = [
    "ALL_ROWS",
    "DUCKDB",
    "REFUSED",
    "always_one_row",
    "arguments",
    "balanced",
    "called_names",
    "deepest",
    "dependent_nodes",
    "duckdb_sql",
    "find_aggregate",
    "frame",
    "function_names",
    "has_total",
    "is_aggregate",
    "is_query",
    "joined",
    "name_of",
    "ordering",
    "output_name",
    "star_of",
    "union_branches",
    "unwrap_aggregate",
]

# By its name it would be made anew for every text.
DUCKDB = Dialect.get_or_raise("duckdb")

ALL_ROWS = 2**63 - 1
"""As many rows as a LIMIT can name."""

REFUSED: tuple[tuple[type[exp.Expr], str], ...] = (
    (exp.Lambda, "lambda functions"),
    (exp.Parameter, "parameters"),
    (exp.Placeholder, "parameters"),
    (exp.Any, "comparisons with ANY (subquery)"),
    (exp.All, "comparisons with ALL (subquery)"),
    (exp.Columns, "COLUMNS(…)"),
    (exp.GroupingId, "GROUPING_ID"),
    (exp.ToMap, "maps"),
    (exp.Struct, "structs"),
    (exp.Array, "lists"),
    (exp.Unnest, "UNNEST and other functions that give several rows"),
    (exp.Explode, "UNNEST and other functions that give several rows"),
    (exp.Collate, "collations"),
    (exp.AtTimeZone, "time zones"),
)
"""Expressions that are refused wherever they stand, and how users call them."""


def duckdb_sql(node: exp.Expr, *, copy: bool = True) -> str:
    """A syntax tree in DuckDB's SQL; without `copy` the tree may be changed on the way."""
    return node.sql(dialect=DUCKDB, comments=False, copy=copy)


_WIDE = 32
"""Terms of AND and OR that stand side by side; of more, the tree is made flat."""


def balanced(root: exp.Expr) -> exp.Expr:
    """The tree with long chains of AND and of OR made as flat as they can be. The parser makes them
    as deep as they are long; their terms keep their order, hence their meaning.
    """
    for kind in (exp.And, exp.Or):
        for node in list(root.find_all(kind)):
            if isinstance(node.parent, kind):
                continue
            terms = _terms(node, kind)
            if len(terms) > _WIDE:
                made = _halved(terms, kind)
                if node is root:
                    root = made
                else:
                    node.replace(made)
    return root


def _terms(node: exp.Expr, kind: type[exp.Binary]) -> list[exp.Expr]:
    found, waiting = [], [node]
    while waiting:
        this = waiting.pop()
        if type(this) is kind:
            waiting += [this.expression, this.this]
        else:
            found.append(this)
    return found


def _halved(terms: list[exp.Expr], kind: type[exp.Binary]) -> exp.Expr:
    if len(terms) == 1:
        return terms[0]
    half = (len(terms) + 1) // 2
    return kind(this=_halved(terms[:half], kind), expression=_halved(terms[half:], kind))


def joined(word: str, terms: Sequence[str]) -> str:
    """Conditions in DataFusion's SQL joined by AND or OR, in parentheses. Where there are many,
    parentheses make of them a tree that is not deep: plans nest as expressions do.
    """
    if len(terms) <= _WIDE:
        return f"({f' {word} '.join(terms)})"
    half = (len(terms) + 1) // 2
    return f"({joined(word, terms[:half])} {word} {joined(word, terms[half:])})"


def deepest(root: exp.Expr) -> str:
    """How deeply a tree nests, and in which construct most of all."""
    deep, most, waiting = 0, root, [(root, 1)]
    while waiting:
        node, depth = waiting.pop()
        if depth > deep:
            deep, most = depth, node
        waiting += [(child, depth + 1) for child in node.iter_expressions()]
    kinds: Counter[str] = Counter()
    up: exp.Expr | None = most
    while up is not None:
        if not isinstance(up, exp.Paren | exp.Column | exp.From):
            kinds[_SIGNS.get(type(up), type(up).__name__.upper())] += 1
        up = None if up is root else up.parent
    (name, times), *_ = kinds.most_common(1)
    return f"{times} levels of {name} in one another"


_SIGNS: Mapping[type[exp.Expr], str] = {
    exp.Add: "+",
    exp.Sub: "-",
    exp.Mul: "*",
    exp.Div: "/",
    exp.DPipe: "||",
    exp.Subquery: "subqueries",
    exp.Select: "subqueries",
}


def ordering(node: exp.Expr) -> tuple[exp.Expr, str]:
    """The expression and the direction, NULLs included, of an ORDER BY term."""
    if not isinstance(node, exp.Ordered):
        return node, "ASC NULLS LAST"
    if node.args.get("with_fill"):
        raise UnsupportedSqlError("WITH FILL is not supported")
    direction = "DESC" if node.args.get("desc") else "ASC"
    nulls = "FIRST" if node.args.get("nulls_first") else "LAST"
    return node.this, f"{direction} NULLS {nulls}"


_DEPENDENT = (exp.Column, exp.Query, exp.Subquery, exp.AggFunc, exp.Window, exp.Star, exp.Lambda)


def dependent_nodes(root: exp.Expr) -> frozenset[int]:
    """Identities of the nodes under `root` whose value depends on rows: all others are constant."""
    found: set[int] = set()
    for node in root.walk():
        if isinstance(node, _DEPENDENT) or is_aggregate(node):
            up: exp.Expr | None = node
            while up is not None and id(up) not in found:
                found.add(id(up))
                up = None if up is root else up.parent
    return frozenset(found)


def name_of(node: exp.Expr) -> str:
    """A function's name as DuckDB has it, lower case."""
    if isinstance(node, exp.Anonymous):
        return str(node.name).lower()
    if isinstance(node, exp.Filter | exp.IgnoreNulls | exp.RespectNulls):
        return name_of(node.this)
    return node.sql_name().lower() if isinstance(node, exp.Func) else ""


_TIMES = (
    exp.CurrentDate,
    exp.CurrentTimestamp,
    exp.CurrentTime,
    exp.Localtime,
    exp.Localtimestamp,
)


def function_names(node: exp.Expr, deep: bool = True) -> list[str]:
    """Names of the functions called in a tree, or by its root alone."""
    return called_names(node.find_all(exp.Func) if deep else [node])


def called_names(nodes: Iterable[exp.Expr]) -> list[str]:
    """Names of the functions that are called by those of some nodes that are calls."""
    names = []
    for n in nodes:
        if not isinstance(n, exp.Func):
            continue
        names.append(name_of(n))
        if isinstance(n, exp.Rand):
            names.append("random")
        elif isinstance(n, _TIMES) or (names[-1] == "age" and len(arguments(n)) == 1):
            names.append("now")
    return names


_AROUND_AGGREGATES = (exp.Filter, exp.IgnoreNulls)


def is_aggregate(node: exp.Expr) -> bool:
    """Whether a node is a call of an aggregate function."""
    if not isinstance(node, exp.Func):
        return isinstance(node, _AROUND_AGGREGATES)
    if isinstance(node, exp.Anonymous):
        return str(node.name).lower() in AGGREGATES
    return isinstance(node, exp.AggFunc) and not isinstance(node, exp.Grouping)


def always_one_row(query: exp.Expr) -> bool:
    """Whether a query aggregates all of its rows to one."""
    return isinstance(query, exp.Select) and not query.args.get("group") and _aggregates(query)


def _aggregates(query: exp.Select) -> bool:
    """Whether a SELECT has an aggregate, that of a window left out."""
    clauses = (query.args.get(key) for key in ("having", "qualify", "order"))
    nodes = (
        node
        for item in (*query.expressions, *clauses)
        if item is not None
        for node in item.walk(prune=lambda n: isinstance(n, exp.Query | exp.Window))
    )
    return any(is_aggregate(n) for n in nodes)


def arguments(function: exp.Expr) -> list[exp.Expr]:
    """Arguments of a window function in DuckDB's order."""
    if isinstance(function, exp.Anonymous):
        return list(function.expressions)
    found = []
    for key in ("this", "offset", "default"):
        if isinstance(value := function.args.get(key), exp.Expr):
            found.append(value)
    return [*found, *function.expressions]


def unwrap_aggregate(
    node: exp.Expr,
) -> tuple[exp.Expr, exp.Expr | None, list[exp.Expr], bool]:
    """The bare call, its FILTER, its ORDER BY, and whether it is DISTINCT."""
    condition: exp.Expr | None = None
    if isinstance(node, exp.Filter):
        condition, node = node.expression.this, node.this
    if isinstance(node, exp.IgnoreNulls) and isinstance(node.this, exp.AnyValue):
        node = node.this
    if isinstance(node, exp.IgnoreNulls | exp.RespectNulls):
        raise UnsupportedSqlError(f"{duckdb_sql(node)} is not supported")
    order: list[exp.Expr] = []
    if isinstance(node.this, exp.Order | exp.Distinct):
        node = node.copy()
    if isinstance(node.this, exp.Order):
        order = node.this.expressions
        node.set("this", node.this.this)
    distinct = isinstance(node.this, exp.Distinct)
    if distinct:
        if len(node.this.expressions) != 1:
            raise UnsupportedSqlError("DISTINCT over several arguments is not supported")
        node.set("this", node.this.expressions[0])
        if isinstance(node.this, exp.Order):
            order = node.this.expressions
            node.set("this", node.this.this)
    if node.find(exp.HavingMax, exp.Limit):
        raise UnsupportedSqlError(f"{duckdb_sql(node)} is not supported")
    return node, condition, order, distinct


def find_aggregate(plan: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The BOUND_AGGREGATE of a serialized plan that computes just one."""
    while plan["type"] == "LOGICAL_PROJECTION":
        if plan["expressions"][0]["expression_class"] != "BOUND_REF" or not plan.get("children"):
            return None
        plan = plan["children"][0]
    if plan["type"] != "LOGICAL_AGGREGATE_AND_GROUP_BY":
        return None
    found: Mapping[str, Any] = plan["expressions"][0]
    return found


def frame(spec: exp.Expr) -> str:
    """A window frame, spelled out."""
    kind = str(spec.args.get("kind") or "ROWS").upper()
    if kind not in ("ROWS", "RANGE"):
        raise UnsupportedSqlError(f"{kind} window frames are not supported")
    if spec.args.get("exclude"):
        raise UnsupportedSqlError("EXCLUDE in a window frame is not supported")

    def edge(name: str, default: str) -> str:
        bound, side = spec.args.get(name), spec.args.get(f"{name}_side")
        if bound is None:
            return default
        if isinstance(bound, str):
            return f"{bound} {side or ''}".strip().upper()
        if not (isinstance(bound, exp.Literal) and bound.is_int and kind == "ROWS"):
            raise UnsupportedSqlError("window frames want literal numbers of rows")
        return f"{bound.name} {str(side).upper()}"

    start, end = edge("start", "UNBOUNDED PRECEDING"), edge("end", "CURRENT ROW")
    return f"{kind} BETWEEN {start} AND {end}"


def has_total(node: exp.Select, grouped: str) -> bool:
    """Whether a SELECT may have a row that stands for all rows, or for none."""
    group = node.args.get("group")
    sets = (exp.Rollup, exp.Cube, exp.GroupingSets)
    if grouped:
        given = group.args if group is not None else {}
        return any(given.get(key) for key in ("rollup", "cube", "grouping_sets")) or any(
            isinstance(e, sets) for e in given.get("expressions", ())
        )
    return _aggregates(node)


def union_branches(node: exp.SetOperation) -> list[exp.Expr]:
    """What a UNION puts together, with what unions of its kind inside of it do."""
    found: list[exp.Expr] = []
    waiting: list[exp.Expr] = [node.right, node.left]
    while waiting:
        side = waiting.pop()
        inner = side
        while type(inner) is exp.Subquery and set(_given(inner)) == {"this"}:
            inner = inner.this
        if (
            isinstance(inner, exp.Union)
            and inner.args.get("distinct") == node.args.get("distinct")
            and set(_given(inner)) <= {"this", "expression", "distinct"}
        ):
            waiting += [inner.right, inner.left]
        else:
            found.append(side)
    return found


def _given(node: exp.Expr) -> Iterator[str]:
    return (key for key, value in node.args.items() if value)


def star_of(item: exp.Expr) -> exp.Star | None:
    """The star that a SELECT item is, perhaps of one table."""
    if isinstance(item, exp.Star):
        return item
    if isinstance(item, exp.Column) and isinstance(item.this, exp.Star):
        return item.this
    return None


def output_name(item: exp.Expr) -> str:
    """The name that a subquery's column has for the queries around it."""
    if isinstance(item, exp.Alias):
        return str(item.alias)
    if isinstance(item, exp.Column):
        return str(item.name)
    if isinstance(item, exp.Count) and isinstance(item.this, exp.Star):
        return "count_star()"
    return duckdb_sql(item).lower()


def is_query(node: exp.Expr) -> bool:
    """Whether a node is a query: where a walk ends that is not to go into subqueries."""
    return isinstance(node, exp.Query)
