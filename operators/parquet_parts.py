"""Cut a table of Parquet files into disjoint shares at row-group boundaries, balanced by rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow.parquet as pq

from operators.errors import OperatorError, PlanError

__all__ = ["ParquetPiece", "parquet_part"]


@dataclass(frozen=True, slots=True)
class ParquetPiece:
    """Rows `first` … `first + rows - 1` of one file; `whole` says that these are all it has."""

    path: str
    first: int
    rows: int
    whole: bool


def parquet_part(paths: Sequence[str], index: int, count: int) -> list[ParquetPiece]:
    """Share `index` of `count`: the pieces of files that it reads.

    All row groups of all files, in order, are cut into `count` runs; a row group belongs to the
    share in which its middle row lies. So shares are disjoint, together everything, whole row
    groups, and no two differ by more than about one row group. A share is empty where there are
    fewer row groups than shares.

    Raises
    ------
    PlanError
        If there is no share `index` of `count`.
    OperatorError
        If a footer cannot be read; the message names the file.
    """
    if not 0 <= index < count:
        raise PlanError(f"there is no part {index} of {count}")
    files = []
    for path in paths:
        try:
            metadata = pq.read_metadata(path)
        except (OSError, ValueError) as error:
            raise OperatorError(f"cannot read the Parquet footer of {path}: {error}") from error
        files.append(
            (path, [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)])
        )
    total = sum(sum(groups) for _, groups in files)
    pieces: list[ParquetPiece] = []
    before = 0
    for path, groups in files:
        first, position, rows = -1, 0, 0
        for group in groups:
            middle = before + group / 2
            if total and min(int(middle * count / total), count - 1) == index and group:
                first = position if first < 0 else first
                rows += group
            position += group
            before += group
        if rows:
            pieces.append(ParquetPiece(path, first, rows, rows == position))
    return pieces
