"""Running an element's statements on the worker's warm kernels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

import remote_frame
from engine.element.tables import LoadedTable, Table, table
from engine.resident.narrowing import Answer, WantedKeys, narrowed
from openwhisk.worker.limits import held_data
from operators.duckdb import Fragment
from operators.fragment import FragmentInput
from operators.kernel import InMemory
from operators.rel import InputSource, ParquetSource
from operators.schema import Field, Schema
from remote_frame import FrameReader
from remote_frame.types import type_from_text

if TYPE_CHECKING:
    from openwhisk.runtime import Action
    from operators.polars.kernel import Query

__all__ = ["ROWS_READ", "reduced", "run", "run_polars"]

ROWS_READ = "rows_read"
"""Metric of a run (`Action.record_metric`): rows of the frames that its statement reads."""


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
    # Their joins are in the plan's order, too; and a setting that stays need not be said again.
    given.update(narrowed(given, keys, _questions(action, fixed_joins)))
    fragment, supplied = _fragment(sql, given, columns, action, fixed_joins)
    read = sum(t.rows for t in given.values() if not isinstance(t, ParquetSource))
    action.record_metric(ROWS_READ, read)
    return kernel.run(fragment, supplied)


def run_polars(
    query: Query,
    tables: Mapping[str, Table],
    columns: Sequence[tuple[str, str]],
    action: Action,
    *,
    reads: Mapping[str, tuple[str, Sequence[str]]] | None = None,
    keys: Sequence[WantedKeys] = (),
) -> pa.RecordBatchReader:
    """Run a function of Polars' lazy frames.

    Parameters
    ----------
    query
        Takes lazy frames, gives one.
    tables
        What it reads.
    columns
        Names and types (`remote_frame.types.type_from_text`) of its output.
    reads
        Of each frame that the function takes, in their order, the table and its columns. By default
        a frame is all of one table.
    keys
        As for `run`.

    Returns
    -------
    pyarrow.RecordBatchReader
        Batches as Polars makes them.
    """
    from operators.polars import kernel

    given = {**tables, **narrowed(tables, keys, _questions(action, False))}
    read = sum(t.rows for t in given.values() if not isinstance(t, ParquetSource))
    action.record_metric(ROWS_READ, read)
    scans: Counter[tuple[str, ...]] = Counter()
    frames = {}
    whole: dict[str, tuple[str, Sequence[str] | None]] = {n: (n, None) for n in given}
    for name, (read_from, chosen) in (reads or whole).items():
        source = given[read_from]
        paths = source.paths if isinstance(source, ParquetSource) else ()
        frames[name] = kernel.scan(source, scans[paths], chosen)
        scans[paths] += 1
    return kernel.run(query, frames, _schema(columns))


def _questions(
    action: Action, fixed_joins: bool
) -> Callable[[str, Mapping[str, Table], Answer], pa.Table]:
    """Answers statements for keys."""

    def ask(text: str, reads: Mapping[str, Table], answer: Answer) -> pa.Table:
        fragment, supplied = _fragment(text, reads, answer, action, fixed_joins)
        return remote_frame.warm_kernel(action).table(fragment, supplied)

    return ask


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
        (values,) = kernel.table(fragment, supplied).combine_chunks().columns
        if len(values) <= MOST_KEYS:
            wanted[column] = values
    schema = _schema(columns.items())
    # Decimals may be held twice, wide and narrow.
    rows = min(rows, int(room / (2 * held_per_row(schema.types))))
    found = read_filtered(paths, schema, within or {}, wanted, rows, nulls)
    return whole if found is None else LoadedTable(found)


_KEY = (("key", "int64"),)


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
