"""From a stage's plan to the SQL of its element."""

from __future__ import annotations

from engine.stages.model import Stage
from operators.duckdb import Fragment, lower

__all__ = ["lower_stage"]


def lower_stage(stage: Stage) -> Fragment:
    """The SQL of a stage and what it reads.

    The output's columns have the names under which they are written. Sources of which a copy reads
    its share stand there with share 0.
    """
    return lower(stage.plan)
