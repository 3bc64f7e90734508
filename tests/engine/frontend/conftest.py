"""A harness that runs a query through the front end and the kernel, and through DuckDB alone."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from engine.catalog import Catalog
from engine.frontend import plan_sql
from operators.duckdb import Kernel, lower
from operators.rel import Rel
from operators.types import canonical

TABLES = """
CREATE TABLE t AS SELECT * FROM (VALUES
  (7::INT, 2::INT, 1.50::DECIMAL(7,2), 2.5::DOUBLE, 'a_b'::VARCHAR, DATE '2000-01-31', true,
   TIMESTAMP '2000-01-31 10:20:30', 1::TINYINT, 10000000000::BIGINT, 1.25::DECIMAL(12,4)),
  (-7, 2, -2.50, -2.5, 'A%b', DATE '1999-12-31', false,
   TIMESTAMP '1999-12-31 00:00:00', -1, -3, -0.00005),
  (0, 0, 0, 0, '', DATE '1970-01-01', NULL, NULL, 0, 0, 0),
  (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
  (3, -2, 99999.99, 1e10, ' 05 ', DATE '2024-02-29', true,
   TIMESTAMP '2024-02-29 23:59:59', 127, 5, 12345678.9999)
) v(a, b, d, x, s, dt, bo, ts, i8, l, e);
CREATE TABLE u AS SELECT * FROM (VALUES
  (7::INT, 'x'::VARCHAR, 1::BIGINT), (NULL, 'y', 2), (3, 'z', NULL), (3, 'w', 3)) v(a, name, k);
CREATE TABLE n AS SELECT 1::INT AS a WHERE false;
"""


def _order(row: Sequence[Any]) -> tuple[tuple[bool, str], ...]:
    return tuple((v is None, repr(_rounded(v))) for v in row)


def _rounded(value: Any) -> Any:
    return float(f"{value:.9g}") if isinstance(value, float) else value


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        same = one == other or (math.isnan(one) and math.isnan(other))
        return same or math.isclose(one, other, rel_tol=1e-9)
    return bool(one == other) and type(one) is type(other)


def _rows(table: pa.Table) -> list[tuple[Any, ...]]:
    columns = [c.to_pylist() for c in table.columns]
    return list(zip(*columns, strict=True)) if columns else []


@dataclass
class Harness:
    """Runs queries both ways."""

    connection: duckdb.DuckDBPyConnection
    catalog: Catalog
    kernel: Kernel
    inputs: dict[str, pa.Table] = field(default_factory=dict)

    def plan(self, sql: str) -> Rel:
        return plan_sql(sql, self.catalog)

    def ours(self, sql: str) -> pa.Table:
        return self.kernel.table(lower(self.plan(sql)), self.inputs)

    def theirs(self, sql: str) -> pa.Table:
        answer = self.connection.execute(sql).to_arrow_table()
        types = [pa.int32() if pa.types.is_null(t) else canonical(t) for t in answer.schema.types]
        schema = pa.schema(list(zip(answer.schema.names, types, strict=True)))
        return pa.table([c.cast(t) for c, t in zip(answer.columns, types, strict=True)], schema)

    def check(self, sql: str, *, ordered: bool = False) -> pa.Table:
        """Assert that both give the same names, types and values."""
        theirs = self.theirs(sql)
        ours = self.ours(sql)
        assert ours.schema.names == theirs.schema.names
        assert [canonical(t) for t in ours.schema.types] == theirs.schema.types
        got, wanted = _rows(ours), _rows(theirs)
        if not ordered:
            got, wanted = sorted(got, key=_order), sorted(wanted, key=_order)
        assert len(got) == len(wanted)
        for one, other in zip(got, wanted, strict=True):
            assert all(_same(a, b) for a, b in zip(one, other, strict=True)), (one, other)
        return ours


@pytest.fixture(scope="session")
def harness() -> Iterator[Harness]:
    """Small tables of every type, as Arrow data."""
    connection = duckdb.connect(config={"threads": 1})
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(TABLES)
    catalog = Catalog()
    inputs = {}
    for name in ("t", "u", "n"):
        inputs[name] = connection.table(name).to_arrow_table()
        catalog.register(name, inputs[name])
    with Kernel.open(1, 1 << 30) as kernel:
        yield Harness(connection, catalog, kernel, inputs)
    catalog.close()
    connection.close()


@dataclass
class Tpcds:
    """TPC-DS at SF 0.01: queries, and the harness over Parquet files."""

    queries: dict[int, str]
    harness: Harness


@pytest.fixture(scope="session")
def tpcds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tpcds]:
    extension = pytest.importorskip("duckdb_extension_tpcds")
    connection = duckdb.connect(config={"threads": 1})
    path = next(
        pathlib.Path(extension.__file__).parent.glob(
            f"extensions/v{duckdb.__version__}/tpcds.duckdb_extension"
        )
    )
    connection.execute(f"LOAD '{path}'")
    queries = dict(connection.sql("SELECT query_nr, query FROM tpcds_queries()").fetchall())
    connection.execute("CALL dsdgen(sf=0.01)")
    folder = tmp_path_factory.mktemp("tpcds")
    catalog = Catalog()
    for (table,) in connection.sql("SHOW TABLES").fetchall():
        connection.execute(f"COPY {table} TO '{folder}/{table}.parquet' (FORMAT parquet)")
        catalog.register(table, folder / f"{table}.parquet")
    with Kernel.open(1, 1 << 30) as kernel:
        yield Tpcds(queries, Harness(connection, catalog, kernel))
    catalog.close()
    connection.close()
