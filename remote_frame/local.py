"""Columns in local memory with the interface of a `FrameReader`."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from operators.partition import written_schema
from remote_frame.errors import ColumnNotFoundError

__all__ = ["LocalTable"]


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
        return self._table.cast(self.schema)

    def arrow_stream(self, columns: Sequence[str]) -> pa.Table:
        """The named columns; for none, the first one, so that rows can be counted."""
        known = self._table.column_names
        for name in columns:
            if name not in known:
                raise ColumnNotFoundError(name, known)
        wanted = [known.index(name) for name in columns] or [0]
        return self.select(wanted).table()
