"""What an element needs of a kernel: the narrow interface behind which DuckDB stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from operators.rel import Rel

__all__ = ["ArrowStream", "InMemory", "Kernel", "KeySet"]

ArrowStream: TypeAlias = Any
"""An object with `__arrow_c_stream__`. Unless a fragment reads it once only, asking it again
must start again.

An object that also has ``arrow_stream(columns: Sequence[str])`` is asked for just the columns
that a fragment names, and is expected to give an object with `__arrow_c_stream__` over them in
that order. One that has ``resident_batches(columns: Sequence[str])`` as well is asked first whether
its rows are in memory: it gives an `InMemory`, or None if it has to be streamed.
"""


@dataclass(frozen=True, slots=True, eq=False)
class KeySet:
    """Some integers: those whose bit is set of the ones from `low` on.

    Attributes
    ----------
    bits
        As ``numpy.packbits(…, bitorder="little")`` packs them.
    """

    low: int
    bits: npt.NDArray[np.uint8]

    @property
    def size(self) -> int:
        """How many there are."""
        return int(np.bitwise_count(self.bits).sum())


@dataclass(frozen=True, slots=True)
class InMemory:
    """Columns in memory, as a kernel scans them.

    Attributes
    ----------
    ranges
        Least and greatest value per column, as stored integers, None where they are not known;
        empty if none are. A kernel relies on them.
    kept
        Positions of columns of signed integers, and keys: other rows than those whose values are
        among them all need not be read. A kernel may do with that as it likes.
    """

    schema: pa.Schema
    batches: Sequence[pa.RecordBatch]
    ranges: Sequence[tuple[int, int] | None] = ()
    kept: Sequence[tuple[int, KeySet]] = ()


class Kernel(Protocol):
    """Runs a lowered plan over Arrow streams. `Fragment` types differ from kernel to kernel;
    `lower` makes them.
    """

    def lower(self, plan: Rel) -> Any:
        """The kernel's own form of `plan`."""

    def run(
        self, fragment: Any, inputs: Mapping[str, ArrowStream] | None = None
    ) -> pa.RecordBatchReader:
        """Start a fragment; batches come as they are made, of exactly the plan's schema.

        Raises
        ------
        KernelMemoryError
            If it needs more memory than it may use (also while the batches are read).
        KernelError
            If it fails in any other way.
        """

    def close(self) -> None:
        """Give everything back."""
