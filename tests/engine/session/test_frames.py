"""Frames in a session: the same expressions as in one process, computed by elements."""

from __future__ import annotations

import datetime as dt
import gc
import os
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import remote_frame
from engine import Session
from engine.errors import DataError, EngineError, NestingError, SqlError, TableNotFoundError
from engine.execution import QueryFailedError
from openwhisk.control import EmbeddedControlPlane
from operators.errors import UnsupportedTypeError
from remote_frame import ExpressionError, FrameError, RemoteFrame, col, lit, when

ROWS = 4000
TABLE = pa.table(
    {
        "id": pa.array(range(ROWS), pa.int64()),
        "g": pa.array([None if i % 11 == 0 else i * 7 % 5 for i in range(ROWS)], pa.int32()),
        "x": [float(i * 37 % 101) for i in range(ROWS)],
        "s": [f"n{i % 6}" for i in range(ROWS)],
        "d": [dt.date(2020, 1, 1) + dt.timedelta(i % 90) for i in range(ROWS)],
    }
)
SMALL = pa.table({"g": pa.array([0, 1, 2], pa.int32()), "name": ["zero", "one", "two"]})


@pytest.fixture(scope="module")
def control() -> Iterator[EmbeddedControlPlane]:
    plane = EmbeddedControlPlane(
        cores=2, memory=6 << 30, preimport=("engine.element", "operators.duckdb"), prewarm=2
    )
    yield plane
    plane.close()


@pytest.fixture(scope="module")
def session(control: EmbeddedControlPlane) -> Iterator[Session]:
    with Session(parallelism=2, compute_memory="512MB", control=control) as s:
        yield s


Frames = tuple[RemoteFrame, RemoteFrame]

SAME: dict[str, Callable[[RemoteFrame, RemoteFrame], RemoteFrame]] = {
    "groups": lambda big, small: big.group_by("g", month=col("d").dt.month()).agg(
        remote_frame.len(),
        col("x").mean(),
        middle=col("x").median(),
        share=col("x").quantile(0.9),
        at=col("id").first(order_by=["x", "id"]),
        kinds=col("s").n_unique(),
        high=col("x").filter(col("s") == "n1").max(),
    ),
    "windows": lambda big, small: big.with_columns(
        rank=col("x").rank("dense").over("g"),
        before=col("id").shift(1).over("s", order_by="id"),
        so_far=col("x").cum_sum().over("g", order_by="id"),
        moving=col("x").rolling_mean(3).over("g", order_by="id"),
        whole=remote_frame.row_number().over(order_by=["x", "id"]),
    ),
    "beside the mean": lambda big, small: big.select(
        "id", away=((col("x") - col("x").mean()) / col("x").std()).round(9)
    ),
    "filter by aggregate": lambda big, small: big.filter(col("x") > col("x").mean() * 1.9),
    "left join": lambda big, small: big.join(small, on="g", how="left"),
    "full join": lambda big, small: big.filter(col("g") != 1).join(small, on="g", how="full"),
    "null keys": lambda big, small: big.join(
        big.group_by("g").len(), on="g", nulls_equal=True
    ).select("id", "len"),
    "asof by": lambda big, small: big.join_asof(
        big.filter(col("id") % 10 == 0).select("g", k="id", y="x"),
        left_on="id",
        right_on="k",
        by="g",
    ),
    "asof": lambda big, small: big.join_asof(
        big.filter(col("id") % 10 == 0).select(k="id", y="x"),
        left_on="id",
        right_on="k",
        strategy="nearest",
        tolerance=4,
    ),
    "pairs": lambda big, small: big.filter(col("id") < 20).join_where(
        small, col("g") < col("g_right")
    ),
    "top": lambda big, small: big.top_k(7, by=["x", "id"]),
    "tail": lambda big, small: big.sort("x", "id").tail(5),
    "first of each": lambda big, small: big.unique("s", keep="first", order_by=["x", "id"]),
    "different": lambda big, small: big.select("g", "s").unique(),
    "concat": lambda big, small: remote_frame.concat(
        [big.select("id", "g"), small.select(id=lit(-1), g="g"), big.select("id", g=lit(9))],
        how="vertical_relaxed",
    ).group_by("g").agg(remote_frame.len(), col("id").max()),
    "index": lambda big, small: big.select("id", "x").with_row_index(order_by=["x", "id"]),
    "choice": lambda big, small: big.select(
        "id", kind=when(col("s").str.ends_with("1")).then(lit("one")).otherwise(lit("more"))
    ).group_by("kind").len(),
    "self by statement": lambda big, small: big.filter(col("id") < 100).sql(
        "select s, count(*) as n, max(x) as most from self where g is not null group by s"
    ),
    "statement over two": lambda big, small: remote_frame.sql(
        "select name, count(*) as n from b join l using (g) group by name", b=big, l=small
    ),
    "unpivot": lambda big, small: big.filter(col("id") < 5).unpivot(["id", "g"], index="s"),
}  # fmt: skip


