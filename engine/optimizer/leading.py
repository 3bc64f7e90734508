"""Only rows that may be among the first of their group reach the window that ranks them.

``FROM (SELECT *, rank() OVER (PARTITION BY p ORDER BY k DESC) AS r FROM X) WHERE r <= 100`` ranks
all rows of *X* to keep a hundred of each group. The hundredth largest *k* of each group is
found in one pass, without sorting, and rows below it cannot count: `operators.rel.Leading` drops
them. It goes below unions, whose parts it may look at one by one, and below projections; where rows
move before they are ranked, few are left to be moved.

It is right for `rank` and `row_number`: the first hundred rows of a group all stay, and whatever
else stays has these before it, or equal to it, as it had. (`dense_rank` counts values: its first
hundred may have more rows.) No other window may look at the rows that go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow.types as pt

from engine.optimizer.estimates import Estimates
from engine.optimizer.expressions import every_relation, has_window, map_subqueries, with_inputs
from engine.optimizer.predicates import conjuncts
from engine.optimizer.sharing import shared
from operators import build
from operators.expr import Call, Column, Expr, Lit, SortKey, Window
from operators.rel import Filter, Project, Rel, SetOperation

__all__ = ["keep_leading"]

# Of fewer rows it is not worth a pass over them; and of so many rows one should be left.
_ROWS = 100_000.0
_LEFT = 8.0
# DuckDB holds the largest values of each group in a heap.
_MOST = 10_000


def keep_leading(plan: Rel, estimates: Estimates) -> Rel:
    """`plan` with rows left out before they are ranked that no filter on the rank would keep."""
    if not any(
        isinstance(r, Project) and _only_rank(r.exprs) is not None for r in every_relation(plan)
    ):
        return plan
    rule = _Rule(plan, estimates)
    return rule.visit(plan)


class _Rule:
    def __init__(self, plan: Rel, estimates: Estimates) -> None:
        self._estimates = estimates
        self._shared = shared(plan)
        self._done: dict[int, tuple[Rel, Rel]] = {}

    def visit(self, rel: Rel) -> Rel:
        if id(rel) not in self._done:
            node = map_subqueries(rel, self.visit)
            if isinstance(node, Filter):
                node = self._filter(node)
            node = with_inputs(node, [self.visit(i) for i in node.inputs()])
            self._done[id(rel)] = rel, node
        return self._done[id(rel)][1]

    def _filter(self, rel: Filter) -> Filter:
        below = rel.input
        for term in conjuncts(rel.predicate):
            bound = _bound(term)
            if bound is not None:
                below = self._ranked(below, *bound)
        return rel if below is rel.input else replace(rel, input=below)

    def _ranked(self, rel: Rel, position: int, count: int) -> Rel:
        """`rel`, of which rows are wanted whose column `position`, a rank, is at most `count`."""
        if id(rel) in self._shared or not isinstance(rel, Project):
            return rel
        expr = rel.exprs[position]
        if not has_window(rel.exprs):
            if not isinstance(expr, Column):
                return rel
            below = self._ranked(rel.input, expr.index, count)
            return rel if below is rel.input else replace(rel, input=below)
        window = _only_rank(rel.exprs)
        if window is None or window is not expr:
            return rel
        groups = [e for e in window.partition_by if not isinstance(e, Lit)]
        columns = list(dict.fromkeys(e for e in groups if isinstance(e, Column)))
        key = window.order_by[0]
        if not isinstance(key.expr, Column) or not _exact(key.expr):
            return rel
        # Groups find their last row by a join, and kernels do not agree on NaN = NaN.
        if not all(isinstance(e, Column) for e in groups) or any(
            pt.is_floating(c.type) for c in columns
        ):
            return rel
        below = self._lead(rel.input, columns, key, count)
        return rel if below is rel.input else replace(rel, input=below)

    def _lead(self, rel: Rel, groups: Sequence[Column], key: SortKey, count: int) -> Rel:
        """The rows of `rel` that may be among the first, decided as far down as may be."""
        at = key.expr
        assert isinstance(at, Column)
        match rel:
            case SetOperation(operation="union", all=True, operands=operands) if id(
                rel
            ) not in self._shared and all(o.schema.types == rel.schema.types for o in operands):
                led = tuple(self._lead(o, groups, key, count) for o in operands)
                same = all(a is b for a, b in zip(led, operands, strict=True))
                return rel if same else replace(rel, operands=led)
            case Project(exprs=exprs, input=below) if id(
                rel
            ) not in self._shared and not has_window(exprs):
                sources = [exprs[g.index] for g in groups]
                source = exprs[at.index]
                if isinstance(source, Column) and all(isinstance(s, Column | Lit) for s in sources):
                    columns = list(dict.fromkeys(s for s in sources if isinstance(s, Column)))
                    one = self._lead(below, columns, replace(key, expr=source), count)
                    return rel if one is below else replace(rel, input=one)
        return build.leading(rel, groups, key, count) if self._pays(rel, groups, count) else rel

    def _pays(self, rel: Rel, groups: Sequence[Column], count: int) -> bool:
        rows = self._estimates.rows(rel)
        if rows < _ROWS or count > _MOST:
            return False
        left = float(count)
        for column in groups:
            distinct = self._estimates.column(rel, column.index).distinct
            if distinct is None:
                return False
            left *= distinct + 1.0
        return left * _LEFT <= rows


def _only_rank(exprs: Sequence[Expr]) -> Window | None:
    """The only window among the expressions, if it is a rank by something."""
    windows = [e for e in exprs if isinstance(e, Window)]
    if len(windows) != 1 or windows[0].function not in ("rank", "row_number"):
        return None
    return windows[0] if windows[0].order_by else None


def _exact(column: Column) -> bool:
    """Whether kernels agree on which of two values is larger."""
    return bool(
        pt.is_integer(column.type)
        or pt.is_decimal(column.type)
        or pt.is_date(column.type)
        or pt.is_timestamp(column.type)
    )


def _bound(term: Expr) -> tuple[int, int] | None:
    """The column of which a condition wants no value above a number, and that number."""
    match term:
        case Call(function=name, args=(Column(index=i), Lit(value=int(value)))):
            pass
        case Call(function=name, args=(Lit(value=int(value)), Column(index=i))):
            name = {"greater": "less", "greater_equal": "less_equal"}.get(
                name, "equal" if name == "equal" else ""
            )
        case _:
            return None
    most = {"less_equal": value, "less": value - 1, "equal": value}.get(name, 0)
    return (i, most) if most >= 1 else None
