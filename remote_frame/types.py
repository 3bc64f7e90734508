"""Types of stored columns: which there are, how a handle writes them, which buffers they own.

The textual form is short, readable and complete: ``int32``, ``decimal32(7,2)``, ``timestamp(us)``,
``timestamp(us,UTC)``, ``string``. It does not cover nested, dictionary-encoded and view types:
those have no buffers of their own that a column projection could name. Storage decodes
dictionaries and views before it writes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import pyarrow as pa
import pyarrow.types as pt

__all__ = [
    "BufferKind",
    "buffer_kinds",
    "is_variable",
    "minimum_sizes",
    "offset_width",
    "type_from_text",
    "type_to_text",
]

BufferKind = Literal["validity", "offsets", "data"]

_SIMPLE: dict[str, pa.DataType] = {
    "null": pa.null(),
    "bool": pa.bool_(),
    **{str(t): t for t in (pa.int8(), pa.int16(), pa.int32(), pa.int64())},
    **{str(t): t for t in (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())},
    "float16": pa.float16(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "date32": pa.date32(),
    "date64": pa.date64(),
    "string": pa.string(),
    "large_string": pa.large_string(),
    "binary": pa.binary(),
    "large_binary": pa.large_binary(),
    "interval": pa.month_day_nano_interval(),
}
_SIMPLE_TEXT = {t: text for text, t in _SIMPLE.items()}
_DECIMALS: dict[str, Callable[[int, int], pa.DataType]] = {
    "decimal32": pa.decimal32,
    "decimal64": pa.decimal64,
    "decimal128": pa.decimal128,
    "decimal256": pa.decimal256,
}
_UNITS: dict[str, Callable[[str], pa.DataType]] = {
    "time32": pa.time32,
    "time64": pa.time64,
    "timestamp": pa.timestamp,
    "duration": pa.duration,
}
_TEXT = re.compile(r"(?P<name>[a-z_0-9]+)(?:\((?P<args>[^()]+)\))?\Z")


def type_to_text(type: pa.DataType) -> str:
    """The textual form of an Arrow type; `ValueError` if it cannot be stored."""
    if (text := _SIMPLE_TEXT.get(type)) is not None:
        return text
    if pt.is_decimal(type):
        return f"decimal{type.bit_width}({type.precision},{type.scale})"
    if pt.is_timestamp(type):
        return f"timestamp({type.unit},{type.tz})" if type.tz else f"timestamp({type.unit})"
    if pt.is_time(type):
        return f"time{type.bit_width}({type.unit})"
    if pt.is_duration(type):
        return f"duration({type.unit})"
    if pt.is_fixed_size_binary(type):
        return f"fixed_binary({type.byte_width})"
    raise ValueError(f"type {type} cannot be stored in a memory element")


@lru_cache(maxsize=1024)
def type_from_text(text: str) -> pa.DataType:
    """The Arrow type that `type_to_text` wrote; `ValueError` if it is none."""
    if (simple := _SIMPLE.get(text)) is not None:
        return simple
    try:
        if match := _TEXT.match(text):
            name, args = match["name"], (match["args"] or "").split(",", 1)
            if name in _DECIMALS and len(args) == 2:
                return _DECIMALS[name](int(args[0]), int(args[1]))
            if name == "timestamp" and len(args) == 2:
                return pa.timestamp(args[0], args[1])
            if name in _UNITS and len(args) == 1:
                return _UNITS[name](args[0])
            if name == "fixed_binary" and len(args) == 1 and int(args[0]) > 0:
                return pa.binary(int(args[0]))
    except (ValueError, pa.ArrowInvalid) as error:
        raise ValueError(f"{text!r} is not a column type: {error}") from None
    raise ValueError(f"{text!r} is not a column type")


def is_variable(type: pa.DataType) -> bool:
    """Whether values of the type differ in length, so that the column has offsets."""
    return bool(
        pt.is_string(type)
        or pt.is_binary(type)
        or pt.is_large_string(type)
        or pt.is_large_binary(type)
    )


def offset_width(type: pa.DataType) -> int:
    """Bytes of one offset of a variable-width type."""
    return 8 if pt.is_large_string(type) or pt.is_large_binary(type) else 4


def buffer_kinds(type: pa.DataType) -> tuple[BufferKind, ...]:
    """The buffers that a column owns, in the order of its extents.

    A column of nulls (type ``null``) owns no bytes; its two extents have length 0.
    """
    return ("validity", "offsets", "data") if is_variable(type) else ("validity", "data")


def minimum_sizes(type: pa.DataType, rows: int) -> tuple[int, ...]:
    """The least bytes of each buffer of a column of `rows` rows, in the order of `buffer_kinds`.

    The validity may be absent, and how long the data of strings are only their offsets tell: both
    count as 0.
    """
    if is_variable(type):
        return (0, (rows + 1) * offset_width(type) if rows else 0, 0)
    if pt.is_null(type):
        return (0, 0)
    return (0, (rows * type.bit_width + 7) // 8)
