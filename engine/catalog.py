"""Registered tables: where their bytes are, their schema and their size.

Only metadata is read here: footers of Parquet files, schemas of Arrow tables.
"""

from __future__ import annotations

import difflib
import glob
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import pyarrow as pa
import pyarrow.parquet as pq

from engine.dialect.types import duck_type
from engine.errors import DataError, TableNotFoundError
from engine.optimizer.expressions import subqueries_of
from engine.versions import FileVersion, FileVersions
from operators.errors import UnsupportedTypeError
from operators.rel import InputSource, ParquetSource, Rel, Scan, Source, walk
from operators.schema import Schema
from operators.types import canonical_schema

__all__ = ["Catalog", "Table"]

T = TypeVar("T")


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
    """

    name: str
    schema: Schema
    source: Source
    rows: int
    bytes: int
    data: pa.Table | None = None


class Catalog:
    """Tables by name, without regard to case. Safe to share between threads.

    Attributes
    ----------
    versions
        The states in which data files were registered.
    """

    def __init__(self) -> None:
        self.versions = FileVersions()
        self._tables: dict[str, Table] = {}
        self._resources: dict[str, Any] = {}
        self._lock = threading.RLock()

    def register(self, name: str, source: str | os.PathLike[str] | Sequence[str] | Any) -> Table:
        """Register a table, in place of one of the same name.

        Parameters
        ----------
        name
            What queries call it.
        source
            A Parquet file, a directory of them, a glob pattern or a list of files; or Arrow data
            (`pa.Table`, `pa.RecordBatch`, `pa.RecordBatchReader`, or any object with
            ``__arrow_c_stream__``).

        Raises
        ------
        DataError
            If a file is missing, is not Parquet, or has another schema than the first.
        UnsupportedTypeError
            If a column's type is one that the engine does not have.
        """
        if isinstance(source, str | os.PathLike):
            table = self._parquet(name, _files(os.fspath(source)))
        elif isinstance(source, Sequence) and all(isinstance(s, str | os.PathLike) for s in source):
            table = self._parquet(name, [Path(s) for s in source])
        else:
            table = _arrow(name, source)
        with self._lock:
            self._tables[name.lower()] = table
        return table

    def _parquet(self, name: str, paths: Sequence[Path]) -> Table:
        versions = {str(path.absolute()): _version(path) for path in paths}
        table = _parquet(name, paths)
        self.versions.update(versions)
        return table

    def unchanged(self, plan: Rel) -> AbstractContextManager[None]:
        """A block that fails if a file that `plan` reads is not what was registered, at its begin
        or at its end; see `FileVersions.unchanged`.
        """
        return self.versions.unchanged(_paths(plan))

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
        return table.name, [(f.name, duck_type(f.type)) for f in table.schema]

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


def _files(source: str) -> list[Path]:
    """The Parquet files that a path, directory or pattern stands for, in order of their names."""
    path = Path(source)
    if path.is_dir():
        found = sorted(p for p in path.rglob("*.parquet") if p.is_file())
        if not found:
            raise DataError(f"{source}: the directory holds no Parquet files")
        return found
    if path.exists():
        return [path]
    found = sorted(Path(p) for p in glob.glob(source, recursive=True))
    if not found:
        raise DataError(f"{source}: there is no such file")
    return found


def _parquet(name: str, paths: Sequence[Path]) -> Table:
    if not paths:
        raise DataError(f"table {name!r}: no files were given")
    schema: Schema | None = None
    rows = size = 0
    for path in paths:
        metadata, arrow = _footer(path)
        try:
            found = canonical_schema(arrow)
        except UnsupportedTypeError as error:
            raise UnsupportedTypeError(f"{path}: {error}") from None
        if schema is None:
            schema = found
        elif (found.names, found.types) != (schema.names, schema.types):
            raise DataError(f"{path}: its columns differ from those of {paths[0]}")
        rows += metadata.num_rows
        size += path.stat().st_size
    assert schema is not None
    _check_names(name, schema)
    resolved = tuple(str(p.absolute()) for p in paths)
    return Table(name, schema, ParquetSource(name, resolved), rows, size)


def _version(path: Path) -> FileVersion:
    try:
        return FileVersion.of(path)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None


def _paths(plan: Rel) -> Iterator[str]:
    """The files that a plan reads."""
    for node in walk(plan):
        if isinstance(node, Scan) and isinstance(node.source, ParquetSource):
            yield from node.source.paths
        for subquery in subqueries_of(node):
            yield from _paths(subquery)


def _footer(path: Path) -> tuple[pq.FileMetaData, pa.Schema]:
    try:
        with pq.ParquetFile(path) as file:
            return file.metadata, file.schema_arrow
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: not a readable Parquet file ({reason})") from None


def _arrow(name: str, source: Any) -> Table:
    if isinstance(source, pa.RecordBatch):
        data = pa.Table.from_batches([source])
    elif isinstance(source, pa.Table):
        data = source
    elif hasattr(source, "__arrow_c_stream__"):
        data = pa.table(source)
    else:
        raise DataError(f"table {name!r}: {type(source).__name__} is neither files nor Arrow data")
    schema = canonical_schema(data.schema)
    _check_names(name, schema)
    return Table(name, schema, InputSource(name), data.num_rows, data.nbytes, data)


def _check_names(name: str, schema: Schema) -> None:
    seen: set[str] = set()
    for column in schema.names:
        if column.lower() in seen:
            raise DataError(f"table {name!r} has several columns named {column!r} but for case")
        seen.add(column.lower())
