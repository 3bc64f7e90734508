"""Semi-joins before semi-joins: the big side is reduced to what the small side can match.

``L SEMI JOIN R`` with a small *L* and a big *R* builds its hash table on *L* and passes all of *R*
by it. Kernels push the keys of a hash table into the scan of the other side where the join is
inner, or where its right side is hashed, but not here; across an exchange all of *R* would be
written. With *R* replaced by ``R SEMI JOIN L`` the scan of *R* gets *L*'s keys, and little is left.

It is right because only rows of *R* whose keys some row of *L* has can ever meet a row of *L*; the
residual condition is checked afterwards as before. This holds for semi, anti and mark joins, which
only ask whether there is a match. Keys that match as NULLs are left alone.

It pays if *L* is much smaller than *R*; *L* is then read twice, and so computed once for both.
What is left of *R* is few rows: where the condition allows, one for each key is made of them
(`engine.optimizer.extremes`).

``(… L …) JOIN (SELECT k, avg(x) FROM R GROUP BY k) ON L.k = k`` makes groups for keys that *L* has
not. If *L* is a filtered dimension, ``R SEMI JOIN L`` goes below the groups: whole groups are left
out, none changes. That is the magic set of I. S. Mumick, S. J. Finkelstein, H. Pirahesh and
R. Ramakrishnan, "Magic is relevant" (SIGMOD 1990), with semi-joins for conditions.
"""

from __future__ import annotations

from dataclasses import replace

import pyarrow.types as pt

from engine.optimizer.expressions import every_relation, has_window, map_subqueries, with_inputs
from engine.optimizer.extremes import by_extremes
from engine.optimizer.joingroup import RowEstimates
from engine.optimizer.sharing import shared, unfiltered
from engine.optimizer.suppliers import is_selection, suppliers
from operators import build
from operators.expr import Column, Expr
from operators.rel import Aggregation, Filter, Join, Project, Rel, Scan, walk

__all__ = ["reduce_semi_joins"]

_BIG_ROWS = 1_000_000.0
_GROUPED_ROWS = 100_000.0
_RATIO = 20.0  # more than 1, or what is reduced would be reduced again


def reduce_semi_joins(plan: Rel, estimates: RowEstimates) -> Rel:
    """`plan` with what is joined or grouped reduced by the small sides that tell what is wanted."""
    return _Reducer(plan, estimates).reduced()


class _Reducer:
    def __init__(self, plan: Rel, estimates: RowEstimates) -> None:
        self._plan = plan
        self._estimates = estimates
        self._shared = shared(plan)

    def reduced(self) -> Rel:
        """The plan, itself where nothing pays."""
        # What is visited may be made here: it stands in the table, or another relation could get
        # its identity.
        done: dict[int, tuple[Rel, Rel]] = {}

        def visit(rel: Rel) -> Rel:
            if id(rel) not in done:
                node = self._narrowed(rel) if isinstance(rel, Join) else rel
                node = map_subqueries(node, visit)
                done[id(rel)] = rel, with_inputs(node, [visit(i) for i in node.inputs()])
            return done[id(rel)][1]

        joins = (r for r in every_relation(self._plan) if isinstance(r, Join))
        if all(self._narrowed(join) is join for join in joins):
            return self._plan
        return visit(self._plan)

    def _narrowed(self, join: Join) -> Join:
        if not join.left_keys or any(join.null_equal) or _has_floats(join):
            return join
        if _asks_only(join) and self._much_larger(join.right, join.left):
            few = _semi(join.right, join.right_keys, join.left, join.left_keys)
            reduced = replace(join, right=few)
            grouped = by_extremes(reduced)
            if grouped is not reduced or self._estimates.rows(join.right) >= _BIG_ROWS:
                return grouped
        left, right = join.left, join.right
        for a, b in zip(join.left_keys, join.right_keys, strict=True):
            if join.kind in ("inner", "left", "semi", "anti", "mark"):
                right = self._of_wanted_groups(right, b, left, a)
            if join.kind in ("inner", "semi"):
                left = self._of_wanted_groups(left, a, right, b)
        changed = left is not join.left or right is not join.right
        return replace(join, left=left, right=right) if changed else join

    def _much_larger(self, big: Rel, small: Rel) -> bool:
        rows = self._estimates.rows(big)
        return rows >= _GROUPED_ROWS and rows >= _RATIO * self._estimates.rows(small)

    def _of_wanted_groups(self, rel: Rel, position: int, other: Rel, key: int) -> Rel:
        """`rel`, groups by its column at `position`, without those of keys that the column `key` of
        `other` cannot have, as far as a small table tells.
        """
        if id(rel) in self._shared:
            return rel
        match rel:
            case Filter(input=below):
                inner = self._of_wanted_groups(below, position, other, key)
                return rel if inner is below else replace(rel, input=inner)
            case Project(input=below, exprs=exprs) if not has_window(exprs):
                expr = exprs[position]
                if isinstance(expr, Column):
                    inner = self._of_wanted_groups(below, expr.index, other, key)
                    return rel if inner is below else replace(rel, input=inner)
            case Aggregation(input=below, keys=keys, grouping_sets=None) if position < len(keys):
                column = keys[position]
                small = self._telling(below, column, other, key)
                if small is not None and isinstance(column, Column):
                    return replace(rel, input=_semi(below, (column.index,), *small))
        return rel

    def _telling(
        self, big: Rel, column: Expr, other: Rel, key: int
    ) -> tuple[Rel, tuple[int]] | None:
        """Of the relations that have all values of `other` at `key`, the least that tells much
        about `big` and costs little; and its column.
        """
        if not isinstance(column, Column) or self._estimates.rows(big) < _GROUPED_ROWS:
            return None
        cheap = max(map(self._read, walk(big))) / _RATIO
        best: tuple[Rel, tuple[int]] | None = None
        fewest = float("inf")
        for small, at in suppliers(other, key):
            rows = self._estimates.rows(small)
            if (
                rows >= fewest
                or small.schema[at].type != column.type
                or not is_selection(small)
                or sum(map(self._read, walk(small))) > cheap
            ):
                continue
            kept = self._estimates.rows(_semi(big, (column.index,), small, (at,)))
            if kept * _RATIO <= self._estimates.rows(big):
                best, fewest = (small, (at,)), rows
        return best

    def _read(self, rel: Rel) -> float:
        """Rows of the table that `rel` scans."""
        return self._estimates.rows(unfiltered(rel)) if isinstance(rel, Scan) else 0.0


def _has_floats(join: Join) -> bool:
    """Whether NaN may be a key: DuckDB 1.5.5 skips the row groups in which a join looks for it."""
    return any(pt.is_floating(join.left.schema[k].type) for k in join.left_keys)


def _asks_only(join: Join) -> bool:
    """Whether all that is asked of the right side is whether there is a match."""
    return join.kind in ("semi", "anti", "mark")


def _semi(big: Rel, big_keys: tuple[int, ...], small: Rel, small_keys: tuple[int, ...]) -> Join:
    return build.join(big, small, "semi", on=list(zip(big_keys, small_keys, strict=True)))
