"""What is certain of a relation, without looking at data."""

from __future__ import annotations

from collections.abc import Collection

from operators.expr import Column
from operators.rel import (
    Aggregation,
    Filter,
    Join,
    Limit,
    Project,
    Rel,
    Sort,
    Values,
)

__all__ = ["has_one_row", "is_distinct"]


def has_one_row(rel: Rel) -> bool:
    """Whether a relation certainly has one row."""
    match rel:
        case Aggregation(keys=(), grouping_sets=None):
            return True
        case Project(input=below) | Sort(input=below):
            return has_one_row(below)
        case Values(rows=rows):
            return len(rows) == 1
        case Join(left=left, right=right, left_keys=(), condition=None, kind="inner" | "cross"):
            return has_one_row(left) and has_one_row(right)
    return False


def is_distinct(rel: Rel, columns: Collection[int]) -> bool:
    """Whether no two rows of a relation have the same values in `columns`."""
    match rel:
        case Aggregation(keys=keys, grouping_sets=None):
            return {*range(len(keys))} <= {*columns}
        case Project(input=below, exprs=exprs):
            found = {e.index for i in columns if isinstance(e := exprs[i], Column)}
            return is_distinct(below, found)
        case Filter(input=below) | Sort(input=below) | Limit(input=below):
            return is_distinct(below, columns)
    return False
