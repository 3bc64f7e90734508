"""A table as Parquet in an anonymous memory file: small, and readable by others of the same user.

A memory file has no name that could outlive its owner. Others open it under ``/proc/PID/fd/N``.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from operators.part_columns import written_schema
from remote_frame.errors import ColumnNotFoundError, StorageError

__all__ = ["SpooledTable"]

_ROW_GROUP = 122_880


class SpooledTable:
    """Columns in a memory file; gone, bytes and all, with the last reference.

    Parameters
    ----------
    descriptor
        Of the file, which is owned once there is a table.
    origin
        What it was read from, for people.
    """

    def __init__(self, descriptor: int, origin: str) -> None:
        self.descriptor = descriptor
        self.origin = origin
        with pq.ParquetFile(self.path) as file:
            self._stored = file.schema_arrow
            self.rows: int = file.metadata.num_rows
        weakref.finalize(self, _released, descriptor, os.getpid())

    @classmethod
    def written(cls, data: pa.Table | pa.RecordBatchReader, origin: str) -> SpooledTable:
        """The rows of `data`, which may be far more than fits into memory decoded.

        Raises
        ------
        StorageError
            If they cannot be written as Parquet, or memory does not suffice.
        """
        descriptor = os.memfd_create("scad-table", os.MFD_CLOEXEC)
        try:
            with (
                os.fdopen(os.dup(descriptor), "wb") as file,
                pq.ParquetWriter(file, data.schema, compression="zstd") as writer,
            ):
                for table in _groups(data):
                    writer.write_table(table, row_group_size=_ROW_GROUP)
            return cls(descriptor, origin)
        except (pa.ArrowException, OSError) as error:
            os.close(descriptor)
            raise StorageError(f"{origin}: {error}") from error
        except BaseException:
            os.close(descriptor)
            raise

    @property
    def path(self) -> str:
        """Where processes of the same user can open the file while this object lives."""
        return f"/proc/{os.getpid()}/fd/{self.descriptor}"

    @property
    def schema(self) -> pa.Schema:
        """The columns, with plain types."""
        return written_schema(self._stored)

    def select(self, columns: Sequence[int]) -> SpooledColumns:
        """The same rows with only some columns, by position."""
        return SpooledColumns(self, [self._stored.names[i] for i in columns])

    def table(self) -> pa.Table:
        """All rows."""
        return self.select(range(len(self._stored))).table()

    def arrow_stream(self, columns: Sequence[str]) -> SpooledColumns:
        """The named columns; for none, the first one, so that rows can be counted."""
        for name in columns:
            if name not in self._stored.names:
                raise ColumnNotFoundError(name, self._stored.names)
        return SpooledColumns(self, list(columns) or self._stored.names[:1])


class SpooledColumns:
    """Some columns of a spooled table; they can be read again and again."""

    def __init__(self, owner: SpooledTable, names: Sequence[str]) -> None:
        self._owner = owner
        self._names = list(names)

    @property
    def schema(self) -> pa.Schema:
        """The columns, with plain types."""
        whole = self._owner.schema
        return pa.schema([whole.field(n) for n in self._names])

    def select(self, columns: Sequence[int]) -> SpooledColumns:
        """The same rows with only some columns, by position."""
        return SpooledColumns(self._owner, [self._names[i] for i in columns])

    def table(self) -> pa.Table:
        """All rows."""
        return pq.read_table(self._owner.path, columns=self._names).cast(self.schema)

    def arrow_stream(self, columns: Sequence[str]) -> SpooledColumns:
        """The named columns; for none, the first one."""
        return self._owner.arrow_stream(list(columns) or self._names[:1])

    def __arrow_c_stream__(self, requested_schema: object = None) -> Any:
        schema = self.schema

        def batches() -> Iterator[pa.RecordBatch]:
            with pq.ParquetFile(self._owner.path) as file:
                for batch in file.iter_batches(_ROW_GROUP, columns=self._names):
                    yield batch.select(self._names).cast(schema)

        reader = pa.RecordBatchReader.from_batches(schema, batches())
        return reader.__arrow_c_stream__(requested_schema)


def _groups(data: pa.Table | pa.RecordBatchReader) -> Iterator[pa.Table]:
    """`data` in pieces of a row group."""
    if isinstance(data, pa.Table):
        yield data
        return
    pending: list[pa.RecordBatch] = []
    count = 0
    for batch in data:
        pending.append(batch)
        count += batch.num_rows
        if count >= _ROW_GROUP:
            yield pa.Table.from_batches(pending, data.schema)
            pending, count = [], 0
    if pending:
        yield pa.Table.from_batches(pending, data.schema)


def _released(descriptor: int, owner: int) -> None:
    # Somebody may hold the file open longer than the table lives: its bytes go back now. In a child
    # of fork they are still its parent's.
    if os.getpid() == owner:
        os.ftruncate(descriptor, 0)
    os.close(descriptor)
