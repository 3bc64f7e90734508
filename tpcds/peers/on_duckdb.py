"""DuckDB as a peer: on the Parquet files, and on its own tables in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from tpcds.oracle import connect

__all__ = ["DuckdbOnParquet", "DuckdbOnTables"]


class DuckdbOnParquet:
    """Views of the Parquet files.

    Parameters
    ----------
    tables
        Files of each table.
    threads
        That DuckDB may use.
    memory_limit
        What DuckDB may hold, in its own notation; None leaves its default, 80 % of the machine.
        It never spills: what does not fit raises.
    """

    def __init__(
        self, tables: Mapping[str, Sequence[str]], threads: int, memory_limit: str | None = None
    ) -> None:
        self._tables = tables
        self._threads = threads
        self._memory_limit = memory_limit
        self._connection: duckdb.DuckDBPyConnection | None = None

    def load(self) -> None:
        """Make the views."""
        self._connection = connect(self._tables, self._threads)
        if self._memory_limit is not None:
            self._connection.execute(f"set memory_limit = '{self._memory_limit}'")

    def prepare(self, number: int, sql: str) -> Callable[[], pa.Table]:
        """DuckDB's dialect is that of the query texts."""
        connection = self._connection
        assert connection is not None
        return lambda: connection.execute(sql).to_arrow_table()

    def table(self, answer: pa.Table) -> pa.Table:
        """It is one."""
        return answer

    def figures(self) -> Mapping[str, Any]:
        """None."""
        return {}

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()


class DuckdbOnTables(DuckdbOnParquet):
    """Native tables in memory, with the statistics that DuckDB keeps of them."""

    def load(self) -> None:
        """Read everything."""
        super().load()
        assert self._connection is not None
        for table in self._tables:
            self._connection.execute(
                f"create table loaded as from {table}; drop view {table}; "
                f"alter table loaded rename to {table}"
            )
