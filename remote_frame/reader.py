"""Reading: the parts of a frame as Arrow record batches over remote memory.

On a transport that maps, a batch is a set of views of the memory element itself: nothing is copied,
and every array keeps the mapping alive. On the others one vectored read fetches the buffers of the
columns that were asked for, and of no others, into one aligned allocation per part.

`FrameReader` is what a kernel scans: re-readable, and lazy, so that asking for the schema moves no
byte and a copying reader holds one part at a time. What it does not do: filter, or read a part in
pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from remote_frame.errors import ColumnNotFoundError, HandleError, StorageError
from remote_frame.handle import FrameHandle, Part
from remote_frame.types import offset_width

if TYPE_CHECKING:
    from libd import Transport

__all__ = ["BATCH_ROWS", "FrameReader", "TransportFor", "open_transports"]

TransportFor = Callable[[str], "Transport"]
"""From the name of a memory element to a transport that reaches it."""

BATCH_ROWS = 122_880
"""Rows of one batch of a stream: DuckDB's row group, the unit in which its threads take work."""

_ALIGN = 64


class FrameReader:
    """The rows of one or several handles of one schema, re-readable as an Arrow stream.

    Parameters
    ----------
    handles
        Their parts are read in this order. All must have the same column names and types.
    transport_for
        Gives the transport for an element's name; called when rows are read, not before.
    columns
        Positions in the handles' schema to read, in this order; None is all of them.

    Raises
    ------
    HandleError
        If there is no handle, or two of them differ in their columns.
    """

    def __init__(
        self,
        handles: Sequence[FrameHandle],
        transport_for: TransportFor,
        columns: Sequence[int] | None = None,
    ) -> None:
        if not handles:
            raise HandleError("a frame is opened from at least one handle")
        first = handles[0]
        for number, handle in enumerate(handles):
            if [(f.name, f.type) for f in handle.schema] != [
                (f.name, f.type) for f in first.schema
            ]:
                raise HandleError(
                    f"handle {number} has other columns than handle 0: "
                    f"{_describe(handle)} instead of {_describe(first)}"
                )
        self._handles = tuple(handles)
        self._transport_for = transport_for
        self._columns = tuple(range(len(first.schema)) if columns is None else columns)
        self._fields = tuple(
            pa.field(
                first.schema[c].name,
                first.schema[c].type,
                any(handle.schema[c].nullable for handle in handles),
            )
            for c in self._columns
        )

    @property
    def schema(self) -> pa.Schema:
        """The columns that are read, with their stored types."""
        return pa.schema(self._fields)

    @property
    def rows(self) -> int:
        """Rows of all parts, known without reading."""
        return sum(handle.rows for handle in self._handles)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of all handles, in the order in which they are read."""
        return tuple(part for handle in self._handles for part in handle.parts)

    @property
    def handles(self) -> tuple[FrameHandle, ...]:
        """The handles, as given."""
        return self._handles

    def select(self, columns: Sequence[int]) -> FrameReader:
        """A reader of `columns` only; positions count among the columns of this reader."""
        return FrameReader(self._handles, self._transport_for, [self._columns[c] for c in columns])

    def arrow_stream(self, columns: Sequence[str]) -> FrameReader:
        """What kernels call: something with `__arrow_c_stream__` over the named columns.

        For no columns at all it is the first one, so that rows can be counted.
        """
        return self.select_names(columns) if columns else self.select([0])

    def select_names(self, names: Sequence[str]) -> FrameReader:
        """A reader of the columns called `names`, in that order.

        Raises
        ------
        ColumnNotFoundError
            If there is no such column.
        """
        known = self.schema.names
        for name in names:
            if name not in known:
                raise ColumnNotFoundError(name, known)
        return self.select([known.index(name) for name in names])

    def batches(self) -> Iterator[pa.RecordBatch]:
        """One record batch per part; each is read when it is asked for.

        Raises
        ------
        LibdError
            What the transport raises: `StaleRefError` if the region is gone, `BoundsError`, ….
        StorageError
            If the bytes are not the columns that the handle describes.
        """
        schema = self.schema
        for handle in self._handles:
            for part in handle.parts:
                yield self._open(handle, part, schema)

    def table(self) -> pa.Table:
        """All rows as a table: views where the transport maps, copies elsewhere."""
        return pa.Table.from_batches(self.batches(), self.schema)

    def stream(self) -> pa.RecordBatchReader:
        """All rows as batches of at most `BATCH_ROWS` rows, fetched part by part."""
        return pa.RecordBatchReader.from_batches(self.schema, self._sliced())

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Export a fresh stream (Arrow PyCapsule protocol); may be called again and again."""
        return self.stream().__arrow_c_stream__(requested_schema)

    def _sliced(self) -> Iterator[pa.RecordBatch]:
        for batch in self.batches():
            for start in range(0, batch.num_rows, BATCH_ROWS):
                yield batch.slice(start, BATCH_ROWS)

    def _open(self, handle: FrameHandle, part: Part, schema: pa.Schema) -> pa.RecordBatch:
        transport = self._transport_for(part.ref.element)
        resolved = transport.resolve(part.ref)
        wanted = [resolved[handle.extents_of[c]] for c in self._columns]
        extents = [extent for column in wanted for extent in column if extent[1]]
        get = _mapped(transport) if transport.mappable else _fetched(transport, extents)
        try:
            arrays = []
            for c, column in zip(self._columns, wanted, strict=True):
                buffers = [get(addr, size) if size else None for addr, size in column]
                arrays.append(_array(handle.schema[c].type, part.rows, part.nulls[c], buffers))
            batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
            batch.validate()
        except (pa.ArrowException, ValueError) as error:
            raise StorageError(
                f"element {part.ref.element!r}, region {part.ref.region}: the bytes are not the "
                f"columns that the handle describes: {error}"
            ) from error
        return batch


