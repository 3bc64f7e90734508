"""Tables with columns of types that the engine does not have: the others can be queried."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import remote_frame
from engine import Session
from engine.errors import SqlError, UnsupportedSqlError
from operators.errors import UnsupportedTypeError
from operators.parquet_files import parquet_table

UTC = pa.timestamp("us", tz="UTC")
ODD: dict[str, pa.Array] = {
    "tags": pa.array([["x"], ["y", "z"], None]),
    "point": pa.array([{"x": 1, "y": {"z": "q"}}, None, {"x": 2, "y": None}]),
    "Odd name": pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int64())),
    "moment": pa.array([datetime.datetime(2020, 1, 1)] * 3, UTC),
}
DATA = pa.table(
    {
        "tags": ODD["tags"],
        "a": [1, 2, 2],
        "point": ODD["point"],
        "Odd name": ODD["Odd name"],
        "b": ["u", "v", "w"],
        "moment": ODD["moment"],
        "c": [1.5, None, 2.5],
    }
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odd")
    pq.write_table(DATA, folder / "odd.parquet")
    pq.write_table(pa.table({"tags": ["x", "y"], "k": [1, 2]}), folder / "plain.parquet")
    return folder


@pytest.fixture(scope="module")
def session(folder: Path) -> Iterator[Session]:
    with Session(parallelism=2) as session:
        session.register("files", folder / "odd.parquet")
        session.register("arrow", DATA)
        session.register("plain", folder / "plain.parquet")
        yield session


def rows(session: Session, sql: str) -> list[dict[str, Any]]:
    return session.sql(sql).collect().to_pylist()


@pytest.mark.parametrize("table", ["files", "arrow"])
@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("select b from {t} where a > 1 order by b", [{"b": "v"}, {"b": "w"}]),
        ("select count(*) as n from {t}", [{"n": 3}]),
        ("select sum(a) as s, count(c) as n from {t}", [{"s": 5, "n": 2}]),
        (
            'select * exclude (tags, POINT, "odd name", moment) from {t} where a = 1',
            [{"a": 1, "b": "u", "c": 1.5}],
        ),
        (
            'select x.* exclude (tags, point, "Odd name", moment, c) from {t} as x where a = 1',
            [{"a": 1, "b": "u"}],
        ),
        (
            "select p.*, x.b from {t} x join plain p on p.k = x.a where a = 1",
            [{"tags": "x", "k": 1, "b": "u"}],
        ),
        ("select p.tags, b from {t} x join plain p on k = a and k = 1", [{"tags": "x", "b": "u"}]),
        ("select 1 as one where exists (select * from {t})", [{"one": 1}]),
        ("with files as (select 7 as q) select * from files", [{"q": 7}]),
    ],
)
def test_the_other_columns_can_be_queried(
    session: Session, table: str, sql: str, expected: list[dict[str, Any]]
) -> None:
    assert rows(session, sql.format(t=table)) == expected


@pytest.mark.parametrize("table", ["files", "arrow"])
@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("select * from {t}", ["'tags'", "list<", 'EXCLUDE (tags, point, "Odd name", moment)']),
        ("select * exclude (tags) from {t}", ["'point'", "EXCLUDE"]),
        ("select q.* from (select * from {t}) q", ["'tags'", "EXCLUDE"]),
        ("select tags from {t}", ["'tags'", "list<"]),
        ("select x.point.x from {t} x", ["'point'", "struct<"]),
        ('select len("odd name") from {t}', ["'Odd name'", "map<"]),
        ("select b from {t} where moment is null", ["'moment'", "timestamp[us, tz=UTC]"]),
        ("with files as (select * from {t}), arrow as (select * from {t}) select 1", ["'tags'"]),
        ("select columns('a') from {t}", ["'tags'", "COLUMNS"]),
        ("select k from {t} natural join plain", ["'tags'", "NATURAL"]),
        ("select v from {t} as x(u, v)", ["'tags'", "all columns"]),
    ],
)
def test_a_hidden_column_is_refused_by_name(
    session: Session, table: str, sql: str, words: list[str]
) -> None:
    with pytest.raises(UnsupportedSqlError) as caught:
        session.sql(sql.format(t=table)).collect()
    assert [w for w in [*words, f"table '{table}'"] if w not in str(caught.value)] == []


def test_another_mistake_is_told_as_ever(session: Session) -> None:
    with pytest.raises(SqlError, match="nowhere"):
        session.sql("select nowhere from files").collect()


def test_a_column_of_another_table_is_not_taken_for_a_hidden_one(session: Session) -> None:
    sql = "select p.tags, nowhere from files x join plain p on k = a"
    with pytest.raises(SqlError, match="nowhere") as caught:
        session.sql(sql).collect()
    assert "tags" not in str(caught.value)


def test_registering_says_what_is_left_out(
    session: Session, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        session.register("again", folder / "odd.parquet")
    assert "tags, point, Odd name, moment" in caplog.text


def test_a_table_of_nothing_else_is_refused(session: Session, tmp_path: Path) -> None:
    pq.write_table(pa.table({"tags": ODD["tags"]}), tmp_path / "t.parquet")
    for source in (tmp_path / "t.parquet", pa.table({"tags": ODD["tags"]})):
        with pytest.raises(UnsupportedTypeError, match="column 'tags': type list"):
            session.register("t", source)


def test_statistics_are_those_of_the_right_columns(tmp_path: Path) -> None:
    """A nested column is several in the file."""
    from operators.parquet_stats import parquet_stats

    found = parquet_stats([str(_written(tmp_path / "odd.parquet", DATA))])
    alone = DATA.select(["a", "b", "c"])
    assert found.columns == parquet_stats([str(_written(tmp_path / "f.parquet", alone))]).columns
    assert (found.columns[0].min, found.columns[0].max) == (1.0, 2.0)


def test_files_whose_hidden_columns_differ_are_one_table(session: Session, tmp_path: Path) -> None:
    first = pa.table({"a": [1], "tags": [[1]]})
    second = pa.table({"a": [2], "tags": [["x"]]})
    _written(tmp_path / "1.parquet", first)
    _written(tmp_path / "2.parquet", second)
    session.register("pair", tmp_path / "*.parquet")
    assert rows(session, "select sum(a) as s from pair") == [{"s": 3}]


@pytest.mark.parametrize("intervals", ["interval 1 day", "[interval 1 day]"])
def test_polars_is_not_asked_about_intervals(intervals: str, tmp_path: Path) -> None:
    """Its reader would panic over the schema, on standard error, whatever columns are read."""
    path = tmp_path / "t.parquet"
    duckdb.sql(f"copy (select range as a, {intervals} as i from range(10)) to '{path}'")
    assert parquet_table(path, hide=True).intervals
    for resident in (None, "64MB"):
        with Session(resident=resident) as session:
            session.register("t", path)
            for _ in range(2):
                assert rows(session, "select max(a) as m from t where a < 5") == [{"m": 4}]
                assert session.last_run is not None
                assert session.last_run.retries == 0


def test_resident_tables_leave_them_out_too(folder: Path) -> None:
    with Session(resident="64MB") as session:
        session.register("files", folder / "odd.parquet")
        for _ in range(2):
            assert rows(session, "select sum(a) as s, max(c) as m from files") == [
                {"s": 5, "m": 2.5}
            ]
        assert session.resident.stats().hits > 0


def test_frames_name_the_columns_that_they_want(folder: Path, session: Session) -> None:
    path = folder / "odd.parquet"
    frame = remote_frame.read_parquet(path, columns=["a", "c"])
    assert frame.to_dict() == {"a": [1, 2, 2], "c": [1.5, None, 2.5]}
    with pytest.raises(UnsupportedTypeError, match="columns="):
        remote_frame.read_parquet(path)
    with pytest.raises(UnsupportedTypeError, match="column 'point': type struct"):
        remote_frame.read_parquet(path, columns=["a", "point"])


def _written(path: Path, table: pa.Table) -> Path:
    pq.write_table(table, path)
    return path
