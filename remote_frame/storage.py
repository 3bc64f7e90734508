"""Writing: Arrow data into parts of a memory element, whole or scattered, in bounded memory.

A `FrameWriter` stages batches as they come. When enough are staged, the partition kernel scatters
them into one region of the memory element: a part for each partition, all reserved at once. Where
the transport maps, the kernel writes the memory element's own bytes and nothing is copied twice;
elsewhere it fills a local block, which one vectored write sends. However much an element writes, it
holds what is staged, the batch at hand and, over transports that copy, one block.
Nothing that failed half-way stays behind: regions are given back unless the frame was finished.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa

from libd.errors import LibdError
from libd.ref import Ref
from operators.partition import Partitioner, PartWritten
from operators.partitioning import Hash, Partitioning, Ranges, Single
from remote_frame.errors import (
    AmbiguousColumnError,
    ColumnNotFoundError,
    ExpressionError,
    StorageError,
)
from remote_frame.handle import ExchangeHandle, FrameHandle, Part

if TYPE_CHECKING:
    from libd import Transport

__all__ = ["FrameWriter", "default_budget", "exchange", "exchange_ranges", "write"]

_ALIGN = 64
_MOST_STAGED = 64 << 20
_LEAST_STAGED = 1 << 20
_FLUSH = 8 << 20
"""Bytes that are staged at least before they are written, within the budget. Time does not depend
on it (ARCHITECTURE.md §2); it keeps parts and round trips few.
"""
_PART = 1 << 20
"""The average part is no smaller, within the budget: readers pay for each."""


def default_budget() -> int:
    """Bytes that a writer may hold: 64 MiB, or a sixteenth of this process's limit on memory.

    Most of an element's memory is the worker's and the kernel's (`remote_frame.memory`).
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    share = _MOST_STAGED if limit == resource.RLIM_INFINITY else limit // 16
    return max(_LEAST_STAGED, min(_MOST_STAGED, share))


class FrameWriter:
    """Writes the batches of one frame, or of one exchange, into a memory element.

    Parameters
    ----------
    transport
        To the memory element.
    schema
        Of the batches.
    partitioning
        How rows find their partition.
    budget
        Bytes that may be held besides the batch at hand; `default_budget` by default.
    on_parts
        Called with a handle of the parts of each flush, as soon as they can be read (see
        `remote_frame.handle.HandleStream`). They are gone again if the writer is aborted.

    Raises
    ------
    UnsupportedTypeError
        If a column has no flat layout (lists, structs); the message names it.
    PlanError
        If the partitioning makes no sense.

    Notes
    -----
    A context manager: what was written is given back where `finish` was not reached.
    """

    def __init__(
        self,
        transport: Transport,
        schema: pa.Schema,
        partitioning: Partitioning | None = None,
        *,
        budget: int | None = None,
        on_parts: Callable[[FrameHandle | ExchangeHandle], object] | None = None,
    ) -> None:
        self._transport = transport
        self._scattered = partitioning is not None
        self._work = Partitioner(schema, partitioning or Single())
        self._on_parts = on_parts
        self._partitions = self._work.partitioning.partitions
        budget = default_budget() if budget is None else budget
        # What is sent is a second copy of what is staged.
        budget = budget if transport.mappable else budget // 2
        self._most = max(1, budget)
        self._enough = min(self._most, max(_FLUSH, self._partitions * _PART))
        self._staged = 0
        self._regions: list[int] = []
        self._parts: list[list[Part]] = [[] for _ in range(self._partitions)]
        self._local: pa.Buffer | None = None

    @property
    def schema(self) -> pa.Schema:
        """The columns as they are stored."""
        return self._work.schema

    def write(self, batch: pa.RecordBatch) -> None:
        """Take a batch; what is staged is written when there is enough of it.

        Raises
        ------
        CapacityError
            If the memory element has no room.
        """
        for piece in _pieces(batch, self._most):
            size = piece.nbytes
            if self._staged and self._staged + size > self._most:
                self.flush()
            self._work.add(piece)
            self._staged += size
            if self._staged >= self._enough:
                self.flush()

    def flush(self) -> None:
        """Write what is staged, a part for each partition that has rows."""
        if not self._work.rows:
            return
        block: list[tuple[int, memoryview | None]] = []

        def allocate(size: int) -> memoryview:
            address = self._transport.alloc(size, _ALIGN)
            self._regions.append(address)
            if self._transport.mappable:
                block.append((address, None))
                return self._transport.map(address, size, writable=True)
            block.append((address, self._room(size)))
            return block[0][1]  # type: ignore[return-value]

        written = self._work.write(allocate)
        self._staged = 0
        if not block:
            allocate(_ALIGN)  # Rows of nulls only have no bytes, but a part is in a region.
        address, local = block[0]
        if local is not None:
            self._transport.writev([(address, local)])
        ref = self._transport.ref([(address, written[-1].offset + written[-1].length)])
        parts = [[_part(one, ref)] if one.rows else [] for one in written]
        for kept, new in zip(self._parts, parts, strict=True):
            kept += new
        if self._on_parts is not None:
            self._on_parts(self._handle(parts))

    def finish(self) -> FrameHandle | ExchangeHandle:
        """Write the rest; the handle of everything, which commits it when an element returns it.

        With a partitioning it is that of an exchange, else that of a frame.
        """
        self.flush()
        handle = self._handle(self._parts, final=True)
        self._regions = []
        self._local = None
        return handle

    def abort(self) -> None:
        """Give everything back that was written and not finished."""
        regions, self._regions = self._regions, []
        self._local = None
        self._work.clear()
        for address in regions:
            try:
                self._transport.free(address)
            except LibdError:
                # The memory element is gone, and the region with it; the first error says so.
                continue

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.abort()

    def _room(self, size: int) -> memoryview:
        """A local block, the same one as long as it suffices."""
        if self._local is None or self._local.size < size:
            self._local = None
            self._local = pa.allocate_buffer(size)
        return memoryview(self._local).cast("B")[:size]

    def _handle(
        self, parts: Sequence[Sequence[Part]], *, final: bool = False
    ) -> FrameHandle | ExchangeHandle:
        distinct = self._work.distinct() if final else ()
        if self._scattered:
            return ExchangeHandle.build(self.schema, parts, distinct)
        return FrameHandle.build(self.schema, parts[0], distinct)


