"""Common subplans: equal relations made one object, and those that several others read found.

SQL front ends put a CTE's text wherever it is named; the same joins and aggregations then stand in
the plan several times. After `intern` they are the same object, and the cutter computes them once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache
from typing import Any

from engine.optimizer.expressions import map_subqueries, subqueries_of, with_inputs
from operators.rel import Aggregation, Join, Rel, Scan, SetOperation, Values, walk

__all__ = ["LARGE_ROWS", "intern", "shared", "unfiltered", "worth_sharing"]

LARGE_ROWS = 100_000.0
"""From how many rows on a side of a join counts as large."""

# A join that leaves one row of so many of its largest table is worth writing down.
_REDUCED = 10.0


def intern(plan: Rel) -> Rel:
    """`plan` as a graph in which equal relations are one object."""
    known: dict[tuple[object, ...], Rel] = {}
    done: dict[int, tuple[Rel, Rel]] = {}

    def visit(rel: Rel) -> Rel:
        if id(rel) not in done:
            node = map_subqueries(rel, visit)
            node = with_inputs(node, [visit(i) for i in node.inputs()])
            # `rel` is kept, too: its identity must not be taken by another object meanwhile.
            done[id(rel)] = rel, known.setdefault(_key(node), node)
        return done[id(rel)][1]

    return visit(plan)


def _key(rel: Rel) -> tuple[object, ...]:
    """Equal for equal relations whose inputs are interned already: these stand by identity, or a
    plan of n relations would be hashed n times down to its leaves.

    Types follow from inputs and expressions; only names of columns are free.
    """
    kind: Any = type(rel)
    parts: list[object] = [kind, rel.schema if isinstance(rel, Values) else rel.schema.names]
    for name in _own_fields(kind):
        value = getattr(rel, name)
        if isinstance(value, Rel):
            value = id(value)
        elif name == "operands":
            value = tuple(map(id, value))
        parts.append(value)
    return tuple(parts)


@cache
def _own_fields(kind: Any) -> tuple[str, ...]:
    return tuple(f.name for f in fields(kind) if f.name not in ("schema", "source_schema"))


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
            largest = max(largest, rows(unfiltered(node)))
    return any(isinstance(n, Join) for n in walk(rel)) and rows(rel) * _REDUCED <= largest


def unfiltered(scan: Scan) -> Scan:
    """All rows of a scan's table (the scan itself, where it can be: its estimate is known)."""
    return scan if scan.predicate is None else replace(scan, predicate=None)


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
