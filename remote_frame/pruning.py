"""Which columns of its scans a plan uses: what it does not use is not read.

Positions stay as they are: an unused column of a scan becomes a typed NULL. That is enough for a
plan that runs in one place, where only reading costs; plans that are cut into stages are pruned
by the engine.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from operators.expr import Column, Expr, Lit
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
from operators.rewrite import columns_used, with_inputs

__all__ = ["prune"]


def prune(plan: Rel) -> Rel:
    """A plan of the same rows and columns whose scans read only what it uses.

    Scans in subqueries inside expressions stay as they are.
    """
    return _visit(plan, range(len(plan.schema)))


def _visit(rel: Rel, wanted: Collection[int]) -> Rel:
    """`rel` with the same schema, of whose columns only those in `wanted` matter."""
    match rel:
        case Scan():
            return _scan(rel, wanted)
        case Filter():
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
