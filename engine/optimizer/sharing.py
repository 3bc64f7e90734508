"""Common subplans: equal relations made one object, and those that several others read found.

SQL front ends put a CTE's text wherever it is named; the same joins and aggregations then stand in
the plan several times. After `intern` they are the same object, and the cutter computes them once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from engine.optimizer.expressions import map_subqueries, subqueries_of, with_inputs
from operators.rel import Aggregation, Join, Rel, Scan, SetOperation, walk

__all__ = ["LARGE_ROWS", "intern", "shared", "worth_sharing"]

LARGE_ROWS = 100_000.0
"""From how many rows on a side of a join counts as large."""

# A join that leaves one row of so many of its largest table is worth writing down.
_REDUCED = 10.0


def intern(plan: Rel) -> Rel:
    """`plan` as a graph in which equal relations are one object."""
    known: dict[Rel, Rel] = {}
    done: dict[int, Rel] = {}

    def visit(rel: Rel) -> Rel:
        if id(rel) not in done:
            node = map_subqueries(rel, visit)
            node = with_inputs(node, [visit(i) for i in node.inputs()])
            done[id(rel)] = known.setdefault(node, node)
        return done[id(rel)]

    return visit(plan)


def worth_sharing(rel: Rel, rows: Callable[[Rel], float], large: float) -> bool:
    """Whether computing `rel` once and writing it down beats computing it for every reader.

    It does where rows were grouped, compared or moved: aggregations, set operations, joins of two
    large relations. A large table joined with small ones streams; writing all of it down would cost
    more than reading it again, and would keep its readers' own conditions from being applied early.
    """
    largest = 0.0
    for node in walk(rel):
        if isinstance(node, (Aggregation, SetOperation)):
            return True
        if isinstance(node, Join) and min(map(rows, node.inputs())) >= large:
            return True
        if isinstance(node, Scan):
            largest = max(largest, rows(replace(node, predicate=None)))
    return any(isinstance(n, Join) for n in walk(rel)) and rows(rel) * _REDUCED <= largest


def shared(plan: Rel) -> frozenset[int]:
    """Identities (`id`) of the relations of an interned plan that several others read.

    What only stands below a shared relation, and is not read from elsewhere, is not among them.
    """
    readers: Counter[int] = Counter()
    seen: set[int] = set()

    def visit(rel: Rel) -> None:
        if id(rel) in seen:
            return
        seen.add(id(rel))
        for below in (*rel.inputs(), *subqueries_of(rel)):
            readers[id(below)] += 1
            visit(below)

    visit(plan)
    return frozenset(key for key, count in readers.items() if count > 1)
