"""Write Arrow data as parts: blocks of Arrow buffers in memory that others give, scattered by hash
or by ranges of key columns.

The hash is of values, not of widths: an INT32 and a BIGINT of one value, a decimal of one value
and scale in 32, 64 or 128 bits, a string in either offset width land in one partition. ``-0.0``
goes with ``0.0``, NaNs go together, NULL has a fixed place. Floats do not hash like integers
and decimals of different scales differ: cast join keys to one type first. Dates and timestamps
hash as their integers, so their units must agree too.

Two passes: partition numbers with sizes per partition, then a scatter straight into the block.
Batches are staged in between, so that whoever writes much writes it in several blocks
(`Partitioner`). Bytes below a NULL are whatever the input holds there.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import pyarrow as pa
import pyarrow.types as pt

from operators import _partition as native
from operators.distinct import Distinct
from operators.errors import OperatorError, PlanError, UnsupportedTypeError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = [
    "MAX_PARTITIONS",
    "STREAM_BYTES",
    "Hash",
    "PartWritten",
    "Partitioner",
    "Partitioning",
    "Ranges",
    "Single",
    "Stat",
    "kinds_of",
    "layout",
    "scatter",
    "scatter_range",
    "written_schema",
]

MAX_PARTITIONS = 65535
STREAM_BYTES = 4 << 20
"""A block from this size on is written past the caches: it would only drive out what is in them."""

_MAX_OFFSET32 = 2**31 - 1
_SMALL_ROWS = 2048
"""Batches of fewer rows are put together first: each costs a little per partition and column."""
_PREFIX = 8

Data: TypeAlias = "pa.RecordBatchReader | pa.Table | pa.RecordBatch | Iterable[pa.RecordBatch]"
Stat: TypeAlias = int | float | str | None


@dataclass(frozen=True, slots=True)
class Single:
    """All rows into one partition."""

    @property
    def partitions(self) -> int:
        """One."""
        return 1


@dataclass(frozen=True, slots=True)
class Hash:
    """Rows of equal keys into one of `partitions` partitions."""

    keys: tuple[int, ...]
    partitions: int


@dataclass(frozen=True, slots=True)
class Ranges:
    """Rows between two boundaries into one partition, for sorts that are cut up.

    Partition *i* holds the rows that are not before boundary *i* - 1 and before boundary *i*.

    Attributes
    ----------
    keys
        Positions of the key columns, the first one counting most.
    boundaries
        The key columns alone, one row per boundary, in order; there is one partition more.
    descending, nulls_first
        The order, per key; ascending with nulls last where they are empty. NaN is above all
        numbers, as in DuckDB; strings are compared as bytes.
    """

    keys: tuple[int, ...]
    boundaries: pa.RecordBatch
    descending: tuple[bool, ...] = ()
    nulls_first: tuple[bool, ...] = ()

    @property
    def partitions(self) -> int:
        """One more than there are boundaries."""
        return int(self.boundaries.num_rows) + 1


Partitioning: TypeAlias = Single | Hash | Ranges


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


def written_schema(schema: pa.Schema) -> pa.Schema:
    """The schema of what is written: dictionaries are decoded, views become plain strings or bytes.

    Raises
    ------
    UnsupportedTypeError
        If a column cannot be written; the message names it.
    """
    return pa.schema([f.with_type(_written_type(f)) for f in schema])


def layout(types: Sequence[pa.DataType], columns: Sequence[int]) -> native.Layout:
    """Where the buffers of `columns` are in a part of columns of `types`."""
    kinds, widths = kinds_of(types)
    return native.Layout(kinds, widths, columns)


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
        _check(partitioning, schema)
        self.source = schema
        self.schema = written_schema(schema)
        self.partitioning = partitioning
        self._plain = self.schema.types == schema.types
        self._small: list[pa.RecordBatch] = []
        self._known: pa.Schema | None = None
        kinds, widths = kinds_of(self.schema.types)
        self._readings = list(map(_reading, self.schema.types, kinds))
        self._work = native.Scatter(
            kinds,
            widths,
            partitioning.partitions,
            () if isinstance(partitioning, Single) else partitioning.keys,
            *(_boundaries(partitioning, self.schema) if isinstance(partitioning, Ranges) else ()),
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
            batch = _decoded(batch, self.schema)
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


_Reading: TypeAlias = Callable[[int], Stat]


def _reading(type: pa.DataType, kind: int) -> _Reading | None:
    """How to read what the kernel keeps as a number of the same order; None: not at all."""
    match kind:
        case native.KIND_SIGNED:
            return _wide if type.bit_width > 64 else _plain
        case native.KIND_UNSIGNED:
            return _unsigned if type.bit_width == 64 else _plain
        case native.KIND_FLOAT:
            return _float
        case native.KIND_VAR32 | native.KIND_VAR64:
            return _prefix if pt.is_string(type) or pt.is_large_string(type) else None
    return None


def _plain(ordered: int) -> Stat:
    return ordered


def _wide(ordered: int) -> Stat:
    return None if ordered in (-(2**63), 2**63 - 1) else ordered


def _unsigned(ordered: int) -> Stat:
    return ordered + 2**63


def _float(ordered: int) -> Stat:
    bits = ordered if ordered >= 0 else ordered ^ (2**63 - 1)
    (value,) = struct.unpack("<d", struct.pack("<q", bits))
    return float(value) if math.isfinite(value) else None


def _prefix(ordered: int) -> Stat:
    first = (ordered + 2**63).to_bytes(_PREFIX, "big").rstrip(b"\0")
    return first.decode("utf-8", "ignore")


def _stats(readings: Sequence[_Reading | None], ordered: Sequence[int | None]) -> tuple[Stat, ...]:
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


def _check(partitioning: Partitioning, schema: pa.Schema) -> None:
    if not 1 <= partitioning.partitions <= MAX_PARTITIONS:
        raise PlanError(f"partitions must be 1 to {MAX_PARTITIONS}, not {partitioning.partitions}")
    if isinstance(partitioning, Single):
        return
    if not partitioning.keys and partitioning.partitions > 1:
        raise PlanError(f"{partitioning.partitions} partitions need key columns to scatter by")
    for key in partitioning.keys:
        if not 0 <= key < len(schema):
            raise PlanError(f"key column {key} does not exist; there are {len(schema)}")


def _boundaries(
    ranges: Ranges, schema: pa.Schema
) -> tuple[object, tuple[bool, ...], tuple[bool, ...]]:
    """What the kernel needs of them."""
    fields = [schema[k] for k in ranges.keys]
    for field in fields:
        if pt.is_decimal256(field.type) or pt.is_float16(field.type) or pt.is_interval(field.type):
            raise UnsupportedTypeError(
                f"column {field.name!r}: ranges of {field.type} are not supported"
            )
    target = pa.schema(fields)
    given = written_schema(ranges.boundaries.schema)
    if given.types != target.types:
        raise PlanError(
            f"the boundaries have types {[str(t) for t in given.types]}, "
            f"the keys {[str(t) for t in target.types]}"
        )
    plain = tuple(False for _ in fields)
    flags = (ranges.descending or plain, ranges.nulls_first or plain)
    if any(len(f) != len(fields) for f in flags):
        raise PlanError(f"{len(fields)} keys need as many flags, or none")
    batch = _decoded(ranges.boundaries, target)
    try:
        # Tried out on nothing: boundaries that do not stand in order are refused here.
        native.Scatter(
            *kinds_of(target.types),
            ranges.partitions,
            range(len(fields)),
            batch.__arrow_c_array__()[1],
            *flags,
        )
    except ValueError as error:
        raise PlanError(str(error)) from None
    return (batch.__arrow_c_array__()[1], *flags)


def kinds_of(types: Sequence[pa.DataType]) -> tuple[list[int], list[int]]:
    """The native kinds of types and their bytes per value."""
    kinds = [_kind(t) for t in types]
    return [k for k, _ in kinds], [w for _, w in kinds]


def _written_type(field: pa.Field) -> pa.DataType:
    type = field.type
    while pt.is_dictionary(type):
        type = type.value_type
    if pt.is_string_view(type):
        return pa.string()
    if pt.is_binary_view(type):
        return pa.binary()
    if pt.is_nested(type) or isinstance(type, pa.BaseExtensionType) or pt.is_run_end_encoded(type):
        raise UnsupportedTypeError(f"column {field.name!r}: type {field.type} cannot be written")
    return type


def _decoded(batch: pa.RecordBatch, target: pa.Schema) -> pa.RecordBatch:
    columns = []
    for column, field in zip(batch.columns, target, strict=True):
        if pt.is_dictionary(column.type):
            column = column.dictionary_decode()
        columns.append(column if column.type == field.type else column.cast(field.type))
    return pa.RecordBatch.from_arrays(columns, schema=target)


def _kind(type: pa.DataType) -> tuple[int, int]:
    """The native kind of a type and its bytes per value."""
    if pt.is_null(type):
        return native.KIND_NULL, 0
    if pt.is_boolean(type):
        return native.KIND_BOOL, 0
    if pt.is_string(type) or pt.is_binary(type):
        return native.KIND_VAR32, 0
    if pt.is_large_string(type) or pt.is_large_binary(type):
        return native.KIND_VAR64, 0
    width = type.bit_width // 8
    if pt.is_float32(type) or pt.is_float64(type):
        return native.KIND_FLOAT, width
    if pt.is_unsigned_integer(type):
        return native.KIND_UNSIGNED, width
    if pt.is_integer(type) or (pt.is_decimal(type) and width <= 16):
        return native.KIND_SIGNED, width
    if pt.is_date(type) or pt.is_time(type) or pt.is_timestamp(type) or pt.is_duration(type):
        return native.KIND_SIGNED, width
    return native.KIND_BYTES, width
