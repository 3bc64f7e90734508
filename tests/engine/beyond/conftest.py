"""Whole sessions over data that is not TPC-DS: every answer is compared with DuckDB's."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from engine import Session
from openwhisk.control import EmbeddedControlPlane
from operators.types import canonical

TPCH = ["customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier"]

# Events of a shop, of every type that the engine has, with nulls, NaN, -0.0, dates before 1970,
# text beyond ASCII, and keys of which one holds a third of the rows.
SHOP = """
CREATE TABLE event AS
SELECT i::INTEGER AS id,
  (CASE WHEN i % 3 = 0 THEN 1 ELSE i % 97 END)::BIGINT AS visitor,
  (CASE WHEN i % 19 = 0 THEN NULL ELSE i % 13 END)::SMALLINT AS page,
  (CASE WHEN i % 7 = 0 THEN NULL ELSE i % 5 END)::TINYINT AS kind,
  TIMESTAMP '1969-12-30 12:00:00' + INTERVAL (i * 977) SECOND + INTERVAL (i) MICROSECOND AS ts,
  DATE '1969-11-01' + (i % 200)::INTEGER AS day,
  (CASE i % 11 WHEN 0 THEN NULL WHEN 1 THEN 'NaN' WHEN 2 THEN '-0.0' WHEN 3 THEN '0.0'
    ELSE (sin(i) * 100)::VARCHAR END)::DOUBLE AS score,
  (i * 0.25)::FLOAT AS weight,
  (CASE WHEN i % 23 = 0 THEN NULL ELSE (i % 1000) / 100.0 END)::DECIMAL(9, 2) AS price,
  (i::DECIMAL(38, 6) * 123456789012.000001)::DECIMAL(38, 6) AS big,
  CASE i % 6 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN 'ünïcode ' || i % 31
    WHEN 3 THEN 'a_b%c' ELSE 'tag' || i % 29 END AS tag,
  CASE WHEN i % 17 = 0 THEN NULL ELSE i % 2 = 0 END AS mobile
FROM range(6000) r(i);
CREATE TABLE page AS
SELECT i::INTEGER AS id, 'page ' || i AS title, (i % 4)::UTINYINT AS section,
  CASE WHEN i % 5 = 0 THEN NULL ELSE (i * 1.5)::DOUBLE END AS value
FROM range(2, 16) r(i);
CREATE TABLE visitor AS
SELECT i::BIGINT AS id, 'visitor ' || i AS name, DATE '1990-01-01' + (i * 37)::INTEGER AS born,
  CASE WHEN i % 4 = 0 THEN NULL ELSE ['de', 'fr', 'pt'][1 + i % 3] END AS country,
  CASE WHEN i > 10 THEN (i // 2)::BIGINT END AS invited_by
FROM range(90) r(i);
CREATE TABLE nothing AS SELECT * FROM event WHERE false;
"""


class Beside:
    """A session and DuckDB over the same files."""

    def __init__(self, session: Session, connection: duckdb.DuckDBPyConnection) -> None:
        self.session = session
        self.connection = connection

    def check(self, sql: str, *, ordered: bool = False) -> pa.Table:
        """Assert that names, types and values are DuckDB's; `ordered`: rows in the same order."""
        ours = self.session.sql(sql).collect()
        theirs = self.connection.execute(sql).to_arrow_table()
        assert ours.schema.names == theirs.schema.names
        assert [canonical(t) for t in ours.schema.types] == [
            canonical(pa.int32() if pa.types.is_null(t) else t) for t in theirs.schema.types
        ]
        got, wanted = _rows(ours), _rows(theirs)
        if not ordered:
            got, wanted = sorted(got, key=_order), sorted(wanted, key=_order)
        assert len(got) == len(wanted)
        for number, (one, other) in enumerate(zip(got, wanted, strict=True)):
            same = all(_same(a, b) for a, b in zip(one, other, strict=True))
            assert same, f"row {number}: {one} instead of {other}"
        return ours


def _rows(table: pa.Table) -> list[tuple[Any, ...]]:
    return list(zip(*(c.to_pylist() for c in table.columns), strict=True))


def _order(row: tuple[Any, ...]) -> tuple[tuple[bool, str], ...]:
    def rounded(value: Any) -> Any:
        # Sums of doubles depend on the order of their terms in the last places.
        return float(f"{value + 0.0:.6g}") if isinstance(value, float) else value

    return tuple((v is None, repr(rounded(v))) for v in row)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        if math.isnan(one) or math.isnan(other):
            return math.isnan(one) and math.isnan(other)
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)
    return bool(one == other)


@pytest.fixture(scope="module")
def control() -> Iterator[EmbeddedControlPlane]:
    with EmbeddedControlPlane(
        cores=2, memory=6 << 30, preimport=("engine.element", "operators.duckdb"), prewarm=2
    ) as plane:
        yield plane


def _beside(
    control: EmbeddedControlPlane,
    connection: duckdb.DuckDBPyConnection,
    folder: Path,
    tables: list[str],
) -> Beside:
    session = Session(parallelism=3, compute_memory="512MB", control=control)
    for table in tables:
        file = folder / f"{table}.parquet"
        # Row groups are what copies share.
        connection.execute(f"COPY {table} TO '{file}' (FORMAT parquet, ROW_GROUP_SIZE 2048)")
        session.register(table, file)
    return Beside(session, connection)


@pytest.fixture(scope="module")
def shop(
    control: EmbeddedControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Beside]:
    connection = duckdb.connect(config={"threads": 1})
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(SHOP)
    tables = ["event", "page", "visitor", "nothing"]
    beside = _beside(control, connection, tmp_path_factory.mktemp("shop"), tables)
    yield beside
    beside.session.close()
    connection.close()


@pytest.fixture(scope="module")
def tpch(
    control: EmbeddedControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Beside]:
    extension = pytest.importorskip("duckdb_extension_tpch")
    path = Path(extension.__file__).parent / "extensions" / f"v{duckdb.__version__}"
    connection = duckdb.connect(config={"threads": 1})
    connection.execute(f"LOAD '{path / 'tpch.duckdb_extension'}'")
    connection.execute("CALL dbgen(sf=0.01)")
    beside = _beside(control, connection, tmp_path_factory.mktemp("tpch"), TPCH)
    yield beside
    beside.session.close()
    connection.close()
