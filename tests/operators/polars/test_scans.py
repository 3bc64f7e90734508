"""What is kept of files from one query to the next."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from operators.polars import kernel
from operators.rel import ParquetSource


def written(path: Path, values: list[int]) -> ParquetSource:
    pq.write_table(pa.table({"a": pa.array(values, pa.int64())}), path)
    return ParquetSource("t", (str(path),))


def values(source: ParquetSource) -> list[int]:
    return list(kernel.scan(source).collect(engine="streaming")["a"])


def test_a_scan_of_the_same_files_is_kept(tmp_path: Path) -> None:
    source = written(tmp_path / "t.parquet", [1, 2])
    assert kernel.scan(source) is kernel.scan(source)
    assert kernel.scan(source, 1) is not kernel.scan(source, 0)


def test_a_file_that_is_another_one_now_is_looked_at_again(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    source = written(path, [1, 2])
    assert values(source) == [1, 2]
    written(tmp_path / "new.parquet", [3, 4, 5])
    os.replace(tmp_path / "new.parquet", path)
    assert values(source) == [3, 4, 5]
    written(path, list(range(100_000)))
    assert len(values(source)) == 100_000


def test_few_scans_are_kept(tmp_path: Path) -> None:
    for i in range(kernel._MOST_SCANS + 10):
        kernel.scan(written(tmp_path / f"{i}.parquet", [i]))
    assert len(kernel._scans) <= kernel._MOST_SCANS
