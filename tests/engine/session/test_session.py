"""Sessions end to end: real workers, real memory elements."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine import Session
from engine.errors import EngineError, TableNotFoundError
from engine.execution import QueryFailedError, execute
from engine.policy import Policy
from libd.errors import ScadError
from openwhisk.app import load_directory
from openwhisk.control import EmbeddedControlPlane


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    n = 5000
    sales = pa.table(
        {
            "id": pa.array(range(n), pa.int32()),
            "item": pa.array([None if i % 17 == 0 else i * 7 % 40 for i in range(n)], pa.int32()),
            "price": pa.array([Decimal(i % 999) / 100 for i in range(n)], pa.decimal128(7, 2)),
            "note": pa.array([f"n{i % 5}" for i in range(n)]),
        }
    )
    items = pa.table({"key": pa.array(range(30), pa.int32()), "name": [f"é{i}" for i in range(30)]})
    pq.write_table(sales, folder / "sales.parquet", row_group_size=500)
    pq.write_table(items, folder / "items.parquet")
    return folder


@pytest.fixture(scope="module")
def control() -> Iterator[EmbeddedControlPlane]:
    plane = EmbeddedControlPlane(
        cores=2, memory=6 << 30, preimport=("engine.element", "operators.duckdb"), prewarm=2
    )
    yield plane
    plane.close()


@pytest.fixture
def session(data: Path, control: EmbeddedControlPlane) -> Iterator[Session]:
    with Session(parallelism=2, compute_memory="512MB", control=control) as s:
        for path in sorted(data.glob("*.parquet")):
            s.read_parquet(path)
        yield s
    info = control.info()
    assert (info.cores_reserved, info.memory_reserved) == (0, 0)
    assert info.sessions == []


QUERIES = [
    "select count(*), sum(price), avg(price) from sales",
    "select item, note, sum(price) as total, avg(price) from sales group by all "
    "order by 3 desc, 1, 2 limit 9",
    "select name, count(*) n, stddev(price) from sales join items on item = key "
    "group by name order by name",
    "select a.item, count(distinct b.id) from sales a full join sales b on a.id = b.item * 3 "
    "group by a.item order by 1",
    "select id, price from sales where item = 3 order by id",
    "select name from items where key not in (select item from sales where item is not null)",
    "select price / 3, price as price, price from sales where id = 7",
    "select * from sales where id < 0",
]


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("transport", ["auto", "tcp"])
def test_answers_are_duckdbs(
    data: Path, control: EmbeddedControlPlane, query: str, transport: Any
) -> None:
    connection = duckdb.connect()
    with Session(2, "512MB", transport, control=control) as session:
        for name in ("sales", "items"):
            session.register(name, str(data / f"{name}.parquet"))
            connection.execute(f"create view {name} as from '{data}/{name}.parquet'")
        ours = session.sql(query).collect()
    theirs = connection.execute(query).to_arrow_table()
    assert [n.lower() for n in ours.column_names] == [n.lower() for n in theirs.column_names]
    assert ours.schema.types == theirs.schema.types

    def rows(table: pa.Table) -> list[Any]:
        listed = list(zip(*(c.to_pylist() for c in table.columns), strict=True))
        return listed if "order by" in query else sorted(listed, key=repr)

    for mine, wanted in zip(rows(ours), rows(theirs), strict=True):
        for cell, other in zip(mine, wanted, strict=True):
            near = isinstance(other, float)
            assert cell == (pytest.approx(other, rel=1e-9) if near else other)


def test_last_run_says_what_the_query_cost(session: Session) -> None:
    assert session.last_run is None
    session.sql("select item, count(*) from sales group by item").collect()
    run = session.last_run
    assert run is not None
    assert (run.stages, run.elements) == (2, 3)
    assert len(run.activation.elements) == 3
    elements = run.activation.elements
    most = max(size for e in elements for _, size in e.reserved)
    assert most <= run.usage.peak_compute_bytes <= sum(e.limit_bytes for e in elements)


def test_frames_build_on_one_another(session: Session) -> None:
    frame = session.sql("select item, price from sales where id < 10")
    assert frame.limit(3).collect().num_rows == 3
    assert session.sql("select * from items").sort("key").head(2).collect()["key"].to_pylist() == [
        0,
        1,
    ]


def test_arrow_data_is_a_table_too(session: Session) -> None:
    session.register("mine", pa.table({"key": [1, 2, 2], "x": ["a", None, "b"]}))
    query = "select x, name from mine join items on mine.key = items.key order by x nulls first"
    assert session.sql(query).collect().to_pylist() == [
        {"x": None, "name": "é2"},
        {"x": "a", "name": "é1"},
        {"x": "b", "name": "é2"},
    ]


def test_explain_shows_stages(session: Session) -> None:
    text = session.explain("select item, count(*) from sales group by item")
    assert "2 stages, 3 compute elements" in text
    assert "its part of sales" in text


def test_emitted_elements_are_an_application(session: Session, tmp_path: Path) -> None:
    written = session.emit("select item, count(*) from sales group by item", tmp_path / "out")
    assert {p.suffixes[-1] for p in written} == {".py", ".yaml"}
    assert len(load_directory(tmp_path / "out").compute) == 2


@pytest.mark.parametrize("policy", ["auto", "disaggregate"])
def test_emitted_elements_are_those_that_run(
    control: EmbeddedControlPlane,
    data: Path,
    tmp_path: Path,
    policy: Policy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran = []

    def noting(control: Any, app: Any, *args: Any, **settings: Any) -> Any:
        ran.append({e.name: e.code for e in app.compute.values()})
        return execute(control, app, *args, **settings)

    monkeypatch.setattr("engine.executor.execute", noting)
    query = "select item, count(*) from sales join items on item = key group by item"
    with Session(control=control, compute_memory="512MB", policy=policy) as session:
        for path in sorted(data.glob("*.parquet")):
            session.read_parquet(path)
        session.emit(query, tmp_path / "before")
        session.sql(query).collect()
        session.emit(query, tmp_path / "after")
    for folder in ("before", "after"):
        written = load_directory(tmp_path / folder).compute
        assert {e.name: e.code for e in written.values()} == ran[-1]


def test_a_failing_element_is_named(session: Session) -> None:
    # Fails when it runs, not when it is planned.
    with pytest.raises(
        QueryFailedError, match=r"element s1_\w+\[\d\] failed: .*Conversion.*parquet"
    ) as caught:
        session.sql("select sum(cast(note as integer)) from sales").collect()
    assert caught.value.element is not None
    assert "\n" not in str(caught.value)
    assert "KernelError" not in str(caught.value)
    assert "KernelError" in caught.value.traceback
    assert session.sql("select count(*) c from items").collect()["c"].to_pylist() == [30]


def test_a_file_that_vanished_is_one_clear_error(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "gone.parquet"
    pq.write_table(pa.table({"x": [1]}), path)
    session.register("gone", str(path))
    frame = session.sql("select x from gone")
    path.unlink()
    with pytest.raises(ScadError, match=r"gone\.parquet"):
        frame.collect()


def test_an_interrupt_cancels_and_cleans_up(
    session: Session, control: EmbeddedControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(activation_id: str, timeout: float | None = None) -> Any:
        raise KeyboardInterrupt

    frame = session.sql("select count(*) from sales a, sales b where a.id < b.id")
    with monkeypatch.context() as patched:
        patched.setattr(control, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            frame.collect()
    assert session.sql("select count(*) c from items").collect()["c"].to_pylist() == [30]


def test_tables_that_are_not_there(session: Session) -> None:
    with pytest.raises(TableNotFoundError, match="sale"):
        session.sql("select * from sale")


@pytest.mark.parametrize(
    "arguments",
    [
        {"parallelism": 0},
        {"compute_memory": "1MB"},
        {"transport": "pigeon"},
        {"kernel": "sqlite"},
        {"apihost": "localhost:1", "control": object()},
    ],
)
def test_arguments_that_make_no_sense(arguments: Any) -> None:
    with pytest.raises(EngineError):
        Session(**arguments)


def test_a_closed_session_says_so(control: EmbeddedControlPlane) -> None:
    session = Session(control=control)
    session.close()
    session.close()
    session.register("t", pa.table({"x": [1]}))
    with pytest.raises(EngineError, match="closed"):
        session.sql("select x from t").collect()


def test_explain_analyze_sets_what_was_beside_what_was_expected(session: Session) -> None:
    sql = "select item, count(*) as n from sales group by item order by n desc, item limit 4"
    text = session.explain(sql, analyze=True)
    assert "q-error" in text
    assert "critical path" in text
    assert "4 rows" in text.splitlines()[0]
    again = session.sql(sql).explain(analyze=True)
    # The widths of columns follow the figures, which are other ones each time.
    assert again.splitlines()[2].split() == text.splitlines()[2].split()
    assert "q-error" not in session.explain(sql)


def test_a_profile_has_the_rows_that_were_written(session: Session) -> None:
    profile = session.profile("select note, sum(price) from sales group by note", analyze=True)
    assert profile.status == "success"
    assert profile.sql is not None
    assert profile.result.output.rows == 5
    assert profile.result.output.bytes is not None
    for stage in profile.stages:
        assert len(stage.copies) == stage.parallelism
        assert stage.output.rows == sum(c.rows_written or 0 for c in stage.copies)
        for read in stage.reads:
            written = profile.stage(read.writer).output.rows
            got = sum(c.rows_read or 0 for c in stage.copies)
            assert got == written, "these exchanges are each read once"
        assert all(c.cpu_seconds > 0 and c.peak_bytes > 0 for c in stage.copies)
        assert stage.output.start is not None
    assert [t.rows for s in profile.stages for t in s.tables] == [5000]
    last = session.profile(name="again")
    assert last.name == "again"
    assert last.activation_id == profile.activation_id


def test_a_report_of_the_last_run(session: Session, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no query has run"):
        session.report(tmp_path)
    with pytest.raises(EngineError, match="no query has run"):
        session.profile()
    session.sql("select count(*) from sales").collect()
    run = session.last_run
    session.sql("select max(id) from sales").collect()
    page = session.report(tmp_path / "pages", name="newest")
    older = session.report(tmp_path / "pages", run, name="older")
    assert page.name == "newest.html"
    assert run is not None
    assert run.activation.activation_id in older.read_text()
    assert {p.name for p in (tmp_path / "pages").iterdir()} >= {
        *("index.html", "newest.svg", "newest.timeline.svg", "newest.json"),
    }


def test_progress_is_told_while_a_query_runs(
    data: Path, control: EmbeddedControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So short that no query can be over before the first time.
    monkeypatch.setattr("engine.execution._PROGRESS_SECONDS", 0.0001)
    seen: list[Any] = []
    with Session(parallelism=2, control=control, on_progress=seen.append) as s:
        s.read_parquet(data / "sales.parquet")
        answer = s.sql("select note, count(*) from sales group by note").collect()
    assert len(answer) == 5
    assert {e.status for a in seen for e in a.elements} <= {"waiting", "running", "done"}
    assert {a.name for a in seen} == {seen[0].name}
