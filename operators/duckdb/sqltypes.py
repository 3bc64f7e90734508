"""DuckDB's names for the IR's types, literals and identifiers."""

from __future__ import annotations

import datetime
import decimal
import math
import re
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from operators.errors import UnsupportedTypeError
from operators.expr import Lit
from operators.types import INTERVAL, canonical, is_hugeint

__all__ = ["identifier", "literal", "quoted_string", "sql_type"]

_NAMES = {
    pa.int8(): "TINYINT",
    pa.int16(): "SMALLINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.uint8(): "UTINYINT",
    pa.uint16(): "USMALLINT",
    pa.uint32(): "UINTEGER",
    pa.uint64(): "UBIGINT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    pa.string(): "VARCHAR",
    pa.binary(): "BLOB",
    pa.date32(): "DATE",
    pa.timestamp("us"): "TIMESTAMP",
    pa.time64("us"): "TIME",
    pa.null(): '"NULL"',
    INTERVAL: "INTERVAL",
}

_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")
# Words that DuckDB 1.5 does not take as a bare column or table name, and some that would mislead.
# fmt: off
_RESERVED = frozenset((
    "all", "analyse", "analyze", "anti", "and", "any", "array", "as", "asc", "asof",
    "asymmetric", "at", "both", "by", "case", "cast", "check", "collate", "column", "columns",
    "constraint", "create", "cross", "current_date", "current_time", "current_timestamp",
    "date", "day", "default", "deferrable", "desc", "describe", "distinct", "do", "else", "end",
    "except", "exists", "false", "fetch", "filter", "for", "foreign", "from", "full", "glob",
    "grant", "group", "grouping", "having", "hour", "ilike", "in", "initially", "inner", "int",
    "integer", "intersect", "interval", "into", "is", "isnull", "join", "key", "lambda",
    "lateral", "leading", "left", "like", "limit", "map", "minute", "month", "natural", "not",
    "notnull", "null", "offset", "on", "only", "or", "order", "outer", "over", "overlaps",
    "partition", "pivot", "pivot_longer", "pivot_wider", "placing", "positional", "primary",
    "qualify", "quarter", "range", "references", "returning", "right", "row", "rows", "second",
    "select", "semi", "set", "show", "similar", "some", "struct", "summarize", "symmetric",
    "table", "tablesample", "then", "time", "timestamp", "to", "trailing", "true", "try_cast",
    "union", "unique", "unpivot", "user", "using", "value", "values", "variadic", "verbose",
    "week", "when", "where", "window", "with", "within", "year",
))
# fmt: on


@lru_cache(maxsize=4096)
def identifier(name: str) -> str:
    """`name` as an identifier, quoted where it must be."""
    if _PLAIN.fullmatch(name) and name not in _RESERVED:
        return name
    return '"' + name.replace('"', '""') + '"'


def quoted_string(text: str) -> str:
    """`text` as a string literal."""
    return "'" + text.replace("'", "''") + "'"


def _text(text: str) -> str:
    """A constant string; a literal cannot hold NUL, at which DuckDB stops reading."""
    if "\0" not in text:
        return quoted_string(text)
    return f"({' || chr(0) || '.join(map(quoted_string, text.split(chr(0))))})"


def sql_type(type: pa.DataType) -> str:
    """DuckDB's name of an Arrow type; ``decimal128(38, 0)`` is HUGEINT (see `operators.types`)."""
    type = canonical(type)
    if is_hugeint(type):
        return "HUGEINT"
    if pt.is_decimal(type):
        return f"DECIMAL({type.precision},{type.scale})"
    if type not in _NAMES:
        raise UnsupportedTypeError(f"DuckDB has no type for {type}")
    return _NAMES[type]


def literal(lit: Lit, *, loose: bool = False) -> str:
    """The constant as SQL, typed exactly; a `loose` number leaves its type to its neighbour."""
    type = canonical(lit.type)
    if lit.value is None:
        return "NULL" if pt.is_null(type) else f"NULL::{sql_type(type)}"
    if pt.is_boolean(type):
        return "TRUE" if lit.value else "FALSE"
    if pt.is_string(type):
        return _text(str(lit.value))
    if pt.is_integer(type) or pt.is_decimal(type):
        return _number(lit.value, type, loose)
    if pt.is_floating(type):
        value = float(lit.value)
        text = repr(value) if math.isfinite(value) else quoted_string(repr(value))
        return f"({text})::{sql_type(type)}" if value < 0 else f"{text}::{sql_type(type)}"
    if pt.is_binary(type):
        return quoted_string("".join(f"\\x{byte:02X}" for byte in lit.value)) + "::BLOB"
    if type == INTERVAL:
        return _interval(lit.value)
    value = pa.scalar(lit.value, type).as_py()
    if isinstance(value, datetime.datetime):
        return f"TIMESTAMP '{value.isoformat(sep=' ')}'"
    if isinstance(value, datetime.date):
        return f"DATE '{value.isoformat()}'"
    return f"{quoted_string(str(value))}::{sql_type(type)}"


def _number(value: Any, type: pa.DataType, loose: bool) -> str:
    if pt.is_decimal(type) and type.scale:
        with decimal.localcontext(prec=60):
            text = f"{decimal.Decimal(value).quantize(decimal.Decimal(1).scaleb(-type.scale)):f}"
        bare = loose
    else:
        text = str(int(value))
        bare = loose or type == pa.int32()
    if text.startswith("-"):
        text = f"({text})"
    return text if bare else f"{text}::{sql_type(type)}"


def _interval(value: Any) -> str:
    months, days, nanoseconds = value
    parts = [f"{months} months"] if months else []
    if days:
        parts.append(f"{days} days")
    if nanoseconds or not parts:
        parts.append(f"{nanoseconds // 1000} microseconds")
    return f"INTERVAL '{' '.join(parts)}'"
