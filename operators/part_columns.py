"""How columns stand in a part: their native kinds, where their buffers are, and the values that
the kernel keeps of them.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from typing import TypeAlias

import pyarrow as pa
import pyarrow.types as pt

from operators import _partition as native
from operators.errors import UnsupportedTypeError

__all__ = ["Reading", "Stat", "decoded", "kinds_of", "layout", "reading", "written_schema"]

_PREFIX = 8

Stat: TypeAlias = int | float | str | None


def written_schema(schema: pa.Schema) -> pa.Schema:
    """The schema of what is written: dictionaries are decoded, views become plain strings or bytes.

    Raises
    ------
    UnsupportedTypeError
        If a column cannot be written; the message names it.
    """
    return pa.schema([f.with_type(_written_type(f)) for f in schema])


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


def decoded(batch: pa.RecordBatch, target: pa.Schema) -> pa.RecordBatch:
    columns = []
    for column, field in zip(batch.columns, target, strict=True):
        if pt.is_dictionary(column.type):
            column = column.dictionary_decode()
        columns.append(column if column.type == field.type else column.cast(field.type))
    return pa.RecordBatch.from_arrays(columns, schema=target)


def layout(types: Sequence[pa.DataType], columns: Sequence[int]) -> native.Layout:
    """Where the buffers of `columns` are in a part of columns of `types`."""
    kinds, widths = kinds_of(types)
    return native.Layout(kinds, widths, columns)


def kinds_of(types: Sequence[pa.DataType]) -> tuple[list[int], list[int]]:
    """The native kinds of types and their bytes per value."""
    kinds = [_kind(t) for t in types]
    return [k for k, _ in kinds], [w for _, w in kinds]


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


Reading: TypeAlias = Callable[[int], Stat]
"""From the number of the same order that the kernel keeps to the value."""


def reading(type: pa.DataType, kind: int) -> Reading | None:
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
