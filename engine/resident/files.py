"""What is known of a table's files: where chunks begin, what columns may weigh, whether they are
the same files still.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import DataError
from engine.resident.layout import CHUNK_ROWS, Chunk
from remote_frame.types import is_variable

__all__ = ["Fingerprint", "TableFiles", "fingerprint"]

_TAIL = 4096
"""Bytes at a file's end that are compared: the end of the footer, with its length."""

Fingerprint = tuple[tuple[int, ...], ...]


def fingerprint(paths: Sequence[str]) -> Fingerprint:
    """Something that differs when files differ: inode, size, time of change, end of the footer.

    Raises
    ------
    DataError
        If a file cannot be read; the message names it.
    """
    found = []
    for path in paths:
        try:
            with open(path, "rb", buffering=0) as file:
                stat = os.fstat(file.fileno())
                tail = os.pread(file.fileno(), _TAIL, max(0, stat.st_size - _TAIL))
        except OSError as error:
            raise DataError(f"{path}: {error.strerror or error}") from None
        found.append((stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, zlib.crc32(tail)))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class TableFiles:
    """Chunks of a table, and estimates of its columns' bytes.

    Attributes
    ----------
    chunks
        In the order of the rows.
    raw_bytes
        Uncompressed bytes per column, as the files hold it.
    """

    fingerprint: Fingerprint
    chunks: tuple[Chunk, ...]
    raw_bytes: dict[str, int]

    @classmethod
    def read(cls, paths: Sequence[str], known: Fingerprint) -> TableFiles:
        """Read the footers.

        Raises
        ------
        DataError
            If a file is no Parquet file (any more).
        """
        chunks: list[Chunk] = []
        raw: dict[str, int] = {}
        for path in paths:
            try:
                metadata = pq.read_metadata(path)
            except (OSError, ValueError, pa.ArrowException) as error:
                raise DataError(f"{path}: not a readable Parquet file ({error})") from None
            first = rows = 0
            for number in range(metadata.num_row_groups):
                group = metadata.row_group(number)
                for at in range(group.num_columns):
                    column = group.column(at)
                    name = column.path_in_schema
                    raw[name] = raw.get(name, 0) + column.total_uncompressed_size
                rows += group.num_rows
                last = number == metadata.num_row_groups - 1
                if rows >= CHUNK_ROWS or (last and rows):
                    chunks.append(Chunk(path, first, number, rows))
                    first, rows = number + 1, 0
        return cls(known, tuple(chunks), raw)

    @property
    def rows(self) -> int:
        """Of all chunks."""
        return sum(c.rows for c in self.chunks)

    def estimate(self, name: str, type: pa.DataType) -> int:
        """Bytes that a column may take in memory; an upper guess for all but strings."""
        rows = self.rows
        if is_variable(type):
            # Dictionaries hold each string once; what they stand for is known when it is decoded.
            return int(rows * 4.2 + max(self.raw_bytes.get(name, 0), rows * 10))
        return int(rows * (type.bit_width + 1) / 8) + 128 * len(self.chunks)
