"""Constants, written so that each reader takes them for exactly the same value of the same type."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from engine.dialect.types import datafusion_type, ir_type, type_of_json
from engine.errors import UnsupportedSqlError

__all__ = [
    "NOT_PLAIN",
    "arrow_cast",
    "datafusion_literal",
    "duck_literal",
    "plain_cast",
    "plain_value",
    "text_literal",
]

_EPOCH = datetime.date(1970, 1, 1)
_ARROW_NAMES: Mapping[str, str] = {
    "BOOLEAN": "Boolean",
    "TINYINT": "Int8",
    "SMALLINT": "Int16",
    "INTEGER": "Int32",
    "BIGINT": "Int64",
    "UTINYINT": "UInt8",
    "USMALLINT": "UInt16",
    "UINTEGER": "UInt32",
    "UBIGINT": "UInt64",
    "FLOAT": "Float32",
    "DOUBLE": "Float64",
    "VARCHAR": "Utf8",
    "BLOB": "Binary",
    "DATE": "Date32",
    "TIME": "Time64(Microsecond)",
    "TIMESTAMP": "Timestamp(Microsecond, None)",
    "INTERVAL": "Interval(MonthDayNano)",
    '"NULL"': "Int32",
    "NULL": "Int32",
}


def text_literal(text: str) -> str:
    """A string in single quotes."""
    return "'" + text.replace("'", "''") + "'"


def arrow_cast(text: str, type: str) -> str:
    """DataFusion's cast to a DuckDB type; the result's name differs from the argument's, as CAST's
    does not.
    """
    known = _ARROW_NAMES.get(type)
    if known is None:
        arrow = datafusion_type(type)
        known = f"Decimal128({arrow.precision}, {arrow.scale})"
    return f"arrow_cast({text}, '{known}')"


def datafusion_literal(type: str, value: Any) -> str:
    """A constant in DataFusion's SQL.

    Parameters
    ----------
    type
        DuckDB type.
    value
        As `engine.dialect.oracle.Oracle.evaluate` gives it.
    """
    ir_type(type)
    if value is None:
        return arrow_cast("NULL", type)
    if type == "HUGEINT" and abs(int(value)) >= 10**38:
        raise UnsupportedSqlError("a HUGEINT of more than 38 digits is not supported")
    match type:
        case "VARCHAR":
            return text_literal(value)
        case "BOOLEAN":
            return "TRUE" if value else "FALSE"
        case "BIGINT" if abs(value) < 2**63:
            return f"({value})" if value < 0 else str(value)
        case "DATE":
            return arrow_cast(arrow_cast(str(value), "INTEGER"), type)
        case "TIMESTAMP" | "TIME":
            return arrow_cast(arrow_cast(f"'{value}'", "BIGINT"), type)
        case "INTERVAL":
            months, days, nanos = value
            sign, rest = ("-", -nanos) if nanos < 0 else ("", nanos)
            return (
                f"INTERVAL '{months} MONS {days} DAYS "
                f"{sign}{rest // 10**9}.{rest % 10**9:09d} SECS'"
            )
        case "BLOB":
            return f"X'{value.hex()}'"
        case "FLOAT" | "DOUBLE":
            text = repr(value) if math.isfinite(value) else str(value)
            return arrow_cast(f"'{text}'", type)
        case _:
            text = f"{value:f}" if isinstance(value, Decimal) else str(value)
            return arrow_cast(f"'{text}'", type)


def duck_literal(node: Mapping[str, Any]) -> str:
    """A BOUND_CONSTANT of a serialized plan in DuckDB's SQL, with its type."""
    type = type_of_json(node["type"])
    if node.get("is_null"):
        return "NULL" if type in ("NULL", '"NULL"') else f"CAST(NULL AS {type})"
    value = node.get("value", "")
    if type == "VARCHAR":
        return text_literal(str(value))
    if type == "BOOLEAN":
        return "TRUE" if value else "FALSE"
    if type.startswith("DECIMAL"):
        scale = node["type"]["type_info"].get("scale", 0)
        whole = Decimal(int(value or 0)).scaleb(-scale)
        return f"CAST('{whole:f}' AS {type})"
    if type == "HUGEINT":
        return f"CAST('{(value['upper'] << 64) + value['lower']}' AS HUGEINT)"
    if type in ("FLOAT", "DOUBLE") and isinstance(value, str):  # an infinity or NaN
        return f"CAST({text_literal(value)} AS {type})"
    if type in _ARROW_NAMES and isinstance(value, int | float):
        return f"CAST('{value!r}' AS {type})"
    raise UnsupportedSqlError(f"constants of type {type} are not supported here")


def plain_value(node: Mapping[str, Any]) -> str | int | Decimal | None:
    """The value of a BOUND_CONSTANT that needs no evaluation: text, an integer or a decimal of at
    most 64 bits; None for everything else. Asking DuckDB costs half a millisecond for each
    constant.
    """
    type, value = type_of_json(node["type"]), node.get("value", "")
    if node.get("is_null"):
        return None
    if type == "VARCHAR":
        return str(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    if type in _INTEGERS:
        return value
    if type.startswith("DECIMAL") and abs(value) < 10**18:
        return Decimal(value).scaleb(-node["type"]["type_info"].get("scale", 0))
    return None


def plain_cast(value: Any, source: str, target: str) -> Any:
    """A constant cast to a type that holds it exactly; `NOT_PLAIN` if DuckDB has to be asked.

    Parameters
    ----------
    value
        As `engine.dialect.oracle.Oracle.evaluate` gives it, of DuckDB type `source`.
    """
    if value is None:
        return None
    if source in _INTEGERS:
        exact = Decimal(value)
    elif source.startswith("DECIMAL"):
        exact = value
    else:
        return NOT_PLAIN
    if target == "DOUBLE" and abs(exact) < 10**15:
        return float(exact)
    if source in _INTEGERS and target in ("INTEGER", "BIGINT"):
        bits = 31 if target == "INTEGER" else 63
        return value if -(2**bits) <= value < 2**bits else NOT_PLAIN
    if target.startswith("DECIMAL"):
        wanted = datafusion_type(target)
        places = -int(exact.as_tuple().exponent)
        whole = wanted.precision - wanted.scale
        if places <= wanted.scale and abs(exact) < 10**whole and wanted.precision <= 18:
            return exact.quantize(Decimal(1).scaleb(-wanted.scale))
    return NOT_PLAIN


NOT_PLAIN = object()
_INTEGERS = frozenset(
    ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
)
