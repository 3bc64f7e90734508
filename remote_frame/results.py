"""What a frame is computed into: Arrow, pandas, Polars, DuckDB, files, memory elements."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.types as pt

from remote_frame.errors import ExpressionError, FrameError
from remote_frame.planned import Planned
from remote_frame.scopes import position

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import polars as pl

    from libd import Transport

__all__ = ["Results", "widened"]

_ROW_GROUP = 122_880


class Results(Planned):
    """The methods of a `RemoteFrame` that compute it."""

    __slots__ = ()

    def collect(self) -> pa.Table:
        """Compute the rows. Those of a frame that was merely opened may be views of its memory."""
        return self.executor.collect(self.plan)

    to_arrow = collect

    def to_pandas(self, **options: Any) -> pd.DataFrame:
        """Compute the rows into a pandas frame; `options` are those of `pyarrow.Table.to_pandas`.

        Examples
        --------
        >>> sales.select("item", "qty").head(1).to_pandas().to_dict("records")
        [{'item': 1, 'qty': 5}]
        """
        frame: pd.DataFrame = widened(self.collect()).to_pandas(**options)
        return frame

    def to_polars(self) -> pl.DataFrame:
        """Compute the rows into a Polars frame.

        Examples
        --------
        >>> sales.select("item", "qty").to_polars().shape
        (5, 2)
        """
        import polars as pl

        return pl.DataFrame(widened(self.collect()))

    def to_duckdb(self, connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyRelation:
        """Compute the rows into a relation of a DuckDB connection.

        Examples
        --------
        >>> import duckdb
        >>> with duckdb.connect() as connection:
        ...     sales.to_duckdb(connection).aggregate("max(qty)").fetchall()
        [(7,)]
        """
        return connection.from_arrow(self.collect())

    def to_dict(self) -> dict[str, list[Any]]:
        """Compute the rows into lists of Python values by column."""
        return dict(self.collect().to_pydict())

    def to_dicts(self) -> list[dict[str, Any]]:
        """Compute the rows into a list of dicts.

        Examples
        --------
        >>> sales.select("item").head(1).to_dicts()
        [{'item': 1}]
        """
        return list(self.collect().to_pylist())

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Compute the rows as an Arrow stream (PyCapsule protocol); each call computes anew."""
        return self.collect().__arrow_c_stream__(requested_schema)

    def write(self, transport: Transport) -> dict[str, Any]:
        """Compute the rows into a memory element and return their handle (plain JSON)."""
        from remote_frame.storage import write

        return write(self, transport)

    def write_parquet(
        self,
        path: str | os.PathLike[str],
        *,
        partition_by: str | Sequence[str] | None = None,
        compression: str = "zstd",
        row_group_size: int = _ROW_GROUP,
        rows_per_file: int | None = None,
    ) -> list[Path]:
        """Compute the rows into a Parquet file, or into several in a directory.

        A file appears under its name when it is complete; if anything fails, nothing new is left.

        Parameters
        ----------
        path
            The file; with `partition_by` or `rows_per_file` the directory, which is made.
        partition_by
            Columns by whose values rows are divided, in directories ``name=value``; they are not
            in the files (hive's layout, which `read_parquet` reads). No rows are one empty file
            with all columns.
        rows_per_file
            The most rows of a file.

        Returns
        -------
        list of pathlib.Path
            The files.

        Raises
        ------
        FrameError
            If a file cannot be written; the message names it.
        """
        import pyarrow.dataset as ds
        import pyarrow.parquet as pq

        target = Path(path)
        if partition_by is None and rows_per_file is None:
            with _written(target) as temporary, self._stream() as reader:
                with pq.ParquetWriter(temporary, reader.schema, compression=compression) as writer:
                    for batch in _batches(reader, row_group_size):
                        writer.write_table(batch, row_group_size=row_group_size)
            return [target]
        names = [partition_by] if isinstance(partition_by, str) else list(partition_by or ())
        for name in names:
            position(self.plan.schema, name)
        if len(names) == len(self.plan.schema):
            raise ExpressionError("write_parquet: partition_by leaves no column for the files")
        if rows_per_file is not None and rows_per_file < 1:
            raise ExpressionError(f"write_parquet: rows_per_file={rows_per_file}")
        most = rows_per_file or 0
        with _written(target, directory=True) as temporary, self._stream() as reader:
            ds.write_dataset(
                reader,
                temporary,
                format="parquet",
                partitioning=names or None,
                partitioning_flavor="hive" if names else None,
                file_options=ds.ParquetFileFormat().make_write_options(compression=compression),
                max_rows_per_file=most,
                max_rows_per_group=min(row_group_size, most or row_group_size),
            )
            made = sorted(p.relative_to(temporary) for p in temporary.rglob("*.parquet"))
            if not made:
                # No value names a directory: all columns are in the file, in the order in which
                # they are read back.
                inside = [n for n in reader.schema.names if n not in names]
                empty = reader.schema.empty_table().select([*inside, *names])
                made = [Path("part-0.parquet")]
                pq.write_table(empty, temporary / made[0], compression=compression)
        return [target / p for p in made]

    def write_csv(
        self,
        path: str | os.PathLike[str],
        *,
        separator: str = ",",
        include_header: bool = True,
    ) -> Path:
        """Compute the rows into a CSV file, strings in quotes, null an empty field.

        Raises
        ------
        FrameError
            If the file cannot be written; the message names it.
        """
        from pyarrow import csv

        target = Path(path)
        options = csv.WriteOptions(include_header=include_header, delimiter=separator)
        with _written(target) as temporary, self._stream() as reader:
            with csv.CSVWriter(str(temporary), reader.schema, write_options=options) as writer:
                for batch in reader:
                    writer.write_batch(batch)
        return target

    @contextmanager
    def _stream(self) -> Iterator[pa.RecordBatchReader]:
        """The rows as they are made, where the executor can; decimals as everybody reads them."""
        stream = getattr(self.executor, "stream", None)
        if stream is None:
            table = widened(self.collect())
            yield table.to_reader(_ROW_GROUP)
            return
        with stream(self.plan) as reader:
            schema = _wide_schema(reader.schema)
            batches = (batch.cast(schema) for batch in reader)
            yield pa.RecordBatchReader.from_batches(schema, batches)


