"""Frames over files: Parquet as it is, CSV by way of Parquet.

A CSV file tells neither its types nor where its rows begin, so it can be read neither in parts nor
by columns. It is therefore read once, when the frame is made, into Parquet in an anonymous memory
file of this process (a fraction of the text's size), from which every query reads what it needs.
"""

from __future__ import annotations

import csv
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from operators import build
from operators.duckdb.sqltypes import identifier, quoted_string, sql_type
from operators.errors import DataFileError, OperatorError, UnsupportedTypeError
from operators.parquet_files import FileSet, data_files, parquet_table
from operators.types import canonical_schema
from remote_frame.api import over_data
from remote_frame.core import as_type, flat
from remote_frame.errors import AmbiguousColumnError, ColumnNotFoundError, ExpressionError
from remote_frame.executor import executor_of
from remote_frame.frame import RemoteFrame
from remote_frame.spool import SpooledTable

__all__ = ["read_csv", "read_parquet", "scan_csv", "scan_parquet", "spool_csv"]


def read_parquet(
    source: FileSet,
    executor: Any = None,
    *,
    columns: Sequence[str] | None = None,
    hive_partitioning: bool | None = None,
) -> RemoteFrame:
    """A frame over Parquet files. Their footers are read now, their rows when it is computed:
    if a file changes between, that is an error.

    Parameters
    ----------
    source
        A file, a pattern, a directory, or a list of files; all with the same columns.
    executor
        Who computes the frame: a session, an element's `action`, or None for this process.
    columns
        Names of the columns to have; all by default. What is not used later is not read anyway.
        Of files that have columns of types that plans do not have (nested ones, time zones) the
        others have to be named.
    hive_partitioning
        Whether directories called ``name=value`` are columns; by default they are where `source`
        is a directory and all files lie in such ones.

    Raises
    ------
    DataFileError
        If a file is missing, is not Parquet, or has other columns than the first.
    UnsupportedTypeError
        If the type of a column that is wanted is one that plans do not have.

    Examples
    --------
    >>> path = folder / "sales.parquet"
    >>> sales.write_parquet(path) == [path]
    True
    >>> remote_frame.read_parquet(path).select(col("qty").max()).to_dict()
    {'qty': [7]}
    """
    try:
        found = parquet_table(source, hive_partitioning, hide=columns is not None)
    except UnsupportedTypeError as error:
        if columns is not None:
            raise
        raise UnsupportedTypeError(f"{error}; name the others: columns=[…]") from None
    for column in columns or ():
        if (reason := found.hidden.get(column)) is not None:
            raise UnsupportedTypeError(f"{_table_name(source)}: column {column!r}: {reason}")
    name = _table_name(source)
    scan = build.scan(found.source(name), found.schema)
    frame = RemoteFrame(scan, executor_of(executor))
    return frame if columns is None else frame.select(list(columns))


