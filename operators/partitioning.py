"""How rows find their partition: by hash, by ranges of key columns, or all into one.

The hash is of values, not of widths: an INT32 and a BIGINT of one value, a decimal of one value
and scale in 32, 64 or 128 bits, a string in either offset width land in one partition. ``-0.0``
goes with ``0.0``, NaNs go together, NULL has a fixed place. Floats do not hash like integers
and decimals of different scales differ: cast join keys to one type first. Dates and timestamps
hash as their integers, so their units must agree too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.types as pt

from operators import _partition as native
from operators.errors import PlanError, UnsupportedTypeError
from operators.part_columns import decoded, kinds_of, written_schema

__all__ = ["MAX_PARTITIONS", "Hash", "Partitioning", "Ranges", "Single", "kernel_arguments"]

MAX_PARTITIONS = 65535


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


def kernel_arguments(partitioning: Partitioning, schema: pa.Schema) -> tuple[Any, ...]:
    """What the kernel has to know of a partitioning of batches that are written as `schema`: the
    positions of keys, and of ranges their boundaries and orders.

    Raises
    ------
    UnsupportedTypeError
        For ranges of a type that has no order here; the message names the column.
    PlanError
        If keys, boundaries or the number of partitions make no sense.
    """
    _check(partitioning, schema)
    match partitioning:
        case Single():
            return ((),)
        case Hash(keys=keys):
            return (keys,)
    return partitioning.keys, *_boundaries(partitioning, schema)


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
    batch = decoded(ranges.boundaries, target)
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
