"""Which Parquet files a path, a pattern or a directory stands for, and what table they are."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from operators.errors import DataFileError, UnsupportedTypeError
from operators.file_versions import FileVersion
from operators.microseconds import counts_nanoseconds
from operators.rel import ParquetSource
from operators.schema import Field, Schema
from operators.types import DATE, INT64, STRING, canonical_schema, carried

__all__ = ["FileSet", "ParquetTable", "data_files", "files_below", "parquet_table"]

FileSet = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""A file, a directory, a pattern, or a list of files."""

# How hive writes a null.
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True, slots=True)
class ParquetTable:
    """Files that are one table.

    Attributes
    ----------
    paths
        Absolute, in order.
    schema
        Columns in canonical types: those of the files, then those of `hive`.
    versions
        The states of the files, taken before their footers were read.
    rows, bytes
        Of all files together; bytes as they stand on disk.
    hive
        Columns that are in the paths, with their types.
    nanoseconds
        Columns that count them (see `operators.microseconds`).
    intervals
        Whether files have columns of Parquet's INTERVAL; they are among the hidden ones.
    hidden
        Columns of the files that no plan can name, and why: those of other types than the IR has.
    """

    paths: tuple[str, ...]
    schema: Schema
    rows: int
    bytes: int
    versions: tuple[FileVersion, ...]
    hive: tuple[tuple[str, pa.DataType], ...] = ()
    nanoseconds: tuple[str, ...] = ()
    intervals: bool = False
    hidden: Mapping[str, str] = field(default_factory=dict)

    def source(self, name: str) -> ParquetSource:
        """What a scan of the table, which people know as `name`, reads."""
        return ParquetSource(
            name, self.paths, None, self.hive, self.versions, self.nanoseconds, self.intervals
        )


def files_below(directory: Path) -> list[Path]:
    """The files in a directory and those in it, in order; without the hidden ones, whose names or
    whose directories' begin with a dot or an underscore: others write them for themselves.
    """
    found = []
    for path in directory.rglob("*"):
        parts = path.relative_to(directory).parts
        if not any(p.startswith((".", "_")) and "=" not in p for p in parts) and path.is_file():
            found.append(path)
    return sorted(found)


def data_files(source: FileSet, suffix: str) -> list[Path]:
    """The files that `source` stands for, those of a directory with this suffix, in order; see
    `files_below`.

    Raises
    ------
    DataFileError
        If there are none.
    """
    if not isinstance(source, str | os.PathLike):
        if not source:
            raise DataFileError("no files were given")
        return [Path(s) for s in source]
    path = Path(source)
    if path.is_dir():
        found = [p for p in files_below(path) if p.name.endswith(suffix)]
        if not found:
            kind = {".parquet": "Parquet", ".csv": "CSV"}.get(suffix, suffix)
            raise DataFileError(f"{source}: the directory holds no {kind} files")
        return found
    if path.exists():
        return [path]
    found = sorted(Path(p) for p in glob.glob(os.fspath(source), recursive=True))
    if not found:
        raise DataFileError(f"{source}: there is no such file")
    return found


