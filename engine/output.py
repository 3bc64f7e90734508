"""Answers as text (an aligned table, CSV, JSON) or as Arrow and Parquet files. No value is rounded
and nothing is cut off.
"""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Iterator
from decimal import Decimal
from typing import IO, TYPE_CHECKING, Any

from engine.errors import EngineError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["FORMATS", "write", "write_binary"]

FORMATS = ("table", "csv", "json")


def write(table: pa.Table, form: str, out: IO[str]) -> None:
    """Write a table in one of `FORMATS`.

    ``csv`` has a header and empty fields for NULL (an empty string is quoted). ``json`` is an
    array of objects, one per line; decimals are numbers with all their digits, dates are strings
    in ISO form, NaN and infinities are null.
    """
    {"table": _write_table, "csv": _write_csv, "json": _write_json}[form](table, out)


def write_binary(table: pa.Table, form: str, out: IO[bytes]) -> None:
    """Write a table as an Arrow file (``arrow``; into a pipe, a stream) or as ``parquet``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if form == "parquet":
        for field in table.schema:
            if pa.types.is_interval(field.type):
                raise EngineError(
                    f"Parquet has no intervals like those of {field.name!r}: cast them to text, "
                    "or write another format"
                )
        whole = pa.BufferOutputStream()
        pq.write_table(table, whole, compression="zstd")
        out.write(whole.getvalue())
        return
    kind = pa.ipc.new_file if out.seekable() else pa.ipc.new_stream
    with kind(out, table.schema) as writer:
        writer.write_table(table)


def _rows(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    for batch in table.to_batches(max_chunksize=4096):
        columns = [column.to_pylist() for column in batch.columns]
        yield from zip(*columns, strict=True)


def _text(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, bytes):
        return value.hex()
    return str(value)


def _write_table(table: pa.Table, out: IO[str]) -> None:
    # One line per row whatever a value holds.
    lines = [[_text(v).replace("\n", "\\n") for v in row] for row in _rows(table)]
    header = table.column_names
    widths = [max([len(name), *(len(line[i]) for line in lines)]) for i, name in enumerate(header)]
    right = [_is_number(field.type) for field in table.schema]

    def put(cells: list[str]) -> None:
        padded = (
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(cells, widths, right, strict=True)
        )
        out.write("  ".join(padded).rstrip() + "\n")

    put(header)
    put(["-" * width for width in widths])
    for line in lines:
        put(line)
    out.write(f"({table.num_rows} row{'' if table.num_rows == 1 else 's'})\n")


def _is_number(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def _write_csv(table: pa.Table, out: IO[str]) -> None:
    out.write(",".join(map(_csv_field, table.column_names)) + "\n")
    for row in _rows(table):
        out.write(",".join(map(_csv_field, row)) + "\n")


def _csv_field(value: Any) -> str:
    # Quotes only where they are needed, and around the empty string, which is not NULL.
    if value is None:
        return ""
    text = _text(value)
    if isinstance(value, str) and (not text or any(c in text for c in '",\r\n')):
        return '"' + text.replace('"', '""') + '"'
    return text


def _write_json(table: pa.Table, out: IO[str]) -> None:
    names = [json.dumps(name, ensure_ascii=False) for name in table.column_names]
    out.write("[")
    for number, row in enumerate(_rows(table)):
        fields = (f"{name}: {_json(value)}" for name, value in zip(names, row, strict=True))
        out.write(("\n " if number == 0 else ",\n ") + "{" + ", ".join(fields) + "}")
    out.write("\n]\n" if table.num_rows else "]\n")


def _json(value: Any) -> str:
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, float) and not math.isfinite(value):
        return "null"
    if isinstance(value, dict):
        inner = (f"{json.dumps(str(k), ensure_ascii=False)}: {_json(v)}" for k, v in value.items())
        return "{" + ", ".join(inner) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_json, value)) + "]"
    if isinstance(value, bytes):
        value = value.hex()
    elif isinstance(value, datetime.date | datetime.time):
        value = value.isoformat()
    elif isinstance(value, datetime.timedelta):
        value = value.total_seconds()
    return json.dumps(value, ensure_ascii=False)
