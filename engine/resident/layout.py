"""How a resident table lies in memory, as plain JSON between the session and its elements.

A table is cut into *chunks* of whole row groups, about `CHUNK_ROWS` rows each; a column is one
region of the session's resident memory element per chunk: its Arrow buffers, 64-byte aligned. Every
chunk is cut into *zones* of `ZONE_ROWS` rows, whose least and greatest values prune scans and of
which the copies of an element take their shares. Columns come and go one by one; all columns of a
table have the same chunks.
"""

from __future__ import annotations

from typing import Any, TypedDict

import msgspec

from libd.ref import Ref

__all__ = [
    "CHUNK_ROWS",
    "ELEMENT",
    "ZONE_ROWS",
    "Chunk",
    "ColumnSpec",
    "FillJob",
    "FillTable",
    "Grant",
    "Piece",
    "PlainTable",
    "TableSpec",
    "Within",
    "from_plain",
    "to_plain",
    "zones_of",
]

ELEMENT = "resident"
"""Name of the memory element, and of transports to it."""

ZONE_ROWS = 122_880
"""DuckDB's row group; a multiple of 64, so that bitmaps of zones begin on words."""

CHUNK_ROWS = 8 * ZONE_ROWS
"""Rows after which a chunk is full. Decoding one column of one takes a few dozen MB at most."""

Within = dict[str, tuple[int | None, int | None]]
"""Closed ranges of stored integers that rows must lie in to matter, by column; None is open."""


class Chunk(msgspec.Struct, frozen=True, array_like=True):
    """Row groups `first` … `last` of a file."""

    path: str
    first: int
    last: int
    rows: int


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """One column of one chunk.

    Attributes
    ----------
    ref
        Region, and as its extents the Arrow buffers: validity (length 0 if absent), offsets of
        strings, data.
    address
        Of the region.
    size
        Bytes of the region.
    nulls
        How many.
    zones
        Least and greatest stored integer per zone, None where there is none; empty for types
        without.
    """

    ref: Ref
    address: int
    size: int
    nulls: int
    zones: tuple[tuple[int, int] | None, ...] = ()


class ColumnSpec(msgspec.Struct, frozen=True, array_like=True):
    """A resident column: its type's name, its pieces (without zones where nobody asks for them)."""

    type: str
    pieces: tuple[Piece, ...]


class TableSpec(msgspec.Struct, frozen=True):
    """What an element may read of one table."""

    paths: tuple[str, ...]
    rows: tuple[int, ...]
    columns: dict[str, ColumnSpec]


class PlainTable(TypedDict):
    """A `TableSpec` in plain JSON. What is plain is kept beside each column: a query is told of
    hundreds of pieces, and an element opens one table at a time.
    """

    paths: list[str]
    rows: list[int]
    columns: dict[str, Any]


class Grant(TypedDict):
    """The resident columns of one query, and how to reach them. `durl` holds a key: it goes to
    elements, never into a result, a record or a log.
    """

    durl: str
    tables: list[PlainTable]


class FillTable(msgspec.Struct, frozen=True):
    """Columns to decode: name → type's name."""

    chunks: tuple[Chunk, ...]
    columns: dict[str, str]


class FillJob(msgspec.Struct, frozen=True):
    """What the elements of a filling application share out among themselves.

    `lease`: for how many seconds what they wrote outlives their connections, unless the session
    takes it over.
    """

    durl: str
    tables: tuple[FillTable, ...]
    lease: float


def zones_of(rows: int) -> list[tuple[int, int]]:
    """First row and number of rows of each zone of a chunk."""
    return [(at, min(ZONE_ROWS, rows - at)) for at in range(0, rows, ZONE_ROWS)]


def to_plain(value: msgspec.Struct) -> Any:
    """JSON types only."""
    return msgspec.json.decode(msgspec.json.encode(value))


def from_plain(data: Any, type: Any) -> Any:
    """What `to_plain` gave; `msgspec.ValidationError` if it is not."""
    return msgspec.convert(data, type)
