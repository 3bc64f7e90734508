"""Reading: the parts of a frame as Arrow record batches over remote memory.

On a transport that maps, a batch is a set of views of the memory element itself: nothing is copied,
and every array keeps the mapping alive. On the others one batch of reads fetches the columns that
were asked for, and no others, while the consumer works on what was fetched before. Small parts are
put together, so that a hundred thousand of them are not as many batches.

`FrameReader` is what a kernel scans: re-readable, and lazy, so that asking for the schema moves no
byte and a copying reader holds two windows of parts. It skips parts whose statistics exclude what
the consumer looks for; it does not filter rows, or read a part in pieces.
"""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from libd.errors import LibdError
from operators._partition import Layout, Scatter
from operators.part_columns import kinds_of, layout
from remote_frame.conditions import Condition, bind, may_match
from remote_frame.errors import ColumnNotFoundError, HandleError, StorageError
from remote_frame.handle import FieldSpec, FrameHandle, HandleStream, Part

if TYPE_CHECKING:
    from libd import Transport
    from libd._core import Completion

__all__ = ["BATCH_ROWS", "FrameReader", "TransportFor", "open_transports"]

TransportFor = Callable[[str], "Transport"]
"""From the name of a memory element to a transport that reaches it."""

BATCH_ROWS = 122_880
"""Rows of one batch of a stream: DuckDB's row group, the unit in which its threads take work."""

_SMALL_ROWS = 2048
"""Parts of fewer rows are put together: DuckDB's vector."""
_WINDOW = 4 << 20
"""Bytes that a copying reader fetches at a time; two windows are held, and no part is cut."""
_MOST_PARTS = 4096
"""Of one window: each is a few segments of a vectored read."""
_IN_FLIGHT = 8 << 20
"""Bytes that a kernel may have asked for and not yet let go; or so many of the largest parts:"""
_LARGE_IN_FLIGHT = 3
"""its threads let go of a part when they have the next, and waiting for that would be in vain."""
_TICK = 0.0005
_MAY_WAIT = threading.Semaphore(6)
"""Of the readers of this process. pyarrow's scanner reads ahead of every input of a statement in
eight threads; if inputs whose turn has not come waited in all of them, the others would starve."""
_PATIENCE = 5.0
"""Seconds that a kernel may let go of nothing before it gets more all the same."""
_ALIGN = 64


