"""The three spellings of a type: DuckDB's name, the IR's Arrow type, DataFusion's Arrow type.

The dialect thinks in DuckDB's names, as ``typeof`` prints them (``DECIMAL(7,2)``). DataFusion knows
neither DuckDB's HUGEINT nor the narrow decimals of the IR, so the types that it is shown are wider
ones; nothing is read through it, hence that costs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from engine.errors import UnsupportedSqlError
from operators.types import canonical, decimal

__all__ = [
    "datafusion_type",
    "duck_type",
    "ir_type",
    "is_integer_name",
    "lossless",
    "type_of_json",
]

_NULL = '"NULL"'

_TO_IR: Mapping[str, pa.DataType] = MappingProxyType(
    {
        "BOOLEAN": pa.bool_(),
        "TINYINT": pa.int8(),
        "SMALLINT": pa.int16(),
        "INTEGER": pa.int32(),
        "BIGINT": pa.int64(),
        "UTINYINT": pa.uint8(),
        "USMALLINT": pa.uint16(),
        "UINTEGER": pa.uint32(),
        "UBIGINT": pa.uint64(),
        "HUGEINT": pa.decimal128(38, 0),
        "FLOAT": pa.float32(),
        "DOUBLE": pa.float64(),
        "VARCHAR": pa.string(),
        "BLOB": pa.binary(),
        "DATE": pa.date32(),
        "TIME": pa.time64("us"),
        "TIMESTAMP": pa.timestamp("us"),
        "INTERVAL": pa.month_day_nano_interval(),
        # An untyped NULL leaves DuckDB as an INTEGER column.
        _NULL: pa.int32(),
        "NULL": pa.int32(),
    }
)
_FROM_IR: Mapping[pa.DataType, str] = MappingProxyType(
    {t: n for n, t in _TO_IR.items() if n not in (_NULL, "NULL", "HUGEINT")}
)
_DECIMAL = re.compile(r"DECIMAL\((\d+),\s*(\d+)\)")
_INTEGER_WIDTH: Mapping[str, tuple[bool, int]] = MappingProxyType(
    {
        "TINYINT": (True, 8),
        "SMALLINT": (True, 16),
        "INTEGER": (True, 32),
        "BIGINT": (True, 64),
        "HUGEINT": (True, 128),
        "UTINYINT": (False, 8),
        "USMALLINT": (False, 16),
        "UINTEGER": (False, 32),
        "UBIGINT": (False, 64),
    }
)
_DIGITS = {8: 3, 16: 5, 32: 10, 64: 20, 128: 38}


@lru_cache(maxsize=512)
def ir_type(name: str) -> pa.DataType:
    """The IR's type of a DuckDB type.

    Raises
    ------
    UnsupportedSqlError
        If the IR has no such type (nested types, TIMESTAMPTZ, UUID, …).
    """
    if match := _DECIMAL.fullmatch(name):
        return decimal(int(match[1]), int(match[2]))
    try:
        return _TO_IR[name]
    except KeyError:
        raise UnsupportedSqlError(f"values of type {name} are not supported") from None


@lru_cache(maxsize=512)
def datafusion_type(name: str) -> pa.DataType:
    """The type under which DataFusion sees values of a DuckDB type: decimals are always 128 bits
    wide.
    """
    type = ir_type(name)
    return pa.decimal128(type.precision, type.scale) if pt.is_decimal(type) else type


@lru_cache(maxsize=512)
def duck_type(type: pa.DataType) -> str:
    """DuckDB's name for an Arrow type; HUGEINT appears as DECIMAL(38,0), which has its rules
    (`operators.types`).
    """
    type = canonical(type)
    if pt.is_decimal(type):
        return f"DECIMAL({type.precision},{type.scale})"
    if pt.is_null(type):
        return "INTEGER"
    return _FROM_IR[type]


def type_of_json(node: Mapping[str, Any]) -> str:
    """The name of a type in DuckDB's serialized plans."""
    name = str(node["id"])
    if name == "DECIMAL":
        info = node["type_info"]
        return f"DECIMAL({info['width']},{info.get('scale', 0)})"
    return name


def is_integer_name(name: str) -> bool:
    """Whether a DuckDB type is an integer type."""
    return name in _INTEGER_WIDTH


def lossless(source: str, target: str) -> bool:
    """Whether every value of `source` is one value of `target`, in the same order: such a cast can
    never fail or round, so that any planner's idea of it is DuckDB's.
    """
    if source == target:
        return True
    old, new = _INTEGER_WIDTH.get(source), _INTEGER_WIDTH.get(target)
    old_decimal, new_decimal = _DECIMAL.fullmatch(source), _DECIMAL.fullmatch(target)
    if old and new:
        return new[1] > old[1] and (new[0] or not old[0])
    if old and new_decimal:
        return int(new_decimal[1]) - int(new_decimal[2]) >= _DIGITS[old[1]]
    if old_decimal and new_decimal:
        whole = int(old_decimal[1]) - int(old_decimal[2])
        return (
            int(new_decimal[1]) - int(new_decimal[2]) >= whole
            and int(new_decimal[2]) >= int(old_decimal[2])
        )  # fmt: skip
    if old and target == "DOUBLE":
        return old[1] <= 32
    return (source, target) == ("FLOAT", "DOUBLE")
