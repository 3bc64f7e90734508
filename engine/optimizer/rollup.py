"""Grouping sets, each computed from the result of another instead of from all rows.

ROLLUP (a, b, c) groups by (a, b, c), (a, b), (a) and (): every set is contained in the one before,
so that its groups can be merged from that one's groups, which are fewer than the rows. The same
holds for any grouping set that another one contains. Aggregates must be mergeable
(`engine.optimizer.mergeable`); the finest set must be among the sets. What GROUPING says of a set
is a constant.

It pays whenever the rows are many: a set costs a pass over a coarser set's groups, which have to be
kept, instead of a pass over all rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.optimizer.expressions import every_relation, map_subqueries, with_inputs
from engine.optimizer.joingroup import RowEstimates
from engine.optimizer.mergeable import TwoSteps, mergeable
from engine.optimizer.sharing import LARGE_ROWS
from operators.expr import Column, Expr, Lit
from operators.rel import Aggregation, Project, Rel, SetOperation
from operators.schema import Field, Schema
from operators.types import INT64

__all__ = ["cascade_rollups"]

_KEPT = 1.3
"""Grouping a row that must also be written down first, against grouping it."""
_GAIN = 0.8
_LEAST_SAVED = 1e6
"""Rows grouped less often for which several passes are worth setting up (some milliseconds)."""


def cascade_rollups(plan: Rel, estimates: RowEstimates) -> Rel:
    """`plan` with grouping sets computed from one another, where that pays."""
    if not any(
        isinstance(r, Aggregation) and r.grouping_sets is not None for r in every_relation(plan)
    ):
        return plan
    done: dict[int, Rel] = {}

    def visit(rel: Rel) -> Rel:
        if id(rel) not in done:
            node = map_subqueries(rel, visit)
            node = with_inputs(node, [visit(i) for i in node.inputs()])
            if isinstance(node, Aggregation) and node.grouping_sets is not None:
                node = _cascade(node, estimates) or node
            done[id(rel)] = node
        return done[id(rel)]

    return visit(plan)


def _cascade(rel: Aggregation, estimates: RowEstimates) -> Rel | None:
    sets = rel.grouping_sets or ()
    everything = tuple(range(len(rel.keys)))
    distinct = {frozenset(s) for s in sets}
    if len(sets) < 3 or len(distinct) < len(sets) or frozenset(everything) not in distinct:
        return None
    if not rel.measures or not all(map(mergeable, rel.measures)):
        return None
    rows = estimates.rows(rel.input)
    if rows < LARGE_ROWS:
        return None
    steps = TwoSteps(rel.measures, empty=True)
    levels: dict[frozenset[int], _Level] = {}
    for chosen in sorted(distinct, key=lambda s: (-len(s), sorted(s))):
        finer = [level for s, level in levels.items() if chosen < s]
        below = min(finer, key=lambda level: estimates.rows(level.rel)) if finer else None
        levels[chosen] = _level(rel, steps, tuple(sorted(chosen)), below)
    read = sum(estimates.rows(level.rel.input) for level in levels.values()) - rows
    before, after = rows * len(sets), rows + _KEPT * read
    if after > _GAIN * before or before - after < _LEAST_SAVED:
        return None
    operands = tuple(_outputs(rel, steps, levels[frozenset(s)]) for s in sets)
    return SetOperation(rel.schema, "union", True, operands)


@dataclass(frozen=True, slots=True)
class _Level:
    """Partial results of one grouping set; `keys` are positions of the whole's keys."""

    rel: Aggregation
    keys: tuple[int, ...]

    def column(self, i: int) -> Column:
        """Partial result `i`."""
        at = len(self.keys) + i
        return Column(self.rel.schema[at].type, at)

    def key(self, key: int) -> Column:
        """The whole's key number `key`."""
        at = self.keys.index(key)
        return Column(self.rel.schema[at].type, at)


def _level(
    rel: Aggregation, steps: TwoSteps, chosen: tuple[int, ...], below: _Level | None
) -> _Level:
    fields = [rel.schema[i] for i in chosen]
    if below is None:
        input, keys, measures = rel.input, tuple(rel.keys[i] for i in chosen), steps.partial
    else:
        input, keys = below.rel, tuple(below.key(i) for i in chosen)
        measures = steps.merged(below.column)
    fields += [Field(f"{m.function}_{i}", m.type) for i, m in enumerate(measures)]
    return _Level(Aggregation(Schema(tuple(fields)), input, keys, tuple(measures)), chosen)


def _outputs(rel: Aggregation, steps: TwoSteps, level: _Level) -> Rel:
    """A set's rows as the whole aggregation has them: keys, GROUPING of all keys, measures."""
    exprs: list[Expr] = []
    grouping = 0
    for i, key in enumerate(rel.keys):
        grouping = grouping * 2 + (i not in level.keys)
        exprs.append(level.key(i) if i in level.keys else Lit(key.type, None))
    exprs.append(Lit(INT64, grouping))
    exprs += steps.final(level.column)
    return Project(rel.schema, level.rel, tuple(exprs))