class FrameReader:
    """The rows of one or several handles of one schema, re-readable as an Arrow stream.

    Parameters
    ----------
    handles
        Their parts are read in this order. All must have the same column names and types. Of a
        `HandleStream` parts are read as they are committed.
    transport_for
        Gives the transport for an element's name; called when rows are read, not before.
    columns
        Positions in the handles' schema to read, in this order; None is all of them.
    where
        Conditions of which the consumer wants rows that meet all: parts in which no row can are not
        read. What is read holds others, too.
    paced
        Whether the consumer lets go of batches as it proceeds: it gets no more over transports that
        copy while it holds much. DuckDB needs that, which reads streams through pyarrow's scanner,
        and that one reads ahead without end.

    Raises
    ------
    HandleError
        If there is no handle, or two of them differ in their columns.
    """

    def __init__(
        self,
        handles: Sequence[FrameHandle] | HandleStream,
        transport_for: TransportFor,
        columns: Sequence[int] | None = None,
        where: Sequence[Condition] = (),
        *,
        paced: bool = False,
    ) -> None:
        first = next(iter(handles), None)
        if first is None:
            raise HandleError("a frame is opened from at least one handle")
        self._given = handles if isinstance(handles, HandleStream) else tuple(handles)
        self._first = first
        self._transport_for = transport_for
        self._columns = tuple(range(len(first.schema)) if columns is None else columns)
        self._where = tuple(where)
        self._paced = paced
        self._bound = bind(self._where, first.schema)
        known = () if isinstance(self._given, HandleStream) else self._given
        for number, handle in enumerate(known):
            _check_same(handle, first, number)
        self._fields = tuple(
            pa.field(
                first.schema[c].name,
                first.schema[c].type,
                not known or any(handle.schema[c].nullable for handle in known),
            )
            for c in self._columns
        )

    @property
    def schema(self) -> pa.Schema:
        """The columns that are read, with their stored types."""
        return pa.schema(self._fields)

    @property
    def rows(self) -> int:
        """Rows of all parts, known without reading. Waits for the end of a `HandleStream`."""
        return sum(handle.rows for handle in self._handles())

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of all handles, in the order in which they are read."""
        return tuple(part for handle in self._handles() for part in handle.parts)

    @property
    def handles(self) -> tuple[FrameHandle, ...]:
        """The handles, as given."""
        return tuple(self._handles())

    def select(self, columns: Sequence[int]) -> FrameReader:
        """A reader of `columns` only; positions count among the columns of this reader."""
        return self._with([self._columns[c] for c in columns], self._where)

    def where(self, conditions: Iterable[Condition]) -> FrameReader:
        """A reader that skips parts in which no row meets all `conditions`, too.

        Raises
        ------
        ColumnNotFoundError
            If a condition names a column that the stored frame does not have.
        """
        return self._with(self._columns, (*self._where, *conditions))

    def arrow_stream(self, columns: Sequence[str]) -> FrameReader:
        """What kernels call: something with `__arrow_c_stream__` over the named columns.

        For no columns at all it is the first one, so that rows can be counted.
        """
        narrow = self.select_names(columns) if columns else self.select([0])
        return FrameReader(
            narrow._given, self._transport_for, narrow._columns, self._where, paced=True
        )

    def select_names(self, names: Sequence[str]) -> FrameReader:
        """A reader of the columns called `names`, in that order.

        Raises
        ------
        ColumnNotFoundError
            If there is no such column.
        """
        positions: dict[str, int] = {}
        for position, known in enumerate(self._fields):
            positions.setdefault(known.name, position)
        for name in names:
            if name not in positions:
                raise ColumnNotFoundError(name, positions)
        return self.select([positions[name] for name in names])

    def batches(self) -> Generator[pa.RecordBatch, None, None]:
        """Record batches, one for each part or several small ones, read when they are asked for.

        Raises
        ------
        LibdError
            What the transport raises: `StaleRefError` if the region is gone, `BoundsError`, ….
        StorageError
            If the bytes are not the columns that the handle describes.
        """
        places = layout([f.type for f in self._first.schema], self._columns)
        narrow = [self._first.schema[c] for c in self._columns]
        with contextlib.closing(self._windows(places)) as windows:
            for window in windows:
                found = window.batches(places, narrow, self.schema)
                # What was read is the consumer's alone by the time that more is fetched.
                del window
                yield from found
                del found

    def table(self) -> pa.Table:
        """All rows as a table: views where the transport maps, copies elsewhere."""
        return pa.Table.from_batches(self.batches(), self.schema)

    def stream(self) -> pa.RecordBatchReader:
        """All rows as batches of at most `BATCH_ROWS` rows, fetched as they are read."""
        return pa.RecordBatchReader.from_batches(self.schema, self._sliced())

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Export a fresh stream (Arrow PyCapsule protocol); may be called again and again."""
        return self.stream().__arrow_c_stream__(requested_schema)

    def _with(self, columns: Sequence[int], where: Sequence[Condition]) -> FrameReader:
        return FrameReader(self._given, self._transport_for, columns, where, paced=self._paced)

    def _handles(self) -> Iterator[FrameHandle]:
        for number, handle in enumerate(self._given):
            _check_same(handle, self._first, number)
            yield handle

    def _sliced(self) -> Iterator[pa.RecordBatch]:
        with contextlib.closing(self.batches()) as batches:
            for batch in batches:
                if batch.num_rows <= BATCH_ROWS:
                    yield batch
                else:
                    for start in range(0, batch.num_rows, BATCH_ROWS):
                        yield batch.slice(start, BATCH_ROWS)
                del batch

    def _wanted(self) -> Iterator[Part]:
        for handle in self._handles():
            for part in handle.parts:
                if may_match(part, self._bound):
                    yield part

    def _windows(self, places: Layout) -> Generator[_Window, None, None]:
        """Parts that are read together, in order, of which the next are under way already."""
        ahead: _Window | None = None
        pace = _Pace() if self._paced else None
        try:
            for window in self._cut(places):
                if pace is not None:
                    pace.wait()
                window.start(pace)
                if ahead is not None:
                    ahead.wait()
                    current, ahead = ahead, window
                    yield current
                    # Else the consumer's last batch would be held until the next is there.
                    del current
                elif window.transport.mappable:
                    yield window
                else:
                    ahead = window
            if ahead is not None:
                current, ahead = ahead, None
                current.wait()
                yield current
        finally:
            if ahead is not None:
                ahead.cancel()

    def _cut(self, places: Layout) -> Iterator[_Window]:
        window: _Window | None = None
        for part in self._wanted():
            spans = places.spans(part.rows, part.nulls, part.bytes)
            size = sum(length for _, length in spans)
            if window is not None and not window.takes(part, size):
                yield window
                window = None
            if window is None:
                window = _Window(self._transport_for(part.ref.element), part.ref.element)
            window.add(part, spans, size)
        if window is not None:
            yield window


