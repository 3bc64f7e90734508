"""Bytes that a join moves, by strategy."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from operators.stats import TableStats, bytes_per_row

__all__ = ["broadcast_bytes", "shuffle_bytes", "table_bytes"]


def table_bytes(stats: TableStats, types: Sequence[pa.DataType]) -> float:
    """Estimated Arrow bytes of a relation."""
    return stats.rows * bytes_per_row(types, stats.columns)


def broadcast_bytes(small: float, parts: int) -> float:
    """Bytes written and read when every one of `parts` readers reads the whole of a side of
    `small` bytes.
    """
    return small + small * parts


def shuffle_bytes(left: float, right: float) -> float:
    """Bytes written and read when both sides are scattered by their keys."""
    return 2 * (left + right)
