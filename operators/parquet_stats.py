"""Table statistics from Parquet footers and the heads of dictionaries: no data is read."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt

from operators.errors import OperatorError
from operators.parquet_dictionary import read_dictionary_page
from operators.stats import ColumnStats, TableStats, as_number
from operators.types import canonical, carried

__all__ = ["parquet_stats"]

_SLICES = 64
_DICTIONARIES = 8
"""Row groups whose dictionaries are looked into: eight of a thousand say as much."""
_PAGE_HEADERS = 4096


def parquet_stats(paths: Sequence[str]) -> TableStats:
    """Rows, ranges, null fractions and estimated distinct values of files that are one table; of
    the columns whose types plans have.

    Distinct values: what the footers say if they do, else the sizes of dictionaries (of so many
    row groups at most that large tables take no longer); for integers, dates and booleans never
    more than the range; otherwise guessed from how well a column is packed.

    Raises
    ------
    OperatorError
        If a footer cannot be read; the message names the file.
    """
    footers = []
    for path in paths:
        try:
            footers.append(pq.read_metadata(path))
        except (OSError, ValueError) as error:
            raise OperatorError(f"cannot read the Parquet footer of {path}: {error}") from error
    if not footers:
        raise OperatorError("a table needs at least one Parquet file")
    fields = footers[0].schema.to_arrow_schema()
    places = _places(fields)
    columns = [_Column(canonical(fields.field(i).type)) for i in places]
    every = max(1, sum(f.num_row_groups for f in footers) // _DICTIONARIES)
    number = 0
    for path, footer in zip(paths, footers, strict=True):
        with _opened(path) as file:
            for group in range(footer.num_row_groups):
                chunks = footer.row_group(group)
                looked_into = file if number % every == 0 else None
                for place, column in zip(places.values(), columns, strict=True):
                    column.add(chunks.column(place), looked_into)
                number += 1
    rows = sum(f.num_rows for f in footers)
    groups = [f.row_group(g).num_rows for f in footers for g in range(f.num_row_groups)]
    columns_stats = tuple(c.stats(rows) for c in columns)
    return TableStats(float(rows), columns_stats, max(groups, default=0))


@contextmanager
def _opened(path: str) -> Iterator[int]:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield file
    finally:
        os.close(file)


def _places(fields: pa.Schema) -> dict[int, int]:
    """Where in the files' columns those stand that plans can name, by their position in the schema:
    a nested column is as many as it has leaves.
    """
    positions, _ = carried(fields)
    firsts = list(accumulate((_leaves(f.type) for f in fields), initial=0))
    return {i: firsts[i] for i in positions}


def _leaves(type: pa.DataType) -> int:
    if isinstance(type, pa.BaseExtensionType):
        return _leaves(type.storage_type)
    if pt.is_dictionary(type):
        return _leaves(type.value_type)
    if not pt.is_nested(type):
        return 1
    return sum(_leaves(type.field(i).type) for i in range(type.num_fields))


@dataclass(slots=True)
class _Column:
    """What the chunks of one column say."""

    type: pa.DataType
    lows: list[float | None] = field(default_factory=list)
    highs: list[float | None] = field(default_factory=list)
    nulls: int = 0
    raw: int = 0
    counts: list[tuple[int, int]] = field(default_factory=list)
    """Distinct values of a chunk, and its rows without NULL."""
    spread: list[tuple[float, float, int]] = field(default_factory=list)
    """Least and greatest value of a chunk, and its distinct values."""
    uncounted: bool = False

    def add(self, chunk: Any, file: int | None) -> None:
        """One more chunk; the dictionary is looked into if the open file is given."""
        self.raw += chunk.total_uncompressed_size
        known = chunk.statistics
        if known is None:
            self.lows.append(None)
            return
        nulls = known.null_count or 0 if known.has_null_count else 0
        self.nulls += nulls
        low = high = None
        if known.has_min_max:
            low, high = as_number(known.min), as_number(known.max)
            self.lows.append(low)
            self.highs.append(high)
        elif not known.has_null_count or known.null_count < chunk.num_values:
            self.lows.append(None)
        distinct = known.distinct_count if known.has_distinct_count else None
        if not distinct and file is not None:
            distinct = _of_dictionary(chunk, file)
            self.uncounted |= distinct is None
        elif not distinct and self.counts:
            distinct = min(self.counts[-1][0], chunk.num_values)  # as in the last one looked into
        if distinct:
            self.counts.append((distinct, max(chunk.num_values - nulls, distinct)))
            if low is not None and high is not None and math.isfinite(high - low):
                self.spread.append((low, high, distinct))

    def stats(self, rows: int) -> ColumnStats:
        """Of the column in all `rows` of its table."""
        certain = bool(self.lows) and None not in self.lows and None not in self.highs
        low = min((v for v in self.lows if v is not None), default=None) if certain else None
        high = max((v for v in self.highs if v is not None), default=None) if certain else None
        filled = max(rows - self.nulls, 0)
        width = None
        if _is_text(self.type):
            # Dictionary pages hold each string once, so this errs on the small side: bound it.
            width = max(self.raw / rows - 4, 8.0) if rows else None
        null_fraction = self.nulls / rows if rows else 0.0
        group_share = None
        if low is not None and high is not None and 0 < high - low < math.inf:
            ends = zip(self.lows, self.highs, strict=False)
            spans = [b - a for a, b in ends if a is not None and b is not None]
            group_share = sum(spans) / len(spans) / (high - low)
        return ColumnStats(
            low,
            high,
            null_fraction,
            self._distinct(low, high, filled),
            width,
            group_share=group_share,
        )

    def _distinct(self, low: float | None, high: float | None, filled: int) -> float | None:
        if not filled:
            return 0.0
        type = self.type
        limit = float(filled)
        if low is not None and high is not None:
            step = 10.0**-type.scale if pt.is_decimal(type) else 1.0
            if not (pt.is_floating(type) or pt.is_timestamp(type)):
                limit = min(limit, (high - low) / step + 1)
        if self.counts and not self.uncounted:
            if len(self.spread) == len(self.counts) and not pt.is_decimal(type):
                return min(_together(self.spread), limit)
            return min(_drawn_from(self.counts, filled), limit)
        if pt.is_floating(type) or _is_text(type):
            # A dictionary of d values costs about log2(d) bits a row; plain values their width.
            bits = self.raw * 8 / filled
            guess = 2.0 ** min(bits, 40.0) if bits < 20 else filled * 0.5
            return max(min(guess, limit), 1.0)
        return max(limit, 1.0)


def _is_text(type: pa.DataType) -> bool:
    return bool(pt.is_string(type) or pt.is_binary(type))


def _of_dictionary(chunk: Any, file: int) -> int | None:
    """Distinct values of a chunk that is encoded by a dictionary from its first to its last row.

    A writer whose dictionary grows too large goes on with plain values: the chunk is then larger
    than the dictionary and so many positions in it.
    """
    offset = chunk.dictionary_page_offset
    page = None if offset is None else read_dictionary_page(file, offset)
    if page is None or not page.values:
        return None
    bits = max(page.values - 1, 1).bit_length()
    positions = chunk.num_values * (bits + 1) / 8 + _PAGE_HEADERS
    return page.values if chunk.total_uncompressed_size <= page.bytes + positions else None


def _drawn_from(counts: Sequence[tuple[int, int]], filled: int) -> float:
    """Distinct values of `filled` rows from those of some chunks, as if each chunk had drawn its
    rows at random: few values that come again and again are all there are, values that hardly
    repeat in a chunk are others in the next.
    """
    values, rows = max(counts)
    if values >= rows:
        return float(filled)
    low, high = float(values), 1e3 * rows
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if _seen(middle, rows) < values else (low, middle)
    return max(_seen(high, filled), float(values))


def _seen(values: float, rows: float) -> float:
    """How many of `values` equally frequent values stand in `rows` rows."""
    return values * -math.expm1(-rows / values)


def _together(spread: Sequence[tuple[float, float, int]]) -> float:
    """Distinct values of all row groups from the range and distinct values of each.

    Where ranges lie apart, values add up; where they overlap, a group has its values at random
    among those of its range, so that a value is missing if all groups miss it. The range is looked
    at in slices: from one end of a group's range to the next, or evenly if those are too many.
    Groups that all have the same least and greatest value have the same values: random ones would
    hardly all have met both.
    """
    if len({s[:2] for s in spread}) == 1:
        return float(max(s[2] for s in spread))
    ends = np.array(spread)
    edges = np.unique(np.concatenate([ends[:, 0], ends[:, 1] + 1]))
    if len(edges) > _SLICES:
        edges = np.linspace(edges[0], edges[-1], _SLICES + 1)
    missing = np.ones(len(edges) - 1)
    for first, last, count in spread:
        covered = np.clip(np.minimum(edges[1:], last + 1) - np.maximum(edges[:-1], first), 0, None)
        share = min(count / (last - first + 1), 1.0)
        missing *= 1 - share * covered / np.diff(edges)
    return max(float(np.sum((1 - missing) * np.diff(edges))), max(float(s[2]) for s in spread))