def open_transports(action: Any) -> TransportFor:
    """The transports of an element's `action` (or of a `LibdAction`), by memory element."""
    return lambda element: action.get_transport(element, "rdma")


@dataclass(slots=True)
class _Window:
    """Neighbouring parts of one memory element that are read together."""

    transport: Transport
    element: str
    rows: int = 0
    size: int = 0
    parts: list[tuple[Part, list[tuple[int, int]]]] = field(default_factory=list)
    pending: Completion | None = None
    fetched: list[memoryview] = field(default_factory=list)

    def takes(self, part: Part, size: int) -> bool:
        """Whether `part`, of which `size` bytes are wanted, still belongs here."""
        if part.ref.element != self.element or len(self.parts) >= _MOST_PARTS:
            return False
        if self.transport.mappable:
            small = part.rows < _SMALL_ROWS and self.parts[-1][0].rows < _SMALL_ROWS
            return small and self.rows + part.rows <= BATCH_ROWS
        return self.size + size <= _WINDOW and self.rows + part.rows <= 4 * BATCH_ROWS

    def add(self, part: Part, spans: list[tuple[int, int]], size: int) -> None:
        self.parts.append((part, spans))
        self.rows += part.rows
        self.size += size

    def start(self, pace: _Pace | None) -> None:
        """Have the bytes sent, where they must be."""
        if self.transport.mappable:
            return
        reads = []
        for part, spans in self.parts:
            # A block for each part: consumers keep batches longer than they read them, DuckDB for
            # one, and what they keep should not be the whole window.
            size = sum(_aligned(length) for _, length in spans)
            buffer = pa.allocate_buffer(size)
            if pace is not None:
                pace.note(buffer)
            block = memoryview(buffer).cast("B")
            ((address, _),) = self.transport.resolve(part.ref)
            at = 0
            for offset, length in spans:
                reads.append((address + offset, block[at : at + length]))
                at += _aligned(length)
            self.fetched.append(block)
        if reads:
            self.pending = self.transport.submit(reads=reads)

    def wait(self) -> None:
        """Have the bytes here."""
        pending, self.pending = self.pending, None
        if pending is not None:
            pending.wait()

    def cancel(self) -> None:
        """Leave no transfer into memory that goes."""
        with contextlib.suppress(LibdError):
            self.wait()

    def batches(
        self, places: Layout, fields: Sequence[FieldSpec], schema: pa.Schema
    ) -> Iterator[pa.RecordBatch]:
        """The rows, small parts together."""
        views = self._views()
        run: list[tuple[Part, list[tuple[int, int]], list[memoryview]]] = []
        rows = 0
        for (part, spans), some in zip(self.parts, views, strict=True):
            small = part.rows < _SMALL_ROWS
            if run and (not small or rows + part.rows > BATCH_ROWS):
                yield self._batch(run, places, fields, schema)
                run, rows = [], 0
            run.append((part, spans, some))
            rows += part.rows
            if not small:
                yield self._batch(run, places, fields, schema)
                run, rows = [], 0
        if run:
            yield self._batch(run, places, fields, schema)

    def _views(self) -> Iterator[list[memoryview]]:
        blocks, self.fetched = iter(self.fetched), []
        for part, spans in self.parts:
            if self.transport.mappable:
                ((address, _),) = self.transport.resolve(part.ref)
                # Span by span, so that only what is named counts as read.
                yield [self.transport.map(address + offset, size) for offset, size in spans]
                continue
            block, at, views = next(blocks), 0, []
            for _, size in spans:
                views.append(block[at : at + size])
                at += _aligned(size)
            yield views

    def _batch(
        self,
        run: list[tuple[Part, list[tuple[int, int]], list[memoryview]]],
        places: Layout,
        fields: Sequence[FieldSpec],
        schema: pa.Schema,
    ) -> pa.RecordBatch:
        try:
            arrays = [
                places.columns(part.rows, part.nulls, part.bytes, spans, views)
                for part, spans, views in run
            ]
            array = arrays[0] if len(arrays) == 1 else _together(arrays, fields)
            batch = pa.record_batch(_Exported(schema, array))
            batch.validate()
        except (pa.ArrowException, ValueError) as error:
            part = run[0][0]
            raise StorageError(
                f"element {self.element!r}, region {part.ref.region}: the bytes are not the "
                f"columns that the handle describes: {error}"
            ) from error
        return batch


