"""Which columns of strings stand as numbers while rows are joined and grouped.

Strings of a small table that a large one is joined with come once for each of the large one's rows.
A grouping then hashes, compares and keeps all of them; numbers that stand for the small table's few
values (Polars' categoricals) take a fraction of that. They come back as strings where anything but
a join's other keys, or another grouping, looks at them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

import pyarrow as pa
import pyarrow.types as pt

from operators.expr import Column, Expr
from operators.rel import Aggregation, Filter, Join, Leading, Limit, Project, Rel, Scan, Sort
from operators.rewrite import columns_used, expressions, subqueries

__all__ = ["CODE", "Worth", "coded_columns"]

CODE = "pl.Categorical(pl.Categories.random())"
"""The type of such columns. Categories of their own go with the query; shared ones would stay."""

Worth = Callable[[Rel, Rel], bool]
"""Whether coding strings of one relation pays where the rows of another are grouped by them."""


def coded_columns(plan: Rel, worth: Worth) -> Mapping[int, frozenset[int]]:
    """Columns of scans and projections that are strings and keys of a grouping behind a join, and
    that nothing between the two looks at; by the relation's identity.
    """
    found: defaultdict[int, set[int]] = defaultdict(set)
    for rel in _everything(plan):
        if not isinstance(rel, Aggregation):
            continue
        for key in rel.keys:
            if isinstance(key, Column) and _is_string(key.type):
                origin = _origin(rel.input, key.index, joined=False)
                if origin is not None and worth(origin[0], rel.input):
                    found[id(origin[0])].add(origin[1])
    return {rel: frozenset(columns) for rel, columns in found.items()}


def _is_string(type: pa.DataType) -> bool:
    return bool(pt.is_string(type) or pt.is_large_string(type))


def _everything(plan: Rel) -> list[Rel]:
    """All relations, those of subqueries among them, each once."""
    seen: dict[int, Rel] = {}
    waiting = [plan]
    while waiting:
        rel = waiting.pop()
        if id(rel) in seen:
            continue
        seen[id(rel)] = rel
        waiting += rel.inputs()
        waiting += (s for e in expressions(rel) for s in subqueries(e))
    return list(seen.values())


def _origin(rel: Rel, position: int, *, joined: bool) -> tuple[Rel, int] | None:
    """The relation and the position there that a column comes from, as it is; None if something
    else looks at it, or it comes through no join.
    """
    while True:
        match rel:
            case Scan():
                return (rel, position) if joined else None
            case Project(input=below, exprs=exprs):
                expr: Expr = exprs[position]
                if not isinstance(expr, Column):
                    return (rel, position) if joined and columns_used(expr) else None
                if _looks(exprs, expr.index):
                    return None
                position = expr.index
                rel = below
            case Filter(input=below, predicate=predicate):
                if position in columns_used(predicate):
                    return None
                rel = below
            case Limit(input=below):
                rel = below
            case Sort(input=below, keys=keys):
                if position in columns_used(*keys):
                    return None
                rel = below
            case Leading(input=below, key=key):
                if position in columns_used(key):
                    return None
                rel = below
            case Aggregation(input=below, keys=keys, measures=measures, grouping_sets=None):
                if position >= len(keys):
                    return None
                of = keys[position]
                if not isinstance(of, Column) or _looks(keys, of.index):
                    return None
                if of.index in columns_used(*measures):
                    return None
                position = of.index
                rel = below
            case Join(left=left, right=right, kind=kind, left_keys=(_, *_)) if kind != "asof":
                width = len(left.schema)
                on_left = position < width
                keyed = rel.left_keys if on_left else rel.right_keys
                within = position if on_left else position - width
                if within in keyed or position in columns_used(rel.condition):
                    return None
                if not on_left and kind in ("semi", "anti", "mark"):
                    return None
                joined = joined or kind not in ("semi", "anti", "mark")
                position = within
                rel = left if on_left else right
            case _:
                return None


def _looks(exprs: tuple[Expr, ...], position: int) -> bool:
    """Whether an expression computes with a column."""
    return position in columns_used(*(e for e in exprs if not isinstance(e, Column)))
