"""Timestamps that count nanoseconds, in a plan whose timestamps count microseconds.

There is one rule for all data: where every value is whole microseconds it is taken as such;
else that is an error that names the column, since cutting values off changes answers without a
word. Data in memory is looked at when it comes in. Files are looked at when a plan that names the
column runs: that decodes the column once more, and is remembered as long as a file stays the same.
INT96, which is what Spark and Hive wrote before there was a type for it, is left to the readers.
"""

from __future__ import annotations

import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt

from operators.errors import DataFileError, UnsupportedTypeError
from operators.file_versions import VersionedFile
from operators.rel import ParquetSource, Rel, Scan, walk
from operators.rewrite import columns_used
from operators.types import TIMESTAMP

__all__ = ["counts_nanoseconds", "in_microseconds", "require_whole_microseconds"]

_ROWS = 1 << 20
_MOST_KNOWN = 65_536

_known: set[tuple[VersionedFile, str]] = set()
_lock = threading.Lock()


def counts_nanoseconds(type: pa.DataType) -> bool:
    """Whether values of the type may be finer than a plan's timestamps."""
    if pt.is_dictionary(type):
        return counts_nanoseconds(type.value_type)
    return bool(pt.is_timestamp(type) and type.unit == "ns" and type.tz is None)


def in_microseconds(table: pa.Table) -> pa.Table:
    """The table with its timestamps of nanoseconds as microseconds.

    Raises
    ------
    UnsupportedTypeError
        If a value is not whole microseconds; the message names the column.
    """
    for i, f in enumerate(table.schema):
        if counts_nanoseconds(f.type):
            column = table.column(i)
            if pt.is_dictionary(f.type):
                column = column.cast(f.type.value_type)
            table = table.set_column(i, f.with_type(TIMESTAMP), _whole(column, f.name))
    return table


def require_whole_microseconds(plan: Rel) -> None:
    """Look at the Parquet columns of nanoseconds that a plan names.

    Raises
    ------
    UnsupportedTypeError
        If a value is not whole microseconds; the message names file and column.
    """
    for node in walk(plan):
        if isinstance(node, Scan) and isinstance(node.source, ParquetSource):
            used = set(node.columns) if node.source.nanoseconds else set()
            if used and node.predicate is not None:
                used |= columns_used(node.predicate)
            named = {node.source_schema.names[i] for i in used}
            for name in node.source.nanoseconds:
                if name in named:
                    _require(node.source, name)
        for below in node.subqueries():
            require_whole_microseconds(below)


def _require(source: ParquetSource, name: str) -> None:
    for path, version in zip(source.paths, source.versions, strict=False):
        key = (path, version), name
        if key in _known:
            continue
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(_ROWS, columns=[name]):
                    _whole(batch.column(0), name)
        except UnsupportedTypeError as error:
            raise UnsupportedTypeError(f"{path}: {error}") from None
        except (pa.ArrowException, OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise DataFileError(f"{path}: not a readable Parquet file ({reason})") from None
        with _lock:
            if len(_known) >= _MOST_KNOWN:
                _known.clear()
            _known.add(key)


def _whole(column: pa.Array | pa.ChunkedArray, name: str) -> pa.Array | pa.ChunkedArray:
    try:
        return column.cast(TIMESTAMP)
    except pa.ArrowInvalid:
        raise UnsupportedTypeError(
            f"column {name!r}: it counts nanoseconds, and not all of its values are whole "
            "microseconds, which are the finest there are here: cast it to microseconds "
            "(timestamp[us]) first"
        ) from None
