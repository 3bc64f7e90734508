"""Shares of base tables: which rows of which Parquet files one copy of an element reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import DataError

__all__ = ["Share", "share"]


@dataclass(frozen=True, slots=True)
class Share:
    """Rows of Parquet files: for each path the half-open range of row numbers to read.

    `like` is a file that has the columns; it matters where there are no rows.
    """

    ranges: tuple[tuple[str, int, int], ...]
    like: str

    @property
    def rows(self) -> int:
        """Rows of all ranges."""
        return sum(stop - start for _, start, stop in self.ranges)

    @property
    def sql(self) -> str:
        """The rows as a DuckDB query. DuckDB skips row groups outside the ranges."""
        if not self.ranges:
            return f"SELECT * FROM read_parquet({_text(self.like)}) LIMIT 0"
        return "\nUNION ALL BY NAME\n".join(_query(*r) for r in self.ranges)


def _query(path: str, start: int, stop: int) -> str:
    return (
        "SELECT * EXCLUDE (file_row_number) "
        f"FROM read_parquet({_text(path)}, file_row_number = true) "
        f"WHERE file_row_number >= {start} AND file_row_number < {stop}"
    )


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def share(paths: Sequence[str], index: int, count: int) -> Share:
    """What copy `index` of `count` reads: a contiguous run of rows, cut between row groups where
    there are enough.

    The shares of all copies are the whole table, each row once.

    Raises
    ------
    DataError
        If a file is missing or is not Parquet; the message names it.
    """
    groups = [
        (path, start, stop) for path in paths for start, stop in _row_groups(path) if stop > start
    ]
    if len(groups) < count:
        groups = [piece for group in groups for piece in _pieces(group, count)]
    total = sum(stop - start for _, start, stop in groups)
    ranges: list[tuple[str, int, int]] = []
    before = 0
    for path, start, stop in groups:
        middle = before + (stop - start) / 2
        before += stop - start
        if int(middle * count / total) != index:
            continue
        if ranges and ranges[-1][0] == path and ranges[-1][2] == start:
            start = ranges.pop()[1]
        ranges.append((path, start, stop))
    return Share(tuple(ranges), paths[0])


def _row_groups(path: str) -> list[tuple[int, int]]:
    try:
        metadata = pq.read_metadata(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: {str(error).splitlines()[0]}") from error
    ranges, start = [], 0
    for number in range(metadata.num_row_groups):
        stop = start + metadata.row_group(number).num_rows
        ranges.append((start, stop))
        start = stop
    return ranges


def _pieces(group: tuple[str, int, int], count: int) -> list[tuple[str, int, int]]:
    path, start, stop = group
    cuts = [start + (stop - start) * i // count for i in range(count + 1)]
    return [(path, a, b) for a, b in pairwise(cuts) if b > a]