@pytest.mark.parametrize("case", SAME)
def test_elements_say_what_this_process_says(session: Session, case: str) -> None:
    here = SAME[case](remote_frame.from_arrow(TABLE), remote_frame.from_arrow(SMALL))
    there = SAME[case](session.from_arrow(TABLE), session.from_arrow(SMALL))
    assert there.schema == here.schema
    assert there.executor is session
    mine, theirs = there.collect(), here.collect()
    assert mine.column_names == theirs.column_names
    assert sorted(map(repr, _rows(mine))) == sorted(map(repr, _rows(theirs)))
    assert session.last_run is not None
    assert session.last_run.elements >= 1


def _rows(table: pa.Table) -> list[list[Any]]:
    return [
        [float(f"{v:.10g}") if isinstance(v, float) else v for v in row.values()]
        for row in table.to_pylist()
    ]


def test_every_type_gets_there_and_back(session: Session) -> None:
    table = pa.table(
        {
            "bool": [True, None],
            "i8": pa.array([-128, None], pa.int8()),
            "u64": pa.array([2**64 - 1, None], pa.uint64()),
            "f32": pa.array([0.5, None], pa.float32()),
            "f64": [float("-inf"), None],
            "d7": pa.array([Decimal("-1.50"), None], pa.decimal32(7, 2)),
            "d18": pa.array([Decimal("1e15"), None], pa.decimal64(18, 2)),
            "d38": pa.array([Decimal("12345678901234567890.123"), None], pa.decimal128(30, 3)),
            "text": ["é\0x", None],
            "large": pa.array(["a" * 1000, None], pa.large_string()),
            "view": pa.array(["view", None], pa.string_view()),
            "category": pa.array(["x", None]).dictionary_encode(),
            "bytes": pa.array([b"\x00\xff", None]),
            "date": [dt.date(1, 1, 1), None],
            "second": pa.array([dt.datetime(1969, 1, 1), None], pa.timestamp("s")),
            "nano": pa.array([dt.datetime(2020, 1, 1, 1), None], pa.timestamp("ns")),
            "time": pa.array([dt.time(1, 2, 3, 4), None], pa.time64("us")),
            "null": pa.nulls(2),
        }
    )
    here, there = remote_frame.from_arrow(table), session.from_arrow(table)
    assert there.schema == here.schema
    assert here.to_dicts() == table.to_pylist()
    computed = here.filter(remote_frame.len().over() > 0)
    assert computed.to_dicts() == table.to_pylist()
    assert there.to_dicts() == table.to_pylist()


def test_columns_of_one_name_keep_their_values(session: Session) -> None:
    names = ["a", "a", "A", "b"]
    data = [pa.array([10 * i + 1, 10 * i + 2]) for i in range(len(names))]
    frame = session.from_arrow(pa.Table.from_arrays(data, names))
    found = frame.filter(col("b") > 0).sort("b").collect()
    assert found.column_names == names
    assert [c.to_pylist() for c in found.columns] == [c.to_pylist() for c in data]


