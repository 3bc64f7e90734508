"""What estimates remember of relations, and what they let go."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from engine.optimizer import Estimates
from operators import build
from operators.rel import ParquetSource, Scan


def table(tmp_path: Path, rows: int) -> Scan:
    data = pa.table({"k": pa.array(range(rows), pa.int64())})
    path = tmp_path / f"{rows}.parquet"
    pq.write_table(data, path)
    return build.scan(ParquetSource("t", (str(path),)), data.schema)


def test_what_was_forgotten_is_estimated_again(tmp_path: Path) -> None:
    estimates = Estimates()
    scan = table(tmp_path, 100)
    joined = build.join(scan, table(tmp_path, 10), on=[(0, 0)])
    before = estimates.rows(scan), estimates.rows(joined)
    estimates.forget()
    assert (estimates.rows(scan), estimates.rows(joined)) == before


def test_a_relation_is_estimated_as_the_one_that_it_stands_for(tmp_path: Path) -> None:
    estimates = Estimates()
    joined = build.join(table(tmp_path, 100), table(tmp_path, 10), on=[(0, 0)])
    other = replace(joined, build="left")
    estimates.same(other, like=joined)  # of which nothing is known yet
    rows = estimates.rows(joined)
    estimates.same(other, like=joined)
    assert estimates.rows(other) == rows
