"""Resident columns end to end: real workers, real memory, files that change, servers that die."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine import Session
from engine.element.statements import ROWS_READ
from engine.errors import EngineError
from engine.policy import Grain, Sizes
from engine.resident.layout import ZONE_ROWS
from engine.resident.use import ResidentUse
from openwhisk.api import ElementRecord
from openwhisk.app import ComputeElement
from openwhisk.control import EmbeddedControlPlane

ROWS = 300_000


def sales(rows: int = ROWS, step: int = 1) -> pa.Table:
    return pa.table(
        {
            "id": pa.array(range(0, rows * step, step), pa.int32()),
            "item": pa.array(
                [None if i % 17 == 0 else i * 7 % 40 for i in range(rows)], pa.int32()
            ),
            "price": pa.array([Decimal(i % 999) / 100 for i in range(rows)], pa.decimal128(7, 2)),
            "note": pa.array([f"a note of some length {i % 50}" for i in range(rows)]),
            "parts": pa.array([[i] for i in range(rows)])
            if rows < 10
            else pa.nulls(rows, pa.int8()),
        }
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    pq.write_table(sales(), tmp_path / "sales.parquet", row_group_size=70_000)
    items = pa.table({"key": pa.array(range(30), pa.int32()), "name": [f"é{i}" for i in range(30)]})
    pq.write_table(items, tmp_path / "items.parquet")
    return tmp_path


@pytest.fixture(scope="module")
def control() -> Iterator[EmbeddedControlPlane]:
    plane = EmbeddedControlPlane(
        cores=2, memory=6 << 30, preimport=("engine.element", "operators.duckdb"), prewarm=2
    )
    yield plane
    plane.close()


@pytest.fixture(params=["auto", "tcp"])
def session(
    request: pytest.FixtureRequest, data: Path, control: EmbeddedControlPlane
) -> Iterator[Session]:
    with opened(data, control, "64MB", request.param) as s:
        yield s
    info = control.info()
    assert (info.cores_reserved, info.memory_reserved, info.sessions) == (0, 0, [])


def opened(
    data: Path,
    control: EmbeddedControlPlane,
    resident: str,
    transport: str = "auto",
    parallelism: int = 2,
) -> Session:
    s = Session(
        parallelism=parallelism,
        compute_memory="512MB",
        control=control,
        transport=transport,  # type: ignore[arg-type]
        resident=resident,
    )
    for path in sorted(data.glob("*.parquet")):
        s.read_parquet(path)
    return s


def check(session: Session, data: Path, query: str) -> ResidentUse:
    """Compare with DuckDB; what the query had of resident columns."""
    con = duckdb.connect()
    for path in data.glob("*.parquet"):
        con.execute(f"create view {path.stem} as from '{path}'")
    ours = session.sql(query).collect()
    expected = con.execute(query).to_arrow_table()
    assert ours.to_pylist() == expected.to_pylist()
    assert session.last_run is not None
    assert session.last_run.resident is not None
    return session.last_run.resident


def test_only_missing_columns_are_filled(session: Session, data: Path) -> None:
    first = check(session, data, "select sum(price) from sales where id < 100000")
    assert (first.hits, first.misses, first.rejected) == (0, 2, 0)
    again = check(session, data, "select sum(price) from sales where id < 100000")
    assert (again.hits, again.misses, again.filled_bytes) == (2, 0, 0)
    more = check(
        session,
        data,
        "select name, note, sum(price) from sales join items on item = key "
        "where name <> 'é3' group by all order by name, note",
    )
    assert (more.hits, more.misses) == (1, 4)
    assert session.resident is not None
    stats = session.resident.stats()
    assert (stats.columns, stats.hits, stats.misses) == (6, 3, 6)
    assert 0 < stats.bytes <= stats.budget
    assert stats.gb_s > 0


def test_counting_rows_and_pruned_scans(session: Session, data: Path) -> None:
    check(session, data, "select count(*) from sales")
    check(session, data, "select count(*), min(id), max(note) from sales where id between 5 and 7")
    check(session, data, "select count(*) from sales where id > 10000000")
    check(session, data, "select id, note from sales where id in (3, 299999) order by id")
    check(session, data, "select count(*) from sales where parts is null")


def test_a_changed_file_is_read_anew(session: Session, data: Path) -> None:
    query = "select sum(id), count(*) from sales where id < 1000000"
    check(session, data, query)
    pq.write_table(sales(1000, 3), data / "sales.parquet")
    session.read_parquet(data / "sales.parquet")
    use = check(session, data, query)
    assert (use.hits, use.misses) == (0, 1)
    assert session.resident is not None
    assert session.resident.stats().stale == 1
    # About as many bytes, as many rows, written in place.
    pq.write_table(sales(1000, 7), data / "sales.parquet")
    session.read_parquet(data / "sales.parquet")
    assert check(session, data, query).misses == 1


def test_columns_that_do_not_fit_go_or_stay_in_the_file(
    data: Path, control: EmbeddedControlPlane
) -> None:
    with opened(data, control, "3MB") as s:
        assert check(s, data, "select sum(id) from sales").misses == 1  # 1.2 MB
        assert check(s, data, "select sum(price) from sales").evictions == 0
        use = check(s, data, "select sum(item) from sales")
        assert use.evictions == 1
        text = check(s, data, "select max(note) from sales")
        assert (text.misses, text.rejected, text.filled_bytes) == (1, 1, 0)
        assert s.resident is not None
        assert s.resident.stats().bytes <= 3 << 20
        assert s.resident.stats().evictions == 1


def test_a_dead_memory_server_costs_the_columns_not_the_answer(data: Path) -> None:
    with Session(parallelism=2, compute_memory="512MB", resident="64MB") as s:
        for path in sorted(data.glob("*.parquet")):
            s.read_parquet(path)
        query = "select sum(price), max(note) from sales"
        check(s, data, query)
        server = s._connection.control.info().memory_server
        os.kill(server, signal.SIGKILL)
        use = check(s, data, query)
        assert (use.hits, use.misses) == (0, 2)
        assert s.resident is not None
        assert s.resident.stats().lost == 2
        assert check(s, data, query).hits == 2


def test_queries_at_the_same_time(data: Path, control: EmbeddedControlPlane) -> None:
    with opened(data, control, "4MB") as s:
        wrong: list[BaseException] = []

        def work(column: str) -> None:
            try:
                for _ in range(3):
                    answer = s.sql(f"select count(distinct {column}) n from sales").collect()
                    assert answer["n"][0].as_py() == len(
                        {v for v in table[column].to_pylist() if v is not None}
                    )
            except BaseException as error:
                wrong.append(error)

        table = sales()
        threads = [threading.Thread(target=work, args=(c,)) for c in ("id", "item", "price")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert s.resident is not None
        assert s.resident.stats().bytes <= 4 << 20


def test_a_session_that_expired_fills_again(data: Path, control: EmbeddedControlPlane) -> None:
    with opened(data, control, "64MB") as s:
        query = "select sum(id) from sales"
        check(s, data, query)
        assert s._connection._session is not None
        control.close_session(s._connection._session)
        deadline = time.monotonic() + 10
        while control.info().sessions and time.monotonic() < deadline:
            time.sleep(0.01)
        assert check(s, data, query).misses == 1


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        (0, "holds no columns"),
        ("100KB", "holds no columns"),
        ("900TB", "more than"),
        ("much", "not a size"),
        (-1, "negative"),
    ],
)
def test_bad_budgets_are_refused(budget: int | str, says: str) -> None:
    with pytest.raises((EngineError, ValueError), match=says):
        Session(resident=budget)


def test_keys_of_a_small_side_prune_the_big_one(data: Path, control: EmbeddedControlPlane) -> None:
    pq.write_table(sales(1_000_000), data / "sales.parquet", row_group_size=122_880)
    days = pa.table({"day": pa.array(range(0, 1_000_000, 10), pa.int64())})
    days = days.append_column("year", pa.array([i // 10_000 for i in range(100_000)], pa.int32()))
    pq.write_table(days, data / "days.parquet")
    with opened(data, control, "64MB") as s:
        joined = "select count(*), sum(price), min(note) from sales {} days on id = day {}"
        for join, where in [
            ("join", "where year = 3"),
            ("join", "where year = 77"),
            ("semi join", "where id > 5"),
            ("left join", "where year = 3 or year is null"),
        ]:
            check(s, data, joined.format(join, where))
        use = check(s, data, joined.format("join", "where year = 3"))
        assert use.misses == 0
        assert s.last_run is not None
        few = sum(e.bytes_read for e in s.last_run.activation.elements)
        check(s, data, joined.format("left join", ""))
        many = sum(e.bytes_read for e in s.last_run.activation.elements)
        assert few < many


def test_rows_without_a_key_of_a_small_side_do_not_matter(
    data: Path, control: EmbeddedControlPlane
) -> None:
    """Keys that lie anywhere in the big table, NULL among them, and two tables that have keys."""
    pq.write_table(sales(450_000), data / "sales.parquet", row_group_size=122_880)
    notes = pa.table({"place": pa.array([3, None, 9, 3], pa.int64()), "text": ["a", "b", "c", "d"]})
    pq.write_table(notes, data / "notes.parquet")
    columns = "count(*), sum(price), min(note), max(id), count(item)"
    with opened(data, control, "128MB") as s:
        for join in [
            "join items on item = key where name = 'é3'",
            "join items on item = key where name = 'none'",
            "semi join items on item = key and name > 'é2'",
            "anti join items on item = key and name > 'é2'",
            "left join items on item = key where name < 'é2' or name is null",
            "join items on item = key join notes on id = place where name > 'é1' and text <> 'c'",
            "join notes on item = place where text < 'd'",
            "join (select * from items where name < 'é2') on item is not distinct from key",
        ]:
            check(s, data, f"select {columns} from sales {join}")


def test_what_is_left_of_one_large_table_leaves_out_rows_of_another(
    data: Path, control: EmbeddedControlPlane
) -> None:
    rows = 2_200_000
    order = pa.array(np.arange(rows) // 4)
    day = pa.array((np.arange(rows) // 10_000).astype(np.int32))
    place = pa.array((np.arange(rows) % 7).astype(np.int32))
    for name in ("sales", "returns"):
        lines = pa.table({"orders": order, "day": day, "place": place})
        pq.write_table(lines, data / f"{name}.parquet", row_group_size=ZONE_ROWS)
    days = pa.table({"id": pa.array(range(220), pa.int32()), "month": [i // 5 for i in range(220)]})
    pq.write_table(days, data / "days.parquet")
    few = "sales a join days on a.day = id and month = {month}"
    with opened(data, control, "128MB", parallelism=1) as s:
        for query, most in [
            (f"select count(*), sum(r.place) from {few} join returns r using (orders)", 0.4),
            (
                f"select count(distinct orders) from {few} where exists (select 1 from sales b "
                "where b.orders = a.orders and b.place <> a.place) and not exists "
                "(select 1 from returns r where r.orders = a.orders and r.place = 3)",
                1.2,
            ),
            (
                f"select count(*), count(r.place) from {few} "
                "left join returns r on a.orders = r.orders and r.place > a.place",
                1.2,
            ),
        ]:
            for month in (3, 77):
                for _ in range(2):  # the second time columns are there
                    check(s, data, query.format(month=month))
                assert s.last_run is not None
                elements = s.last_run.activation.elements
                assert sum(e.metrics[ROWS_READ] for e in elements) < most * rows


@pytest.mark.parametrize("rows", [127_880, 4_000_000], ids=["quick", "derived"])
def test_copies_that_ask_for_other_keys_share_a_table(
    data: Path, control: EmbeddedControlPlane, rows: int
) -> None:
    """The share of one copy is large enough for a question, that of the other is not."""
    ids = pa.array(np.arange(rows, dtype=np.int32))
    each = rows // 40_000
    lines = pa.table({"cust": pa.array((np.arange(rows) // each).astype(np.int32)), "v": ids})
    pq.write_table(lines, data / "lines.parquet", row_group_size=ZONE_ROWS)
    many = np.arange(41_000, dtype=np.int32)
    pq.write_table(pa.table({"id": many, "place": many}), data / "cust.parquet")
    pq.write_table(pa.table({"spot": many, "state": many // 4_000}), data / "places.parquet")
    odd = "cust = id and v % 7 <> place % 3"
    with opened(data, control, "128MB") as s:
        for others in [
            "cust join places on place = spot where state = 1",
            "cust where place between 10000 and 30000 and place % 2 = 0",
            "cust where place > 39990",
        ]:
            for _ in range(2):
                check(
                    s,
                    data,
                    f"select count(*), sum(v) from lines join (select id, place from {others}) x "
                    f"on {odd}",
                )
                assert s.last_run is not None
                shares = [e for e in s.last_run.activation.elements if e.index == 1]
                assert shares, "the table is not shared out"


def test_an_empty_table(data: Path, control: EmbeddedControlPlane) -> None:
    pq.write_table(sales(0), data / "none.parquet")
    with opened(data, control, "64MB") as s:
        for _ in range(2):
            check(s, data, "select count(*), sum(price), max(note) from none")


def test_a_file_that_cannot_be_decoded_is_the_querys_own_error(
    data: Path, control: EmbeddedControlPlane
) -> None:
    with opened(data, control, "64MB") as s:
        path = data / "sales.parquet"
        whole = path.read_bytes()
        path.write_bytes(whole[:100] + bytes(200_000) + whole[200_100:])
        s.read_parquet(path)
        with pytest.raises(EngineError, match=r"sales\.parquet"):
            s.sql("select sum(id), max(note) from sales").collect()
        assert s.resident is not None
        path.write_bytes(whole)
        s.read_parquet(path)
        assert check(s, data, "select sum(id), max(note) from sales").rejected == 0


IN_POLARS = [
    "select item, sum(price) as paid, count(*) as many, max(note) as note from sales "
    "group by item order by item nulls last",
    "select name, sum(price) as paid from sales join items on item = key "
    "where key between 3 and 5 group by name order by name",
    "select id, sum(price) over (partition by item order by id rows between unbounded preceding "
    "and current row) as running from sales where id < 500 order by id",
    "select a.id, b.note from sales a join sales b on a.id = b.id + 1 join items on a.item = key "
    "where name = 'é4' and a.id < 1000 order by a.id",
    "select count(*) as none from sales join items on item = key where name = 'nothing'",
]


@pytest.mark.parametrize("transport", ["auto", "tcp"])
def test_polars_reads_resident_columns(
    data: Path, control: EmbeddedControlPlane, transport: str
) -> None:
    with Session(
        control=control,
        resident="64MB",
        kernel="polars",
        transport=transport,  # type: ignore[arg-type]
    ) as s:
        for path in sorted(data.glob("*.parquet")):
            s.read_parquet(path)
        for query in IN_POLARS:
            for _ in range(2):
                check(s, data, query)
                assert s.last_run.retries == 0
            app = s._executor.application("q", s.sql(query).plan)
            code = [e.code for e in app.elements if isinstance(e, ComputeElement)]
            assert all("element.run_polars" in c and "element.resident" in c for c in code)


def test_large_groups_are_tried_in_both_kernels(
    data: Path, control: EmbeddedControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what was slower is not run again."""
    chosen = []
    learn = Sizes.learn

    def remember(
        sizes: Sizes, shape: str, grain: Grain, elements: list[ElementRecord], kernel: str
    ) -> None:
        chosen.append(kernel)
        for element in elements:  # what clocks say decides no test
            element.start, element.end = 0.0, 1.0 if kernel == "polars" else 2.0
        learn(sizes, shape, grain, elements, kernel)

    monkeypatch.setattr(Sizes, "learn", remember)
    monkeypatch.setattr("engine.policy.kernels._MANY", 200_000)
    with Session(control=control, resident="64MB") as s:
        for path in sorted(data.glob("*.parquet")):
            s.read_parquet(path)
        for _ in range(4):
            check(s, data, "select id, sum(price) as p from sales group by id order by id limit 9")
        assert chosen == ["duckdb", "polars", "polars", "polars"]
        del chosen[:]
        check(s, data, "select item, sum(price) as p from sales group by item order by 2 limit 9")
        check(s, data, "select item, sum(price) as p from sales group by item order by 2 limit 9")
        assert chosen == ["duckdb", "duckdb"], "few groups are not worth it"
