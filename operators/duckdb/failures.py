"""What DuckDB raises, as this room's errors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import duckdb
import pyarrow as pa

from operators.duckdb.fragment import Fragment
from operators.errors import KernelError, KernelMemoryError
from operators.rel import ParquetSource

__all__ = ["translated"]

# Of the files that a failing statement read; a table may have hundreds.
_FILES_SHOWN = 3


@contextlib.contextmanager
def translated(fragment: Fragment) -> Iterator[None]:
    """DuckDB's errors as this room's; those raised while streaming come wrapped by Arrow."""
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise KernelMemoryError(str(error), fragment.sql) from error
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        text = str(error)
        if not isinstance(error, duckdb.Error) and (
            "Out of Memory" in text or "could not allocate" in text
        ):
            raise KernelMemoryError(text, fragment.sql) from error
        raise KernelError(_with_files(text, fragment), fragment.sql) from error


def _with_files(message: str, fragment: Fragment) -> str:
    """A message whose first line says which Parquet files were read.

    What DuckDB says of a value that cannot be converted, or of a page that cannot be unpacked,
    seldom names the file.
    """
    paths = [
        path
        for one in fragment.inputs
        if isinstance(one.source, ParquetSource)
        for path in one.source.paths
    ]
    paths = list(dict.fromkeys(paths))
    first, newline, rest = message.partition("\n")
    if not paths or any(path in first for path in paths):
        return message
    shown = ", ".join(paths[:_FILES_SHOWN])
    more = len(paths) - _FILES_SHOWN
    others = f" and {more} more" if more > 0 else ""
    return f"{first.rstrip()} (while reading {shown}{others}){newline}{rest}"
