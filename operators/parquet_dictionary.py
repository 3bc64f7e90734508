"""How many values a Parquet dictionary holds, read from the head of its page.

Writers that encode a column by a dictionary put its values into one page before the data, whose
header says how many there are: the exact number of distinct values of the column chunk, for a few
bytes of reading. Footers could say it, but few writers let them. The header is a struct of Thrift's
compact protocol (format specification: Apache Parquet, ``parquet.thrift``, ``PageHeader``).
"""

from __future__ import annotations

import os
from dataclasses import dataclass

__all__ = ["DictionaryPage", "read_dictionary_page"]

_HEADER_BYTES = 64  # Headers of dictionary pages take about 20.
_STOP, _I32, _STRUCT = 0, 5, 12
_BOOLEANS = (1, 2)  # Their value is in the type.
_TYPE, _UNCOMPRESSED_SIZE, _DICTIONARY_HEADER, _VALUES = 1, 2, 7, 1
_DICTIONARY_PAGE = 2


@dataclass(frozen=True, slots=True)
class DictionaryPage:
    """`values` in the dictionary, and the `bytes` that they take, not compressed."""

    values: int
    bytes: int


def read_dictionary_page(file: int, offset: int) -> DictionaryPage | None:
    """The dictionary whose page begins at `offset` of an open file; None if there is none.

    Parameters
    ----------
    file
        A file descriptor.
    """
    try:
        return _parsed(os.pread(file, _HEADER_BYTES, offset))
    except (IndexError, ValueError, OSError):
        return None


def _parsed(data: bytes) -> DictionaryPage | None:
    fields, at = _integers(data, 0, upto=_DICTIONARY_HEADER)
    if fields.get(_TYPE) != _DICTIONARY_PAGE:
        return None
    inside, _ = _integers(data, at)
    values, size = inside.get(_VALUES, -1), fields.get(_UNCOMPRESSED_SIZE, -1)
    return DictionaryPage(values, size) if values >= 0 and size >= 0 else None


def _integers(data: bytes, at: int, upto: int | None = None) -> tuple[dict[int, int], int]:
    """The 32-bit fields of the struct at `at`, and where reading ended: behind the struct, or at
    the struct that is its field `upto`.
    """
    found: dict[int, int] = {}
    field = 0
    while (head := data[at]) != _STOP:
        kind, step = head & 15, head >> 4
        at += 1
        if step:
            field += step
        else:
            field, at = _zigzag(data, at)
        if kind == _STRUCT and field == upto:
            break
        if kind == _I32:
            found[field], at = _zigzag(data, at)
        elif kind not in _BOOLEANS:
            raise ValueError(f"field {field} of a page header has type {kind}")
    return found, at


def _zigzag(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return (value >> 1) ^ -(value & 1), at
