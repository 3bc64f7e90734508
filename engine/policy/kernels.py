"""Which kernels are worth a run of a query, in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from engine.optimizer.expressions import has_window
from engine.stages.fragments import Estimator, all_relations
from engine.stages.model import StagePlan
from operators.rel import Aggregation, Project, Rel, Scan

__all__ = ["KernelChoice", "RowsOfWork", "kernels_to_try"]

KernelChoice = Literal["auto", "duckdb", "polars"]
"""`polars`: wherever it would answer as DuckDB does. `auto`: whichever is faster, as far as that is
worth finding out."""

# Polars copies decimals and strings of resident columns before it begins, and looks through rows
# that DuckDB's scan leaves out; what it gains is in large groups and windows. In TPC-DS at scale
# factor 1 it was faster where these have more than two thirds as many rows as are scanned (q51 and
# q67: by two fifths in a warm worker, by 11 to 19 % in a fresh one), and mostly slower where they
# have less than a half.
_SHARE = 0.5
# Not worth the copies of a run that is over in some milliseconds.
_MANY = 400_000


def kernels_to_try(
    choice: KernelChoice, rows: RowsOfWork, resident: bool
) -> tuple[Literal["duckdb", "polars"], ...]:
    """Kernels for a query.

    Parameters
    ----------
    rows
        What is expected of the query.
    resident
        Whether it reads resident columns instead of files.
    """
    if choice != "auto":
        return (choice,)
    if not resident:
        return ("polars",)
    large = rows.grouped >= max(_MANY, _SHARE * rows.scanned)
    return ("duckdb", "polars") if large else ("duckdb",)


@dataclass(frozen=True, slots=True)
class RowsOfWork:
    """How many rows stages are expected to scan, and their groups and windows to have."""

    scanned: float
    grouped: float

    @classmethod
    def expected(cls, stages: StagePlan, estimates: Estimator) -> RowsOfWork:
        """Those of some stages."""
        scanned = grouped = 0.0
        for rel in _distinct(stages):
            match rel:
                case Scan():
                    scanned += estimates.rows(rel)
                case Aggregation(keys=keys) if keys:
                    grouped += estimates.rows(rel)
                case Project(exprs=exprs, input=below) if has_window(exprs):
                    grouped += estimates.rows(below)
        return cls(scanned, grouped)


def _distinct(stages: StagePlan) -> Iterator[Rel]:
    """The relations of the stages, those with several readers once."""
    seen: set[int] = set()
    for stage in stages.stages:
        for rel in all_relations(stage.plan):
            if id(rel) not in seen:
                seen.add(id(rel))
                yield rel
