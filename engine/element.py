"""What generated elements import: opening what they read, running their SQL, writing what comes
out.

A thin layer over `remote_frame` and `operators.duckdb` that works in any element, also in one that
a person wrote. It must stay cheap to import: no planner is loaded in a worker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import remote_frame
from operators.duckdb import Fragment, FragmentInput
from operators.rel import InputSource, ParquetSource
from operators.schema import Field, Schema
from remote_frame.types import type_from_text

if TYPE_CHECKING:
    import pyarrow as pa

    from libd import Transport
    from openwhisk.runtime import Action
    from remote_frame import FrameReader

__all__ = ["exchange", "part", "read_all", "read_own", "read_part", "run", "table", "write"]

Handles = Sequence[Mapping[str, Any]]
"""The results of all copies of a parent, as `params` has them."""


def table(paths: Sequence[str], hive: Mapping[str, str] | None = None) -> ParquetSource:
    """A whole base table, in Parquet files; `hive` are the columns in their paths with types."""
    return ParquetSource("table", tuple(paths), None, _hive(hive))


def part(
    paths: Sequence[str], action: Action, hive: Mapping[str, str] | None = None
) -> ParquetSource:
    """The share of a base table that belongs to this copy."""
    return ParquetSource("table", tuple(paths), (action.index, action.count), _hive(hive))


def _hive(columns: Mapping[str, str] | None) -> tuple[tuple[str, pa.DataType], ...]:
    return tuple((name, type_from_text(type)) for name, type in (columns or {}).items())


def read_all(handles: Handles, action: Action, columns: Sequence[str] | None = None) -> FrameReader:
    """Everything that all copies of a parent wrote."""
    frames: list[Mapping[str, Any]] = []
    for handle in handles:
        frames += handle["partitions"] if handle["kind"] == "exchange" else [handle]
    return remote_frame.open_reader(frames, action, columns)


def read_part(
    handles: Handles, action: Action, columns: Sequence[str] | None = None
) -> FrameReader:
    """The partition with this copy's number of what all copies of a parent wrote."""
    return remote_frame.open_reader(remote_frame.partition(handles, action.index), action, columns)


def read_own(handles: Handles, action: Action, columns: Sequence[str] | None = None) -> FrameReader:
    """What the copy with this copy's number wrote; no rows if there was none."""
    own = handles[action.index] if action.index < len(handles) else {**handles[0], "parts": []}
    return remote_frame.open_reader(own, action, columns)


def run(
    sql: str,
    tables: Mapping[str, ParquetSource | FrameReader],
    columns: Sequence[tuple[str, str]],
    action: Action,
    *,
    fixed_joins: bool = False,
) -> pa.RecordBatchReader:
    """Run a statement on the worker's warm DuckDB connection.

    Parameters
    ----------
    sql
        One SELECT.
    tables
        What it reads, by the names that it uses.
    columns
        Names and types (`remote_frame.types.type_from_text`) of its output.
    fixed_joins
        Whether DuckDB must join in the order in which the statement does.

    Returns
    -------
    pyarrow.RecordBatchReader
        Batches as DuckDB makes them; to be drained before the next `run`.
    """
    inputs, supplied = [], {}
    for name, source in tables.items():
        if isinstance(source, ParquetSource):
            inputs.append(FragmentInput(name, source, ()))
        else:
            inputs.append(FragmentInput(name, InputSource(name), tuple(source.schema.names)))
            supplied[name] = source
    schema = Schema(tuple(Field(name, type_from_text(type)) for name, type in columns))
    fragment = Fragment(sql, tuple(inputs), schema, fixed_joins)
    return remote_frame.warm_kernel(action).run(fragment, supplied)


def write(rows: pa.RecordBatchReader, transport: Transport) -> dict[str, Any]:
    """Write rows as one frame; the handle commits them when the element returns it."""
    return remote_frame.write(rows, transport)


def exchange(
    rows: pa.RecordBatchReader, transport: Transport, keys: Sequence[int], partitions: int
) -> dict[str, Any]:
    """Scatter rows by the columns at `keys`, one frame for each reader."""
    return remote_frame.exchange(rows, transport, keys=list(keys), partitions=partitions)
