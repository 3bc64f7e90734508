"""Which kernels are worth a run of a query, in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from engine.optimizer.expressions import has_window
from engine.stages.fragments import Estimator, all_relations
from engine.stages.model import StagePlan
from operators.rel import Aggregation, Project, Rel

__all__ = ["KernelChoice", "grouped_rows", "kernels_to_try"]

KernelChoice = Literal["auto", "duckdb", "polars"]
"""`polars`: wherever it would answer as DuckDB does. `auto`: whichever is faster, as far as that is
worth finding out."""

# Polars copies decimals and strings of resident columns before it begins, and looks through rows
# that DuckDB's scan leaves out; what it gains is in large groups and windows. Of TPC-DS's queries
# with fewer at SF 1 none was faster, of the 15 with more five were, by a fifth to a half.
_MANY = 400_000


def kernels_to_try(
    choice: KernelChoice, grouped: float, resident: bool
) -> tuple[Literal["duckdb", "polars"], ...]:
    """Kernels for a query.

    Parameters
    ----------
    grouped
        What `grouped_rows` expects.
    resident
        Whether it reads resident columns instead of files.
    """
    if choice != "auto":
        return (choice,)
    if not resident:
        return ("polars",)
    return ("duckdb", "polars") if grouped >= _MANY else ("duckdb",)


def grouped_rows(stages: StagePlan, estimates: Estimator) -> float:
    """How many rows groups and windows of these stages are expected to have."""
    return sum(sum(_grouped(stage.plan, estimates)) for stage in stages.stages)


def _grouped(plan: Rel, estimates: Estimator) -> Iterator[float]:
    seen: set[int] = set()
    for rel in all_relations(plan):
        if id(rel) in seen:
            continue
        seen.add(id(rel))
        match rel:
            case Aggregation(keys=keys) if keys:
                yield estimates.rows(rel)
            case Project(exprs=exprs, input=below) if has_window(exprs):
                yield estimates.rows(below)
