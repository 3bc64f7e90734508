"""Registered tables: where their bytes are, their schema and their size.

Only metadata is read here: footers of Parquet files, schemas of Arrow tables.
"""

from __future__ import annotations

import difflib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import pyarrow as pa

from engine.dialect.types import duck_type
from engine.errors import DataError, TableNotFoundError
from engine.files import file_kind, read_arrow
from operators.errors import DataFileError
from operators.microseconds import in_microseconds
from operators.parquet_files import FileSet, parquet_table
from operators.rel import Scan, Source
from operators.schema import Schema
from operators.types import canonical_schema, carried
from remote_frame.executor import FrameSource
from remote_frame.files import spool_csv
from remote_frame.local import LocalTable
from remote_frame.spool import SpooledTable

__all__ = ["Catalog", "Table"]

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Table:
    """A registered table.

    Attributes
    ----------
    name
        As registered; queries find it without regard to case.
    schema
        Columns in the IR's canonical types.
    source
        What a `Scan` of it reads.
    rows
        Exact number of rows.
    bytes
        Size: of Parquet files on disk, of Arrow data in memory.
    data
        The Arrow data of a table that was registered as such.
    hidden
        Columns that no query can name, and why: those of types that the engine does not have.
    """

    name: str
    schema: Schema
    source: Source
    rows: int
    bytes: int
    data: pa.Table | None = None
    hidden: Mapping[str, str] = field(default_factory=dict)


class Catalog:
    """Tables by name, without regard to case. Safe to share between threads.

    Attributes
    ----------
    generation
        Another number after every change of what names stand for.
    """

    def __init__(self) -> None:
        self.generation = 0
        self._tables: dict[str, Table] = {}
        self._columns: dict[str, tuple[Table, list[tuple[str, str]]]] = {}
        self._resources: dict[str, Any] = {}
        self._lock = threading.RLock()

    def register(
        self,
        name: str,
        source: str | os.PathLike[str] | Sequence[str] | Any,
        *,
        hive_partitioning: bool | None = None,
    ) -> Table:
        """Register a table, in place of one of the same name.

        Parameters
        ----------
        name
            What queries call it.
        source
            Parquet, CSV or Arrow IPC (feather) files: one, a directory, a glob pattern or a list;
            what `remote_frame.files.spool_csv` made; or Arrow data (`pa.Table`, `pa.RecordBatch`,
            `pa.RecordBatchReader`, or any object with ``__arrow_c_stream__``).
        hive_partitioning
            Whether directories of Parquet files called ``name=value`` are columns; see
            `remote_frame.read_parquet`.

        Raises
        ------
        DataError
            If a file is missing, unreadable, or has another schema than the first.
        UnsupportedTypeError
            If the engine has none of the columns' types (columns of other types are hidden: queries
            that name them are refused), or Arrow data has timestamps that are finer than
            microseconds.
        """
        if isinstance(source, SpooledTable):
            table = _spooled(name, source)
        elif isinstance(source, str | os.PathLike) or (
            isinstance(source, Sequence) and all(isinstance(s, str | os.PathLike) for s in source)
        ):
            table = self._files(name, source, hive_partitioning)
        else:
            table = _arrow(name, source)
        if table.hidden:
            log.warning(
                "table %r: left out, because the engine does not have their types: %s",
                name,
                ", ".join(table.hidden),
            )
        with self._lock:
            self._tables[name.lower()] = table
            self.generation += 1
        return table

    def _files(self, name: str, source: FileSet, hive: bool | None) -> Table:
        """A table of Parquet, CSV or Arrow files."""
        try:
            kind, paths = file_kind(source)
            if kind == "csv":
                tabs = all(".tsv" in p.suffixes for p in paths)
                return _spooled(name, spool_csv(paths, separator="\t" if tabs else ","))
            if kind == "arrow":
                return _arrow(name, read_arrow(paths))
            found = parquet_table(source, hive, hide=True)
        except DataFileError as error:
            raise DataError(f"table {name!r}: {error}") from None
        _check_names(name, found.schema)
        return Table(
            name, found.schema, found.source(name), found.rows, found.bytes, hidden=found.hidden
        )

    def drop(self, name: str) -> None:
        """Forget a table.

        Raises
        ------
        TableNotFoundError
            If there is none of that name.
        """
        self._find(name)
        with self._lock:
            del self._tables[name.lower()]
            self.generation += 1

    def __getitem__(self, name: str) -> Table:
        return self._find(name)

    def __iter__(self) -> Iterator[str]:
        return iter([t.name for t in list(self._tables.values())])

    def __len__(self) -> int:
        return len(self._tables)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._tables

    def resolve(self, name: str) -> tuple[str, list[tuple[str, str]]]:
        """The registered name of a table, and name and DuckDB type of each column; see
        `engine.dialect.TableLookup`.
        """
        table = self._find(name)
        known = self._columns.get(table.name)
        if known is None or known[0] is not table:
            columns = [(f.name, duck_type(f.type)) for f in table.schema]
            known = self._columns[table.name] = table, columns
        return table.name, known[1]

    def source(self, name: str) -> tuple[Source, Schema]:
        """What a scan of a table reads, and its full schema."""
        table = self._find(name)
        return table.source, table.schema

    def scan(self, name: str) -> Scan:
        """All columns of a table, as a plan."""
        table = self._find(name)
        return Scan(table.schema, table.source, table.schema, tuple(range(len(table.schema))))

    def missing(self, name: str) -> TableNotFoundError:
        """The error for a table that is not there, with the registered names that look like it."""
        near = difflib.get_close_matches(name.lower(), list(self._tables), n=3, cutoff=0.6)
        return TableNotFoundError(name, tuple(self._tables[n].name for n in near))

    def resource(self, key: str, factory: Callable[[], T]) -> T:
        """What `factory` made for this catalog on the first call with this key."""
        with self._lock:
            if key not in self._resources:
                self._resources[key] = factory()
            return cast(T, self._resources[key])

    def close(self) -> None:
        """Close what `resource` keeps; the tables stay."""
        with self._lock:
            for resource in self._resources.values():
                if hasattr(resource, "close"):
                    resource.close()
            self._resources.clear()

    def _find(self, name: str) -> Table:
        table = self._tables.get(name.lower())
        if table is None:
            raise self.missing(name)
        return table


