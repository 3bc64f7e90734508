"""From a stage's plan to the SQL of its element."""

from __future__ import annotations

from dataclasses import replace

from engine.optimizer.expressions import map_subqueries, with_inputs
from engine.stages.model import PartSource, Stage
from operators.duckdb import Fragment, lower
from operators.rel import InputSource, Rel, Scan

__all__ = ["lower_stage", "stage_plan"]


def stage_plan(stage: Stage) -> Rel:
    """The stage's plan in terms that lowering knows: shares of base tables are inputs by name."""

    def visit(node: Rel) -> Rel:
        node = map_subqueries(node, visit)
        node = with_inputs(node, [visit(i) for i in node.inputs()])
        if isinstance(node, Scan) and isinstance(node.source, PartSource):
            return replace(node, source=InputSource(node.source.name))
        return node

    return visit(stage.plan)


def lower_stage(stage: Stage) -> Fragment:
    """The SQL of a stage and the names of what it reads."""
    return lower(stage_plan(stage))
