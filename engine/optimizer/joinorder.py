"""The order of inner joins, by estimated sizes.

The planner in front joins in the order in which the query names its tables. Here a group of inner
joins is taken apart into relations and conditions and put together again, each time joining the
two pieces whose result is estimated smallest. Pieces that no condition connects wait until there
is nothing else to do. The larger side goes left, where rows stream; the smaller right, where they
are hashed. Semi, anti, mark and left joins among them come when their result is the smallest.
"""

from __future__ import annotations

from itertools import combinations

from engine.optimizer.expressions import map_subqueries, with_inputs
from engine.optimizer.joingroup import (
    Attached,
    JoinGroup,
    Piece,
    RowEstimates,
    is_attaching,
    is_inner,
)
from engine.optimizer.sharing import LARGE_ROWS, shared, worth_sharing
from operators.rel import Rel

__all__ = ["order_joins"]

# Greedy ordering compares all pairs in each step.
_MOST_RELATIONS = 40


def order_joins(plan: Rel, estimates: RowEstimates) -> Rel:
    """`plan` (interned) with its groups of three and more inner joins reordered."""
    several = shared(plan)
    verdicts: dict[int, bool] = {}

    def stays(rel: Rel) -> bool:
        """Whether `rel` is computed once for several readers, and so must stay what it is."""
        if id(rel) not in several:
            return False
        if id(rel) not in verdicts:
            verdicts[id(rel)] = worth_sharing(rel, estimates.rows, LARGE_ROWS)
        return verdicts[id(rel)]

    done: dict[int, Rel] = {}

    def visit(rel: Rel) -> Rel:
        if id(rel) not in done:
            done[id(rel)] = rebuild(rel)
        return done[id(rel)]

    def rebuild(rel: Rel) -> Rel:
        if is_inner(rel) or is_attaching(rel):
            group = JoinGroup(stays, visit, attaching=True)
            outputs = group.take_apart(rel, top=True)
            if 2 < len(group.relations) + len(group.attached) <= _MOST_RELATIONS:
                return group.finish(_greedy(group, estimates), rel.schema, outputs)
        rel = map_subqueries(rel, visit)
        return with_inputs(rel, [visit(i) for i in rel.inputs()])

    return visit(plan)


def _greedy(group: JoinGroup, estimates: RowEstimates) -> Piece:
    """The group joined in the order that is estimated best."""
    pieces = [group.filtered(p) for p in group.relations]
    waiting = list(group.attached)
    known: dict[tuple[int, int], Piece] = {}

    def joined(one: Piece, other: Piece | Attached) -> Piece:
        key = (id(one), id(other))
        if key not in known:
            known[key] = (
                group.joined(one, other, estimates)
                if isinstance(other, Piece)
                else group.attach(one, other)
            )
        return known[key]

    connections: dict[tuple[int, int], bool] = {}

    def connected(one: Piece, other: Piece) -> bool:
        key = (id(one), id(other))
        if key not in connections:
            connections[key] = any(True for _ in group.between(one, other))
        return connections[key]

    kept: list[Piece] = []  # ids stand for pieces as long as these live
    while len(pieces) > 1 or waiting:
        kept += pieces
        pairs: list[tuple[Piece, Piece | Attached]] = [
            p for p in combinations(pieces, 2) if connected(*p)
        ]
        pairs += [(p, a) for a in waiting for p in pieces if a.needs <= set(p.columns)]
        pairs = pairs or list(combinations(pieces, 2))
        best = min(pairs, key=lambda p: estimates.rows(joined(*p).rel))
        pieces = [p for p in pieces if p is not best[0] and p is not best[1]] + [joined(*best)]
        waiting = [a for a in waiting if a is not best[1]]
    return pieces[0]
