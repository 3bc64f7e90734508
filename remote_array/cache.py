"""The span cache: a remote array's bytes under a hard local budget.

The array is cut into *spans* of equal size (64 KiB to 2 MiB). A span is resident in a *frame* of
one pool that is allocated once and never grows. A miss fetches whole spans, several with one
vectored read; eviction takes the least recently used span that is not pinned. Every frame has a
bitmap with one bit per element: write-back sends exactly the elements that were written, so it
never overwrites what somebody else changed between them.

A *pin* is a run of neighbouring frames that holds neighbouring spans, so that it can be seen as one
array; its frames stay where they are for as long as a view of them is alive, also after the
``with`` block. Two pins may share spans if one lies inside the run of the other. Where the array
does not fit in the pool, one frame is never pinned, so that reading and writing always go on.

The order of the tables' updates is: write back first, forget afterwards; fetch first, remember
afterwards. A transport that fails leaves dirty spans dirty and nothing half-fetched.

Not here: prefetching, plan hints, a better policy than LRU, and caches shared by several arrays.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from remote_array.errors import BudgetError, PinConflictError
from remote_array.indexing import Run
from remote_array.spans import ArrayCounters

if TYPE_CHECKING:
    from libd import Transport

__all__ = ["SpanCache"]

_SEGMENTS = 4096
"""The most pieces of one vectored write: their list must not outgrow the budget."""


class SpanCache:
    """Pinned write-back cache over ``nbytes`` at ``base`` of a memory element. Thread-safe.

    Parameters
    ----------
    transport
        Any transport; bytes are copied over it.
    base, nbytes
        Address of the array and its length in bytes.
    dtype
        Of its elements: the unit of runs and of dirty bits. Its size divides the span.
    budget
        The most bytes that frames and bitmaps take together.
    span
        Bytes per span, a power of two from 64 KiB to 2 MiB.

    Raises
    ------
    BudgetError
        If the budget is smaller than one span and its bitmap.
    """

    def __init__(
        self,
        transport: Transport,
        base: int,
        nbytes: int,
        dtype: np.dtype[Any],
        budget: int,
        span: int,
    ) -> None:
        self._transport = transport
        self._base = base
        self._nbytes = nbytes
        self._dtype = dtype
        self._span = span
        self._per_span = span // dtype.itemsize  # elements
        bitmap = (self._per_span + 7) // 8
        spans = max(1, -(-nbytes // span))
        frames = min(budget // (span + bitmap), spans)
        if frames < 1:
            raise BudgetError(
                f"a budget of {budget} bytes holds no span: at least {span + bitmap} are needed"
            )
        # Filled, not merely reserved: the first touch of a page must not fall into a kernel.
        self._pool = np.full((frames, span), 0, np.uint8)
        self._bitmaps = np.zeros((frames, bitmap), np.uint8)
        self._dirty = [False] * frames
        self._pins = [0] * frames
        self._span_in: list[int | None] = [None] * frames
        self._frame_of: OrderedDict[int, int] = OrderedDict()  # least recently used first
        self._dead_pins: deque[range] = deque()
        self._writers: list[list[Run]] = []
        self._pinnable = frames if frames == spans else frames - 1
        self._lock = threading.RLock()
        self.counters = ArrayCounters()

    @property
    def frames(self) -> int:
        """Frames in the pool."""
        return len(self._pool)

    @property
    def span(self) -> int:
        """Bytes per span."""
        return self._span

    @property
    def local_bytes(self) -> int:
        """Bytes that the pool and the bitmaps take, never more than the budget."""
        return self._pool.nbytes + self._bitmaps.nbytes

    # Copying access.

    def read(self, run: Run, out: NDArray[Any]) -> None:
        """Copy the elements of a run into the one-dimensional `out`."""
        with self._lock:
            done = 0
            for frame, inside in self._walk(run, overwrite=False):
                piece = self._elements(frame)[inside]
                out[done : done + len(piece)] = piece
                done += len(piece)

    def write(self, run: Run, data: NDArray[Any]) -> None:
        """Copy the one-dimensional `data` over the elements of a run and mark them dirty."""
        with self._lock:
            done = 0
            for frame, inside in self._walk(run, overwrite=True):
                target = self._elements(frame)[inside]
                # Marked first: an interrupted copy writes back too much, not too little.
                self._mark(frame, inside)
                target[...] = data[done : done + len(target)]
                done += len(target)

    # Pins.

    def pin(self, first: int, stop: int) -> NDArray[Any]:
        """Elements ``first:stop`` as one array over the frames, which stay while it is alive.

        Raises
        ------
        BudgetError
            If there is no run of frames long enough that live pins leave free.
        PinConflictError
            If some of the spans, but not all in one piece, are in a live pin.
        """
        with self._lock:
            spans = range(first // self._per_span, (stop - 1) // self._per_span + 1)
            frames = self._gather(spans)
            pinned = sum(p > 0 or f in frames for f, p in enumerate(self._pins))
            if pinned > self._pinnable:
                raise self._too_much(len(spans))
            start = frames.start * self._span + (first % self._per_span) * self._dtype.itemsize
            owner = _PinnedBytes(
                self._pool, self._pool.ctypes.data + start, stop - first, self._dtype
            )
            view = np.asarray(owner)
            for frame in frames:
                self._pins[frame] += 1
            # The view, and whatever is derived from it, holds `owner`. A finalizer may run in the
            # middle of any of these methods, so it only leaves a note.
            weakref.finalize(owner, self._dead_pins.append, frames).atexit = False
            return view

    @property
    def writing(self) -> bool:
        """Whether somebody is between `begin_write` and `end_write`."""
        return bool(self._writers)

    def begin_write(self, runs: list[Run]) -> None:
        """From now on the elements of the runs, which are pinned, may change at any time."""
        with self._lock:
            self._writers.append(runs)

    def end_write(self, runs: list[Run]) -> None:
        """The elements of the runs, given to `begin_write` and pinned, change no more."""
        with self._lock:
            self._writers = [w for w in self._writers if w is not runs]
            self._mark_runs(runs)

    # Write-back.

    def flush(self) -> None:
        """Write back every dirty element; durable in the memory element when it returns."""
        with self._lock:
            for runs in self._writers:
                self._mark_runs(runs)
            self._write_back([f for f, dirty in enumerate(self._dirty) if dirty])
            self._transport.flush()

    def refresh(self) -> None:
        """Write back, then forget every span that is not pinned; pinned ones are fetched again."""
        with self._lock:
            self.flush()
            self._reap()
            for span, frame in list(self._frame_of.items()):
                if not self._pins[frame]:
                    self._forget(span)
            self._fetch([(span, frame) for span, frame in self._frame_of.items()])

    # Inside.

    def _elements(self, frame: int) -> NDArray[Any]:
        elements: NDArray[Any] = self._pool[frame].view(self._dtype)
        return elements

    def _span_bytes(self, span: int) -> int:
        return min(self._span, self._nbytes - span * self._span)

    def _pieces(self, run: Run) -> Iterator[tuple[int, slice, bool]]:
        """Cut a run at the borders of spans: the span, its elements, whether they are all of it."""
        first, count, step = run
        while count:
            span, at = divmod(first, self._per_span)
            fit = min(count, (self._per_span - at + step - 1) // step)
            inside = slice(at, at + (fit - 1) * step + 1, step)
            whole = step == 1 and fit * self._dtype.itemsize == self._span_bytes(span)
            yield span, inside, whole
            first += fit * step
            count -= fit

    def _walk(self, run: Run, *, overwrite: bool) -> Iterator[tuple[int, slice]]:
        """The pieces of a run with their frames, each resident when it is its turn."""
        pieces = list(self._pieces(run))
        position = 0
        while position < len(pieces):
            # As many as the pool can hold at once are fetched together.
            group = pieces[position : position + len(self._pool)]
            resident = self._load(
                [span for span, _, _ in group],
                skip={span for span, _, whole in group if whole and overwrite},
            )
            for span, inside, _ in group[:resident]:
                yield self._frame_of[span], inside
            position += resident

    def _load(self, spans: Sequence[int], skip: Collection[int] = ()) -> int:
        """Make a prefix of `spans` resident, at least one; return its length.

        Those in `skip` are about to be overwritten whole and are not fetched.
        """
        self._reap()
        wanted: dict[int, None] = dict.fromkeys(spans)
        missing = [s for s in wanted if s not in self._frame_of]
        if missing:
            # Where pins leave no room for the whole group, the first span must fit alone.
            frames = self._make_room(len(missing), keep=wanted) or self._make_room(1, keep=())
            found = list(zip(missing, frames, strict=False))
            fetched = [(s, f) for s, f in found if s not in skip]
            self._fetch(fetched)
            self.counters.misses += len(fetched)
            for span, frame in found:
                self._frame_of[span] = frame
                self._span_in[frame] = span
        resident = 0
        new = set(missing)
        for span in spans:
            if span not in self._frame_of:
                break
            self._frame_of.move_to_end(span)
            self.counters.hits += span not in new
            resident += 1
        return resident

    def _make_room(self, count: int, keep: Collection[int]) -> list[int]:
        """Up to `count` empty frames, evicting what is not pinned and not in `keep`."""
        frames = [f for f, span in enumerate(self._span_in) if span is None and not self._pins[f]]
        victims = [
            (span, frame)
            for span, frame in self._frame_of.items()
            if not self._pins[frame] and span not in keep
        ][: max(0, count - len(frames))]
        self._evict(victims)
        return (frames + [frame for _, frame in victims])[:count]

    def _evict(self, victims: Sequence[tuple[int, int]]) -> None:
        self._write_back([frame for _, frame in victims if self._dirty[frame]])
        for span, _ in victims:
            self._forget(span)
        self.counters.evictions += len(victims)

    def _forget(self, span: int) -> None:
        self._span_in[self._frame_of.pop(span)] = None

    def _fetch(self, pairs: Sequence[tuple[int, int]]) -> None:
        segments = [
            (
                self._base + span * self._span,
                self._pool[frame, : self._span_bytes(span)].data,
            )
            for span, frame in pairs
        ]
        if segments:
            self._transport.readv(segments)
            self.counters.bytes_in += sum(len(out) for _, out in segments)

    def _mark_runs(self, runs: Sequence[Run]) -> None:
        for run in runs:
            for span, inside, _ in self._pieces(run):
                self._mark(self._frame_of[span], inside)

    def _mark(self, frame: int, inside: slice) -> None:
        bitmap = self._bitmaps[frame]
        if inside.step == 1:
            (low, low_bit), (high, high_bit) = divmod(inside.start, 8), divmod(inside.stop, 8)
            head, tail = 0xFF << low_bit & 0xFF, (1 << high_bit) - 1
            if low == high:
                bitmap[low] |= head & tail
            else:
                bitmap[low] |= head
                bitmap[low + 1 : high] = 0xFF
                if tail:
                    bitmap[high] |= tail
        else:
            elements = np.arange(inside.start, inside.stop, inside.step)
            np.bitwise_or.at(bitmap, elements >> 3, (1 << (elements & 7)).astype(np.uint8))
        self._dirty[frame] = True

    def _write_back(self, frames: Sequence[int]) -> None:
        segments: list[tuple[int, memoryview]] = []
        for frame in sorted(frames, key=lambda f: self._span_in[f] or 0):
            span = self._span_in[frame]
            assert span is not None
            address = self._base + span * self._span
            size = self._dtype.itemsize
            bits = np.unpackbits(self._bitmaps[frame], bitorder="little").view(np.int8)
            edges = (np.flatnonzero(np.diff(bits, prepend=0, append=0)) * size).reshape(-1, 2)
            for first in range(0, len(edges), _SEGMENTS):
                for start, stop in edges[first : first + _SEGMENTS].tolist():
                    segments.append((address + start, self._pool[frame, start:stop].data))
                    if len(segments) == _SEGMENTS:
                        self._send(segments)
                        segments = []
        self._send(segments)
        for frame in frames:
            self._bitmaps[frame] = 0
            self._dirty[frame] = False
        self.counters.writebacks += len(frames)

    def _send(self, segments: Sequence[tuple[int, memoryview]]) -> None:
        if segments:
            self._transport.writev(segments)
            self.counters.bytes_out += sum(len(data) for _, data in segments)

    def _reap(self) -> None:
        """Unpin the frames of pins whose last view died."""
        while self._dead_pins:
            for frame in self._dead_pins.popleft():
                self._pins[frame] -= 1

    def _gather(self, spans: range) -> range:
        """Make `spans` resident in neighbouring frames; return the frames."""
        if len(spans) == 1:
            self._load(spans)
            frame = self._frame_of[spans[0]]
            return range(frame, frame + 1)
        self._reap()
        run = self._in_one_piece(spans)
        if run is None:
            pinned = [s for s in spans if s in self._frame_of and self._pins[self._frame_of[s]]]
            if pinned:
                raise PinConflictError(
                    f"spans {pinned[0]} to {pinned[-1]} of the wanted {spans.start} to "
                    f"{spans[-1]} are in a live pin and cannot be moved: release it first"
                )
            run = self._choose_run(len(spans))
            self._evict(
                [
                    (held, frame)
                    for span, frame in zip(spans, run, strict=True)
                    if (held := self._span_in[frame]) is not None and held != span
                ]
            )
            for span, frame in zip(spans, run, strict=True):
                if (old := self._frame_of.get(span)) is not None and old != frame:
                    self._move(span, old, frame)
            missing = [(s, f) for s, f in zip(spans, run, strict=True) if s not in self._frame_of]
            self._fetch(missing)
            self.counters.misses += len(missing)
            self.counters.hits += len(spans) - len(missing)
            for span, frame in missing:
                self._frame_of[span] = frame
                self._span_in[frame] = span
        else:
            self.counters.hits += len(spans)
        for span in spans:
            self._frame_of.move_to_end(span)
        return run

    def _in_one_piece(self, spans: range) -> range | None:
        first = self._frame_of.get(spans[0])
        if first is None:
            return None
        run = range(first, first + len(spans))
        fits = all(self._frame_of.get(s) == f for s, f in zip(spans, run, strict=True))
        return run if fits else None

    def _choose_run(self, length: int) -> range:
        """The run of unpinned frames with the fewest dirty and then the fewest resident spans."""
        best: tuple[int, int, int] | None = None
        for start in range(len(self._pool) - length + 1):
            run = range(start, start + length)
            if any(self._pins[f] for f in run):
                continue
            dirty = sum(self._dirty[f] for f in run)
            held = sum(self._span_in[f] is not None for f in run)
            best = min(best or (dirty, held, start), (dirty, held, start))
        if best is None or length + sum(p > 0 for p in self._pins) > self._pinnable:
            raise self._too_much(length)
        return range(best[2], best[2] + length)

    def _too_much(self, length: int) -> BudgetError:
        return BudgetError(
            f"a pin of {length} spans ({length * self._span} bytes) needs as many neighbouring "
            f"frames; {self._pinnable} of the budget's {self.frames} can be pinned and "
            f"{sum(p > 0 for p in self._pins)} are: release pins (and their views), pin less, or "
            "give the array a larger budget"
        )

    def _move(self, span: int, old: int, new: int) -> None:
        self._pool[new] = self._pool[old]
        self._bitmaps[new], self._bitmaps[old] = self._bitmaps[old], 0
        self._dirty[new], self._dirty[old] = self._dirty[old], False
        self._span_in[new], self._span_in[old] = span, None
        self._frame_of[span] = new


class _PinnedBytes:
    """The end of every chain of `base` of the views of one pin; it keeps the pool alive."""

    def __init__(
        self, pool: NDArray[np.uint8], address: int, count: int, dtype: np.dtype[Any]
    ) -> None:
        self._pool = pool
        self.__array_interface__ = {
            "version": 3,
            "shape": (count,),
            "typestr": dtype.str,
            "data": (address, False),
        }
