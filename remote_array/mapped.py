"""Arrays over a transport that maps: the memory element's own bytes, nothing copied, no budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from remote_array.indexing import Run
from remote_array.spans import ArrayCounters

if TYPE_CHECKING:
    from libd import Transport

__all__ = ["MappedArray"]


class MappedArray:
    """The same interface as `SpanCache`, over one mapping of the whole array.

    Writes are in the memory element at once. Views keep the mapping alive.
    """

    def __init__(self, transport: Transport, base: int, nbytes: int, dtype: np.dtype[Any]) -> None:
        self._transport = transport
        self._elements: NDArray[Any] = np.empty(0, dtype)
        if nbytes:
            self._elements = np.frombuffer(transport.map(base, nbytes, writable=True), dtype)
        self.counters = ArrayCounters()

    @property
    def local_bytes(self) -> int:
        """Bytes of local memory: none."""
        return 0

    def read(self, run: Run, out: NDArray[Any]) -> None:
        """Copy the elements of a run into the one-dimensional `out`."""
        self.counters.hits += 1
        out[...] = self._run(run)

    def write(self, run: Run, data: NDArray[Any]) -> None:
        """Copy the one-dimensional `data` over the elements of a run."""
        self.counters.hits += 1
        self._run(run)[...] = data

    def pin(self, first: int, stop: int) -> NDArray[Any]:
        """Elements ``first:stop`` as a view of the memory element."""
        self.counters.hits += 1
        return self._elements[first:stop]

    @property
    def writing(self) -> bool:
        """Never: a view writes to the memory element itself, whatever becomes of this object."""
        return False

    def begin_write(self, runs: list[Run]) -> None:
        """Do nothing: what is written is there at once."""

    def end_write(self, runs: list[Run]) -> None:
        """Do nothing: what was written is there already."""

    def flush(self) -> None:
        """Make earlier writes durable in the memory element."""
        self._transport.flush()

    def refresh(self) -> None:
        """Do nothing more than `flush`: a mapping is never stale."""
        self._transport.flush()

    def _run(self, run: Run) -> NDArray[Any]:
        first, count, step = run
        return self._elements[first : first + (count - 1) * step + 1 : step]
