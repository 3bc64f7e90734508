"""What an element's statements read: base tables, resident columns, frames of other elements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa

import remote_frame
from engine.resident.layout import Within
from engine.resident.reader import ResidentTable, find
from operators.kernel import InMemory
from operators.rel import ParquetSource
from remote_frame import FrameReader, conditions
from remote_frame.handle import ExchangeHandle, load_handle, partition_of
from remote_frame.types import type_from_text

if TYPE_CHECKING:
    from openwhisk.runtime import Action

__all__ = ["LoadedTable", "Table", "part", "read_all", "read_own", "read_part", "resident", "table"]

Condition = tuple[str, "conditions.Operator", Any]
"""``(column, operator, value)``: what generated code writes down."""

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


def resident(
    params: Mapping[str, Any],
    paths: Sequence[str],
    action: Action,
    columns: Sequence[str],
    *,
    part: bool,
    within: Within | None = None,
) -> ParquetSource | ResidentTable:
    """A base table from the session's resident columns; from its files where not all are there.

    Parameters
    ----------
    columns
        Names of those that the statement uses.
    part
        Whether this copy reads its share of the rows only.
    within
        Ranges of stored integers outside of which rows do not matter, by column.
    """
    found = find(params, paths, columns, within)
    if found is None:
        return ParquetSource("table", tuple(paths), (action.index, action.count) if part else None)
    durl, known = found
    share = (action.index, action.count) if part else (0, 1)
    return ResidentTable(known, durl, action, columns, share, within)


class LoadedTable:
    """Rows in this element's own memory, for the kernel."""

    def __init__(self, data: pa.Table) -> None:
        self._data = data

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns."""
        return self._data.schema

    @property
    def rows(self) -> int:
        """How many there are."""
        return int(self._data.num_rows)

    def resident_batches(self, columns: Sequence[str]) -> InMemory:
        """The named columns, and the ranges of their values."""
        chosen = self._data.select(list(columns) or self._data.column_names[:1])
        return InMemory(chosen.schema, chosen.to_batches(), [_ends(c) for c in chosen.columns])


def _ends(column: pa.ChunkedArray) -> tuple[int, int] | None:
    import pyarrow.compute as pc
    import pyarrow.types as pt

    if pt.is_date32(column.type):
        column = column.cast("int32")
    elif not pt.is_signed_integer(column.type):
        return None
    ends = pc.min_max(column).as_py()
    return None if ends["min"] is None else (ends["min"], ends["max"])


Table: TypeAlias = ParquetSource | FrameReader | ResidentTable | LoadedTable
"""What a statement reads."""


def read_all(
    handles: Handles,
    action: Action,
    columns: Sequence[str] | None = None,
    where: Sequence[Condition] = (),
) -> FrameReader:
    """Everything that all copies of a parent wrote.

    Parameters
    ----------
    handles
        What the copies returned.
    action
        The element's.
    columns
        The columns to read; all by default. No others are moved.
    where
        Conditions ``(column, operator, value)`` (`remote_frame.conditions.Condition`) of which the
        rows that are wanted meet all: parts without such rows are not read. Rows that do not meet
        them may come nevertheless.
    """
    frames = [
        one.whole() if isinstance(one, ExchangeHandle) else one for one in map(load_handle, handles)
    ]
    return _reader(frames, action, columns, where)


def read_part(
    handles: Handles,
    action: Action,
    columns: Sequence[str] | None = None,
    where: Sequence[Condition] = (),
) -> FrameReader:
    """The partition of this copy's number of what all copies of a parent wrote; see `read_all`."""
    return _reader(partition_of(handles, action.index), action, columns, where)


def read_own(
    handles: Handles,
    action: Action,
    columns: Sequence[str] | None = None,
    where: Sequence[Condition] = (),
) -> FrameReader:
    """What the copy with this copy's number wrote; no rows if there was none. See `read_all`."""
    own = handles[action.index] if action.index < len(handles) else {**handles[0], "parts": []}
    return _reader([own], action, columns, where)


def _reader(
    handles: Sequence[Any],
    action: Action,
    columns: Sequence[str] | None,
    where: Sequence[Condition],
) -> FrameReader:
    reader = remote_frame.open_reader(handles, action, columns)
    return reader.where(conditions.Condition(*one) for one in where) if where else reader
