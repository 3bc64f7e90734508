"""How many rows and bytes a relation has: guesses from the files' statistics, never part of an
answer.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

from operators.cardinality import estimate
from operators.file_versions import FileVersion
from operators.parquet_stats import parquet_stats
from operators.rel import InputSource, ParquetSource, Rel, Source
from operators.schema import Schema
from operators.stats import ColumnStats, TableStats, bytes_per_row

__all__ = ["Estimates", "KnownTables"]


KnownTables: TypeAlias = dict[tuple[str, ...], tuple[tuple[FileVersion, ...], TableStats]]
"""Statistics of tables, by their files, with the files' states (see `ParquetSource`)."""


class Estimates:
    """Estimates for the relations of one query; the `Estimator` of `engine.stages`.

    Parameters
    ----------
    tables
        Statistics of base tables, by their files, that are known already. What is read from
        footers is added to it.
    """

    def __init__(self, tables: KnownTables | None = None) -> None:
        self._tables = {} if tables is None else tables
        self._exchanges: dict[str, TableStats] = {}
        self._known: dict[int, tuple[Rel, TableStats]] = {}

    def with_own_exchanges(self) -> Estimates:
        """The same estimates for another way to cut the query: exchanges have the same names in
        each.
        """
        other = Estimates(self._tables)
        other._known = dict(self._known)
        return other

    def forget(self) -> None:
        """Let go of the relations that were estimated: of what an optimizer tried, hundreds."""
        self._known.clear()

    def same(self, rel: Rel, like: Rel) -> None:
        """Let `rel` have the estimate of `like`, if that is known: they have the same rows."""
        known = self._known.get(id(like))
        if known is not None:
            self._known.setdefault(id(rel), (rel, known[1]))

    def rows(self, rel: Rel) -> float:
        """Rows of `rel`, at least one."""
        return max(1.0, self._estimate(rel).rows)

    def width(self, schema: Schema) -> float:
        """Bytes of an average row as it stands in a memory element."""
        return max(1.0, bytes_per_row(schema.types))

    def column(self, rel: Rel, position: int) -> ColumnStats:
        """What is known of a column of `rel`."""
        return self._estimate(rel).columns[position]

    def row_group(self, source: Source) -> int:
        """Rows of the largest row group of a table; 0 if that is not known."""
        stats = self._look_up(source)
        return 0 if stats is None else stats.row_group or 0

    def note(self, name: str, like: Rel) -> None:
        """Remember that `InputSource(name)` carries the rows of `like`."""
        self._exchanges[name] = self._estimate(like)

    def _estimate(self, rel: Rel) -> TableStats:
        known = self._known.get(id(rel))
        return estimate(rel, self._look_up, self._known) if known is None else known[1]

    def _look_up(self, source: Source) -> TableStats | None:
        # A share of a table counts as the whole of it: sizes are those of all copies together.
        if isinstance(source, ParquetSource):
            known = self._tables.get(source.paths)
            if known is None or known[0] != source.versions:
                known = source.versions, parquet_stats(source.paths)
                self._tables[source.paths] = known
            stats = known[1]
            unknown = (ColumnStats(),) * len(source.hive)
            return replace(stats, columns=stats.columns + unknown) if unknown else stats
        if isinstance(source, InputSource):
            return self._exchanges.get(source.name)
        return None