def read_csv(
    source: FileSet,
    executor: Any = None,
    *,
    separator: str = ",",
    has_header: bool = True,
    quote_char: str | None = '"',
    columns: Sequence[str] | None = None,
    new_columns: Sequence[str] | None = None,
    schema: Mapping[str, Any] | pa.Schema | None = None,
    schema_overrides: Mapping[str, Any] | None = None,
    null_values: str | Sequence[str] | None = None,
    skip_rows: int = 0,
    n_rows: int | None = None,
    try_parse_dates: bool = True,
) -> RemoteFrame:
    r"""A frame over CSV files, which are read now.

    Parameters
    ----------
    source
        A file (also ``.gz`` and ``.zst``), a pattern, a directory, or a list of files.
    executor
        Who computes the frame: a session, an element's `action`, or None for this process.
    separator, quote_char
        Characters between and around values.
    has_header
        Whether the first line names the columns; else they are ``column_1``, ….
    columns
        Names of the columns to have; all by default.
    new_columns
        Names instead of those of the file.
    schema
        Names and types of all columns; else types are inferred from all rows.
    schema_overrides
        Types of some columns.
    null_values
        Texts that are null; an empty field always is.
    skip_rows
        Lines to leave out at the beginning.
    n_rows
        The most rows to read.
    try_parse_dates
        Whether dates and timestamps are recognized; else they are strings.

    Raises
    ------
    DataFileError
        If a file is missing, is not CSV, or has a value that is not of its column's type; the
        message names file and line.

    Examples
    --------
    >>> path = folder / "small.csv"
    >>> _ = path.write_text("item,price,day\n1,2.50,2020-01-31\n2,,2020-02-01\n")
    >>> frame = remote_frame.read_csv(path, schema_overrides={"price": "decimal(7,2)"})
    >>> [str(t) for t in frame.dtypes]
    ['int64', 'decimal32(7, 2)', 'date32[day]']
    >>> frame.filter(col("price").is_null()).to_dict()
    {'item': [2], 'price': [None], 'day': [datetime.date(2020, 2, 1)]}
    """
    return over_data(
        spool_csv(
            source,
            separator=separator,
            has_header=has_header,
            quote_char=quote_char,
            columns=columns,
            new_columns=new_columns,
            schema=schema,
            schema_overrides=schema_overrides,
            null_values=null_values,
            skip_rows=skip_rows,
            n_rows=n_rows,
            try_parse_dates=try_parse_dates,
        ),
        executor,
    )


def spool_csv(
    source: FileSet,
    *,
    separator: str = ",",
    has_header: bool = True,
    quote_char: str | None = '"',
    columns: Sequence[str] | None = None,
    new_columns: Sequence[str] | None = None,
    schema: Mapping[str, Any] | pa.Schema | None = None,
    schema_overrides: Mapping[str, Any] | None = None,
    null_values: str | Sequence[str] | None = None,
    skip_rows: int = 0,
    n_rows: int | None = None,
    try_parse_dates: bool = True,
) -> SpooledTable:
    """The rows of CSV files as Parquet in a memory file; see `read_csv`."""
    files = data_files(source, ".csv")
    for path in files:
        if not path.exists():
            raise DataFileError(f"{path}: there is no such file")
        if path.stat().st_size == 0:
            raise DataFileError(f"{path}: the file is empty, it does not even name its columns")
    options = {
        "delim": quoted_string(separator),
        "quote": quoted_string(quote_char or ""),
        "escape": quoted_string(quote_char or ""),
        "header": str(has_header).lower(),
        "skip": str(int(skip_rows)),
        "nullstr": _listing(["", *flat([null_values or []])]),
        "sample_size": "-1",
    }
    if schema is not None:
        if schema_overrides:
            raise ExpressionError("read_csv: give either `schema` or `schema_overrides`")
        options |= {"columns": _types(dict(_items(schema))), "auto_detect": "false"}
    else:
        if schema_overrides:
            options["types"] = _types(schema_overrides)
        # Plans have no time zones: times that have one stay strings.
        dates = ["TIME", "DATE", "TIMESTAMP"] if try_parse_dates else []
        options["auto_type_candidates"] = _listing(
            ["BOOLEAN", "BIGINT", "DOUBLE", *dates, "VARCHAR"]
        )
    return _read(files, options, has_header or schema is not None, new_columns, columns, n_rows)


scan_parquet = read_parquet
scan_csv = read_csv


