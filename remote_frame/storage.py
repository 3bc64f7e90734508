"""Writing: Arrow data into regions of a memory element, whole or scattered by keys.

The partition kernel writes straight into the buffers that a `RegionWriter` hands out. Where the
transport maps, those are the memory element's own bytes and nothing is copied twice; elsewhere
they are local, and one vectored write sends them when the part is complete. Nothing that failed
half-way stays behind: regions are given back unless every part was written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from libd.errors import LibdError
from libd.ref import Ref
from operators.partition import PartWritten, scatter, written_schema
from remote_frame.errors import (
    AmbiguousColumnError,
    ColumnNotFoundError,
    ExpressionError,
    StorageError,
)
from remote_frame.handle import ExchangeHandle, FrameHandle, Part
from remote_frame.types import buffer_kinds, offset_width

if TYPE_CHECKING:
    from libd import Transport

__all__ = ["RegionWriter", "exchange", "write"]

_ALIGN = 64


class RegionWriter:
    """The extent writer of one part: one region of a memory element, 64-byte aligned buffers.

    A part without rows, which the sizes of the buffers of `schema` tell, gets no region: its
    buffers are local and thrown away.
    """

    def __init__(self, transport: Transport, schema: pa.Schema) -> None:
        self._transport = transport
        self._schema = schema
        self._address: int | None = None
        self._extents: list[tuple[int, int]] = []
        self._local: memoryview | None = None

    def allocate(self, sizes: Sequence[int]) -> list[memoryview]:
        """Writable buffers of these sizes, in bytes; called once.

        Raises
        ------
        CapacityError
            If the memory element has no room.
        """
        total = sum(_aligned(size) for size in sizes)
        if not _has_rows(self._schema, sizes):
            return [memoryview(bytearray(size)) for size in sizes]
        self._address = self._transport.alloc(total, _ALIGN)
        if self._transport.mappable:
            whole = self._transport.map(self._address, total, writable=True)
        else:
            whole = self._local = memoryview(pa.allocate_buffer(total)).cast("B")
        views, at = [], 0
        for size in sizes:
            views.append(whole[at : at + size])
            self._extents.append((self._address + at, size))
            at += _aligned(size)
        return views

    def commit(self) -> Ref | None:
        """Send what is still local; return where everything is, None for no bytes."""
        if self._address is None:
            return None
        if self._local is not None:
            self._transport.writev([(self._address, self._local)])
            self._local = None
        return self._transport.ref(self._extents)

    def abort(self) -> None:
        """Give the region back, whether committed or not."""
        address, self._address, self._local = self._address, None, None
        if address is not None:
            self._transport.free(address)


def write(data: Any, transport: Transport) -> dict[str, Any]:
    """Write Arrow data into a memory element.

    Parameters
    ----------
    data
        Anything with ``__arrow_c_stream__``: a table, a reader, a `RemoteFrame`, a pandas or Polars
        data frame; also a record batch.
    transport
        To the memory element.

    Returns
    -------
    dict
        The frame's handle, plain JSON: what an element returns.

    Raises
    ------
    CapacityError
        If the memory element has no room; nothing is left in it then.
    UnsupportedTypeError
        If a column has no flat layout (lists, structs); the message names it.
    """
    (handle,) = _scattered(data, transport, (), 1)
    return handle.to_json()


def exchange(
    data: Any, transport: Transport, keys: Sequence[str | int], partitions: int
) -> dict[str, Any]:
    """Write Arrow data scattered by the hash of `keys`: equal keys go to one partition.

    Parameters
    ----------
    data, transport
        As for `write`.
    keys
        Names or positions of the columns to scatter by. Equal values of different integer types go
        to one partition; cast other types to one first. With one partition there need not be any.
    partitions
        How many readers there are.

    Returns
    -------
    dict
        The handle of the exchange, plain JSON. A partition without rows costs no memory.

    Raises
    ------
    ColumnNotFoundError
        If a key is no column.
    CapacityError, UnsupportedTypeError
        As for `write`.
    """
    handles = _scattered(data, transport, keys, partitions)
    return ExchangeHandle(tuple(handles)).to_json()


def _scattered(
    data: Any, transport: Transport, keys: Sequence[str | int], partitions: int
) -> list[FrameHandle]:
    if isinstance(keys, str):
        raise ExpressionError(f"keys is a list of column names, not the text {keys!r}")
    batches, schema = _batches(data)
    stored = written_schema(schema)
    positions = [_position(key, schema) for key in keys]
    writers: list[RegionWriter] = []

    def writer_for(partition: int) -> RegionWriter:
        writers.append(RegionWriter(transport, stored))
        return writers[-1]

    try:
        parts = scatter(batches, positions, partitions, writer_for, schema=schema)
        return [FrameHandle.build(stored, _part(written, transport, writers)) for written in parts]
    except BaseException:
        for writer in writers:
            _give_back(writer)
        raise


def _position(key: str | int, schema: pa.Schema) -> int:
    if isinstance(key, int):
        return key
    found = schema.get_all_field_indices(key)
    if not found:
        raise ColumnNotFoundError(key, schema.names)
    if len(found) > 1:
        raise AmbiguousColumnError(f"key {key!r}: {len(found)} columns are called so")
    return int(found[0])


def _has_rows(schema: pa.Schema, sizes: Sequence[int]) -> bool:
    """Whether buffers of these sizes hold rows (of anything but bare nulls)."""
    slot = 0
    for type in schema.types:
        kinds = buffer_kinds(type)
        if len(kinds) == 3:
            return sizes[slot + 1] > offset_width(type)
        if sizes[slot + 1]:
            return True
        slot += len(kinds)
    return False


def _part(written: PartWritten, transport: Transport, writers: list[RegionWriter]) -> list[Part]:
    if not written.rows:
        return []
    ref = written.location
    if ref is None:
        # Rows of nulls only: they have no bytes, but a part is a region.
        writer = RegionWriter(transport, pa.schema([("", pa.bool_())]))
        writers.append(writer)
        writer.allocate([0, 1])
        region = writer.commit()
        assert region is not None
        ref = Ref(region.element, region.region, region.epoch, [(0, 0)] * len(written.sizes))
    known = any(value is not None for value in written.minimums)
    return [
        Part(
            ref,
            written.rows,
            tuple(written.null_counts),
            tuple(written.minimums) if known else (),
            tuple(written.maximums) if known else (),
        )
    ]


def _give_back(writer: RegionWriter) -> None:
    try:
        writer.abort()
    except LibdError:
        # The memory element is gone, and the region with it; the first error says so.
        return


def _batches(data: Any) -> tuple[list[pa.RecordBatch], pa.Schema]:
    if isinstance(data, pa.RecordBatch):
        return [data], data.schema
    if isinstance(data, pa.Table):
        return data.to_batches(), data.schema
    if isinstance(data, pa.RecordBatchReader):
        # Not through the C interface, which turns a source's own errors into Arrow's.
        return list(data), data.schema
    if not hasattr(data, "__arrow_c_stream__"):
        raise StorageError(
            f"cannot write a {type(data).__name__}: Arrow data (anything with __arrow_c_stream__) "
            "is wanted"
        )
    reader = pa.RecordBatchReader.from_stream(data)
    return list(reader), reader.schema


def _aligned(size: int) -> int:
    return (size + _ALIGN - 1) // _ALIGN * _ALIGN
