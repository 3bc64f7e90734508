"""Semi-joins before semi-joins: the big side is reduced to what the small side can match.

``L SEMI JOIN R`` with a small *L* and a big *R* builds its hash table on *L* and passes all of *R*
by it. Kernels push the keys of a hash table into the scan of the other side where the join is
inner, or where its right side is hashed, but not here; across an exchange all of *R* would be
written. With *R* replaced by ``R SEMI JOIN L`` the scan of *R* gets *L*'s keys, and little is left.

It is right because only rows of *R* whose keys some row of *L* has can ever meet a row of *L*; the
residual condition is checked afterwards as before. This holds for semi, anti and mark joins, which
only ask whether there is a match. Keys that match as NULLs are left alone.

It pays if *L* is much smaller than *R*; *L* is then read twice, and so computed once for both.
"""

from __future__ import annotations

from dataclasses import replace

from engine.optimizer.expressions import every_relation, map_subqueries, with_inputs
from engine.optimizer.joingroup import RowEstimates
from operators.rel import Join, Rel

__all__ = ["reduce_semi_joins"]

_BIG_ROWS = 1_000_000.0
_RATIO = 20.0


def reduce_semi_joins(plan: Rel, estimates: RowEstimates) -> Rel:
    """`plan` with the big sides of semi, anti and mark joins reduced by their small sides."""
    if not any(isinstance(r, Join) and _pays(r, estimates) for r in every_relation(plan)):
        return plan
    done: dict[int, Rel] = {}

    def visit(rel: Rel) -> Rel:
        if id(rel) not in done:
            node = map_subqueries(rel, visit)
            node = with_inputs(node, [visit(i) for i in node.inputs()])
            if isinstance(node, Join) and _pays(node, estimates):
                node = replace(node, right=_reduced(node))
            done[id(rel)] = node
        return done[id(rel)]

    return visit(plan)


def _pays(rel: Join, estimates: RowEstimates) -> bool:
    if rel.kind not in ("semi", "anti", "mark") or not rel.left_keys or any(rel.null_equal):
        return False
    big = estimates.rows(rel.right)
    return big >= _BIG_ROWS and big >= _RATIO * estimates.rows(rel.left)


def _reduced(rel: Join) -> Join:
    return Join(
        rel.right.schema, rel.right, rel.left, "semi", rel.right_keys, rel.left_keys, rel.null_equal
    )
