"""Which side of each join is hashed, where our estimates know better than the kernel.

A kernel knows the sizes of files, but nothing of the streams that carry exchanges: left to itself
it hashes the large side as readily as the small one. The estimates that the plan was cut by say
which is which; in such a stage they decide, and the kernel joins in the order of the plan.

Of files the kernel knows rows, but not how many values a column has: it takes any filter to keep a
fifth, and a join to keep what is larger. So the estimates decide here, too (TPC-DS at SF 10, CPU
seconds: q84 0.7 and 0.3, q18 1.1 and 0.8, q64 7.6 and 6.9). Not where a semi, anti, mark or outer
join looks its rows up in the larger side: only the kernel can turn those around. Not over SQL of
the user's, whose joins nobody has ordered yet. And not below a union: on one thread DuckDB 1.5.5
does not come to an end over some unions of joins that it has not turned around itself (q76).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from engine.optimizer.expressions import every_relation, map_subqueries, with_inputs
from operators.rel import InputSource, Join, Query, Rel, Scan, SetOperation, walk

if TYPE_CHECKING:
    from engine.stages.fragments import Estimator

__all__ = ["choose_builds"]


def choose_builds(plan: Rel, estimates: Estimator) -> Rel:
    """`plan` with `Join.build` set on every join where the estimates decide; else as it is."""
    nodes = list(every_relation(plan))
    joins = [node for node in nodes if isinstance(node, Join)]
    exchanges = any(isinstance(n, Scan) and isinstance(n.source, InputSource) for n in nodes)
    if not (exchanges and any(map(_reads_exchange, joins))) and not _settled(
        nodes, joins, estimates
    ):
        return plan
    done: dict[int, Rel] = {}

    def visit(rel: Rel) -> Rel:
        if id(rel) not in done:
            done[id(rel)] = decide(rel)
        return done[id(rel)]

    def decide(rel: Rel) -> Rel:
        smaller: Literal["left", "right"] = "right"
        # Outer joins stay as they are: turned around they are right joins, over which DuckDB 1.5.5
        # does not come to an end when it unites two of them on one thread.
        if (
            isinstance(rel, Join)
            and rel.kind in ("inner", "cross")
            and estimates.rows(rel.left) < estimates.rows(rel.right)
        ):
            smaller = "left"
        new = map_subqueries(rel, visit)
        new = with_inputs(new, [visit(i) for i in new.inputs()])
        if isinstance(new, Join) and new.build is None:
            new = replace(new, build=smaller)
        estimates.same(new, rel)
        return new

    return visit(plan)


def _settled(nodes: Sequence[Rel], joins: Sequence[Join], estimates: Estimator) -> bool:
    """Whether all joins that cannot be turned around have their smaller side on the right."""
    if not joins or any(isinstance(r, Query | SetOperation) for r in nodes):
        return False
    return all(
        estimates.rows(j.right) <= estimates.rows(j.left)
        for j in joins
        if j.kind not in ("inner", "cross")
    )


def _reads_exchange(rel: Rel) -> bool:
    return any(isinstance(n, Scan) and isinstance(n.source, InputSource) for n in walk(rel))