def parquet_table(source: FileSet, hive: bool | None = None, *, hide: bool = False) -> ParquetTable:
    """The table that Parquet files are. Only their footers are read.

    Parameters
    ----------
    source
        What to read.
    hive
        Whether directories called ``name=value`` are columns; by default they are if `source` is a
        directory and all files lie in such ones.
    hide
        Whether columns whose types the IR does not have are left out rather than refused.

    Raises
    ------
    DataFileError
        If a file is missing, is not Parquet, has other columns than the first, or does not lie in
        the directories that `hive` asks for.
    UnsupportedTypeError
        If a column's type is one that the IR does not have, or, with `hide`, the types of all.
    """
    files = data_files(source, ".parquet")
    schema: Schema | None = None
    rows = size = 0
    versions = []
    fine: dict[str, None] = {}
    hidden: dict[str, str] = {}
    intervals = False
    for path in files:
        versions.append(FileVersion.of(path))
        metadata, arrow = _footer(path)
        if hide:
            positions, others = carried(arrow)
            if positions:
                hidden |= others
                intervals |= bool(others) and _has_intervals(metadata)
                arrow = pa.schema([arrow.field(i) for i in positions])
        try:
            found = canonical_schema(arrow)
        except UnsupportedTypeError as error:
            raise UnsupportedTypeError(f"{path}: {error}") from None
        if schema is None:
            schema = found
        elif (found.names, found.types) != (schema.names, schema.types):
            raise DataFileError(f"{path}: its columns differ from those of {files[0]}")
        fine |= dict.fromkeys(_nanoseconds(metadata, arrow))
        rows += metadata.num_rows
        size += versions[-1].size
    assert schema is not None
    paths = [p.absolute() for p in files]
    columns = _hive_columns(source, paths, hive)
    inside: set[str] = set()
    for column in schema.names:
        if column.lower() in inside:
            raise DataFileError(
                f"{files[0]}: several columns are called {column!r}, but for case perhaps"
            )
        inside.add(column.lower())
    for name, _ in columns:
        if name.lower() in inside:
            raise DataFileError(f"{files[0]}: column {name!r} is both in the file and in its path")
    fields = schema.fields + tuple(Field(n, t) for n, t in columns)
    listed = tuple(map(str, paths))
    return ParquetTable(
        listed,
        Schema(fields),
        rows,
        size,
        tuple(versions),
        columns,
        tuple(fine),
        intervals,
        hidden,
    )


def _footer(path: Path) -> tuple[pq.FileMetaData, pa.Schema]:
    try:
        with pq.ParquetFile(path) as file:
            return file.metadata, file.schema_arrow
    except FileNotFoundError:
        raise DataFileError(f"{path}: there is no such file") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataFileError(f"{path}: not a readable Parquet file ({reason})") from None


def _nanoseconds(metadata: pq.FileMetaData, arrow: pa.Schema) -> Iterator[str]:
    named = [f.name for f in arrow if counts_nanoseconds(f.type)]
    if named:
        columns = [metadata.schema.column(i) for i in range(metadata.num_columns)]
        physical = {c.path: c.physical_type for c in columns}
        yield from (n for n in named if physical.get(n) != "INT96")


def _has_intervals(metadata: pq.FileMetaData) -> bool:
    columns = (metadata.schema.column(i) for i in range(metadata.num_columns))
    return any(c.converted_type == "INTERVAL" for c in columns)


def _hive_columns(
    source: FileSet, paths: Sequence[Path], hive: bool | None
) -> tuple[tuple[str, pa.DataType], ...]:
    """Names and types of the columns in the paths; none if there are none."""
    directory = isinstance(source, str | os.PathLike) and Path(source).is_dir()
    if hive is False or (hive is None and not directory):
        return ()
    root = Path(os.fspath(source)).absolute() if directory else None  # type: ignore[arg-type]
    found = [_pairs(p if root is None else p.relative_to(root)) for p in paths]
    names = list(found[0])
    for path, pairs in zip(paths, found, strict=True):
        if list(pairs) != names:
            if hive is None:
                return ()
            raise DataFileError(f"{path}: its directories name other columns than {names}")
    if not names and hive:
        raise DataFileError(f"{paths[0]}: no directory in its path is called name=value")
    return tuple((n, _value_type([pairs[n] for pairs in found])) for n in names)


def _pairs(path: Path) -> dict[str, str]:
    """The names and values in a path's directories."""
    parts = [p.split("=", 1) for p in path.parts[:-1] if "=" in p]
    return {unquote(name): unquote(value) for name, value in parts}


def _value_type(values: Sequence[str]) -> pa.DataType:
    known = [v for v in values if v != _HIVE_NULL]
    if known and all(re.fullmatch(r"-?\d{1,18}", v) for v in known):
        return INT64
    if known and all(re.fullmatch(r"\d{4}-\d{2}-\d{2}", v) for v in known):
        return DATE
    return STRING