def _spooled(name: str, table: SpooledTable) -> Table:
    schema = canonical_schema(table.schema)
    _check_names(name, schema)
    size = os.fstat(table.descriptor).st_size
    return Table(name, schema, FrameSource.over(table, name), table.rows, size)


def _arrow(name: str, source: Any) -> Table:
    if isinstance(source, pa.RecordBatch):
        data = pa.Table.from_batches([source])
    elif isinstance(source, pa.Table):
        data = source
    elif hasattr(source, "__arrow_c_stream__"):
        data = pa.table(source)
    else:
        raise DataError(f"table {name!r}: {type(source).__name__} is neither files nor Arrow data")
    positions, hidden = carried(data.schema)
    if hidden and positions:
        data = data.select(positions)
    schema = canonical_schema(data.schema)
    data = in_microseconds(data)
    _check_names(name, schema)
    # The source has the data: what the name stands for later is nothing to the plans made now.
    scanned = FrameSource(name, LocalTable(data), name)
    return Table(name, schema, scanned, data.num_rows, data.nbytes, data, hidden)


def _check_names(name: str, schema: Schema) -> None:
    if not schema.names:
        raise DataError(f"table {name!r} has no columns")
    seen: set[str] = set()
    for column in schema.names:
        if not column:
            raise DataError(f"table {name!r} has a column whose name is empty")
        if column.lower() in seen:
            raise DataError(f"table {name!r} has several columns named {column!r} but for case")
        seen.add(column.lower())
