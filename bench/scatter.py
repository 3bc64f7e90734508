"""The partition kernel: 10 million rows into 16 partitions, by hash and by ranges, in CPU seconds.

Beside what numpy takes for the same (partition numbers, stable argsort, take), and beside a plain
copy of as many bytes, which is the least that memory allows. All sides write into memory that was
touched before: what fresh pages cost is the memory's matter, not the kernel's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa

from bench.harness import Case, Options, Timer
from operators.partition import scatter, scatter_range

__all__ = ["NAMES", "scattering"]

ROWS = 10_000_000
QUICK_ROWS = 500_000
PARTITIONS = 16
LIMIT = 0.15
"""CPU seconds for five columns of fixed width."""

NAMES = [
    "hash, 5 x int64 | argsort+take",
    "hash, 5 x int64 | copyto",
    "hash, 5 fixed-width types | argsort+take",
    "hash, 4 fixed-width types and strings | copyto",
    "ranges, 5 x int64 | argsort+take",
]


class Cpu(Timer):
    """A side in seconds of this process's CPU time."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call

    def seconds(self, repeat: int) -> float:
        """CPU seconds of `repeat` calls."""
        start = time.process_time()
        for _ in range(repeat):
            self._call()
        return time.process_time() - start


def columns(rows: int) -> dict[str, pa.Array]:
    """Random columns of the types that facts have."""
    rng = np.random.default_rng(5)
    numbers = rng.integers(0, 1 << 40, (5, rows))
    words = pa.array([f"{n:010d}" for n in range(100_000)])
    return {
        **{f"i{i}": pa.array(numbers[i]) for i in range(5)},
        "int32": pa.array((numbers[0] >> 10).astype(np.int32)),
        "money": pa.Array.from_buffers(
            pa.decimal64(15, 2), rows, [None, pa.py_buffer(np.ascontiguousarray(numbers[1]))]
        ),
        "day": pa.array((numbers[2] % 20_000).astype(np.int32)).cast(pa.date32()),
        "float": pa.array(numbers[3] / 7),
        "word": words.take(pa.array(rng.integers(0, len(words), rows))),
    }


def scattering(options: Options) -> Iterator[Case]:
    """The cases, `NAMES` in order."""
    rows = QUICK_ROWS if options.quick else ROWS
    limit = None if options.quick else LIMIT
    given = columns(rows)
    integers = pa.table({f"i{i}": given[f"i{i}"] for i in range(5)})
    fixed = pa.table({n: given[n] for n in ("i0", "int32", "money", "day", "float")})
    mixed = pa.table({n: given[n] for n in ("i0", "int32", "money", "day", "word")})
    block = np.ones(rows * 48 + (1 << 20), np.uint8)
    copied = np.ones(rows * 48, np.uint8)
    quantiles = np.quantile(given["i0"].to_numpy(), np.arange(1, PARTITIONS) / PARTITIONS)
    edges = pa.record_batch({"i0": quantiles.astype(np.int64)})

    def hashed(table: pa.Table) -> Cpu:
        return Cpu(lambda: scatter(table, [0], PARTITIONS, lambda size: block[:size].data))

    def copy(table: pa.Table) -> Cpu:
        size = table.nbytes
        return Cpu(lambda: np.copyto(block[:size], copied[:size]))

    def ranged() -> None:
        scatter_range(integers, [0], edges, lambda size: block[:size].data)

    def taken(table: pa.Table, by: Callable[[np.ndarray], np.ndarray]) -> Cpu:
        arrays = [np.frombuffer(c.chunk(0).buffers()[1], _word(c.type)) for c in table.columns]

        def call() -> list[np.ndarray]:
            order = np.argsort(by(arrays[0]), kind="stable")
            return [np.take(a, order) for a in arrays]

        return Cpu(call)

    def modulo(keys: np.ndarray) -> np.ndarray:
        return (keys % PARTITIONS).astype(np.uint16)

    def sought(keys: np.ndarray) -> np.ndarray:
        return np.searchsorted(edges["i0"].to_numpy(), keys, "right").astype(np.uint16)

    sides = [
        (hashed(integers), "np.argsort+take", taken(integers, modulo), limit),
        (hashed(integers), "np.copyto", copy(integers), limit),
        (hashed(fixed), "np.argsort+take", taken(fixed, modulo), limit),
        (hashed(mixed), "np.copyto", copy(mixed), None),
        (Cpu(ranged), "np.searchsorted+argsort+take", taken(integers, sought), None),
    ]
    for name, (ours, peer_name, peer, most) in zip(NAMES, sides, strict=True):
        yield Case(
            name=name,
            unit="s",
            ours=ours,
            peer_name=peer_name,
            peer=peer,
            limit=most,
            table=f"scatter {rows:,} rows into {PARTITIONS} partitions, CPU seconds",
        )


def _word(type: pa.DataType) -> np.dtype:
    return np.dtype(f"i{type.bit_width // 8}")