def test_asof_sides_meet_by_their_keys(session: Session, tmp_path: Path) -> None:
    """Both sides are scattered when neither is small."""
    pl.DataFrame(TABLE).write_parquet(tmp_path / "t.parquet", row_group_size=500)
    frame = session.read_parquet(tmp_path / "t.parquet", "asof_t")
    joined = frame.join_asof(frame.select("g", k="id"), left_on="id", right_on="k", by="g")
    text = session.explain(joined)
    assert "Join asof" in text
    assert joined.filter(col("k") != col("id")).collect().num_rows == 0
    assert joined.collect().num_rows == ROWS


def test_this_process_data_beside_a_sessions(session: Session) -> None:
    small = remote_frame.from_arrow(SMALL)
    joined = small.join(session.from_arrow(TABLE), on="g").group_by("name").len().sort("name")
    assert joined.executor is session
    assert joined.to_dict()["name"] == ["one", "two", "zero"]
    with Session(parallelism=1) as other:
        with pytest.raises(FrameError, match="different executors"):
            session.from_arrow(SMALL).join(other.from_arrow(SMALL), on="g")
    with pytest.raises(FrameError, match="sql"):
        session.from_arrow(SMALL).join(small.sql("from self"), on="g")


def test_the_face_of_a_session(session: Session, tmp_path: Path) -> None:
    import pandas as pd

    assert "computed by a session" in repr(session.from_arrow(SMALL))
    assert session.from_dict({"a": [1, 2]}).select(col("a").max()).to_dict() == {"a": [2]}
    assert session.from_pandas(pd.DataFrame({"a": [1]})).to_dict() == {"a": [1]}
    assert session.from_polars(pl.DataFrame({"a": ["x"]})).to_polars()["a"].to_list() == ["x"]
    files = session.from_arrow(SMALL).write_parquet(tmp_path / "set", partition_by="g")
    assert len(files) == 3
    back = session.read_parquet(tmp_path / "set", "back")
    assert back.sort("g").to_dict() == {"name": ["zero", "one", "two"], "g": [0, 1, 2]}
    assert session.sql("select name from back where g = 1").to_dict() == {"name": ["one"]}
    assert back.filter(col("g") > 0).group_by("g").len().sort("g").to_dict()["g"] == [1, 2]


@pytest.mark.parametrize("resident", [None, "32MB"])
def test_a_changed_file_is_an_error(
    control: EmbeddedControlPlane, tmp_path: Path, resident: str | None
) -> None:
    path = tmp_path / "t.parquet"
    with Session(2, "512MB", control=control, resident=resident) as session:
        for columns in ({"a": [10, 20]}, {"b": [1, 2, 3]}):
            remote_frame.from_dict({"a": [1, 2, 3]}).write_parquet(path)
            frames = [
                remote_frame.read_parquet(path, session),
                session.read_parquet(path),
                session.sql("select a from u", u=remote_frame.read_parquet(path)),
            ]
            totals = [f.select(col("a").sum().cast(int)) for f in frames]
            assert [f.to_dict() for f in totals] == [{"a": [6]}] * 3
            remote_frame.from_dict(columns).write_parquet(path)
            session.register("t", path)
            for frame in totals:
                with pytest.raises(DataError, match=r"t\.parquet: the file changed since"):
                    frame.collect()


@pytest.mark.parametrize("resident", [None, "32MB"])
def test_nanoseconds_are_taken_exactly_or_not_at_all(
    control: EmbeddedControlPlane, tmp_path: Path, resident: str | None
) -> None:
    whole = pa.table({"x": [1, 2], "t": pa.array([-1000, 2000], pa.timestamp("ns"))})
    finer = whole.set_column(1, "t", pa.array([-1000, 2001], pa.timestamp("ns")))
    path, fine = tmp_path / "whole.parquet", tmp_path / "finer.parquet"
    pq.write_table(whole, path)
    pq.write_table(finer, fine)
    latest = dt.datetime(1970, 1, 1, 0, 0, 0, 2)
    with Session(2, control=control, resident=resident) as session:
        session.register("a", whole)
        for frame in (
            session.sql("select * from a"),
            session.from_arrow(whole),
            session.from_pandas(whole.to_pandas()),
            session.read_parquet(path),
            remote_frame.read_parquet(path, session),
        ):
            assert frame.collect().schema.field("t").type == pa.timestamp("us")
            assert frame.select(col("t").max()).to_dict() == {"t": [latest]}
            assert frame.filter(col("t") >= latest).to_dict() == {"x": [2], "t": [latest]}
        with pytest.raises(UnsupportedTypeError, match=r"'t': .*nanoseconds.*cast it to micro"):
            session.register("b", finer)
        with pytest.raises(UnsupportedTypeError, match=r"'t': .*nanoseconds"):
            session.from_arrow(finer)
        frame = session.read_parquet(fine)
        assert frame.select(col("x").max()).to_dict() == {"x": [2]}
        for used in (frame, frame.filter(col("t") > latest).select("x")):
            with pytest.raises(UnsupportedTypeError, match=r"finer\.parquet: column 't': "):
                used.collect()


