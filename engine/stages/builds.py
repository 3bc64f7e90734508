"""Which side of each join is hashed, in stages that read other stages' output.

A kernel knows the sizes of files, but nothing of the streams that carry exchanges: left to itself
it hashes the large side as readily as the small one. The estimates that the plan was cut by say
which is which; in such a stage they decide, and the kernel joins in the order of the plan.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from engine.optimizer.expressions import map_subqueries, with_inputs
from operators.rel import InputSource, Join, Rel, Scan, walk

if TYPE_CHECKING:
    from engine.stages.fragments import Estimator

__all__ = ["choose_builds"]


def choose_builds(plan: Rel, estimates: Estimator) -> Rel:
    """`plan` with `Join.build` set on every join, if one of them reads an exchange; else as it
    is.
    """
    if not any(isinstance(node, Join) and _reads_exchange(node) for node in walk(plan)):
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
            and rel.kind == "inner"
            and estimates.rows(rel.left) < estimates.rows(rel.right)
        ):
            smaller = "left"
        rel = map_subqueries(rel, visit)
        rel = with_inputs(rel, [visit(i) for i in rel.inputs()])
        return replace(rel, build=smaller) if isinstance(rel, Join) and rel.build is None else rel

    return visit(plan)


def _reads_exchange(rel: Rel) -> bool:
    return any(isinstance(n, Scan) and isinstance(n.source, InputSource) for n in walk(rel))
