"""From a stage's plan to what its element runs: SQL for DuckDB, or a function for Polars."""

from __future__ import annotations

from typing import Literal

from engine.stages.fragments import Estimator
from engine.stages.model import Stage
from operators.duckdb import Fragment, lower
from operators.errors import UnsupportedPlan
from operators.polars import PolarsFragment
from operators.polars import lower as lower_to_polars
from operators.rel import ParquetSource, Rel

__all__ = ["Kernel", "lower_stage", "lower_stage_to_polars"]

Kernel = Literal["duckdb", "polars"]
"""`duckdb`: always. `polars`: for stages that read whole tables in one copy, wherever it would
answer as DuckDB does."""

# How often a string has to come, on average, for a number to take its place.
_OFTEN = 2.0


def lower_stage(stage: Stage) -> Fragment:
    """The SQL of a stage and what it reads.

    The output's columns have the names under which they are written. Sources of which a copy reads
    its share stand there with share 0.
    """
    return lower(stage.plan)


def lower_stage_to_polars(
    stage: Stage, estimates: Estimator | None = None
) -> PolarsFragment | None:
    """The function of a stage and what it reads; None if it reads anything but whole tables, or
    Polars would not answer as DuckDB does.

    Parameters
    ----------
    estimates
        Of the relations in it; without them, all strings are grouped by as strings.
    """
    if stage.parallelism > 1:
        return None

    def worth(named: Rel, grouped: Rel) -> bool:
        return estimates is not None and estimates.rows(grouped) >= _OFTEN * estimates.rows(named)

    try:
        fragment = lower_to_polars(stage.plan, worth)
    except UnsupportedPlan:
        return None
    if not all(isinstance(i.source, ParquetSource) for i in fragment.inputs):
        return None
    return fragment
