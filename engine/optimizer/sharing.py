"""Common subplans: equal relations made one object, and those that several others read found.

SQL front ends put a CTE's text wherever it is named; the same joins and aggregations then stand in
the plan several times. After `intern` they are the same object, and the cutter computes them once.
"""

from __future__ import annotations

from collections import Counter

from engine.optimizer.expressions import map_subqueries, subqueries_of, with_inputs
from operators.rel import Rel

__all__ = ["intern", "shared"]


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
