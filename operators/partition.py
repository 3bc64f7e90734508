"""Write Arrow data as parts: blocks of Arrow buffers in memory that others give, one part for each
partition (`operators.partitioning`).

Two passes: partition numbers with sizes per partition, then a scatter straight into the block.
Batches are staged in between, so that whoever writes much writes it in several blocks
(`Partitioner`). Bytes below a NULL are whatever the input holds there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import pyarrow as pa

from operators import _partition as native
from operators.distinct import Distinct
from operators.errors import OperatorError, PlanError
from operators.part_columns import Reading, Stat, decoded, kinds_of, reading, written_schema
from operators.partitioning import (
    MAX_PARTITIONS,
    Hash,
    Partitioning,
    Ranges,
    Single,
    kernel_arguments,
)

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["STREAM_BYTES", "PartWritten", "Partitioner", "scatter", "scatter_range"]

STREAM_BYTES = 4 << 20
"""A block from this size on is written past the caches: it would only drive out what is in them."""

_MAX_OFFSET32 = 2**31 - 1
_SMALL_ROWS = 2048
"""Batches of fewer rows are put together first: each costs a little per partition and column."""

Data: TypeAlias = "pa.RecordBatchReader | pa.Table | pa.RecordBatch | Iterable[pa.RecordBatch]"


@dataclass(frozen=True, slots=True)
class PartWritten:
    """What was written of one partition.

    Attributes
    ----------
    offset, length
        Where it is in the block, in bytes; both are multiples of 64.
    rows
        Number of rows.
    null_counts
        NULLs of each column.
    string_bytes
        Bytes of the values of each column of strings or binaries, in the order of the columns. With
        rows and nulls it says where every buffer is (`layout`).
    minimums, maximums
        Of each column of integers, dates, timestamps and decimals, as the stored integer (a decimal
        unscaled); of floats, as float; of strings, their first bytes only, at most 8 and no half
        characters. None for other types, where there is no value, and for what a JSON number
        cannot hold (NaN, infinities, integers beyond 64 bits).
    """

    offset: int
    length: int
    rows: int
    null_counts: tuple[int, ...]
    string_bytes: tuple[int, ...]
    minimums: tuple[Stat, ...]
    maximums: tuple[Stat, ...]


class Partitioner:
    """Scatters batches into blocks of parts.

    Parameters
    ----------
    schema
        Of the batches.
    partitioning
        How rows find their partition.

    Raises
    ------
    UnsupportedTypeError
        For nested, extension and other types without a plain layout; the message names the column.
    PlanError
        If keys, boundaries or the number of partitions make no sense.
    """

    def __init__(self, schema: pa.Schema, partitioning: Partitioning) -> None:
        self.source = schema
        self.schema = written_schema(schema)
        self.partitioning = partitioning
        self._plain = self.schema.types == schema.types
        self._small: list[pa.RecordBatch] = []
        self._known: pa.Schema | None = None
        kinds, widths = kinds_of(self.schema.types)
        self._readings = list(map(reading, self.schema.types, kinds))
        self._work = native.Scatter(
            kinds,
            widths,
            partitioning.partitions,
            *kernel_arguments(partitioning, self.schema),
        )

    @property
    def rows(self) -> int:
        """Rows that are staged."""
        return self._work.staged + sum(int(b.num_rows) for b in self._small)

    def add(self, batch: pa.RecordBatch) -> None:
        """Stage a batch; it is held until `write` or `clear`."""
        if batch.schema is not self._known:
            # Most sources give all batches one schema object.
            if batch.schema.types != self.source.types:
                raise PlanError("all batches must have one schema")
            self._known = batch.schema
        if not batch.num_rows:
            return
        if not self._plain:
            batch = decoded(batch, self.schema)
        if batch.num_rows >= _SMALL_ROWS:
            self._add_small()
            self._work.add(batch.__arrow_c_array__()[1])
            return
        self._small.append(batch)
        if sum(b.num_rows for b in self._small[-16:]) >= _SMALL_ROWS or len(self._small) >= 64:
            self._add_small()

    def write(self, allocate: Callable[[int], WriteableBuffer]) -> list[PartWritten]:
        """Write everything that is staged into one block, and hold it no longer.

        Parameters
        ----------
        allocate
            Called once, with the size of the block in bytes, for at least as much writable memory;
            not at all where there are no bytes.

        Returns
        -------
        list of PartWritten
            One per partition, in order. Rows keep their order within a partition.

        Raises
        ------
        OperatorError
            If the strings of one part exceed 2 GiB in a column of 32-bit offsets.
        """
        self._add_small()
        column, length = self._work.widest()
        if length > _MAX_OFFSET32:
            field = self.schema[column]
            raise OperatorError(
                f"column {field.name!r}: more than 2 GiB of strings in one part; "
                f"use more partitions or a large_{field.type} column"
            )
        size = self._work.size()
        if size:
            self._work.write(allocate(size), size >= STREAM_BYTES)
        parts = [
            PartWritten(
                offset,
                length,
                rows,
                tuple(nulls),
                tuple(strings),
                _stats(self._readings, least),
                _stats(self._readings, most),
            )
            for offset, length, rows, nulls, strings, least, most in self._work.parts()
        ]
        self.clear()
        return parts

    def clear(self) -> None:
        """Forget what is staged."""
        self._small = []
        self._work.clear()

    def distinct(self) -> tuple[Distinct, ...]:
        """Sketches of the distinct values of each column, of everything that was written so far."""
        return tuple(Distinct(registers, rows) for registers, rows in self._work.distinct())

    def _add_small(self) -> None:
        small, self._small = self._small, []
        if len(small) > 1:
            (small,) = (pa.Table.from_batches(small).combine_chunks().to_batches(),)
        for batch in small:
            self._work.add(batch.__arrow_c_array__()[1])


def _stats(readings: Sequence[Reading | None], ordered: Sequence[int | None]) -> tuple[Stat, ...]:
    return tuple(
        None if value is None or read is None else read(value)
        for read, value in zip(readings, ordered, strict=True)
    )


def scatter(
    data: Data,
    keys: Sequence[int],
    partitions: int,
    allocate: Callable[[int], WriteableBuffer],
    *,
    schema: pa.Schema | None = None,
) -> list[PartWritten]:
    """Write every row of `data` into exactly one of `partitions` parts of one block, rows of equal
    keys into one.

    Parameters
    ----------
    data
        A table, a batch, a reader or an iterable of batches; all of it is held until it is
        written (`Partitioner` holds less).
    keys
        Positions of the columns to hash by. Without any, `partitions` must be 1: plain writing.
    partitions
        1 to 65535.
    allocate
        See `Partitioner.write`.
    schema
        Needed only where `data` is an iterable that may be empty.

    Returns
    -------
    list of PartWritten
        One per partition, in order. Rows keep their order within a partition.

    Raises
    ------
    UnsupportedTypeError, PlanError, OperatorError
        See `Partitioner`.
    """
    if not keys and partitions > 1:
        raise PlanError(f"{partitions} partitions need key columns to scatter by")
    how = Hash(tuple(keys), partitions) if keys else Single()
    if not 1 <= partitions <= MAX_PARTITIONS:
        raise PlanError(f"partitions must be 1 to {MAX_PARTITIONS}, not {partitions}")
    return _written(data, how, allocate, schema)


def scatter_range(
    data: Data,
    keys: Sequence[int],
    boundaries: pa.RecordBatch,
    allocate: Callable[[int], WriteableBuffer],
    *,
    descending: Sequence[bool] = (),
    nulls_first: Sequence[bool] = (),
    schema: pa.Schema | None = None,
) -> list[PartWritten]:
    """Write every row of `data` into the part between its boundaries: `Ranges`, `scatter`."""
    how = Ranges(tuple(keys), boundaries, tuple(descending), tuple(nulls_first))
    return _written(data, how, allocate, schema)


def _written(
    data: Data,
    partitioning: Partitioning,
    allocate: Callable[[int], WriteableBuffer],
    schema: pa.Schema | None,
) -> list[PartWritten]:
    batches, schema = _batches(data, schema)
    work = Partitioner(schema, partitioning)
    for batch in batches:
        work.add(batch)
    return work.write(allocate)


def _batches(data: Data, schema: pa.Schema | None) -> tuple[Iterable[pa.RecordBatch], pa.Schema]:
    if isinstance(data, pa.Table):
        return data.to_batches(), data.schema
    if isinstance(data, pa.RecordBatch):
        return [data], data.schema
    if isinstance(data, pa.RecordBatchReader):
        return data, data.schema
    if hasattr(data, "__arrow_c_stream__"):
        reader = pa.RecordBatchReader.from_stream(data)
        return reader, reader.schema
    batches = list(data)
    if schema is None:
        if not batches:
            raise PlanError("no batches and no schema: what is to be written?")
        schema = batches[0].schema
    return batches, schema
