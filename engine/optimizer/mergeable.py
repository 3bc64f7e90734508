"""Aggregates that can be computed in two steps: over parts, and then over the parts' results.

=========  =====================  ==============================
function   over the parts         over their results
=========  =====================  ==============================
count      count                  sum, 0 where there is no part
sum        sum                    sum
min, max   the same               the same
avg        sum and count          sum of sums / sum of counts
=========  =====================  ==============================

NULLs are left out by both steps as by one. A part may be merged several times: all of its rows are
then counted as often (see `engine.optimizer.eager`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pyarrow.types as pt

from operators import build
from operators.expr import Aggregate, Column, Expr
from operators.functions import aggregate_type
from operators.types import FLOAT64, INT64

__all__ = ["TwoSteps", "mergeable"]


def mergeable(measure: Aggregate) -> bool:
    """Whether `measure` can be computed in two steps."""
    if measure.distinct or measure.order:
        return False
    if measure.function == "avg":
        # Of dates and intervals there is an average, too, but no sum.
        return bool(pt.is_floating(measure.type)) and _summable(measure)
    return measure.function in ("count", "sum", "min", "max")


def _summable(measure: Aggregate) -> bool:
    type = measure.args[0].type
    return bool(pt.is_integer(type) or pt.is_decimal(type) or pt.is_floating(type))


@dataclass(slots=True)
class TwoSteps:
    """Partial aggregates of mergeable measures, and what makes the measures of them.

    Parameters
    ----------
    measures
        Over the rows.
    empty
        Whether there may be a group without any part (a group without keys): its counts are 0.
    """

    measures: Sequence[Aggregate]
    empty: bool
    partial: list[Aggregate] = field(default_factory=list)

    def __post_init__(self) -> None:
        for measure in self.measures:
            for one in _partial(measure):
                if one not in self.partial:
                    self.partial.append(one)

    def merged(self, column: Callable[[int], Column]) -> list[Aggregate]:
        """Aggregates over the parts, one for each of `partial`, which stands at `column(i)`."""
        return [
            Aggregate(aggregate_type(_merging(p), [column(i)]), _merging(p), (column(i),))
            for i, p in enumerate(self.partial)
        ]

    def final(self, column: Callable[[int], Column]) -> list[Expr]:
        """The measures, where `column(i)` is what `merged` made of partial aggregate `i`."""
        return [self._final(m, column) for m in self.measures]

    def _final(self, measure: Aggregate, column: Callable[[int], Column]) -> Expr:
        places = [column(self.partial.index(p)) for p in _partial(measure)]
        value: Expr = places[0]
        if measure.function == "avg":
            total, count = (build.cast(p, FLOAT64) for p in places)
            return build.call("divide", total, count)
        value = build.cast(value, measure.type)
        if measure.function == "count" and self.empty:
            value = build.call("coalesce", value, build.lit(0, INT64))
        return value


def _merging(partial: Aggregate) -> str:
    return "sum" if partial.function == "count" else partial.function


def _partial(measure: Aggregate) -> list[Aggregate]:
    if measure.function != "avg":
        return [measure]
    total = aggregate_type("sum", measure.args)
    return [
        Aggregate(total, "sum", measure.args, filter=measure.filter),
        Aggregate(INT64, "count", measure.args, filter=measure.filter),
    ]