def test_a_frame_keeps_the_data_that_a_name_stood_for(session: Session) -> None:
    session.register("swapped", pa.table({"x": [1]}))
    old = session.sql("select sum(x)::bigint as x from swapped")
    assert old.to_dict() == {"x": [1]}
    session.register("swapped", pa.table({"x": [10]}))
    new = session.sql("select sum(x)::bigint as x from swapped")
    assert remote_frame.concat([old, new]).sort("x").to_dict() == {"x": [1, 10]}
    session.register("swapped", pa.table({"y": ["q"]}))
    assert old.to_dict() == {"x": [1]}
    session.catalog.drop("swapped")
    assert old.to_dict() == {"x": [1]}


def test_columns_in_paths_beside_resident_ones(
    control: EmbeddedControlPlane, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    remote_frame.from_arrow(TABLE).drop_nulls("g").write_parquet(tmp_path / "t", partition_by="g")
    pl.DataFrame(SMALL).write_parquet(tmp_path / "small.parquet")
    with Session(2, "512MB", control=control, resident="32MB") as session:
        big = session.read_parquet(tmp_path / "t", "t")
        small = session.read_parquet(tmp_path / "small.parquet")
        joined = big.join(small.cast({"g": int}), on="g").group_by("name").len().sort("name")
        first = joined.to_dict()
        assert joined.to_dict() == first
        assert first["name"] == ["one", "two", "zero"]
    assert "not filled" not in caplog.text


def test_a_session_reads_lists_and_some_columns(session: Session, tmp_path: Path) -> None:
    files = remote_frame.from_arrow(TABLE).write_parquet(tmp_path / "many", rows_per_file=1500)
    assert len(files) == 3
    frame = session.read_parquet(files, columns=["x", "id"])
    assert frame.columns == ["x", "id"]
    assert frame.select(col("id").max(), n=remote_frame.len()).to_dict() == {
        "id": [ROWS - 1],
        "n": [ROWS],
    }
    name = files[0].stem
    assert session.sql(f'select count(*) as n, max(s) as s from "{name}"').to_dict() == {
        "n": [ROWS],
        "s": ["n5"],
    }
    again = session.read_parquet(str(tmp_path / "many"), "again", hive_partitioning=False)
    assert again.width == TABLE.num_columns
    pairs = [remote_frame.from_dict({"a": [i]}).write_csv(tmp_path / f"{i}.csv") for i in (1, 2)]
    assert session.read_csv(pairs, "pairs").sort("a").to_dict() == {"a": [1, 2]}
    with pytest.raises(DataError, match="no files"):
        session.read_parquet([])


def test_errors_name_tables_and_not_memory_files(session: Session, tmp_path: Path) -> None:
    data = pa.table({"s": ["1", "x"]})
    session.register("words", data)
    path = tmp_path / "bad.csv"
    path.write_text("s\n1\nx\n")
    number = col("s").cast(int)
    for frame, named in (
        (session.sql("select s::bigint as s from words"), r"while reading table 'words'\)"),
        (session.read_csv(path).select(number), r"while reading table 'bad'\)"),
        (remote_frame.read_csv(path, session).select(number), r"while reading CSV, bad\.csv\)"),
        (session.from_arrow(data).select(number), r"while reading Arrow data \(2 rows\)\)"),
    ):
        with pytest.raises(QueryFailedError, match=named) as caught:
            frame.collect()
        assert "/proc/" not in str(caught.value)


def test_csv_in_a_session(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "towns.csv"
    path.write_text("name,size\none,10\ntwo,20\n")
    frame = session.read_csv(path, schema_overrides={"size": "int32"})
    path.unlink()
    assert frame.join(session.from_arrow(SMALL), on="name").sort("g").to_dict() == {
        "name": ["one", "two"], "size": [10, 20], "g": [1, 2]
    }  # fmt: skip
    assert session.sql("select sum(size) as s from towns").to_dict() == {"s": [30]}
    path.write_text("name,size\nthree,30\n")
    session.register("towns", path)
    assert session.sql("select * from towns").to_dict() == {"name": ["three"], "size": [30]}
    path.write_text("")
    with pytest.raises(DataError, match=r"towns\.csv"):
        session.register("towns", path)


def test_statements_over_frames_and_tables(session: Session) -> None:
    session.register("small", SMALL)
    big = session.from_arrow(TABLE)
    text = "select name, max(x) as x from big join small using (g) group by name order by name"
    expected = session.sql(text, big=big).to_dict()
    assert expected["name"] == ["one", "two", "zero"]
    # A frame hides the table of its name; the next statement sees the table again.
    session.register("big", pa.table({"g": pa.array([1], pa.int32()), "x": [-1.0]}))
    assert session.sql(text, big=big).to_dict() == expected
    assert session.sql(text).to_dict() == {"name": ["one"], "x": [-1.0]}
    session.catalog.drop("big")
    with pytest.raises(TableNotFoundError, match="big"):
        session.sql(text, other=big)
    with pytest.raises(SqlError, match="nothing"):
        big.sql("select nothing from self")
    twice = big.select("id").join(big.select(ID="x"), how="cross")
    with pytest.raises(SqlError, match="but for case"):
        twice.sql("select * from self")
    with pytest.raises(ExpressionError, match="not a RemoteFrame"):
        session.sql(text, big=TABLE)  # type: ignore[arg-type]


def memory_files() -> list[int]:
    """Sizes of the memory files that this process holds."""
    gc.collect()
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            if "scad-table" in os.readlink(f"/proc/self/fd/{fd}"):
                found.append(os.stat(f"/proc/self/fd/{fd}").st_size)
        except FileNotFoundError:
            continue
    return found


def test_the_memory_of_a_frame_goes_with_it(control: EmbeddedControlPlane) -> None:
    before = memory_files()
    with Session(parallelism=1, control=control) as session:
        frame = session.from_dict({"a": list(range(1000))})
        assert memory_files() == before
        assert frame.select(col("a").max()).to_dict() == {"a": [999]}
        assert sum(memory_files()) > sum(before)
        del frame
        assert sum(memory_files()) == sum(before)
        # Its path is not used again: statistics of one table are never those of another.
        again = session.from_dict({"a": [1, 2]})
        assert again.filter(col("a") > 1).to_dict() == {"a": [2]}
    del again
    assert memory_files() == before


def test_a_closed_session_computes_nothing(control: EmbeddedControlPlane, tmp_path: Path) -> None:
    remote_frame.from_dict({"a": [1]}).write_parquet(tmp_path / "a.parquet")
    before = memory_files()
    for session in (Session(parallelism=1, control=control), Session()):
        frames = [session.from_dict({"a": [1]}), session.read_parquet(tmp_path / "a.parquet")]
        session.close()
        for frame in frames:
            for compute in (
                frame.collect,
                frame.explain,
                partial(session.emit, frame, tmp_path / "x"),
            ):
                with pytest.raises(EngineError, match="the session is closed"):
                    compute()
        del frame, frames, compute
        assert memory_files() == before


def test_what_nests_too_deeply_is_named(session: Session) -> None:
    deep = session.from_arrow(SMALL)
    for _ in range(400):
        deep = deep.with_columns(g=col("g") + 1)
    with pytest.raises(NestingError, match="levels are Project"):
        deep.collect()
    with pytest.raises(NestingError, match="levels are"):
        session.explain(deep)
