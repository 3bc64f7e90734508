"""Write Arrow data as Arrow buffers into memory that others give, scattered by the hash of key
columns.

The hash is of values, not of widths: an INT32 and a BIGINT of one value, a decimal of one value
and scale in 32, 64 or 128 bits, a string in either offset width land in one partition. ``-0.0``
goes with ``0.0``, NaNs go together, NULL has a fixed place. Floats do not hash like integers
and decimals of different scales differ: cast join keys to one type first. Dates and timestamps
hash as their integers, so their units must agree too.

Two passes: partition numbers with sizes per partition, then a scatter straight into the
writers' buffers. Bytes below a NULL are whatever the input holds there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import pyarrow as pa
import pyarrow.types as pt

from operators import _partition as native
from operators.errors import OperatorError, PlanError, UnsupportedTypeError

__all__ = ["MAX_PARTITIONS", "ExtentWriter", "PartWritten", "scatter", "written_schema"]

MAX_PARTITIONS = 65535
_MAX_OFFSET32 = 2**31 - 1

Data: TypeAlias = "pa.RecordBatchReader | pa.Table | pa.RecordBatch | Iterable[pa.RecordBatch]"


class ExtentWriter(Protocol):
    """Where one partition's buffers go."""

    def allocate(self, sizes: Sequence[int]) -> Sequence[memoryview]:
        """Writable buffers of at least these sizes in bytes, called once; a size of 0 needs no
        memory.
        """

    def commit(self) -> Any:
        """All buffers are written. What it returns becomes `PartWritten.location`."""


@dataclass(frozen=True, slots=True)
class PartWritten:
    """What was written into one partition.

    Attributes
    ----------
    rows
        Number of rows.
    null_counts
        NULLs of each column.
    minimums, maximums
        Of each column of integers, dates, timestamps and decimals of up to 64 bits, as the
        stored integer (a decimal unscaled); None for other types and where there is no value.
    sizes
        Bytes of each buffer: validity (0 if there are no NULLs), offsets for strings, data;
        column after column.
    location
        What the writer's `commit` returned.
    """

    rows: int
    null_counts: tuple[int, ...]
    minimums: tuple[int | None, ...]
    maximums: tuple[int | None, ...]
    sizes: tuple[int, ...]
    location: Any = None


def written_schema(schema: pa.Schema) -> pa.Schema:
    """The schema of what `scatter` writes: dictionaries are decoded, views become plain strings
    or bytes.

    Raises
    ------
    UnsupportedTypeError
        If a column cannot be written; the message names it.
    """
    return pa.schema([f.with_type(_written_type(f)) for f in schema])


def scatter(
    data: Data,
    keys: Sequence[int],
    partitions: int,
    writer_for: Callable[[int], ExtentWriter],
    *,
    schema: pa.Schema | None = None,
) -> list[PartWritten]:
    """Write every row of `data` into exactly one of `partitions` parts, rows of equal keys into
    one.

    Parameters
    ----------
    data
        A table, a batch, a reader or an iterable of batches; all of it is held until it is
        written.
    keys
        Positions of the columns to hash by. Without any, `partitions` must be 1: plain writing.
    partitions
        1 to 65535.
    writer_for
        Called once for every partition, in order.
    schema
        Needed only where `data` is an iterable that may be empty.

    Returns
    -------
    list of PartWritten
        One per partition, in order. Rows keep their order within a partition.

    Raises
    ------
    UnsupportedTypeError
        For nested, extension and other types without a plain layout; the message names the
        column.
    PlanError
        If keys or partitions make no sense.
    OperatorError
        If the strings of one part exceed 2 GiB in a column of 32-bit offsets.
    """
    batches, schema = _batches(data, schema)
    _check(keys, partitions, schema)
    target = written_schema(schema)
    if target != schema:
        batches = [_decoded(b, target) for b in batches]
    batches = [b for b in batches if b.num_rows]
    kinds, widths = zip(*(_kind(t) for t in target.types), strict=True) if len(target) else ((), ())
    pieces = [
        _piece(column, kind) for b in batches for column, kind in zip(b.columns, kinds, strict=True)
    ]
    lengths = [b.num_rows for b in batches]
    work = native.Scatter(kinds, widths, lengths, pieces, tuple(keys), partitions)
    sizes = [work.sizes(p) for p in range(partitions)]
    _check_offsets(target, kinds, sizes)
    writers = [writer_for(p) for p in range(partitions)]
    buffers = [w.allocate(s) for w, s in zip(writers, sizes, strict=True)]
    ranges = work.write(buffers)
    written = []
    for p, writer in enumerate(writers):
        least = tuple(None if r is None else r[0] for r in ranges[p])
        most = tuple(None if r is None else r[1] for r in ranges[p])
        rows, nulls = work.partition_rows(p), work.null_counts(p)
        written.append(PartWritten(rows, nulls, least, most, tuple(sizes[p]), writer.commit()))
    return written


def _batches(data: Data, schema: pa.Schema | None) -> tuple[list[pa.RecordBatch], pa.Schema]:
    if isinstance(data, pa.Table):
        return data.to_batches(), data.schema
    if isinstance(data, pa.RecordBatch):
        return [data], data.schema
    if isinstance(data, pa.RecordBatchReader):
        return list(data), data.schema
    if hasattr(data, "__arrow_c_stream__"):
        reader = pa.RecordBatchReader.from_stream(data)
        return list(reader), reader.schema
    batches = list(data)
    if schema is None:
        if not batches:
            raise PlanError("no batches and no schema: what is to be written?")
        schema = batches[0].schema
    if any(b.schema.types != schema.types for b in batches):
        raise PlanError("all batches must have one schema")
    return batches, schema


def _check(keys: Sequence[int], partitions: int, schema: pa.Schema) -> None:
    if not 1 <= partitions <= MAX_PARTITIONS:
        raise PlanError(f"partitions must be 1 to {MAX_PARTITIONS}, not {partitions}")
    if not keys and partitions > 1:
        raise PlanError(f"{partitions} partitions need key columns to scatter by")
    for key in keys:
        if not 0 <= key < len(schema):
            raise PlanError(f"key column {key} does not exist; there are {len(schema)}")


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


def _piece(column: pa.Array, kind: int) -> tuple[int, int, int, int]:
    """Addresses of a column's validity, offsets and data, and its offset into them."""
    if kind == native.KIND_NULL:
        return 0, 0, 0, 0
    buffers = [0 if b is None else b.address for b in column.buffers()]
    validity = buffers[0] if column.null_count else 0
    if kind in (native.KIND_VAR32, native.KIND_VAR64):
        return validity, buffers[1], buffers[2], column.offset
    return validity, 0, buffers[1], column.offset


def _check_offsets(schema: pa.Schema, kinds: Sequence[int], sizes: Sequence[Sequence[int]]) -> None:
    slot = 0
    for field, kind in zip(schema, kinds, strict=True):
        if kind == native.KIND_VAR32 and any(s[slot + 2] > _MAX_OFFSET32 for s in sizes):
            raise OperatorError(
                f"column {field.name!r}: more than 2 GiB of strings in one part; "
                f"use more partitions or a large_{field.type} column"
            )
        slot += 3 if kind in (native.KIND_VAR32, native.KIND_VAR64) else 2