def write(data: Any, transport: Transport, *, budget: int | None = None) -> dict[str, Any]:
    """Write Arrow data into a memory element.

    Parameters
    ----------
    data
        Anything with ``__arrow_c_stream__``: a table, a reader, a `RemoteFrame`, a pandas or Polars
        data frame; also a record batch. It is taken batch by batch.
    transport
        To the memory element.
    budget
        Bytes that may be held meanwhile; see `FrameWriter`.

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
    batches, schema = _batches(data)
    return _write(batches, schema, transport, None, budget)


def exchange(
    data: Any,
    transport: Transport,
    keys: Sequence[str | int],
    partitions: int,
    *,
    budget: int | None = None,
) -> dict[str, Any]:
    """Write Arrow data scattered by the hash of `keys`: equal keys go to one partition.

    Parameters
    ----------
    data, transport, budget
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
    batches, schema = _batches(data)
    how = Hash(_positions(keys, schema), partitions)
    return _write(batches, schema, transport, how, budget)


def exchange_ranges(
    data: Any,
    transport: Transport,
    keys: Sequence[str | int],
    boundaries: pa.RecordBatch,
    *,
    descending: Sequence[bool] = (),
    nulls_first: Sequence[bool] = (),
    budget: int | None = None,
) -> dict[str, Any]:
    """Write Arrow data scattered by ranges of `keys`, for a sort that several elements share.

    Reader *i* gets the rows that are not before boundary *i* - 1 and before boundary *i*; sorting
    what each reader has, in the same order, sorts everything.

    Parameters
    ----------
    data, transport, budget
        As for `write`.
    keys
        Names or positions of the columns to sort by, the first one counting most.
    boundaries
        The key columns alone, one row per boundary, sorted; there is one partition more.
    descending, nulls_first
        The order, per key; ascending with nulls last by default.
    """
    batches, schema = _batches(data)
    how = Ranges(_positions(keys, schema), boundaries, tuple(descending), tuple(nulls_first))
    return _write(batches, schema, transport, how, budget)


def _write(
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    transport: Transport,
    partitioning: Partitioning | None,
    budget: int | None,
) -> dict[str, Any]:
    with FrameWriter(transport, schema, partitioning, budget=budget) as writer:
        for batch in batches:
            writer.write(batch)
        return writer.finish().to_json()


def _part(written: PartWritten, block: Ref) -> Part:
    start = block.extents[0][0] + written.offset
    known = any(v is not None for v in (*written.minimums, *written.maximums))
    return Part(
        Ref(block.element, block.region, block.epoch, [(start, written.length)]),
        written.rows,
        written.null_counts,
        written.string_bytes,
        written.minimums if known else (),
        written.maximums if known else (),
    )


def _pieces(batch: pa.RecordBatch, limit: int) -> Iterable[pa.RecordBatch]:
    """A batch as slices of about `limit` bytes, which no block then exceeds by much."""
    count = -(-batch.nbytes // limit)
    if count <= 1:
        return (batch,)
    rows = -(-batch.num_rows // count)
    return (batch.slice(start, rows) for start in range(0, batch.num_rows, rows))


def _positions(keys: Sequence[str | int], schema: pa.Schema) -> tuple[int, ...]:
    if isinstance(keys, str):
        raise ExpressionError(f"keys is a list of column names, not the text {keys!r}")
    return tuple(_position(key, schema) for key in keys)


def _position(key: str | int, schema: pa.Schema) -> int:
    if isinstance(key, int):
        return key
    found = schema.get_all_field_indices(key)
    if not found:
        raise ColumnNotFoundError(key, schema.names)
    if len(found) > 1:
        raise AmbiguousColumnError(f"key {key!r}: {len(found)} columns are called so")
    return int(found[0])


def _batches(data: Any) -> tuple[Iterable[pa.RecordBatch], pa.Schema]:
    if isinstance(data, pa.RecordBatch):
        return [data], data.schema
    if isinstance(data, pa.Table):
        return data.to_batches(), data.schema
    if isinstance(data, pa.RecordBatchReader):
        # Not through the C interface, which turns a source's own errors into Arrow's.
        return data, data.schema
    if not hasattr(data, "__arrow_c_stream__"):
        raise StorageError(
            f"cannot write a {type(data).__name__}: Arrow data (anything with __arrow_c_stream__) "
            "is wanted"
        )
    reader = pa.RecordBatchReader.from_stream(data)
    return reader, reader.schema
