"""Edge data through real workers and memory elements; `tests/engine/test_edge_data.py` has more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine import Session
from engine.session import PREIMPORT
from openwhisk.control import EmbeddedControlPlane


@pytest.fixture(scope="module")
def control() -> Iterator[EmbeddedControlPlane]:
    with EmbeddedControlPlane(cores=2, memory=6 << 30, preimport=PREIMPORT, prewarm=2) as plane:
        yield plane
        assert plane.info().memory_reserved == 0


@pytest.fixture(params=["auto", "tcp"])
def session(request: Any, control: EmbeddedControlPlane) -> Iterator[Session]:
    with Session(2, "1GB", request.param, control=control) as made:
        yield made


def check(session: Session, tables: dict[str, pa.Table], folder: Path, *queries: str) -> None:
    connection = duckdb.connect(config={"threads": 1})
    for name, data in tables.items():
        path = folder / f"{name}.parquet"
        pq.write_table(data, path, row_group_size=max(1, len(data) // 4))
        session.register(name, str(path))
        connection.execute(f"create view {name} as from '{path}'")
    for query in queries:
        ours = session.sql(query).collect()
        theirs = connection.execute(query).to_arrow_table()
        assert ours.column_names == theirs.column_names
        assert rows(ours) == rows(theirs), query


def rows(table: pa.Table) -> list[str]:
    return sorted(map(repr, zip(*(c.to_pylist() for c in table.columns), strict=True)))


def test_skew_nulls_and_nothing(session: Session, tmp_path: Path) -> None:
    skewed = [7 if i % 10 else i % 50 for i in range(3000)]
    tables = {
        "a": pa.table({"k": pa.array(skewed, pa.int32()), "v": range(3000)}),
        "b": pa.table({"k": pa.array([7, 10, None, 40] * 3, pa.int64()), "w": range(12)}),
        "nulls": pa.table({"k": pa.array([None] * 20, pa.int32())}),
        "nothing": pa.table({"k": pa.array([], pa.int32())}),
    }
    check(
        session,
        tables,
        tmp_path,
        "select a.k, count(*) as n, sum(w) as w from a left join b on a.k = b.k group by a.k",
        "select v, row_number() over (partition by k order by v) as r from a",
        "select n.k as one, a.k as other, count(*) as c from nulls n full join a on n.k = a.k "
        "group by all",
        "select count(*) as c from a, nothing",
        "select k from nothing union select k from nulls",
        "select count(*) as c from a where k not in (select k from b)",
    )


def test_long_strings(session: Session, tmp_path: Path) -> None:
    long = ["é" * (1 << 19), "x" * (1 << 20), "x" * (1 << 20) + "y", None]
    check(
        session,
        {"s": pa.table({"s": long * 3, "n": range(12)})},
        tmp_path,
        "select s, count(*) as c, sum(n) as n from s group by s",
    )


@pytest.mark.parametrize("columns", [2_000, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.timeout(900)
def test_many_columns(session: Session, tmp_path: Path, columns: int) -> None:
    """Handles name every column of every partition, and have to pass from element to element."""
    wide = pa.table({f"c{i}": pa.array([i, i + 1, None], pa.int32()) for i in range(columns)})
    check(session, {"w": wide}, tmp_path, "select distinct * from w")
