"""Windows: neighbouring parts of a frame that are read together, and how far reading is ahead.

On a transport that maps, a batch is a set of views of the memory element itself: nothing is copied,
and every array keeps the mapping alive. On the others one vectored read fetches the columns that
were asked for, and no others, while the consumer works on what was fetched before: a reader holds
two windows. Small parts are put together, so that a hundred thousand of them are not as many
batches.
"""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from libd.errors import LibdError
from operators._partition import Layout, Scatter
from operators.part_columns import kinds_of
from remote_frame.errors import StorageError
from remote_frame.handle import FieldSpec, Part

if TYPE_CHECKING:
    from libd import Transport
    from libd._core import Completion

__all__ = ["BATCH_ROWS", "TransportFor", "Window", "read_windows"]

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


def read_windows(
    parts: Iterable[Part], places: Layout, transport_for: TransportFor, *, paced: bool
) -> Generator[Window, None, None]:
    """Have `parts` here, in order: neighbours together, the next ones under way already.

    Parameters
    ----------
    parts
        What to read; asked for as reading proceeds.
    places
        The columns that are wanted of them.
    transport_for
        Gives the transport for an element's name.
    paced
        Whether the consumer gets no more while it holds much (`FrameReader`).

    Yields
    ------
    Window
        Of which the bytes are here, or mapped.
    """
    ahead: Window | None = None
    pace = _Pace() if paced else None
    try:
        for window in _cut(parts, places, transport_for):
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


def _cut(parts: Iterable[Part], places: Layout, transport_for: TransportFor) -> Iterator[Window]:
    window: Window | None = None
    for part in parts:
        spans = places.spans(part.rows, part.nulls, part.bytes)
        size = sum(length for _, length in spans)
        if window is not None and not window.takes(part, size):
            yield window
            window = None
        if window is None:
            window = Window(transport_for(part.ref.element), part.ref.element)
        window.add(part, spans, size)
    if window is not None:
        yield window


@dataclass(slots=True)
class Window:
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


def _aligned(size: int) -> int:
    return (size + _ALIGN - 1) // _ALIGN * _ALIGN
