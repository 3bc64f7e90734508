"""How much memory the stages of a plan are expected to need.

Guesses from estimated rows, for choosing where to begin; what really happened takes their place
once a query of that shape has run (`engine.policy.sizes`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pyarrow.types as pt

from engine.optimizer.expressions import has_window
from engine.stages.fragments import Estimator, all_relations
from engine.stages.model import Stage
from operators.rel import Aggregation, Join, Leading, Project, Rel, Scan, SetOperation, Sort
from operators.rewrite import columns_used
from operators.stats import bytes_per_row
from remote_frame.memory import WORKER

__all__ = ["converted_need", "decoding_need", "stage_need"]

# What each thread holds to decode row groups.
_THREAD = 24 << 20
# A decimal and the view of a string in Polars.
_POLARS_VALUE = 16
# A row in a hash table: pointer, hash and padding beside its columns.
_ENTRY = 32


def stage_need(stage: Stage, estimates: Estimator, threads: int) -> float:
    """Bytes that each copy of a stage is expected to hold.

    Everything that has to be complete before rows come out of it counts, as if all of it were held
    at the same time: hash tables, groups, sorted rows, windows.
    """
    held = sum(_held(stage.plan, estimates))
    return WORKER + threads * _THREAD + held / stage.parallelism


def decoding_need(stage: Stage, estimates: Estimator, threads: int) -> float:
    """Bytes that a reader holds beside that which decodes whole row groups, one for each thread and
    one ahead, as Polars' does: of the table with the largest.
    """
    scans = (r for r in all_relations(stage.plan) if isinstance(r, Scan))
    return max(
        (
            (threads + 1)
            * estimates.row_group(scan.source)
            * bytes_per_row([scan.source_schema[i].type for i in _read(scan)])
            for scan in scans
        ),
        default=0.0,
    )


def converted_need(stage: Stage, estimates: Estimator) -> float:
    """Bytes that Polars holds of columns in memory: its own decimals, and views of strings."""
    scans = (r for r in all_relations(stage.plan) if isinstance(r, Scan))
    return sum(
        _POLARS_VALUE
        * estimates.rows(replace(scan, predicate=None))
        * sum(_converted(scan.source_schema[i].type) for i in _read(scan))
        for scan in scans
    )


def _converted(type: pa.DataType) -> bool:
    return bool(pt.is_decimal(type) or pt.is_string(type) or pt.is_binary(type))


def _read(scan: Scan) -> set[int]:
    """The columns that are decoded: some only the condition looks at."""
    return {*scan.columns, *columns_used(scan.predicate)}


def _held(plan: Rel, estimates: Estimator) -> Iterator[float]:
    seen: set[int] = set()
    for rel in all_relations(plan):
        if id(rel) in seen:
            continue
        seen.add(id(rel))
        match rel:
            case Join(kind="semi" | "anti" | "mark", right=right):
                yield _size(right, estimates)
            case Join(left=left, right=right):
                yield min(_size(left, estimates), _size(right, estimates))
            case Aggregation():
                sets = len(rel.grouping_sets or (0,))
                # Every thread aggregates for itself before the groups are put together.
                yield _size(rel, estimates) * (1 if sets > 1 else 1.5)
            case Sort(input=below) | Leading(input=below):
                yield _size(below, estimates)
            case Project(exprs=exprs, input=below) if has_window(exprs):
                yield 2 * _size(below, estimates)
            case SetOperation(all=False) | SetOperation(operation="intersect" | "except"):
                yield sum(_size(o, estimates) for o in rel.operands)


def _size(rel: Rel, estimates: Estimator) -> float:
    return estimates.rows(rel) * (estimates.width(rel.schema) + _ENTRY)
