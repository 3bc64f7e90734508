"""Filling: an element decodes columns of Parquet files into resident memory, one column of one
chunk at a time, so that it holds no more than that.

pyarrow decodes: it hands over the buffers that are stored, where DuckDB would copy every value into
vectors and out again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pt

from engine.resident.layout import ELEMENT, Chunk, FillJob, Piece, from_plain, to_plain, zones_of
from remote_frame.types import buffer_kinds, type_from_text

if TYPE_CHECKING:
    from libd import Transport
    from openwhisk.runtime import Action

__all__ = ["fill", "stored_integers", "write_piece"]

_ALIGN = 64


def fill(params: Mapping[str, Any], action: Action) -> dict[str, Any]:
    """Decode this copy's share of a `FillJob`.

    Returns
    -------
    dict
        ``pieces``: lists of table number, column, chunk number, `Piece` (null for want of memory)
        and seconds.
    """
    job: FillJob = from_plain(params["fill"], FillJob)
    action.add_transport(job.durl)
    transport = action.get_transport(ELEMENT, "rdma")
    # Chunk by chunk: the columns of a row group lie side by side in the file.
    units = [
        (number, name, type, at, chunk)
        for number, table in enumerate(job.tables)
        for at, chunk in enumerate(table.chunks)
        for name, type in table.columns.items()
    ]
    pieces = []
    opened: tuple[str, pq.ParquetFile] | None = None
    for number, name, type, at, chunk in units[action.index :: action.count]:
        started = time.perf_counter()
        if opened is None or opened[0] != chunk.path:
            opened = chunk.path, pq.ParquetFile(chunk.path)
        try:
            array = _decoded(opened[1], chunk, name, type_from_text(type))
            piece = to_plain(write_piece(array, transport, job.lease))
        except MemoryError:  # this element's memory, or (`CapacityError`) the resident one
            piece = None
        pieces.append([number, name, at, piece, time.perf_counter() - started])
    return {"pieces": pieces}


def _decoded(file: pq.ParquetFile, chunk: Chunk, name: str, type: pa.DataType) -> pa.Array:
    groups = range(chunk.first, chunk.last + 1)
    column = file.read_row_groups(groups, columns=[name], use_threads=False).column(name)
    array = pa.concat_arrays(column.cast(type).chunks) if column.num_chunks else pa.array([], type)
    if array.offset:
        array = pa.concat_arrays([array.slice(0, 0), array])
    return array


def write_piece(array: pa.Array, transport: Transport, lease: float | None) -> Piece:
    """Write one array as a region of its own.

    Raises
    ------
    CapacityError
        If the memory element has no room; nothing is left in it then.
    """
    buffers: list[Any] = list(array.buffers())
    if not array.null_count:
        buffers[0] = None
    needed = [_need(array, kind) for kind in buffer_kinds(array.type)]
    views = [
        memoryview(b).cast("B")[: min(n, b.size)] if b is not None else memoryview(b"")
        for b, n in zip(buffers, needed, strict=True)
    ]
    offsets, total = [], 0
    for view in views:
        offsets.append(total)
        total += (len(view) + _ALIGN - 1) // _ALIGN * _ALIGN
    total = max(total, _ALIGN)
    address = transport.alloc(total, _ALIGN, lease=lease)
    try:
        transport.writev(
            [(address + at, view) for at, view in zip(offsets, views, strict=True) if len(view)]
        )
        ref = transport.ref(
            [(address + at, len(view)) for at, view in zip(offsets, views, strict=True)]
        )
    except BaseException:
        transport.free(address)
        raise
    return Piece(ref, address, total, array.null_count, _zones(array))


def _need(array: pa.Array, kind: str) -> int:
    """Bytes of a buffer that belong to the rows: what decoders allocate is larger."""
    rows = len(array)
    if kind == "validity":
        return (rows + 7) // 8
    variable = len(buffer_kinds(array.type)) == 3
    if kind == "offsets":
        return (rows + 1) * 4
    if variable:
        offsets = memoryview(array.buffers()[1]).cast("B")
        return int.from_bytes(offsets[rows * 4 : rows * 4 + 4], "little")
    bits: int = array.type.bit_width
    return (rows * bits + 7) // 8


def stored_integers(array: pa.Array) -> pa.Array | None:
    """The values as the integers that are stored, for types whose order that is."""
    type = array.type
    if pt.is_integer(type):
        return array
    if pt.is_date32(type) or pt.is_decimal32(type):
        return array.view(pa.int32())
    if pt.is_timestamp(type) or pt.is_decimal64(type):
        return array.view(pa.int64())
    return None


def _zones(array: pa.Array) -> tuple[tuple[int, int] | None, ...]:
    stored = stored_integers(array)
    if stored is None:
        return ()
    found = []
    for at, rows in zones_of(len(array)):
        ends = pc.min_max(stored.slice(at, rows)).as_py()
        found.append(None if ends["min"] is None else (ends["min"], ends["max"]))
    return tuple(found)
