"""Polars as a peer: its SQL and its streaming engine, on the Parquet files and on frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl
import pyarrow as pa

from tpcds.peers.dialect import for_polars

__all__ = ["PolarsOnFrames", "PolarsOnParquet"]


class PolarsOnParquet:
    """Lazy scans of the Parquet files.

    Parameters
    ----------
    tables
        Files of each table.
    threads
        Must be what POLARS_MAX_THREADS said when Polars was imported.
    """

    def __init__(self, tables: Mapping[str, Sequence[str]], threads: int) -> None:
        if pl.thread_pool_size() != threads:
            raise ValueError(f"Polars has {pl.thread_pool_size()} threads, not {threads}")
        self._tables = tables
        self._context = pl.SQLContext()

    def load(self) -> None:
        """Register the tables."""
        for table, files in self._tables.items():
            self._context.register(table, self._frame(files))

    def _frame(self, files: Sequence[str]) -> pl.LazyFrame:
        return pl.scan_parquet(list(files))

    def prepare(self, number: int, sql: str) -> Callable[[], pl.DataFrame]:
        """Put the query into Polars' dialect."""
        text = for_polars(number, sql)
        return lambda: self._context.execute(text).collect(engine="streaming")

    def table(self, answer: pl.DataFrame) -> pa.Table:
        """Polars' own export."""
        return answer.to_arrow()

    def figures(self) -> Mapping[str, Any]:
        """None."""
        return {}

    def close(self) -> None:
        """Nothing is held beyond the process."""


class PolarsOnFrames(PolarsOnParquet):
    """Frames in memory."""

    def _frame(self, files: Sequence[str]) -> pl.LazyFrame:
        return pl.read_parquet(list(files)).lazy()
