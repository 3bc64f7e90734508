"""Reading: the parts of a frame as Arrow record batches over remote memory.

`FrameReader` is what a kernel scans: re-readable, and lazy, so that asking for the schema moves no
byte. It skips parts whose statistics exclude what the consumer looks for; it does not filter rows,
or read a part in pieces. How bytes get here, and how far ahead, is `remote_frame.windows`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from operators.part_columns import layout
from remote_frame.conditions import Condition, bind, may_match
from remote_frame.errors import ColumnNotFoundError, HandleError
from remote_frame.handle import FrameHandle, HandleStream, Part
from remote_frame.windows import BATCH_ROWS, TransportFor, read_windows

__all__ = ["BATCH_ROWS", "FrameReader", "TransportFor", "open_transports"]


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
        fetched = read_windows(self._wanted(), places, self._transport_for, paced=self._paced)
        with contextlib.closing(fetched) as windows:
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


def open_transports(action: Any) -> TransportFor:
    """The transports of an element's `action` (or of a `LibdAction`), by memory element."""
    return lambda element: action.get_transport(element, "rdma")


def _check_same(handle: FrameHandle, first: FrameHandle, number: int) -> None:
    if handle is not first and [(f.name, f.type) for f in handle.schema] != [
        (f.name, f.type) for f in first.schema
    ]:
        raise HandleError(
            f"handle {number} has other columns than handle 0: "
            f"{_describe(handle)} instead of {_describe(first)}"
        )


def _describe(handle: FrameHandle) -> str:
    return "(" + ", ".join(f"{f.name} {f.type}" for f in handle.schema) + ")"