def open_transports(action: Any) -> TransportFor:
    """The transports of an element's `action` (or of a `LibdAction`), by memory element."""
    return lambda element: action.get_transport(element, "rdma")


_GetBuffer = Callable[[int, int], pa.Buffer]


def _mapped(transport: Transport) -> _GetBuffer:
    """Views of the extents, one by one, so that only what is named is counted as read."""
    return lambda addr, size: pa.py_buffer(transport.map(addr, size))


def _fetched(transport: Transport, extents: Sequence[tuple[int, int]]) -> _GetBuffer:
    """Slices of one aligned allocation into which all extents are read at once."""
    offsets: dict[tuple[int, int], int] = {}
    total = 0
    for extent in extents:
        if extent not in offsets:
            offsets[extent] = total
            total += (extent[1] + _ALIGN - 1) // _ALIGN * _ALIGN
    whole = pa.allocate_buffer(total)
    view = memoryview(whole)
    transport.readv([(addr, view[at : at + size]) for (addr, size), at in offsets.items()])
    return lambda addr, size: whole.slice(offsets[addr, size], size)


def _array(type: pa.DataType, rows: int, nulls: int, buffers: list[pa.Buffer | None]) -> pa.Array:
    """An array over the buffers of a column; `buffers` has None where an extent is empty."""
    if pa.types.is_null(type):
        return pa.nulls(rows)
    if nulls and buffers[0] is None:
        raise ValueError(f"{nulls} nulls without a validity bitmap")
    if len(buffers) == 3 and buffers[2] is None:
        buffers[2] = pa.py_buffer(b"")
    array = pa.Array.from_buffers(type, rows, buffers, null_count=nulls)
    if len(buffers) == 3:
        _check_first_offset(buffers[1], offset_width(type))
    return array


def _check_first_offset(offsets: pa.Buffer, width: int) -> None:
    # Arrow's own cheap validation looks at the last offset against the data, not at the first.
    if int.from_bytes(memoryview(offsets)[:width], "little", signed=True) != 0:
        raise ValueError("the first offset of a string column is not 0")


def _describe(handle: FrameHandle) -> str:
    return "(" + ", ".join(f"{f.name} {f.type}" for f in handle.schema) + ")"
