"""The summary that `RemoteFrame.describe` computes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.types as pt

from operators.types import is_numeric
from remote_frame.expressions import Expr, col, lit, when

if TYPE_CHECKING:
    from remote_frame.frame import RemoteFrame

__all__ = ["describe"]


# The square of a float beyond it, and the sum of a few, are none. NaN is greater.
_SQUARED = 1e150


def describe(frame: RemoteFrame, percentiles: Sequence[float]) -> pa.Table:
    """One row for each statistic, one column for each of the frame's.

    Numbers and conditions are summed up as floats, everything else by counts and its least and
    greatest value as strings.
    """
    names = ["count", "null_count", "mean", "std", "min"]
    names += [f"{p:.0%}" for p in percentiles] + ["max"]
    wanted: list[Expr] = []
    for i, f in enumerate(frame.plan.schema):
        wanted += [e.alias(f"{i} {name}") for name, e in _statistics(f.name, f.type, percentiles)]
    row = frame.select(wanted).collect().to_pylist()[0]
    columns: dict[str, Any] = {"statistic": names}
    for i, f in enumerate(frame.plan.schema):
        values = [row.get(f"{i} {name}") for name in names]
        if _is_number(f.type):
            floats = [None if v is None else float(v) for v in values]
            columns[f.name] = pa.array(floats, pa.float64())
        else:
            texts = [None if v is None else str(v) for v in values]
            columns[f.name] = pa.array(texts, pa.string())
    return pa.table(columns)


def _deviation(value: Expr) -> Expr:
    """The standard deviation; of what has none, or none that a float holds, NaN and no error."""
    size = value.abs()
    return (
        when(size.max() >= _SQUARED)
        .then(lit(math.nan))
        .otherwise(value.filter(size < _SQUARED).std())
    )


def _is_number(type: pa.DataType) -> bool:
    return is_numeric(type) or bool(pt.is_boolean(type))


def _statistics(
    name: str, type: pa.DataType, percentiles: Sequence[float]
) -> list[tuple[str, Expr]]:
    column = col(name)
    found = [("count", column.count()), ("null_count", column.null_count())]
    if pt.is_boolean(type):
        column = column.cast("int8")
    if _is_number(type):
        value = column.cast("float64")
        found += [("mean", value.mean()), ("std", _deviation(value))]
        found += [(f"{p:.0%}", value.quantile(p)) for p in percentiles]
    elif pt.is_null(type) or pt.is_binary(type):
        return found
    return [*found, ("min", column.min()), ("max", column.max())]
