"""What generated elements import: opening what they read, running their SQL, writing what comes
out.

A thin layer over `remote_frame` and `operators.duckdb` that works in any element, also in one that
a person wrote. It must stay cheap to import: no planner is loaded in a worker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa

import remote_frame
from engine.resident.narrowing import Answer, WantedKeys, narrowed
from engine.resident.reader import ResidentTable, find
from openwhisk.worker.limits import held_data
from operators.duckdb import Fragment
from operators.fragment import FragmentInput
from operators.kernel import InMemory
from operators.rel import InputSource, ParquetSource
from operators.schema import Field, Schema
from remote_frame import FrameReader, conditions, storage
from remote_frame.handle import ExchangeHandle, load_handle, partition_of
from remote_frame.types import type_from_text

if TYPE_CHECKING:
    from libd import Transport
    from openwhisk.runtime import Action
    from operators.polars.kernel import Query

__all__ = [
    "exchange",
    "exchange_ranges",
    "part",
    "read_all",
    "read_own",
    "read_part",
    "reduced",
    "resident",
    "run",
    "run_polars",
    "table",
    "write",
]

Condition = tuple[str, "conditions.Operator", Any]
"""``(column, operator, value)``: what generated code writes down."""

# Metrics of a run (`Action.record_metric`), which `engine.report` reads: rows of the frames that
# the statement reads; rows and bytes of the frames that were written.
ROWS_READ, ROWS_WRITTEN, BYTES_WRITTEN = "rows_read", "rows_written", "frame_bytes_written"

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
    within: Mapping[str, tuple[int | None, int | None]] | None = None,
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
    found = find(params, paths, columns)
    if found is None:
        return ParquetSource("table", tuple(paths), (action.index, action.count) if part else None)
    durl, known = found
    share = (action.index, action.count) if part else (0, 1)
    return ResidentTable(known, durl, action, columns, share, dict(within or {}))


def reduced(
    paths: Sequence[str],
    columns: Mapping[str, str],
    action: Action,
    *,
    rows: int,
    reader: int,
    within: Mapping[str, tuple[int | None, int | None]] | None = None,
    nulls: Sequence[str] = (),
    keys: Mapping[str, tuple[str, Mapping[str, Any]]] | None = None,
) -> ParquetSource | LoadedTable:
    """The rows of a base table with certain keys, read into memory; the whole table, to be read
    by the kernel, where these are too many.

    Parameters
    ----------
    columns
        Names and types of the columns to read.
    rows
        The most that may be held.
    reader
        Bytes that the reader takes beside them. Without these the kernel reads the table: the
        reader ends the process, not the statement, where it cannot have memory.
    within
        Ranges of stored integers outside of which rows do not matter, by column.
    nulls
        Columns in which only NULL matters.
    keys
        By column a statement that gives the integers that are wanted, and what it reads.
    """
    whole = table(paths)
    room = action.limits.mem - held_data() - reader
    if room < 0:
        return whole
    from operators.parquet_filter import (
        MOST_KEYS,
        held_per_row,
        read_filtered,
        reader_threads,
    )

    if reader_threads() > max(1, int(action.limits.cpu)):
        return whole  # the reader's pool belongs to the process: it would take more than its share
    kernel = remote_frame.warm_kernel(action)
    wanted = {}
    for column, (statement, reads) in (keys or {}).items():
        fragment, supplied = _fragment(statement, reads, _KEY, action)
        (values,) = kernel.table(fragment, supplied, more=True).combine_chunks().columns
        if len(values) <= MOST_KEYS:
            wanted[column] = values
    schema = _schema(columns.items())
    # Decimals may be held twice, wide and narrow.
    rows = min(rows, int(room / (2 * held_per_row(schema.types))))
    found = read_filtered(paths, schema, within or {}, wanted, rows, nulls)
    return whole if found is None else LoadedTable(found)


_KEY = (("key", "int64"),)


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


def run(
    sql: str,
    tables: Mapping[str, Table | pa.Table],
    columns: Sequence[tuple[str, str]],
    action: Action,
    *,
    fixed_joins: bool = False,
    keys: Sequence[WantedKeys] = (),
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
    keys
        Keys without which rows of resident tables do not matter.

    Returns
    -------
    pyarrow.RecordBatchReader
        Batches as DuckDB makes them; to be drained before the next `run`.
    """
    kernel = remote_frame.warm_kernel(action)
    given = {n: LoadedTable(t) if isinstance(t, pa.Table) else t for n, t in tables.items()}

    def ask(text: str, reads: Mapping[str, Table], answer: Answer) -> pa.Table:
        fragment, supplied = _fragment(text, reads, answer, action)
        return kernel.table(fragment, supplied, more=True)

    given.update(narrowed(given, keys, ask))
    fragment, supplied = _fragment(sql, given, columns, action, fixed_joins)
    read = sum(t.rows for t in given.values() if not isinstance(t, ParquetSource))
    action.record_metric(ROWS_READ, read)
    return kernel.run(fragment, supplied)