class _Pace:
    """How far a consumer may be ahead of itself: the memory of batches that it still holds."""

    def __init__(self) -> None:
        self._held: list[tuple[weakref.ref[pa.Buffer], int]] = []
        self._room = _IN_FLIGHT

    def note(self, buffer: pa.Buffer) -> None:
        """Memory that goes to the consumer."""
        self._held.append((weakref.ref(buffer), buffer.size))
        self._room = max(self._room, _LARGE_IN_FLIGHT * buffer.size)

    def wait(self) -> None:
        """Wait until the consumer holds little, or has held the same for long."""
        least, patience = self._bytes(), _PATIENCE
        if least <= self._room or not _MAY_WAIT.acquire(blocking=False):
            return
        try:
            while least > self._room and patience > 0:
                # Another thread lets go, with the interpreter's lock, which sleeping leaves to it.
                time.sleep(_TICK)
                now = self._bytes()
                patience = patience - _TICK if now >= least else _PATIENCE
                least = min(least, now)
        finally:
            _MAY_WAIT.release()

    def _bytes(self) -> int:
        self._held = [one for one in self._held if one[0]() is not None]
        return sum(size for _, size in self._held)


class _Exported:
    """An array of the kernel as pyarrow takes it."""

    def __init__(self, schema: pa.Schema, array: object) -> None:
        self._schema, self._array = schema, array

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]:
        return self._schema.__arrow_c_schema__(), self._array


def _together(arrays: Sequence[object], fields: Sequence[FieldSpec]) -> object:
    """Many small batches as one: what a writer with one partition does."""
    kinds, widths = kinds_of([f.type for f in fields])
    work = Scatter(kinds, widths, 1)
    for array in arrays:
        work.add(array)
    block = pa.allocate_buffer(work.size())
    work.write(block, False)
    ((_, _, rows, nulls, strings, _, _),) = work.parts()
    whole = Layout(kinds, widths, range(len(kinds)))
    spans = whole.spans(rows, nulls, strings)
    view = memoryview(block).cast("B")
    return whole.columns(rows, nulls, strings, spans, [view[a : a + n] for a, n in spans])


def _check_same(handle: FrameHandle, first: FrameHandle, number: int) -> None:
    if handle is not first and [(f.name, f.type) for f in handle.schema] != [
        (f.name, f.type) for f in first.schema
    ]:
        raise HandleError(
            f"handle {number} has other columns than handle 0: "
            f"{_describe(handle)} instead of {_describe(first)}"
        )


def _aligned(size: int) -> int:
    return (size + _ALIGN - 1) // _ALIGN * _ALIGN


def _describe(handle: FrameHandle) -> str:
    return "(" + ", ".join(f"{f.name} {f.type}" for f in handle.schema) + ")"
