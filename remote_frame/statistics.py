"""What the handles of a frame tell of it: rows, nulls, bounds and distinct values per column.

For whoever estimates: the statistics of what was really written, of all writers together, in the
form that `operators.cardinality` estimates with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import pyarrow as pa
import pyarrow.types as pt

from operators.distinct import Distinct
from operators.stats import ColumnStats, TableStats
from remote_frame.handle import ExchangeHandle, FrameHandle, Part, Stat
from remote_frame.types import is_variable

__all__ = ["frame_statistics"]

_MICROSECONDS = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}


def frame_statistics(handles: Iterable[FrameHandle | ExchangeHandle]) -> TableStats:
    """Statistics of everything that the writers of `handles` wrote.

    Parameters
    ----------
    handles
        Those of all writers of one frame or exchange, at least one; a partition's handle counts its
        own rows, but its distinct values are those of the whole exchange.

    Returns
    -------
    TableStats
        Columns in the order of the schema. `distinct` is an estimate from the merged sketches; None
        where a writer made none.
    """
    handles = list(handles)
    parts = [part for handle in handles for part in _parts(handle)]
    schema = handles[0].schema
    rows = sum(part.rows for part in parts)
    written = [handle for handle in handles if handle.sampled or handle.rows]
    sketched = [handle for handle in written if handle.distinct]
    strings = 0
    columns = []
    for column, field in enumerate(schema):
        nulls = sum(part.nulls[column] for part in parts)
        width: float | None = None
        if is_variable(field.type):
            if rows:
                width = sum(part.bytes[strings] for part in parts) / rows
            strings += 1
        distinct = None
        if len(sketched) == len(written):
            sketch = Distinct.merged(
                Distinct.from_text(handle.distinct[column], handle.sampled) for handle in sketched
            )
            distinct = sketch.estimate(rows, nulls)
        columns.append(
            ColumnStats(
                min=_outermost(min, [p.min for p in parts], parts, column, field.type),
                max=_outermost(max, [p.max for p in parts], parts, column, field.type),
                null_fraction=nulls / rows if rows else 0.0,
                distinct=distinct,
                width=width,
            )
        )
    return TableStats(float(rows), tuple(columns))


def _parts(handle: FrameHandle | ExchangeHandle) -> Iterable[Part]:
    if isinstance(handle, FrameHandle):
        return handle.parts
    return (part for partition in handle.partitions for part in partition)


def _outermost(
    choose: Callable[[list[float]], float],
    bounds: Sequence[tuple[Stat, ...]],
    parts: Sequence[Part],
    column: int,
    type: pa.DataType,
) -> float | None:
    """The outermost bound on the number line; None unless all parts with values have one."""
    known: list[float] = []
    for some, part in zip(bounds, parts, strict=True):
        if part.nulls[column] == part.rows:
            continue
        bound = some[column] if some else None
        if bound is None or isinstance(bound, str):
            return None
        known.append(bound)
    return choose(known) * _scale(type) if known else None


def _scale(type: pa.DataType) -> float:
    """From stored numbers to `operators.stats`' number line."""
    if pt.is_decimal(type):
        return float(10.0**-type.scale)
    if pt.is_date64(type):
        return 1 / 86_400_000
    if pt.is_timestamp(type):
        return _MICROSECONDS[type.unit]
    return 1.0
