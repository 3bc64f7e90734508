"""`is_work`: what is better computed once than by each of its readers."""

from __future__ import annotations

from operators.expr import Window
from operators.rel import Aggregation, Join, Leading, Limit, Project, Rel, SetOperation, Sort, walk

__all__ = ["is_work"]


def is_work(rel: Rel) -> bool:
    """Whether `rel` is more than a filtered scan. Those are better read by each reader for itself,
    which needs less of them; some of the others kernels would compute for each reader.

    The rows of a limit are not the same each time that they are computed.
    """
    return any(map(_works, walk(rel)))


def _works(rel: Rel) -> bool:
    match rel:
        case Aggregation() | Join() | Leading() | Limit() | SetOperation() | Sort():
            return True
        case Project(exprs=exprs):
            return any(isinstance(e, Window) for e in exprs)
    return False
