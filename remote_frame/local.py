"""Columns in local memory with the interface of a `FrameReader`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from operators.microseconds import in_microseconds
from operators.part_columns import written_schema
from remote_frame.errors import ColumnNotFoundError

__all__ = ["LocalTable", "MicrosecondData", "RenamedData"]


class LocalTable:
    """A table whose dictionaries and views are decoded when they are read."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    @property
    def origin(self) -> str:
        """What it is, for people."""
        return f"Arrow data ({self._table.num_rows} rows)"

    @property
    def schema(self) -> pa.Schema:
        """The columns, with plain types."""
        return written_schema(self._table.schema)

    def select(self, columns: Sequence[int]) -> LocalTable:
        """The same rows with only some columns."""
        return LocalTable(self._table.select(list(columns)))

    def table(self) -> pa.Table:
        """All rows."""
        schema = self.schema
        columns = [
            _plain(column, f.type) for column, f in zip(self._table.columns, schema, strict=True)
        ]
        return pa.Table.from_arrays(columns, schema=schema)

    def arrow_stream(self, columns: Sequence[str]) -> pa.Table:
        """The named columns; for none, the first one, so that rows can be counted."""
        known = self._table.column_names
        for name in columns:
            if name not in known:
                raise ColumnNotFoundError(name, known)
        wanted = [known.index(name) for name in columns] or [0]
        return self.select(wanted).table()


class RenamedData:
    """Columns under other names: those that tell them apart without regard to case.

    Parameters
    ----------
    data
        Columns that can be read again and again.
    names
        As many, all different.
    """

    def __init__(self, data: Any, names: Sequence[str]) -> None:
        self._data = data
        self._names = list(names)
        self.origin = str(getattr(data, "origin", "memory elements"))

    @property
    def schema(self) -> pa.Schema:
        """The columns under their new names."""
        fields = zip(self._data.schema, self._names, strict=True)
        return pa.schema([f.with_name(name) for f, name in fields])

    def select(self, columns: Sequence[int]) -> RenamedData:
        """The same rows with only some columns."""
        return RenamedData(self._data.select(columns), [self._names[i] for i in columns])

    def table(self) -> pa.Table:
        """All rows."""
        return self._data.table().rename_columns(self._names)

    def arrow_stream(self, columns: Sequence[str]) -> RenamedData:
        """The named columns; for none, the first one, so that rows can be counted."""
        for name in columns:
            if name not in self._names:
                raise ColumnNotFoundError(name, self._names)
        return self.select([self._names.index(name) for name in columns] or [0])

    def __arrow_c_stream__(self, requested_schema: object = None) -> Any:
        data = self._data if hasattr(self._data, "__arrow_c_stream__") else self._data.table()
        reader = pa.RecordBatchReader.from_stream(data)
        schema = self.schema
        batches = (pa.RecordBatch.from_arrays(b.columns, schema=schema) for b in reader)
        return pa.RecordBatchReader.from_batches(schema, batches).__arrow_c_stream__(
            requested_schema
        )


class MicrosecondData:
    """Columns whose timestamps of nanoseconds are made microseconds as they are read.

    Parameters
    ----------
    data
        Columns that can be read again and again.
    """

    def __init__(self, data: Any) -> None:
        self._data = data
        self.origin = str(getattr(data, "origin", "memory elements"))

    @property
    def schema(self) -> pa.Schema:
        """The columns; none counts nanoseconds."""
        return in_microseconds(self._data.schema.empty_table()).schema

    def select(self, columns: Sequence[int]) -> MicrosecondData:
        """The same rows with only some columns."""
        return MicrosecondData(self._data.select(columns))

    def table(self) -> pa.Table:
        """All rows."""
        return in_microseconds(self._data.table())

    def arrow_stream(self, columns: Sequence[str]) -> MicrosecondData:
        """The named columns; for none, what the data has for none."""
        return MicrosecondData(self._data.arrow_stream(columns))

    def __arrow_c_stream__(self, requested_schema: object = None) -> Any:
        reader = pa.RecordBatchReader.from_stream(self._data)
        batches = (
            made
            for batch in reader
            for made in in_microseconds(pa.Table.from_batches([batch])).to_batches()
        )
        return pa.RecordBatchReader.from_batches(self.schema, batches).__arrow_c_stream__(
            requested_schema
        )


def _plain(column: pa.ChunkedArray, type: pa.DataType) -> pa.ChunkedArray:
    """A column with its dictionary decoded and its views made plain."""
    if pt.is_dictionary(column.type):
        # Arrow decodes no dictionaries of views, which is what Polars' categories are.
        chunks = [c.dictionary.cast(type).take(c.indices) for c in column.chunks]
        return pa.chunked_array(chunks, type)
    return column if column.type == type else column.cast(type)
