"""Reading resident columns in an element: views where the transport maps, copies elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from engine.resident.layout import (
    ELEMENT,
    ColumnSpec,
    Grant,
    TableSpec,
    Within,
    from_plain,
    zones_of,
)
from openwhisk.errors import TransportNotGrantedError
from operators.kernel import InMemory, KeySet
from remote_frame.types import buffer_kinds, type_from_text

if TYPE_CHECKING:
    from libd import Transport
    from openwhisk.runtime import Action

__all__ = [
    "Kept",
    "ResidentTable",
    "Zone",
    "find",
    "neighbours_joined",
    "select_zones",
    "shared_out",
]

# Of an element's memory, what columns that have to be copied may take at once.
_COPIED_SHARE = 0.25

# Zones that on average span less than this of a column's values are worth a look at its keys.
_CLUSTERED = 0.7

# Keys that more than this share of rows have are cheaper looked up by the join that wants them.
_MOST_KEPT = 0.7
_UNKNOWN_SHARE = 0.5

Run = tuple[int, int, int]
"""Chunk, first row in it, number of rows."""


class Zone(NamedTuple):
    """Zone `number` of a chunk: its first row there, and how many rows it has."""

    chunk: int
    number: int
    first: int
    rows: int


class Kept(NamedTuple):
    """Keys of a column without which rows do not matter, and the share of rows that are expected to
    have them: as if values were spread evenly.
    """

    column: str
    keys: KeySet
    share: float


def find(
    params: Mapping[str, Any],
    paths: Sequence[str],
    columns: Sequence[str],
    within: Within | None = None,
) -> tuple[str, TableSpec] | None:
    """How to reach a table, if all these columns of it are resident for this query. `within` has
    the columns that prune zones.
    """
    given: Grant | None = params.get(ELEMENT)
    if given is None:
        return None
    # Only the table that is asked for: with all of their addresses they take a millisecond.
    wanted = list(paths)
    found = next((t for t in given["tables"] if t["paths"] == wanted), None)
    if found is None or not found["columns"] or any(c not in found["columns"] for c in columns):
        return None
    needed = {*(columns or [next(iter(found["columns"]))]), *(within or ())}
    chosen = {name: spec for name, spec in found["columns"].items() if name in needed}
    return given["durl"], from_plain({**found, "columns": chosen}, TableSpec)


class ResidentTable:
    """Some columns of the rows of one table that matter, or of one copy's share of them.

    Parameters
    ----------
    table, durl
        What `find` gave.
    columns
        Names of the columns to have. None at all is some column, so that rows can be counted.
    share
        ``(index, count)``: of the zones that matter, those of copy `index` of `count`. What is
        left out later (`narrowed`) does not change whose the others are: copies need not agree.
    within
        Ranges that prune zones; rows outside of them may still be there.
    """

    def __init__(
        self,
        table: TableSpec,
        durl: str,
        action: Action,
        columns: Sequence[str],
        share: tuple[int, int] = (0, 1),
        within: Within | None = None,
    ) -> None:
        self._table = table
        self._action = action
        self._durl = durl
        self._columns = list(columns) or [next(iter(table.columns))]
        self._zones = tuple(shared_out(select_zones(table, within or {}), share))
        self._kept: tuple[Kept, ...] = ()
        self._transport: Transport | None = None

    @property
    def schema(self) -> pa.Schema:
        """The columns, with their stored types."""
        return self._schema(self._columns)

    @property
    def zones(self) -> Sequence[Zone]:
        """Those that are read."""
        return self._zones

    @property
    def rows(self) -> int:
        """Rows that are read."""
        return sum(zone.rows for zone in self._zones)

    @property
    def rows_wanted(self) -> float:
        """Of these rows, how many are expected to have the keys that are asked for, as if those of
        several columns had nothing to do with one another.
        """
        return self.rows * math.prod(k.share for k in self._kept)

    @property
    def kept(self) -> Sequence[Kept]:
        """Keys, the most selective first: only rows whose values are among them all matter."""
        return self._kept

    def prunable(self, column: str) -> bool:
        """Whether a range of a column could leave zones out: whether they differ in it at all."""
        spec = self._table.columns.get(column)
        if spec is None:
            return False
        zones = [z for p in spec.pieces for z in p.zones if z is not None]
        if len(zones) < 2:
            return False
        spread = max(high for _, high in zones) - min(low for low, _ in zones)
        return sum(high - low for low, high in zones) < _CLUSTERED * spread * len(zones)

    def narrowed(
        self, column: str, low: int | None, high: int | None, keys: KeySet | None = None
    ) -> ResidentTable:
        """The same table where only rows with `low` <= `column` <= `high` matter, and of these only
        such as are among the `keys`, if those are known; none matter if the ends are None.

        Keys that most rows of the zones that are left seem to have are not looked for.
        """
        ends = (0, -1) if low is None or high is None else (low, high)
        less = copy(self)
        less._zones = tuple(z for z in self._zones if _may_hold(self._table, column, z, ends))
        if keys is not None:
            span = less._range(column)
            share = keys.size / (span[1] - span[0] + 1) if span else _UNKNOWN_SHARE
            if share <= _MOST_KEPT:
                less._kept = tuple(
                    sorted((*less._kept, Kept(column, keys, share)), key=lambda k: k.share)
                )
        return less

    def resident_batches(self, columns: Sequence[str]) -> InMemory | None:
        """Batches of some columns; None if they would have to be copied and are too many for
        that.
        """
        names = list(columns) or self._columns[:1]
        if not self._reach().mappable and self._bytes(names) > (
            self._action.limits.mem * _COPIED_SHARE
        ):
            return None
        known = [self._range(n) for n in names]
        kept = [(names.index(k.column), k.keys) for k in self._kept if k.column in names]
        return InMemory(self._schema(names), list(self._batches(names)), known, kept)

    def arrow_stream(self, columns: Sequence[str]) -> pa.RecordBatchReader | _Lazy:
        """Something with `__arrow_c_stream__` that fetches batch by batch, again and again."""
        names = list(columns) or self._columns[:1]
        return _Lazy(self._schema(names), lambda: self._batches(names))

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.arrow_stream(self._columns).__arrow_c_stream__(requested_schema)

    def _range(self, name: str) -> tuple[int, int] | None:
        """Least and greatest value of a column in the rows that are read."""
        spec = self._table.columns[name]
        ends: list[tuple[int, int] | None] = []
        for zone in self._zones:
            zones = spec.pieces[zone.chunk].zones
            if not zones:
                return None
            ends.append(zones[zone.number])
        known = [e for e in ends if e is not None]
        return (min(a for a, _ in known), max(b for _, b in known)) if known else None

    def _schema(self, names: Sequence[str]) -> pa.Schema:
        return pa.schema([(n, type_from_text(self._table.columns[n].type)) for n in names])

    def _reach(self) -> Transport:
        if self._transport is None:
            self._transport = _reach(self._action, self._durl)
        return self._transport

    def _bytes(self, names: Sequence[str]) -> int:
        whole = sum(p.size for n in names for p in self._table.columns[n].pieces)
        return int(whole * self.rows / max(1, sum(self._table.rows)))

    def _batches(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        schema = self._schema(names)
        for chunk, start, rows in neighbours_joined(self._zones):
            specs = [self._table.columns[n] for n in names]
            arrays = [self._array(spec, chunk, start, rows) for spec in specs]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _array(self, spec: ColumnSpec, chunk: int, start: int, rows: int) -> pa.Array:
        transport, piece = self._reach(), spec.pieces[chunk]
        type = type_from_text(spec.type)
        extents = transport.resolve(piece.ref)
        if transport.mappable:
            return _mapped(transport, type, extents, start, rows, piece.nulls)
        return _fetched(transport, type, extents, start, rows, piece.nulls)


def _mapped(
    transport: Transport,
    type: pa.DataType,
    extents: Sequence[tuple[int, int]],
    start: int,
    rows: int,
    nulls: int,
) -> pa.Array:
    """Rows of a piece as views of the memory element; `start` is a multiple of 64."""

    def view(address: int, offset: int, size: int) -> pa.Buffer:
        return pa.py_buffer(transport.map(address + offset, size) if size else b"")

    validity = view(extents[0][0], start // 8, (rows + 7) // 8) if extents[0][1] else None
    if len(buffer_kinds(type)) == 3:
        offsets = view(extents[1][0], start * 4, (rows + 1) * 4)
        last = int.from_bytes(memoryview(offsets)[rows * 4 :], "little")
        buffers = [validity, offsets, view(extents[2][0], 0, last)]
    else:
        bits = type.bit_width
        buffers = [validity, view(extents[1][0], start * bits // 8, (rows * bits + 7) // 8)]
    return pa.Array.from_buffers(type, rows, buffers, -1 if nulls else 0)


def _fetched(
    transport: Transport,
    type: pa.DataType,
    extents: Sequence[tuple[int, int]],
    start: int,
    rows: int,
    nulls: int,
) -> pa.Array:
    """Rows of a piece over a transport that copies: no other bytes are moved. `start` is a multiple
    of 8.
    """

    def fetch(address: int, offset: int, size: int) -> pa.Buffer:
        buffer = pa.allocate_buffer(size)
        if size:
            transport.read_into(address + offset, memoryview(buffer))
        return buffer

    validity = fetch(extents[0][0], start // 8, (rows + 7) // 8) if extents[0][1] else None
    count = -1 if nulls else 0
    if len(buffer_kinds(type)) == 3:
        offsets = np.frombuffer(fetch(extents[1][0], start * 4, (rows + 1) * 4), np.int32)
        first, last = int(offsets[0]), int(offsets[-1])
        data = fetch(extents[2][0], first, last - first)
        buffers = [validity, pa.py_buffer(offsets - np.int32(first)), data]
    else:
        bits = type.bit_width
        buffers = [validity, fetch(extents[1][0], start * bits // 8, (rows * bits + 7) // 8)]
    return pa.Array.from_buffers(type, rows, buffers, count)


def _reach(action: Action, durl: str) -> Transport:
    """The transport to resident memory, one per element however many tables it reads."""
    try:
        found: Transport = action.get_transport(ELEMENT, "rdma")
    except TransportNotGrantedError:
        action.add_transport(durl)
        found = action.get_transport(ELEMENT, "rdma")
    return found


def select_zones(table: TableSpec, within: Within) -> list[Zone]:
    """The zones that may hold something within the ranges."""
    zones = (
        Zone(chunk, number, first, rows)
        for chunk, whole in enumerate(table.rows)
        for number, (first, rows) in enumerate(zones_of(whole))
    )
    return [z for z in zones if all(_may_hold(table, c, z, ends) for c, ends in within.items())]


def shared_out(zones: Sequence[Zone], share: tuple[int, int]) -> list[Zone]:
    """Those of one copy.

    Each zone goes to the copy that has the fewest rows, so that neighbours have different owners:
    of tables that lie in the order of their dates, all copies have some of each month's rows.
    """
    index, count = share
    rows, mine = [0] * count, []
    for zone in zones:
        owner = rows.index(min(rows))
        rows[owner] += zone.rows
        if owner == index:
            mine.append(zone)
    return mine


def neighbours_joined(zones: Sequence[Zone]) -> list[Run]:
    """The rows of some zones, in as few runs as they are."""
    runs: list[Run] = []
    for chunk, _, first, rows in zones:
        if runs and runs[-1][0] == chunk and runs[-1][1] + runs[-1][2] == first:
            runs[-1] = (chunk, runs[-1][1], runs[-1][2] + rows)
        else:
            runs.append((chunk, first, rows))
    return runs


def _may_hold(
    table: TableSpec, column: str, zone: Zone, ends: tuple[int | None, int | None]
) -> bool:
    spec = table.columns.get(column)
    if spec is None or not spec.pieces[zone.chunk].zones:
        return True
    known = spec.pieces[zone.chunk].zones[zone.number]
    if known is None:  # nulls only, which are in no range
        return False
    low, high = ends
    if low is not None and high is not None and low > high:
        return False
    return (high is None or known[0] <= high) and (low is None or known[1] >= low)


class _Lazy:
    """Batches that are made anew for every reader."""

    def __init__(self, schema: pa.Schema, batches: Any) -> None:
        self._schema = schema
        self._make = batches

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        reader = pa.RecordBatchReader.from_batches(self._schema, self._make())
        return reader.__arrow_c_stream__(requested_schema)
