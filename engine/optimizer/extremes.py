"""Of the rows with one key a comparison needs the least and the greatest value only.

``EXISTS (SELECT … FROM R WHERE R.k = L.k AND R.y <> L.x)`` holds where the least or the greatest
*y* of the key is not *x*: a semi-join with a condition becomes one with a group for each key,
``min(y) <> x OR max(y) <> x``. So do anti and mark joins, ``<`` and the like (one end is enough).
A row of *L* finds one partner at most then, and whoever computes the join need not look through all
rows with a key for one that meets the condition; Polars, whose semi-joins have no conditions, can
compute it as an inner join.

Comparisons with NULL hold for no row, and `min` and `max` pass over NULL. Floats are left alone:
their NaN is greater than all else to one kernel, and nothing to the other.
"""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pyarrow.types as pt

from engine.optimizer.expressions import renumber
from engine.optimizer.predicates import conjuncts, disjunction
from operators import build
from operators.expr import Call, Column, Expr
from operators.functions import COMPARISONS
from operators.rel import Join, Rel
from operators.rewrite import columns_used, subqueries

__all__ = ["by_extremes"]

# The values of a key that decide whether some value of it compares so with one of the left side.
_ENDS = {
    "not_equal": ("min", "max"),
    "less": ("max",),
    "less_equal": ("max",),
    "greater": ("min",),
    "greater_equal": ("min",),
}


def by_extremes(join: Join) -> Join:
    """A semi, anti or mark join that meets each row with one partner at most.

    `join` itself if its condition is anything but one comparison of the two sides, and conditions
    of the right one.
    """
    if not join.left_keys or any(join.null_equal):
        return join
    width = len(join.left.schema)
    between: list[Expr] = []
    right: Rel = join.right
    for term in conjuncts(join.condition):
        used = columns_used(term)
        if any(True for _ in subqueries(term)) or not used:
            return join
        if min(used) >= width:
            right = build.filter(right, renumber(term, {c: c - width for c in used}))
        else:
            between.append(term)
    compared = _compared(between[0], width) if len(between) == 1 else None
    if compared is None:
        return join
    function, ours, theirs = compared
    value = renumber(theirs, {c: c - width for c in columns_used(theirs)})
    names = _ENDS[function]
    groups = build.aggregation(
        right,
        [build.col(right.schema, k) for k in join.right_keys],
        [build.aggregate(name, value) for name in names],
        names=[*(right.schema[k].name for k in join.right_keys), *names],
    )
    first = width + len(join.right_keys)
    return replace(
        join,
        right=groups,
        right_keys=tuple(range(len(join.right_keys))),
        condition=disjunction(
            [build.call(function, ours, Column(value.type, first + i)) for i in range(len(names))]
        ),
    )


def _compared(term: Expr, width: int) -> tuple[str, Expr, Expr] | None:
    """The comparison of `term`, as one of the left side with the right side."""
    if not (isinstance(term, Call) and term.function in _ENDS):
        return None
    one, other = term.args
    if not (_is_ordered(one.type) and one.type == other.type):
        return None
    sides = [[c >= width for c in columns_used(e)] for e in (one, other)]
    if not all(sides):
        return None
    if not any(sides[0]) and all(sides[1]):
        return term.function, one, other
    if all(sides[0]) and not any(sides[1]):
        return COMPARISONS[term.function], other, one
    return None


def _is_ordered(type: pa.DataType) -> bool:
    return bool(pt.is_integer(type) or pt.is_decimal(type) or pt.is_date(type))
