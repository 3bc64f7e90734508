"""Table statistics from Parquet footers: nothing but metadata is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt

from operators.errors import OperatorError
from operators.stats import ColumnStats, TableStats, as_number

__all__ = ["parquet_stats"]

_SLICES = 32


def parquet_stats(paths: Sequence[str]) -> TableStats:
    """Rows, ranges, null fractions and estimated distinct values of files that are one table.

    Distinct values: what the footers say if they do; for integers, dates and booleans never
    more than the range; otherwise guessed from how well a dictionary-encoded column is packed.

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
    schema = footers[0].schema.to_arrow_schema()
    rows = sum(f.num_rows for f in footers)
    columns = tuple(_column(footers, i, t, rows) for i, t in enumerate(schema.types))
    return TableStats(float(rows), columns)


def _column(footers: Sequence[Any], index: int, type: pa.DataType, rows: int) -> ColumnStats:
    lows: list[float | None] = []
    highs: list[float | None] = []
    nulls = 0
    counts: list[int] = []
    spread: list[tuple[float, float, int]] = []
    raw = 0
    for footer in footers:
        for group in range(footer.num_row_groups):
            chunk = footer.row_group(group).column(index)
            raw += chunk.total_uncompressed_size
            known = chunk.statistics
            if known is None:
                lows.append(None)
                continue
            nulls += known.null_count or 0 if known.has_null_count else 0
            if known.has_distinct_count and known.distinct_count:
                counts.append(known.distinct_count)
            if known.has_min_max:
                lows.append(as_number(known.min))
                highs.append(as_number(known.max))
                if lows[-1] is not None and highs[-1] is not None and known.distinct_count:
                    spread.append((lows[-1], highs[-1], known.distinct_count))
            elif not known.has_null_count or known.null_count < chunk.num_values:
                lows.append(None)
    certain = bool(lows) and None not in lows and None not in highs
    low = min((v for v in lows if v is not None), default=None) if certain else None
    high = max((v for v in highs if v is not None), default=None) if certain else None
    filled = max(rows - nulls, 0)
    together = _together(spread) if spread and len(spread) == len(counts) else None
    distinct = _distinct(type, low, high, counts, together, filled, raw)
    width = None
    if pt.is_string(type) or pt.is_binary(type) or pt.is_large_string(type):
        # Dictionary pages hold each string once, so this errs on the small side: bound it below.
        width = max(raw / rows - 4, 8.0) if rows else None
    spans = [b - a for a, b in zip(lows, highs, strict=False) if a is not None and b is not None]
    whole = (high - low) * len(spans) if high is not None and low is not None else 0.0
    return ColumnStats(
        low,
        high,
        nulls / rows if rows else 0.0,
        distinct,
        width,
        spread=sum(spans) / whole if certain and whole else None,
    )


def _together(spread: Sequence[tuple[float, float, int]]) -> float:
    """Distinct values of all row groups from the range and distinct values of each.

    Where ranges lie apart, values add up; where they overlap, a group has its values at random
    among those of its range, so that a value is missing if all groups miss it. The range is looked
    at in slices.
    """
    low, high = min(s[0] for s in spread), max(s[1] for s in spread)
    edges = np.linspace(low, high + 1, _SLICES + 1)
    missing = np.ones(_SLICES)
    for first, last, count in spread:
        covered = np.clip(np.minimum(edges[1:], last + 1) - np.maximum(edges[:-1], first), 0, None)
        share = min(count / (last - first + 1), 1.0)
        missing *= 1 - share * covered / np.diff(edges)
    return max(float(np.sum((1 - missing) * np.diff(edges))), max(float(s[2]) for s in spread))


def _distinct(
    type: pa.DataType,
    low: float | None,
    high: float | None,
    counts: Sequence[int],
    together: float | None,
    filled: int,
    raw: int,
) -> float | None:
    if not filled:
        return 0.0
    limit = float(filled)
    if low is not None and high is not None:
        step = 10.0**-type.scale if pt.is_decimal(type) else 1.0
        if pt.is_integer(type) or pt.is_date(type) or pt.is_decimal(type) or pt.is_boolean(type):
            limit = min(limit, (high - low) / step + 1)
    if counts:
        return min(float(max(counts)) if together is None else together, limit)
    if pt.is_floating(type) or pt.is_string(type) or pt.is_large_string(type):
        # A dictionary of d values costs about log2(d) bits a row; plain values cost their width.
        bits = raw * 8 / filled
        guess = 2.0 ** min(bits, 40.0) if bits < 20 else filled * 0.5
        return max(min(guess, limit), 1.0)
    return max(limit, 1.0)
