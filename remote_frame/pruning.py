"""Which columns and parts of its scans a plan uses: what it does not use is not read.

Positions stay as they are: an unused column of a scan becomes a typed NULL. That is enough for a
plan that runs in one place, where only reading costs; plans that are cut into stages are pruned
by the engine. What a filter right above a scan compares with constants becomes conditions of the
reader (`remote_frame.conditions`), which skips parts by their statistics; the filter stays.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from operators.expr import Call, Column, Expr, InList, Lit
from operators.rel import (
    Aggregation,
    Filter,
    Join,
    Limit,
    Project,
    Rel,
    Scan,
    SetOperation,
    Sort,
)
from operators.rewrite import columns_used, conjuncts, with_inputs
from operators.schema import Schema
from remote_frame.conditions import Condition, Operator

__all__ = ["conditions", "prune"]

_OPERATORS: dict[str, Operator] = {
    "equal": "=",
    "less": "<",
    "less_equal": "<=",
    "greater": ">",
    "greater_equal": ">=",
    "is_null": "is_null",
    "is_not_null": "is_not_null",
}
_MIRRORED: dict[Operator, Operator] = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


def prune(plan: Rel) -> Rel:
    """A plan of the same rows and columns whose scans read only what it uses, of frames only the
    parts in which rows can pass the filters.

    Scans in subqueries inside expressions stay as they are.
    """
    return _visit(plan, range(len(plan.schema)))


def _visit(rel: Rel, wanted: Collection[int]) -> Rel:
    """`rel` with the same schema, of whose columns only those in `wanted` matter."""
    match rel:
        case Scan():
            return _scan(rel, wanted)
        case Filter():
            if isinstance(rel.input, Scan):
                rel = replace(rel, input=_filtered(rel, rel.input))
            return _below(rel, {*wanted, *columns_used(rel.predicate)})
        case Sort():
            return _below(rel, {*wanted, *columns_used(*rel.keys)})
        case Limit():
            return _below(rel, wanted)
        case Project():
            exprs = tuple(e if i in wanted else Lit(e.type, None) for i, e in enumerate(rel.exprs))
            return _below(replace(rel, exprs=exprs), columns_used(*exprs))
        case Aggregation():
            return _below(rel, columns_used(*rel.keys, *rel.measures))
        case Join():
            return _join(rel, wanted)
        case SetOperation(operation="union", all=True):
            return with_inputs(rel, [_visit(o, wanted) for o in rel.operands])
    return with_inputs(rel, [prune(i) for i in rel.inputs()])


def _below(rel: Filter | Sort | Limit | Project | Aggregation, used: Collection[int]) -> Rel:
    return with_inputs(rel, [_visit(rel.input, used)])


def _join(rel: Join, wanted: Collection[int]) -> Rel:
    width = len(rel.left.schema)
    used = columns_used(rel.condition)
    # The output of these has no right columns: a mark stands where the first one would.
    kept = {c for c in wanted if c < width} if rel.kind in ("semi", "anti", "mark") else wanted
    left = {c for c in (*used, *kept) if c < width} | set(rel.left_keys)
    right = {c - width for c in (*used, *kept) if c >= width} | set(rel.right_keys)
    return with_inputs(rel, [_visit(rel.left, left), _visit(rel.right, right)])


def _scan(scan: Scan, wanted: Collection[int]) -> Rel:
    if all(i in wanted for i in range(len(scan.columns))):
        return scan
    # A scan without columns would have no rows to count.
    kept = sorted(wanted) or [0]
    narrow = replace(
        scan,
        columns=tuple(scan.columns[i] for i in kept),
        schema=scan.schema.select(kept),
    )
    exprs: list[Expr] = [
        Column(f.type, kept.index(i)) if i in kept else Lit(f.type, None)
        for i, f in enumerate(scan.schema)
    ]
    return Project(scan.schema, narrow, tuple(exprs))


def conditions(predicate: Expr, schema: Schema) -> list[Condition]:
    """What a predicate over columns of `schema` demands of single columns, as far as it is simple.

    The terms of the predicate that compare a column with constants, or test it for NULL. All of
    them hold in every row for which the predicate is true.
    """
    names = [f.name for f in schema]
    found: list[tuple[int, Operator, Any]] = []
    for term in conjuncts(predicate):
        match term:
            case Call(function="is_null" | "is_not_null" as test, args=(Column(index=i),)):
                found.append((i, _OPERATORS[test], None))
            case Call(function=name, args=(Column(index=i), Lit(value=v))) if name in _OPERATORS:
                found.append((i, _OPERATORS[name], v))
            case Call(function=name, args=(Lit(value=v), Column(index=i))) if name in _OPERATORS:
                operator = _OPERATORS[name]
                found.append((i, _MIRRORED.get(operator, operator), v))
            case InList(arg=Column(index=i), options=options) if all(
                isinstance(o, Lit) for o in options
            ):
                found.append((i, "in", tuple(o.value for o in options if isinstance(o, Lit))))
    return [
        Condition(names[i], operator, value)
        for i, operator, value in found
        if names.count(names[i]) == 1
    ]


def _filtered(filter: Filter, scan: Scan) -> Scan:
    """The scan with a source that skips parts, if it has one that can."""
    where = getattr(getattr(scan.source, "data", None), "where", None)
    if where is None:
        return scan
    met = conditions(filter.predicate, scan.schema)
    # A scan may rename its columns; conditions go by the names of what is stored.
    stored = {
        f.name: scan.source_schema[c].name for f, c in zip(scan.schema, scan.columns, strict=True)
    }
    met = [replace(c, column=stored[c.column]) for c in met]
    if not met:
        return scan
    data = where(met)
    # Another name: the same frame may be scanned beside it without the filter.
    return replace(scan, source=type(scan.source).over(data))  # type: ignore[attr-defined]