def run_polars(
    query: Query,
    tables: Mapping[str, Table],
    columns: Sequence[tuple[str, str]],
    action: Action,
) -> pa.RecordBatchReader:
    """Run a function of Polars' lazy frames.

    Parameters
    ----------
    query
        Takes a frame for each table, in their order, and gives one.
    tables
        What it reads.
    columns
        Names and types (`remote_frame.types.type_from_text`) of its output.

    Returns
    -------
    pyarrow.RecordBatchReader
        Batches as Polars makes them.
    """
    from operators.polars import kernel

    read = sum(t.rows for t in tables.values() if not isinstance(t, ParquetSource))
    action.record_metric(ROWS_READ, read)
    scans: Counter[tuple[str, ...]] = Counter()
    frames = {}
    for name, source in tables.items():
        paths = source.paths if isinstance(source, ParquetSource) else ()
        frames[name] = kernel.scan(source, scans[paths])
        scans[paths] += 1
    return kernel.run(query, frames, _schema(columns))


def _fragment(
    sql: str,
    tables: Mapping[str, Table],
    columns: Sequence[tuple[str, str]],
    action: Action,
    fixed_joins: bool = False,
) -> tuple[Fragment, dict[str, Any]]:
    """A statement, and the inputs that the kernel does not read itself."""
    inputs: list[FragmentInput] = []
    supplied: dict[str, Any] = {}
    for name, source in tables.items():
        if isinstance(source, ParquetSource):
            inputs.append(FragmentInput(name, source, ()))
        else:
            inputs.append(FragmentInput(name, InputSource(name), tuple(source.schema.names)))
            supplied[name] = _Views(source, action) if isinstance(source, FrameReader) else source
    return Fragment(sql, tuple(inputs), _schema(columns), fixed_joins), supplied


def _schema(columns: Iterable[tuple[str, str]]) -> Schema:
    return Schema(tuple(Field(name, type_from_text(type)) for name, type in columns))


class _Views:
    """A frame for the kernel: its batches where the transport maps them, else a stream."""

    def __init__(self, reader: FrameReader, action: Action) -> None:
        self._reader = reader
        self._action = action

    def resident_batches(self, columns: Sequence[str]) -> InMemory | None:
        """Views of the named columns; None if they had to be copied."""
        elements = {p.ref.element for p in self._reader.parts}
        if not all(self._action.get_transport(e, "rdma").mappable for e in elements):
            return None
        chosen = self._reader.arrow_stream(columns)
        known = [self._range(name) for name in chosen.schema.names]
        return InMemory(chosen.schema, list(chosen.batches()), known)

    def _range(self, name: str) -> tuple[int, int] | None:
        lows, highs = [], []
        for handle in self._reader.handles:
            at = handle.arrow_schema.names.index(name)
            for part in handle.parts:
                low = part.min[at] if part.min else None
                high = part.max[at] if part.max else None
                if isinstance(low, int) and isinstance(high, int):
                    lows.append(low)
                    highs.append(high)
                elif part.nulls[at] < part.rows:
                    return None
        return (min(lows), max(highs)) if lows else None

    def arrow_stream(self, columns: Sequence[str]) -> FrameReader:
        """See `FrameReader.arrow_stream`."""
        return self._reader.arrow_stream(columns)


def write(
    rows: pa.RecordBatchReader,
    transport: Transport,
    action: Action | None = None,
    *,
    budget: int | None = None,
) -> dict[str, Any]:
    """Write rows as one frame; the handle commits them when the element returns it.

    Batches are written as the kernel makes them. At most `budget` bytes of them are held, by
    default 64 MiB or a sixteenth of the element's memory. With `action`, how many rows and bytes
    they were is recorded there.
    """
    return _recorded(remote_frame.write(rows, transport, budget=budget), action)


def exchange(
    rows: pa.RecordBatchReader,
    transport: Transport,
    keys: Sequence[int],
    partitions: int,
    action: Action | None = None,
    *,
    budget: int | None = None,
) -> dict[str, Any]:
    """Scatter rows by the hash of the columns at `keys`, one frame for each reader; see `write`."""
    handle = remote_frame.exchange(
        rows, transport, keys=list(keys), partitions=partitions, budget=budget
    )
    return _recorded(handle, action)


def exchange_ranges(
    rows: pa.RecordBatchReader,
    transport: Transport,
    keys: Sequence[int],
    boundaries: pa.RecordBatch,
    action: Action | None = None,
    *,
    descending: Sequence[bool] = (),
    nulls_first: Sequence[bool] = (),
    budget: int | None = None,
) -> dict[str, Any]:
    """Scatter rows by ranges of the columns at `keys`, so that readers sort a range each.

    `boundaries` has the key columns alone, one sorted row between two readers each.
    """
    handle = storage.exchange_ranges(
        rows,
        transport,
        list(keys),
        boundaries,
        descending=descending,
        nulls_first=nulls_first,
        budget=budget,
    )
    return _recorded(handle, action)


def _recorded(handle: dict[str, Any], action: Action | None) -> dict[str, Any]:
    """The handle, once its rows and bytes are recorded."""
    if action is not None:
        one = load_handle(handle)
        frame = one.whole() if isinstance(one, ExchangeHandle) else one
        action.record_metric(ROWS_WRITTEN, frame.rows)
        action.record_metric(BYTES_WRITTEN, frame.nbytes)
    return handle
