"""Rows in memory without those that no key wants, for kernels that read all that they are given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from operators.kernel import InMemory, KeySet

__all__ = ["kept_batches"]

# Rows that are looked at together: what is computed for them stays in a core's cache.
_ROWS = 1 << 16
# Copying the rows that are wanted saves nothing where they are more than this share.
_MOST = 0.8


def kept_batches(data: InMemory, threads: int = 1) -> Iterator[pa.RecordBatch]:
    """The batches of `data` without most of the rows that need not be read: of any 65,536 all are
    left out that need not be, or none.
    """
    if not data.kept:
        yield from data.batches
        return
    wanted = [_Wanted.of(position, keys) for position, keys in data.kept]
    pieces = (
        batch.slice(at, _ROWS) for batch in data.batches for at in range(0, batch.num_rows, _ROWS)
    )
    with ThreadPoolExecutor(threads) as pool:
        for found in pool.map(lambda piece: _kept(piece, wanted), pieces):
            if found.num_rows:
                yield found


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Keys of a column: whether each integer from the lowest key on is one, and one more that is
    not.
    """

    position: int
    low: int
    known: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, position: int, keys: KeySet) -> _Wanted:
        bits = np.unpackbits(keys.bits, bitorder="little").view(np.bool_)
        return cls(position, keys.low, np.append(bits, False))

    def among(self, column: pa.Array) -> npt.NDArray[np.bool_]:
        """Which values are keys. What is stored below a NULL may be one: its row stays then."""
        stored = np.frombuffer(column.buffers()[1], f"<i{column.type.bit_width // 8}")
        values = stored[column.offset : column.offset + len(column)]
        # What is below the lowest key is, without a sign, far above the greatest.
        places = np.subtract(values, self.low, dtype=np.int64).view(np.uint64)
        np.minimum(places, np.uint64(len(self.known) - 1), out=places)
        found: npt.NDArray[np.bool_] = self.known.take(places.view(np.int64))
        return found


def _kept(piece: pa.RecordBatch, wanted: Sequence[_Wanted]) -> pa.RecordBatch:
    first, *others = (keys.among(piece.column(keys.position)) for keys in wanted)
    for other in others:
        first &= other
    rows = np.flatnonzero(first)
    return piece if len(rows) > _MOST * len(first) else piece.take(pa.array(rows))
