"""Groups that are made only for the keys that a filtered table names, several times in a query."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.catalog import Catalog
from engine.frontend import plan_sql
from engine.optimizer import Estimates, optimize, semijoins
from operators.duckdb import Kernel, lower
from operators.rel import Join, walk

ROWS, KEYS = 20_000, 1_000


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    monkeypatch.setattr(semijoins, "_GROUPED_ROWS", 1_000.0)
    rng = random.Random(1)
    columns = {
        name: pa.array([rng.randrange(KEYS) for _ in range(ROWS)], pa.int32())
        for name in ("k1", "k2", "k3", "v")
    }
    pq.write_table(pa.table(columns), tmp_path / "fact.parquet")
    names = [f"n{i % 100}" for i in range(KEYS)]
    dimension = pa.table({"id": pa.array(range(KEYS), pa.int32()), "name": names})
    pq.write_table(dimension, tmp_path / "d.parquet")
    catalog = Catalog()
    for name in ("fact", "d"):
        catalog.register(name, tmp_path / f"{name}.parquet")
        duckdb.execute(f"create or replace view {name} as from '{tmp_path / name}.parquet'")
    yield catalog
    for name in ("fact", "d"):
        duckdb.execute(f"drop view {name}")


def part(key: str, other: str, n: int) -> str:
    return f"""(select f.{key} k, max(x.av) m from fact f left join
        (select b.id, g.av from d b left join
            (select {other}, max(v) av from fact group by {other}) g on g.{other} = b.id
            where b.name = 'n{n}') x
        on f.{other} = x.id group by f.{key})"""


@pytest.mark.parametrize("n", range(5))
def test_reductions_within_reductions(tables: Catalog, n: int) -> None:
    # A relation that the rule had made and given up lent its identity to another.
    sql = f"""select a.id, p.m m1, q.m m2 from d a
        join {part("k2", "k1", n)} p on p.k = a.id
        join {part("k1", "k3", 20 + n)} q on q.k = a.id
        where a.name = 'n5' order by a.id"""
    plan = optimize(plan_sql(sql, tables), Estimates())
    assert sum(isinstance(r, Join) and r.kind == "semi" for r in walk(plan)) >= 3
    with Kernel.open(1, 1 << 30) as kernel:
        found = kernel.table(lower(plan), {})
    assert [tuple(row.values()) for row in found.to_pylist()] == duckdb.sql(sql).fetchall()