def _read(
    files: Sequence[Path],
    options: Mapping[str, str],
    named: bool,
    new_columns: Sequence[str] | None,
    columns: Sequence[str] | None,
    n_rows: int | None,
) -> SpooledTable:
    listed = ", ".join(f"{k} = {v}" for k, v in options.items())
    text = f"read_csv({_listing([str(p) for p in files])}, {listed})"
    origin = f"CSV, {files[0].name}" + (f" and {len(files) - 1} more" if len(files) > 1 else "")
    with duckdb.connect() as connection:
        connection.execute("SET enable_progress_bar = false")
        connection.execute("SET arrow_output_version = '1.5'")
        connection.execute("SET produce_arrow_string_view = false")
        connection.execute("SET temp_directory = ''")
        try:
            given = [row[0] for row in connection.execute(f"DESCRIBE FROM {text}").fetchall()]
            names = list(given)
            if not named:
                names = [f"column_{i}" for i in range(1, len(given) + 1)]
            if new_columns is not None:
                if len(new_columns) > len(names):
                    raise ExpressionError(
                        f"read_csv: {len(new_columns)} new names for {len(names)} columns"
                    )
                names[: len(new_columns)] = new_columns
                if len({n.lower() for n in names}) < len(names):
                    raise AmbiguousColumnError(
                        f"read_csv: with new_columns={list(new_columns)} two columns are called "
                        "alike, but for case perhaps"
                    )
            for name in columns or ():
                if name not in names:
                    raise ColumnNotFoundError(name, names)
            wanted = ", ".join(
                f"{identifier(g)} AS {identifier(n)}"
                for g, n in zip(given, names, strict=True)
                if columns is None or n in columns
            )
            limit = "" if n_rows is None else f" LIMIT {int(n_rows)}"
            reader = connection.execute(f"SELECT {wanted} FROM {text}{limit}").to_arrow_reader()
            schema = canonical_schema(reader.schema).to_arrow()
            return SpooledTable.written(
                pa.RecordBatchReader.from_batches(schema, (b.cast(schema) for b in reader)), origin
            )
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            reason = _reason(error)
            if "sniffing" in reason:
                reason = _first_bad_line(connection, files, options) or reason
            raise DataFileError(f"{_named(files)}: {reason}") from None
        except OperatorError as error:
            raise DataFileError(f"{_named(files)}: {error}") from None


def _first_bad_line(
    connection: duckdb.DuckDBPyConnection, files: Sequence[Path], options: Mapping[str, str]
) -> str | None:
    """What is wrong with files of which DuckDB's guesses say no more than that they failed."""
    quote = options["quote"][1:-1]
    for path in files:
        try:
            with path.open(newline="", encoding="utf-8") as text:
                lines = csv.reader(
                    itertools.islice(text, int(options["skip"]), None),
                    delimiter=options["delim"][1:-1],
                    quotechar=quote or None,
                    quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
                )
                width = len(next(lines, []))
            names = _types({f"column_{i}": "string" for i in range(1, width + 1)})
            given = {**options, "columns": names, "auto_detect": "false"}
            del given["sample_size"], given["auto_type_candidates"]
            given.pop("types", None)
            listed = ", ".join(f"{k} = {v}" for k, v in given.items())
            connection.execute(
                f"SELECT count(*) FROM read_csv({quoted_string(str(path))}, {listed})"
            ).fetchall()
        except duckdb.Error as error:
            return _reason(error)
        except (OSError, UnicodeError, csv.Error, TypeError):
            return None
    return None


def _reason(error: Exception) -> str:
    """What DuckDB says of a file, without the advice that is about its own options."""
    lines = [line.strip() for line in str(error).splitlines()]
    kept = []
    for line in lines:
        if line.startswith(("Possible", "*", "Search space", "LINE ", "This type")):
            break
        if line:
            kept.append(line)
    return " ".join(kept)[:600] or type(error).__name__


def _named(files: Sequence[Path]) -> str:
    return str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"


def _items(schema: Mapping[str, Any] | pa.Schema) -> list[tuple[str, Any]]:
    if isinstance(schema, pa.Schema):
        return [(f.name, f.type) for f in schema]
    return list(schema.items())


def _types(types: Mapping[str, Any]) -> str:
    pairs = [f"{quoted_string(n)}: {quoted_string(sql_type(as_type(t)))}" for n, t in types.items()]
    return "{" + ", ".join(pairs) + "}"


def _listing(texts: Sequence[str]) -> str:
    return "[" + ", ".join(map(quoted_string, texts)) + "]"


def _table_name(source: FileSet) -> str:
    """What people see: the file's name, or that of the directory."""
    first = source if isinstance(source, str | os.PathLike) else source[0]
    stem = Path(first).stem
    return "".join(c if c.isalnum() or c == "_" else "_" for c in stem).strip("_") or "parquet"