def widened(table: pa.Table) -> pa.Table:
    """`table` with decimals as the decimal128 that everybody reads."""
    schema = _wide_schema(table.schema)
    return table if schema == table.schema else table.cast(schema)


def _wide_schema(schema: pa.Schema) -> pa.Schema:
    fields = []
    for f in schema:
        narrow = pt.is_decimal32(f.type) or pt.is_decimal64(f.type)
        type = pa.decimal128(f.type.precision, f.type.scale) if narrow else f.type
        fields.append(pa.field(f.name, type, f.nullable))
    return pa.schema(fields)


def _batches(reader: pa.RecordBatchReader, rows: int) -> Iterator[pa.Table]:
    """Tables of about `rows` rows, so that row groups are not as small as batches."""
    pending: list[pa.RecordBatch] = []
    count = 0
    for batch in reader:
        pending.append(batch)
        count += batch.num_rows
        if count >= rows:
            yield pa.Table.from_batches(pending, reader.schema)
            pending, count = [], 0
    if pending:
        yield pa.Table.from_batches(pending, reader.schema)


@contextmanager
def _written(target: Path, directory: bool = False) -> Iterator[Path]:
    """A temporary place beside `target` that becomes it if all goes well, and nothing else."""
    if directory and target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FrameError(f"{target}: it exists already, and is not an empty directory")
    import shutil

    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise FrameError(f"{target}: {error.strerror or error}") from error
    try:
        temporary = folder / ("files" if directory else target.name)
        if directory:
            temporary.mkdir()
        yield temporary
        if directory and target.exists():
            target.rmdir()
        os.replace(temporary, target)
    except (OSError, pa.ArrowException) as error:
        raise FrameError(f"{target}: cannot be written: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
