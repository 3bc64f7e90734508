"""Aggregation before joins.

Where a large table is joined with dimensions whose columns only name the groups, its rows can be
aggregated by the join keys first: joins and the final grouping, often by wide strings, then see
partial results instead of rows (Yan and Larson, "Eager Aggregation and Lazy Aggregation", VLDB
1995).

It is right for inner joins whatever the multiplicity of the keys. Let the early groups be rows of
the core that agree in all columns that the later joins, their conditions and the final keys look
at. All rows of one group find the same partners. If there are *m* of them, every row would have
been counted *m* times; now its group's partial result is merged *m* times, into the same final
groups. Sums and counts of partial sums are then the same, minima and maxima anyway. No statement
about uniqueness of a key is needed; statistics only say whether it pays. Floating-point columns
are no early keys but where they are final ones: -0.0 and 0.0 are one group, but not one value.

It pays where the early groups are few against the rows, or narrow against the final keys: two
passes over rows (the early grouping) against all joins and the final grouping.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.types as pt

from engine.optimizer.expressions import (
    columns_of,
    map_subqueries,
    renumber,
    renumber_aggregate,
    with_inputs,
)
from engine.optimizer.joingroup import JoinGroup, Piece, RowEstimates, is_inner
from engine.optimizer.mergeable import TwoSteps, mergeable
from engine.optimizer.sharing import LARGE_ROWS, shared
from operators.expr import Aggregate, Column, Expr, Window
from operators.rel import Aggregation, Filter, Project, Rel
from operators.rewrite import map_aggregate, substitute
from operators.schema import Field, Schema

__all__ = ["aggregate_early"]

_KEEPS = 0.8
"""A join that keeps less of the rows than this is done before, not after."""

# Costs of one row, of a join with a table that fits into caches as the unit.
_JOIN = 1.0
_GROUP = 1.0
_KEY = {False: 0.3, True: 1.5}  # of a number, of a string
_MANY_GROUPS = 1.5  # hash tables beyond the caches
_GAIN = 0.8
_LEAST_SAVED = 2e6  # some milliseconds


def aggregate_early(plan: Rel, estimates: RowEstimates) -> Rel:
    """`plan` with aggregations split into one before and one after joins, where that pays."""
    several = set(shared(plan))
    done: dict[int, Rel] = {}

    def visit(rel: Rel) -> Rel:
        if id(rel) not in done:
            node = map_subqueries(rel, visit)
            node = with_inputs(node, [visit(i) for i in node.inputs()])
            if isinstance(node, Aggregation):
                node = _Split(node, estimates, several).result() or node
            if id(rel) in several:
                several.add(id(node))
            done[id(rel)] = node
        return done[id(rel)]

    return visit(plan)


@dataclass(slots=True)
class _Split:
    """One aggregation over a group of inner joins, and how it might be split."""

    rel: Aggregation
    estimates: RowEstimates
    several: set[int]

    def result(self) -> Rel | None:
        """The split aggregation, or None if it cannot be split or that does not pay."""
        if not all(map(mergeable, self.rel.measures)):
            return None
        below, keys, measures, terms = _over_joins(self.rel)
        if not is_inner(below) or self.estimates.rows(below) < LARGE_ROWS:
            return None
        group = JoinGroup(lambda r: id(r) in self.several, lambda r: r)
        outputs = group.take_apart(below, top=True)
        keys = [renumber(k, outputs.__getitem__) for k in keys]
        measures = [renumber_aggregate(m, dict(enumerate(outputs))) for m in measures]
        for term in terms:
            group.add(term, outputs)
        pieces = [group.filtered(p) for p in group.relations]
        found = _core(group, pieces, _measured(measures), self.estimates)
        if found is None:
            return None
        core_pieces, late = found
        core = group.in_order(core_pieces, self.estimates)
        return self._split(group, core, late, keys, measures)

    def _split(
        self,
        group: JoinGroup,
        core: Piece,
        late: list[Piece],
        keys: list[Expr],
        measures: list[Aggregate],
    ) -> Rel | None:
        mine = set(core.columns)
        others = {c for p in late for c in p.columns}
        needed = {
            c for e in group.equalities for c in (e.one, e.other) if {e.one, e.other} & others
        }
        needed |= columns_of(c for c in group.conditions if columns_of([c]) & others)
        early: list[Expr] = []
        for key in keys:
            used = columns_of([key])
            if used and used <= mine:
                early.append(key)
            else:
                needed |= used
        types = {c: core.rel.schema[i] for i, c in enumerate(core.columns)}
        early += [Column(types[c].type, c) for c in sorted(needed & mine)]
        early = list(dict.fromkeys(early))
        if any(pt.is_floating(e.type) and e not in keys for e in early):
            return None
        steps = TwoSteps(measures, empty=not keys or self.rel.grouping_sets is not None)
        at = core.at()
        fields = [
            types[e.index] if isinstance(e, Column) else Field(f"key_{i}", e.type)
            for i, e in enumerate(early)
        ]
        fields += [Field(p.function, p.type) for p in steps.partial]
        parts = Aggregation(
            Schema(tuple(fields)),
            core.rel,
            tuple(renumber(e, at) for e in early),
            tuple(renumber_aggregate(p, at) for p in steps.partial),
        )
        if not self._pays(core, parts, late, keys):
            return None
        # Columns keep their numbers; expressions and partial results get new ones.
        fresh = 1 + max((c for p in (core, *late) for c in p.columns), default=0)
        numbers = [e.index if isinstance(e, Column) else fresh + i for i, e in enumerate(early)]
        numbers += [fresh + len(early) + i for i in range(len(steps.partial))]
        whole = group.in_order([Piece(parts, tuple(numbers)), *late], self.estimates)
        place = whole.at()
        first = len(early)

        def part(i: int) -> Column:
            return Column(steps.partial[i].type, place[numbers[first + i]])

        final_keys = tuple(
            Column(k.type, place[numbers[early.index(k)]]) if k in early else renumber(k, place)
            for k in keys
        )
        return self._final(whole.rel, final_keys, steps, steps.merged(part))

    def _final(
        self, input: Rel, keys: tuple[Expr, ...], steps: TwoSteps, merged: list[Aggregate]
    ) -> Rel:
        width = len(self.rel.schema) - len(self.rel.measures)
        head = self.rel.schema.fields[:width]
        schema = Schema((*head, *(Field(m.function, m.type) for m in merged)))
        total = replace(self.rel, schema=schema, input=input, keys=keys, measures=tuple(merged))
        exprs: list[Expr] = [Column(f.type, i) for i, f in enumerate(head)]
        exprs += steps.final(lambda i: Column(merged[i].type, width + i))
        return Project(self.rel.schema, total, tuple(exprs))

    def _pays(self, core: Piece, parts: Rel, late: list[Piece], keys: Sequence[Expr]) -> bool:
        rows, groups = self.estimates.rows(core.rel), self.estimates.rows(parts)
        if rows < LARGE_ROWS:
            return False
        sets = len(self.rel.grouping_sets or ((),))
        after = _JOIN * len(late) + sets * _grouping(keys)
        assert isinstance(parts, Aggregation)
        before = _grouping(parts.keys) * (_MANY_GROUPS if groups > 1e6 else 1.0)
        saved = rows * after - (rows * before + groups * after)
        return saved > max((1 - _GAIN) * rows * after, _LEAST_SAVED)


def _grouping(keys: Sequence[Expr]) -> float:
    """The cost of grouping one row."""
    return _GROUP + sum(_KEY[_wide(k.type)] for k in keys)


def _wide(type: pa.DataType) -> bool:
    return bool(pt.is_string(type) or pt.is_binary(type) or pt.is_large_string(type))


def _over_joins(
    rel: Aggregation,
) -> tuple[Rel, list[Expr], list[Aggregate], list[Expr]]:
    """The join below, and keys, measures and conditions over its columns."""
    below, keys, measures = rel.input, list(rel.keys), list(rel.measures)
    terms: list[Expr] = []
    while True:
        match below:
            case Project(input=input, exprs=exprs) if not any(isinstance(e, Window) for e in exprs):
                keys = [substitute(k, exprs) for k in keys]
                terms = [substitute(t, exprs) for t in terms]
                measures = [
                    map_aggregate(m, lambda e: exprs[e.index] if isinstance(e, Column) else e)
                    for m in measures
                ]
                below = input
            case Filter(input=input, predicate=predicate):
                terms.append(predicate)
                below = input
            case _:
                return below, keys, measures, terms


def _measured(measures: Sequence[Aggregate]) -> set[int]:
    return columns_of(
        e for m in measures for e in (*m.args, *([m.filter] if m.filter is not None else []))
    )


def _core(
    group: JoinGroup, pieces: Sequence[Piece], measured: set[int], estimates: RowEstimates
) -> tuple[list[Piece], list[Piece]] | None:
    """The relations to aggregate early, and those to join later.

    Later come relations without anything to aggregate whose joins keep most rows. What is connected
    to the rest only by one of them comes later, too.
    """
    needed = [p for p in pieces if measured & set(p.columns)]
    if not needed:
        needed = [max(pieces, key=lambda p: estimates.rows(p.rel))]
    start = max(needed, key=lambda p: estimates.rows(p.rel))
    rows = estimates.rows(start.rel)
    core = [start]
    waiting = [p for p in pieces if p is not start]
    grown = True
    while grown:
        grown = False
        for piece in list(waiting):
            if not any(any(group.between(c, piece)) for c in core):
                continue
            if not any(piece is n for n in needed):
                joined = group.joined(start, piece, estimates)
                if estimates.rows(joined.rel) >= _KEEPS * rows:
                    continue
            core.append(piece)
            waiting.remove(piece)
            grown = True
    if not waiting or any(n is w for n in needed for w in waiting):
        return None
    return [p for p in pieces if any(p is c for c in core)], waiting
