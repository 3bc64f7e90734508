"""Outer joins of which the rows without a partner are dropped later are inner joins.

``(L LEFT JOIN R ON …) JOIN S ON R.k = S.k`` keeps no row whose columns of *R* were filled with
NULL: NULL equals nothing. Users write such joins, and what they are decides in which order joins
may be made and which keys say what of a table is wanted.

The rule is that of C. Galindo-Legaria and A. Rosenthal, "Outerjoin simplification and reordering
for query optimization" (TODS 22(1), 1997), section 3: from the top down, columns whose NULLs no row
survives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from engine.optimizer.expressions import (
    every_relation,
    has_window,
    map_subqueries,
    subqueries_of,
    with_inputs,
)
from engine.optimizer.predicates import conjuncts
from operators.expr import Call, Cast, Column, Expr, InList
from operators.rel import Aggregation, Filter, Join, JoinKind, Project, Rel, SetOperation, Sort

__all__ = ["inner_joins"]

_COMPARISONS = frozenset(
    {"equal", "not_equal", "less", "less_equal", "greater", "greater_equal", "like"}
)
_NOTHING: frozenset[int] = frozenset()


def inner_joins(plan: Rel) -> Rel:
    """`plan` with less of its joins outer joins.

    What several relations read stays one object: nothing is known of it but what holds inside.
    """
    outer = ("left", "right", "full")
    if not any(isinstance(r, Join) and r.kind in outer for r in every_relation(plan)):
        return plan
    return _Simplifier(plan).visit(plan, _NOTHING)


class _Simplifier:
    def __init__(self, plan: Rel) -> None:
        self._readers: Counter[int] = Counter()
        self._done: dict[int, tuple[Rel, Rel]] = {}
        self._count(plan, set())

    def _count(self, rel: Rel, seen: set[int]) -> None:
        seen.add(id(rel))
        for below in (*rel.inputs(), *subqueries_of(rel)):
            self._readers[id(below)] += 1
            if id(below) not in seen:
                self._count(below, seen)

    def visit(self, rel: Rel, dropped: frozenset[int]) -> Rel:
        """`rel`, of which no row with NULL in one of the `dropped` columns is wanted."""
        if self._readers[id(rel)] > 1:
            if id(rel) not in self._done:
                self._done[id(rel)] = rel, self._rewrite(rel, _NOTHING)
            return self._done[id(rel)][1]
        return self._rewrite(rel, dropped)

    def _rewrite(self, rel: Rel, dropped: frozenset[int]) -> Rel:
        rel = map_subqueries(rel, lambda r: self.visit(r, _NOTHING))
        match rel:
            case Join():
                return self._join(rel, dropped)
            case Filter(input=below, predicate=predicate):
                below = self.visit(below, dropped | _dropped_by(conjuncts(predicate)))
                return with_inputs(rel, [below])
            case Sort(input=below):
                return with_inputs(rel, [self.visit(below, dropped)])
            case Project(input=below, exprs=exprs) if not has_window(exprs):
                inner = _of_strict(exprs[i] for i in dropped)
                return with_inputs(rel, [self.visit(below, inner)])
            case Aggregation(input=below, keys=keys, grouping_sets=None):
                inner = _of_strict(keys[i] for i in dropped if i < len(keys))
                return with_inputs(rel, [self.visit(below, inner)])
            case SetOperation(operation="union", operands=operands):
                return with_inputs(rel, [self.visit(o, dropped) for o in operands])
        return with_inputs(rel, [self.visit(i, _NOTHING) for i in rel.inputs()])

    def _join(self, join: Join, dropped: frozenset[int]) -> Rel:
        width = len(join.left.schema)
        left = frozenset(i for i in dropped if i < width)
        right = (
            frozenset(i - width for i in dropped if i >= width) if _both(join.kind) else _NOTHING
        )
        kind = _simplified(join.kind, bool(left), bool(right))
        matched = _dropped_by(conjuncts(join.condition))
        keys = [
            (a, b)
            for a, b, null in zip(join.left_keys, join.right_keys, join.null_equal, strict=True)
            if not null
        ]
        left_matched = {a for a, _ in keys} | {i for i in matched if i < width}
        right_matched = {b for _, b in keys} | {i - width for i in matched if i >= width}
        # What finds no partner is kept on an outer join's own side, whatever it holds.
        inputs = [
            self.visit(
                join.left, left | left_matched if kind in ("inner", "semi", "right") else left
            ),
            self.visit(
                join.right,
                right | right_matched
                if kind in ("inner", "semi", "left", "anti", "mark")
                else right,
            ),
        ]
        if kind == "full":
            inputs = [self.visit(i, _NOTHING) for i in (join.left, join.right)]
        elif kind == "asof":
            inputs = [self.visit(join.left, left), self.visit(join.right, _NOTHING)]
        changed = join if kind == join.kind else replace(join, kind=kind)
        return with_inputs(changed, inputs)


def _both(kind: JoinKind) -> bool:
    return kind in ("inner", "left", "right", "full", "cross", "asof")


def _simplified(kind: JoinKind, left: bool, right: bool) -> JoinKind:
    """The kind of a join of which rows with NULL in some column of a side are not wanted."""
    match kind:
        case "left" if right:
            return "inner"
        case "right" if left:
            return "inner"
        case "full" if left and right:
            return "inner"
        case "full" if left:
            return "left"
        case "full" if right:
            return "right"
    return kind


def _dropped_by(terms: Iterable[Expr]) -> frozenset[int]:
    """Columns of which NULL makes one of the conditions false or NULL."""
    found: frozenset[int] = _NOTHING
    for term in terms:
        found |= _dropped_by_one(term)
    return found


def _dropped_by_one(term: Expr) -> frozenset[int]:
    match term:
        case Call(function="or", args=args):
            return frozenset.intersection(*(_dropped_by(conjuncts(a)) for a in args))
        case Call(function=name, args=args) if name in _COMPARISONS:
            return _of_strict(args)
        case Call(function="is_not_null", args=args):
            return _of_strict(args)
        case InList(arg=arg):
            return _of_strict([arg])
    return _NOTHING


def _of_strict(exprs: Iterable[Expr]) -> frozenset[int]:
    """Columns of which NULL makes an expression NULL, of those that show it at once."""
    found = set()
    for expr in exprs:
        while isinstance(expr, Cast):
            expr = expr.arg
        if isinstance(expr, Column):
            found.add(expr.index)
    return frozenset(found)
