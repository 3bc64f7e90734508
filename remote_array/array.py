"""`RemoteArray`: a NumPy-like array whose elements live in a memory element."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from libd.errors import LibdError, ScadError
from libd.units import parse_size
from remote_array.cache import SpanCache
from remote_array.errors import ArrayError, BudgetError
from remote_array.handle import ArrayHandle, checked_dtype
from remote_array.indexing import Selection, select
from remote_array.mapped import MappedArray
from remote_array.spans import MAX_SPAN, MIN_SPAN, ArrayCounters, choose_span

if TYPE_CHECKING:
    from libd import Transport

__all__ = ["DEFAULT_BUDGET", "ActionLike", "RemoteArray"]

DEFAULT_BUDGET = 64 << 20
"""Bytes of local memory that an array may use, if nothing else is said."""

_FILL_BYTES = 1 << 20


class ActionLike(Protocol):
    """The part of an element's `action` that opening needs; a `LibdAction` has it too."""

    def get_transport(self, name: str, type: str = ..., timeout: float | None = ...) -> Any:
        """Return the transport to the memory element `name`."""


class RemoteArray:
    """A C-ordered array of numbers in a memory element, read and written through a local budget.

    Made by `create`, `from_array` or `open`, not by the constructor. Reading an index gives a
    fresh NumPy array (or scalar); assigning to one writes. `pin` gives a view without a copy.
    Integers, slices and an ellipsis are supported, whatever the number of dimensions.

    On transports that map (local, shared memory) every access goes straight to the memory element
    and the budget is not used. On the others, accesses go through a write-back cache: **writes
    reach the memory element when they are evicted, flushed, or the array is closed**, and elements
    that others write are seen after `refresh`.

    Not covered: arithmetic (NumPy does that on what was read), views of views, index arrays.
    """

    def __init__(
        self, transport: Transport, handle: ArrayHandle, budget: int | str, span: int | None
    ) -> None:
        self._transport = transport
        self._handle = handle
        self._freed = False
        self._store: MappedArray | SpanCache | None
        ((address, _),) = transport.resolve(handle.ref)
        self._address = address
        if transport.mappable:
            self._store = MappedArray(transport, address, handle.nbytes, handle.dtype)
            return
        limit = parse_size(budget)
        if span is None:
            span = choose_span(limit, handle.nbytes)
        elif not MIN_SPAN <= span <= MAX_SPAN or span & (span - 1):
            raise BudgetError(
                f"span {span}: a power of two from {MIN_SPAN} to {MAX_SPAN} is needed"
            )
        self._store = SpanCache(transport, address, handle.nbytes, handle.dtype, limit, span)

    @classmethod
    def create(
        cls,
        transport: Transport,
        shape: int | tuple[int, ...],
        dtype: DTypeLike = np.float64,
        fill: Any = None,
        *,
        budget: int | str = DEFAULT_BUDGET,
        span: int | None = None,
    ) -> RemoteArray:
        """Allocate an array in a memory element.

        Parameters
        ----------
        transport
            To the memory element.
        shape, dtype
            As in NumPy; the dtype is a number or bool.
        fill
            The value of every element; with None they are whatever the memory holds.
        budget
            The most bytes of local memory to use, as a number or like ``"16 MB"``.
        span
            Bytes that are fetched at once; chosen from the budget if None.

        Raises
        ------
        CapacityError
            If the memory element has no room.
        BudgetError
            If the budget is smaller than one span.
        """
        lengths = (shape,) if isinstance(shape, int) else tuple(int(n) for n in shape)
        if any(n < 0 for n in lengths):
            raise ArrayError(f"shape {lengths} has a negative length")
        kind = checked_dtype(dtype)
        nbytes = math.prod(lengths) * kind.itemsize
        address = transport.alloc(max(nbytes, 1))
        try:
            if fill is not None:
                _fill(transport, address, math.prod(lengths), np.asarray(fill).astype(kind))
            handle = ArrayHandle(kind, lengths, transport.ref([(address, nbytes)]))
            return cls(transport, handle, budget, span)
        except BaseException:
            with suppress(LibdError):  # what went wrong first is what is told
                transport.free(address)
            raise

    @classmethod
    def from_array(
        cls,
        transport: Transport,
        data: ArrayLike,
        *,
        budget: int | str = DEFAULT_BUDGET,
        span: int | None = None,
    ) -> RemoteArray:
        """Copy a local array into a memory element (bypassing the budget: it is local already)."""
        local = np.asarray(data, order="C")
        made = cls.create(transport, local.shape, local.dtype, budget=budget, span=span)
        try:
            if local.nbytes:
                transport.write_from(made._address, local.reshape(-1).view(np.uint8).data)
        except BaseException:
            with suppress(LibdError):
                made.free()
            raise
        return made

    @classmethod
    def open(
        cls,
        handle: Mapping[str, Any],
        source: Transport | ActionLike,
        *,
        budget: int | str = DEFAULT_BUDGET,
        span: int | None = None,
    ) -> RemoteArray:
        """Open the array that a handle describes.

        Parameters
        ----------
        handle
            What `handle` returned, as it went through JSON.
        source
            The element's `action`, or a transport to the memory element that the handle names.
        budget, span
            As in `create`.

        Raises
        ------
        ArrayHandleError
            If the handle is not one.
        StaleRefError
            If the array was freed.
        """
        parsed = ArrayHandle.from_json(handle)
        transport: Any = source
        if hasattr(source, "get_transport"):
            transport = source.get_transport(parsed.ref.element, "rdma")
        return cls(transport, parsed, budget, span)

    # Shape.

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each dimension."""
        return self._handle.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        return self._handle.dtype

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the array in the memory element."""
        return self._handle.nbytes

    @property
    def counters(self) -> ArrayCounters:
        """What the accesses through this object cost so far."""
        return self._open.counters

    @property
    def local_bytes(self) -> int:
        """Bytes of local memory in use, never more than the budget."""
        return self._open.local_bytes

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of an array without dimensions")
        return self.shape[0]

    def __repr__(self) -> str:
        state = "" if self._store is not None else ", closed"
        return (
            f"RemoteArray(shape={self.shape}, dtype={self.dtype}, "
            f"element={self._handle.ref.element!r}{state})"
        )

    # Access.

    def __getitem__(self, key: Any) -> Any:
        """Read a selection: a fresh array, or a scalar if every axis has an integer."""
        selection = select(key, self.shape)
        out: NDArray[Any] = np.empty(selection.counts, self.dtype)
        flat = out.reshape(-1)
        done = 0
        store = self._open
        for run in selection.runs():
            store.read(run, flat[done : done + run[1]])
            done += run[1]
        return out[selection.unflip] if selection.counts else out[()]

    def __setitem__(self, key: Any, value: Any) -> None:
        """Write a selection; `value` is broadcast and converted as NumPy does."""
        selection = select(key, self.shape)
        if np.ndim(value) == 0:
            self._write_number(selection, value)
            return
        staged: NDArray[Any] = np.empty(selection.counts, self.dtype)
        staged[selection.unflip] = value
        flat = staged.reshape(-1)
        done = 0
        store = self._open
        for run in selection.runs():
            store.write(run, flat[done : done + run[1]])
            done += run[1]

    def _write_number(self, selection: Selection, value: Any) -> None:
        """Write one number everywhere, in pieces: the selection may be larger than memory."""
        count = min(selection.size, max(1, _FILL_BYTES // self.dtype.itemsize))
        piece: NDArray[Any] = np.empty(count, self.dtype)
        piece[...] = value
        store = self._open
        for first, left, step in selection.runs():
            while left:
                n = min(left, len(piece))
                store.write((first, n, step), piece[:n])
                first += n * step
                left -= n

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read everything (NumPy's protocol); `copy=False` works where the array is mapped."""
        if copy is False:
            store = self._open
            if not isinstance(store, MappedArray) or (dtype is not None and dtype != self.dtype):
                raise ValueError("a remote array cannot be seen as a local one without a copy")
            view = store.pin(0, self.size).reshape(self.shape)
            view.flags.writeable = False
            return view
        local: NDArray[Any] = np.asarray(self[...])
        return local if dtype is None else local.astype(dtype, copy=False)

    @contextmanager
    def pin(self, key: Any = ..., *, writable: bool = False) -> Iterator[NDArray[Any]]:
        """Give a view of a selection in place, without a copy of its own.

        Inside the ``with`` block the view is coherent with reads and writes through this object.
        On a copying transport its spans are gathered into neighbouring frames, which count against
        the budget and stay there **until the last view of them is gone**; after the block the view
        is read-only. With `writable`, the whole selection counts as written.

        Parameters
        ----------
        key
            An index, as for reading.
        writable
            Whether the view can be written to.

        Raises
        ------
        BudgetError
            If live pins leave too few neighbouring frames for everything from the first to the
            last element of the selection.
        PinConflictError
            If it overlaps a live pin without lying inside it.
        """
        selection = select(key, self.shape)
        store = self._open
        view = self._view(store, selection)
        if not writable:
            view.flags.writeable = False
            yield view
            return
        runs = list(selection.runs())
        store.begin_write(runs)
        try:
            yield view
        finally:
            view.flags.writeable = False
            store.end_write(runs)

    def _view(self, store: MappedArray | SpanCache, selection: Selection) -> NDArray[Any]:
        if not selection.size:
            return np.empty(selection.counts, self.dtype)
        flat = store.pin(selection.first, selection.stop)
        strides = [s * self.dtype.itemsize for s in selection.strides]
        memory_order = np.lib.stride_tricks.as_strided(flat, selection.counts, strides)
        return memory_order[selection.unflip] if selection.counts else memory_order

    # Life.

    def flush(self) -> None:
        """Write back what was written; durable in the memory element when it returns."""
        self._open.flush()

    def refresh(self) -> None:
        """Flush, then forget cached elements, so that the next reads see what others wrote."""
        self._open.refresh()

    def handle(self) -> dict[str, Any]:
        """Flush and return the array's handle: what an element returns to pass the array on."""
        self.flush()
        return self._handle.to_json()

    def close(self) -> None:
        """Flush and give the local budget back; the array stays in the memory element.

        Raises
        ------
        ArrayError
            If a writable pin is live: what is written to it later would be lost.
        """
        if self._store is not None:
            if self._store.writing:
                raise ArrayError("a writable pin of the array is live: leave its block, then close")
            self._store.flush()
            self._store = None

    def free(self) -> None:
        """Give the memory element's bytes back, unflushed; handles of the array are stale then.

        Also works after `close`, which leaves the bytes where they are. Once they are given back,
        does nothing.

        Raises
        ------
        StaleRefError
            If somebody else has freed the array.
        """
        self._store = None
        if not self._freed:
            self._transport.free(self._address)
            self._freed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
            return
        # What went wrong in the block is what is told, also where writing back fails because of it.
        with suppress(ScadError):
            self.close()
        self._store = None

    @property
    def _open(self) -> MappedArray | SpanCache:
        if self._store is None:
            raise ArrayError("the array was closed")
        return self._store


def _fill(transport: Transport, address: int, count: int, value: NDArray[Any]) -> None:
    if value.ndim:
        raise ArrayError("fill must be one number")
    chunk = np.full(min(count, _FILL_BYTES // value.itemsize), value)
    block = chunk.view(np.uint8).data
    at, end = 0, count * value.itemsize
    while at < end:
        size = min(len(block), end - at)
        transport.write_from(address + at, block[:size])
        at += size
