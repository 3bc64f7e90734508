"""From a stage's plan to what its element runs: SQL for DuckDB, or a function for Polars."""

from __future__ import annotations

from typing import Literal

from engine.stages.model import Stage
from operators.duckdb import Fragment, lower
from operators.errors import UnsupportedPlan
from operators.polars import PolarsFragment
from operators.polars import lower as lower_to_polars
from operators.rel import ParquetSource

__all__ = ["KernelChoice", "lower_stage", "lower_stage_to_polars"]

KernelChoice = Literal["auto", "duckdb"]
"""`duckdb`: always. `auto`: Polars for stages that read whole tables in one copy, wherever it would
answer as DuckDB does."""


def lower_stage(stage: Stage) -> Fragment:
    """The SQL of a stage and what it reads.

    The output's columns have the names under which they are written. Sources of which a copy reads
    its share stand there with share 0.
    """
    return lower(stage.plan)


def lower_stage_to_polars(stage: Stage) -> PolarsFragment | None:
    """The function of a stage and what it reads; None if it reads anything but whole tables, or
    Polars would not answer as DuckDB does.
    """
    if stage.parallelism > 1:
        return None
    try:
        fragment = lower_to_polars(stage.plan)
    except UnsupportedPlan:
        return None
    if not all(isinstance(i.source, ParquetSource) for i in fragment.inputs):
        return None
    return fragment
