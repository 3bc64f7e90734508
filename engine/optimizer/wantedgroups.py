"""Groups that several readers share, without those that none of them wants.

``WITH weekly AS (SELECT week, sum(…) FROM sales JOIN dates … GROUP BY week) SELECT … FROM weekly a
JOIN dates d ON a.week = d.week, weekly b JOIN dates e ON b.week = e.week … WHERE d.year = 2001 AND
e.year = 2002`` makes groups of all weeks, as no filter holds for both readers. Each of them names
the weeks that it wants, though, and rows of other weeks matter to none. So of the table that the
week comes from only the rows stay that one of the readers' filtered tables has.

As for one reader (`engine.optimizer.semijoins`) this is the magic set of Mumick et al. (SIGMOD
1990); for several it is the union of theirs. Whole groups are left out, none changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow.types as pt

from engine.optimizer.expressions import (
    every_relation,
    has_window,
    map_subqueries,
    subqueries_of,
    with_inputs,
)
from engine.optimizer.joingroup import RowEstimates
from engine.optimizer.sharing import shared, unfiltered
from engine.optimizer.suppliers import is_selection, suppliers
from operators import build
from operators.expr import Column
from operators.rel import Aggregation, Filter, Join, Project, Rel, Scan, walk

__all__ = ["reduce_shared_groups"]

_LARGE_ROWS = 100_000.0
# The table that a key comes from, and those that say which keys are wanted, are so much smaller
# than the largest one that is grouped.
_RATIO = 10.0
# Of the rows of that table, the most that may be left. How many of those that are grouped are left
# is not estimated well: a calendar has more days than anything happened on.
_KEPT = 0.1

# Joins whose rows are rows of the left side, or of the right one, or none.
_LEFT_ROWWISE = ("inner", "left", "semi", "anti", "mark", "cross")
_RIGHT_ROWWISE = ("inner", "right", "cross")


def reduce_shared_groups(plan: Rel, estimates: RowEstimates) -> Rel:
    """An interned plan, with groups that several relations read reduced to what these want."""
    several = shared(plan)
    if not several:
        return plan
    reducer = _Reducer(plan, estimates, several)
    reduced = {
        id(groups): (groups, less)
        for groups in every_relation(plan)
        if isinstance(groups, Aggregation) and (less := reducer.reduced(groups)) is not None
    }
    return _with(plan, reduced) if reduced else plan


@dataclass(frozen=True, slots=True)
class _Selection:
    """Values that are wanted: those of the column `key` of `rel`."""

    rel: Rel
    key: int


class _Reducer:
    def __init__(self, plan: Rel, estimates: RowEstimates, several: frozenset[int]) -> None:
        self._plan = plan
        self._estimates = estimates
        self._shared = several
        self._readers: dict[int, list[Rel]] = {}
        self._asked: set[int] = set()
        for rel in every_relation(plan):
            for below in rel.inputs():
                self._readers.setdefault(id(below), []).append(rel)
            self._asked.update(map(id, subqueries_of(rel)))

    def reduced(self, groups: Aggregation) -> Aggregation | None:
        """The groups that somebody wants; None where that cannot be told, or does not pay."""
        below = groups.input
        if groups.grouping_sets is not None or not self._several_read(groups):
            return None
        if self._estimates.rows(below) < _LARGE_ROWS:
            return None
        largest = max(map(self._read, walk(below)))
        for position, column in enumerate(groups.keys):
            if not isinstance(column, Column) or pt.is_floating(column.type):
                continue
            wanted = self._wanted(groups, position, largest / _RATIO)
            if not wanted or any(w.rel.schema[w.key].type != column.type for w in wanted):
                continue
            less = self._below(below, column.index, _union(wanted), largest / _RATIO)
            if less is not None:
                return replace(groups, input=less)
        return None

    def _several_read(self, rel: Rel) -> bool:
        """Whether several relations read `rel`, perhaps through one that passes its rows on."""
        while id(rel) not in self._shared:
            readers = self._readers.get(id(rel), [])
            if len(readers) != 1 or not isinstance(readers[0], (Filter, Project)):
                return False
            rel = readers[0]
        return True

    def _wanted(self, rel: Rel, position: int, cheap: float) -> list[_Selection]:
        """Selections that together have all values of a column of `rel` that any reader wants;
        empty if there is a reader that may want all.
        """
        readers = self._readers.get(id(rel), [])
        if not readers or id(rel) in self._asked or rel is self._plan:
            return []
        found: list[_Selection] = []
        for reader in readers:
            wanted = self._wanted_by(reader, rel, position, cheap)
            if not wanted:
                return []
            found += wanted
        return list({(id(w.rel), w.key): w for w in found}.values())

    def _wanted_by(self, reader: Rel, rel: Rel, position: int, cheap: float) -> list[_Selection]:
        match reader:
            case Filter():
                return self._wanted(reader, position, cheap)
            case Project(exprs=exprs) if not has_window(exprs):
                for at, expr in enumerate(exprs):
                    if isinstance(expr, Column) and expr.index == position:
                        wanted = self._wanted(reader, at, cheap)
                        if wanted:
                            return wanted
            case Join(left=left, right=right):
                sides = [is_left for is_left, side in ((True, left), (False, right)) if side is rel]
                found = [self._wanted_by_join(reader, s, position, cheap) for s in sides]
                return [w for wanted in found for w in wanted] if all(found) else []
        return []

    def _wanted_by_join(
        self, join: Join, is_left: bool, position: int, cheap: float
    ) -> list[_Selection]:
        own, other = (join.left_keys, join.right_keys)[:: 1 if is_left else -1]
        rest = join.right if is_left else join.left
        # A row without a match vanishes, or is asked for matches only.
        telling = ("inner", "semi") if is_left else ("inner", "left", "semi", "anti")
        if join.kind in telling:
            for a, b, nulls in zip(own, other, join.null_equal, strict=True):
                if a == position and not nulls:
                    least = self._least(rest, b, cheap)
                    if least is not None:
                        return [least]
        if is_left and join.kind in _LEFT_ROWWISE:
            return self._wanted(join, position, cheap)
        if not is_left and join.kind in _RIGHT_ROWWISE:
            return self._wanted(join, position + len(join.left.schema), cheap)
        return []

    def _least(self, rel: Rel, key: int, cheap: float) -> _Selection | None:
        """Of the cheap selections with all values of `rel` at `key` the one with fewest rows."""
        found = [
            _Selection(small, at)
            for small, at in suppliers(rel, key)
            if is_selection(small) and sum(map(self._read, walk(small))) <= cheap
        ]
        return min(found, key=lambda s: self._estimates.rows(s.rel), default=None)

    def _below(self, rel: Rel, position: int, wanted: _Selection, cheap: float) -> Rel | None:
        """`rel` with the table that a column comes from reduced to the wanted values; None if that
        is a large table, or not only rows of it.
        """
        if id(rel) in self._shared and not isinstance(rel, Scan):
            return None
        less: Rel | None
        match rel:
            case Scan():
                rows = self._estimates.rows(rel)
                less = build.join(rel, wanted.rel, "semi", on=[(position, wanted.key)])
                pays = self._read(rel) <= cheap and self._estimates.rows(less) <= _KEPT * rows
                return less if pays else None
            case Filter(input=below):
                less = self._below(below, position, wanted, cheap)
            case Project(input=below, exprs=exprs) if not has_window(exprs):
                expr = exprs[position]
                if not isinstance(expr, Column):
                    return None
                less = self._below(below, expr.index, wanted, cheap)
            case Join(left=left, right=right, kind="inner" | "cross"):
                width = len(left.schema)
                if position < width:
                    less = self._below(left, position, wanted, cheap)
                    return None if less is None else with_inputs(rel, [less, right])
                less = self._below(right, position - width, wanted, cheap)
                return None if less is None else with_inputs(rel, [left, less])
            case _:
                return None
        return None if less is None else with_inputs(rel, [less])

    def _read(self, rel: Rel) -> float:
        """Rows of the table that `rel` scans."""
        return self._estimates.rows(unfiltered(rel)) if isinstance(rel, Scan) else 0.0


def _union(selections: Sequence[_Selection]) -> _Selection:
    columns = [build.select_columns(s.rel, [s.key]) for s in selections]
    if len(columns) == 1:
        return _Selection(columns[0], 0)
    return _Selection(build.set_operation("union", columns, all=True), 0)


def _with(plan: Rel, reduced: dict[int, tuple[Aggregation, Aggregation]]) -> Rel:
    """The plan with some of its groups exchanged, for all readers."""
    done: dict[int, tuple[Rel, Rel]] = {}

    def visit(rel: Rel) -> Rel:
        if id(rel) not in done:
            node: Rel = reduced[id(rel)][1] if id(rel) in reduced else rel
            node = map_subqueries(node, visit)
            done[id(rel)] = rel, with_inputs(node, [visit(i) for i in node.inputs()])
        return done[id(rel)][1]

    return visit(plan)
