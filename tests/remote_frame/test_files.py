"""Frames over files, and files of frames; nothing is left behind by what fails."""

from __future__ import annotations

import datetime as dt
import gc
import gzip
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from operators.errors import DataFileError, UnsupportedTypeError
from remote_frame import (
    AmbiguousColumnError,
    ColumnNotFoundError,
    ExpressionError,
    FrameError,
    col,
    concat,
    from_arrow,
    from_dict,
    from_dicts,
    from_pandas,
    from_polars,
    read_csv,
    read_parquet,
)
from remote_frame.spool import SpooledTable

TABLE = pa.table(
    {
        "k": pa.array([1, 2, 3, 4], pa.int32()),
        "town": ["Ulm", None, 'a "b", c', "é\nx"],
        "money": pa.array([Decimal("1.50"), None, Decimal("-2.00"), Decimal("0.01")],
                          pa.decimal128(7, 2)),
        "day": [dt.date(1969, 12, 31), dt.date(2020, 2, 29), None, dt.date(2020, 1, 1)],
        "at": pa.array([dt.datetime(2020, 1, 1, 2, 3, 4), None, None, None], pa.timestamp("us")),
        "flag": [True, False, None, True],
    }
)  # fmt: skip


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


# Parquet


def test_parquet_there_and_back(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    assert from_arrow(TABLE).write_parquet(path) == [path]
    assert pq.read_table(path).equals(TABLE)
    frame = read_parquet(path)
    assert frame.columns == TABLE.column_names
    assert frame.select("k", "money").to_dict() == TABLE.select(["k", "money"]).to_pydict()
    assert read_parquet(path, columns=["day", "k"]).columns == ["day", "k"]
    assert "t (Parquet, 1 file)" in repr(frame)
    assert list(tmp_path.iterdir()) == [path]


def test_parquet_files_globs_directories(tmp_path: Path) -> None:
    for i in range(3):
        pq.write_table(TABLE.slice(i, 1), tmp_path / f"part{i}.parquet")
    paths = sorted(tmp_path.glob("*.parquet"))
    for source in (tmp_path, str(tmp_path / "part*.parquet"), paths, [str(p) for p in paths]):
        assert read_parquet(source).sort("k").select("k").to_dict() == {"k": [1, 2, 3]}
    assert read_parquet(paths[1:2]).select("k").to_dict() == {"k": [2]}


def test_hidden_files_of_a_directory_are_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "_data"
    hidden = (".part.parquet", "_part.parquet", ".tmp/x.parquet", "_temporary/0/x.parquet")
    for name in hidden:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"half of a file")
        (folder / name).with_suffix(".csv").write_bytes(b"")
    with pytest.raises(DataFileError, match="no Parquet files"):
        read_parquet(folder)
    from_dict({"a": [1]}).write_parquet(folder / "a.parquet")
    from_dict({"a": [1]}).write_csv(folder / "a.csv")
    assert read_parquet(folder).to_dict() == {"a": [1]}
    assert read_csv(folder).to_dict() == {"a": [1]}
    with pytest.raises(DataFileError, match=r"_part\.parquet"):
        read_parquet(folder / "_part.parquet")
    from_dict({"_k": [1], "a": [2]}).write_parquet(tmp_path / "hive", partition_by="_k")
    assert read_parquet(tmp_path / "hive").to_dict() == {"a": [2], "_k": [1]}


def test_hive_partitions_there_and_back(tmp_path: Path) -> None:
    frame = from_arrow(TABLE).with_columns(part=col("k") % 2)
    written = frame.write_parquet(tmp_path / "set", partition_by=["day", "part", "town"])
    assert len(written) == 4
    assert all(p.exists() for p in written)
    back = read_parquet(tmp_path / "set")
    assert back.columns == ["k", "money", "at", "flag", "day", "part", "town"]
    assert [str(t) for t in back.dtypes[-3:]] == ["date32[day]", "int64", "string"]
    expected = frame.select(*back.columns).cast({"part": "int64"}).sort("k").to_dicts()
    assert back.sort("k").to_dicts() == expected
    assert back.filter(col("part") == 1, col("town") == "Ulm").select("k").to_dict() == {"k": [1]}
    assert read_parquet(tmp_path / "set", hive_partitioning=False).width == 4
    one = read_parquet([str(written[0])], hive_partitioning=True)
    assert one.columns[-3:] == ["day", "part", "town"]


def test_a_name_with_an_equals_sign_is_no_column_unless_asked(tmp_path: Path) -> None:
    folder = tmp_path / "k=5"
    folder.mkdir()
    path = folder / "t.parquet"
    pq.write_table(pa.table({"k": [1]}), path)
    assert read_parquet(path).to_dict() == {"k": [1]}
    assert read_parquet(folder).to_dict() == {"k": [1]}
    with pytest.raises(DataFileError, match="both in the file and in its path"):
        read_parquet(tmp_path)
    pq.write_table(pa.table({"k": [1]}), tmp_path / "t.parquet")
    with pytest.raises(DataFileError, match="no directory"):
        read_parquet(tmp_path / "t.parquet", hive_partitioning=True)


def test_bad_parquet_is_named(tmp_path: Path) -> None:
    good, bad, other = (tmp_path / f"{n}.parquet" for n in ("good", "bad", "other"))
    pq.write_table(TABLE, good)
    bad.write_bytes(good.read_bytes()[:-20])
    pq.write_table(TABLE.drop(["k"]), other)
    with pytest.raises(DataFileError, match=r"bad\.parquet: not a readable Parquet file"):
        read_parquet(bad)
    with pytest.raises(DataFileError, match=r"other\.parquet: its columns differ"):
        read_parquet([good, other])
    with pytest.raises(DataFileError, match=r"none\.parquet: there is no such file"):
        read_parquet(tmp_path / "none.parquet")
    with pytest.raises(DataFileError, match="no Parquet files"):
        read_parquet(_empty(tmp_path))
    with pytest.raises(DataFileError, match="no files"):
        read_parquet([])
    twice = tmp_path / "twice.parquet"
    pq.write_table(pa.table({"a": [1], "A": [2]}), twice)
    with pytest.raises(DataFileError, match="several columns are called 'A'"):
        read_parquet(twice)
    nested = tmp_path / "nested.parquet"
    pq.write_table(pa.table({"deep": [[1, 2]]}), nested)
    with pytest.raises(UnsupportedTypeError, match="deep"):
        read_parquet(nested)


def _empty(folder: Path) -> Path:
    made = folder / "empty"
    made.mkdir()
    return made


@pytest.mark.parametrize("how", ["other rows", "other columns", "gone"])
def test_a_changed_file_is_an_error(tmp_path: Path, how: str) -> None:
    path, copy = tmp_path / "t.parquet", tmp_path / "copy.parquet"
    from_dict({"a": [1, 2, 3]}).write_parquet(path)
    frame = read_parquet(path)
    assert frame.select(col("a").sum()).to_dict() == {"a": [6]}
    if how == "gone":
        path.unlink()
    else:
        from_dict({"a": [10]} if how == "other rows" else {"b": [1, 2, 3]}).write_parquet(path)
    with pytest.raises(DataFileError, match=r"t\.parquet: the file (changed|is gone) since"):
        frame.to_dict()
    with pytest.raises(DataFileError, match=r"t\.parquet: the file (changed|is gone) since"):
        frame.filter(col("a") > 0).write_parquet(copy)
    with pytest.raises(DataFileError, match=r"t\.parquet"):
        concat([frame, frame.filter(col("a").is_in([1]))]).to_dict()
    assert not copy.exists()


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    from_dict({"a": [1, 2, 3]}).write_parquet(path)
    frame = read_parquet(path)
    with frame._stream() as reader:
        os.utime(path, ns=(0, 0))
        with pytest.raises(DataFileError, match=r"t\.parquet: the file changed since"):
            reader.read_all()


def test_nanoseconds_are_taken_exactly_or_not_at_all(tmp_path: Path) -> None:
    whole = pa.table({"x": [1, 2, 3], "t": pa.array([-1000, None, 2_000], pa.timestamp("ns"))})
    finer = whole.set_column(1, "t", pa.array([-1000, None, 2_001], pa.timestamp("ns")))
    expected = whole.set_column(1, "t", whole["t"].cast(pa.timestamp("us")))
    path = tmp_path / "t.parquet"
    pq.write_table(whole, path)
    coded = whole.set_column(1, "t", whole["t"].dictionary_encode())
    for frame in (from_arrow(whole), from_pandas(whole.to_pandas()), read_parquet(path)):
        assert frame.sort("x").to_arrow().equals(expected)
        assert frame.select(col("t").max()).to_dict() == {
            "t": [dt.datetime(1970, 1, 1, 0, 0, 0, 2)]
        }
    assert from_arrow(coded).collect().equals(expected)
    with pytest.raises(UnsupportedTypeError, match=r"'t': .*nanoseconds.*cast it to microseconds"):
        from_arrow(finer)
    with pytest.raises(UnsupportedTypeError, match=r"'t': .*nanoseconds"):
        from_arrow(finer.set_column(1, "t", finer["t"].dictionary_encode()))
    pq.write_table(finer, path)
    frame = read_parquet(path)
    assert frame.select(col("x").sum().cast(int)).to_dict() == {"x": [6]}
    for used in (
        frame,
        frame.filter(col("t").is_null()).select("x"),
        frame.select(n=col("t").count()),
    ):
        with pytest.raises(UnsupportedTypeError, match=r"t\.parquet: column 't': .*nanoseconds"):
            used.collect()


def test_old_timestamps_of_spark_are_read(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    at = [dt.datetime(2020, 1, 2, 3, 4, 5, 6), dt.datetime(9999, 12, 31)]
    data = pa.table({"t": pa.array(at, pa.timestamp("us"))})
    pq.write_table(data, path, use_deprecated_int96_timestamps=True)
    assert read_parquet(path).sort("t").to_dict() == {"t": at}


def test_rows_per_file(tmp_path: Path) -> None:
    files = from_dict({"x": list(range(10))}).write_parquet(tmp_path / "x", rows_per_file=4)
    assert len(files) == 3
    assert max(pq.read_metadata(p).num_rows for p in files) == 4
    assert sorted(read_parquet(tmp_path / "x").to_dict()["x"]) == list(range(10))
    with pytest.raises(FrameError, match="exists already"):
        from_dict({"x": [1]}).write_parquet(tmp_path / "x", rows_per_file=4)
    assert len(list((tmp_path / "x").iterdir())) == 3


@pytest.mark.parametrize(
    "options", [{"partition_by": "day"}, {"rows_per_file": 2}, {"partition_by": ["k", "town"]}]
)
def test_no_rows_are_one_empty_file(tmp_path: Path, options: Any) -> None:
    frame = from_arrow(TABLE).filter(col("k") > 9)
    files = frame.write_parquet(tmp_path / "none", **options)
    assert [f.parent for f in files] == [tmp_path / "none"]
    back = read_parquet(tmp_path / "none")
    assert back.collect().num_rows == 0
    names = [options["partition_by"]] if "partition_by" in options else []
    last = [n for one in names for n in ([one] if isinstance(one, str) else one)]
    assert back.columns == [n for n in frame.columns if n not in last] + last
    assert back.select(frame.columns).schema == frame.schema


def test_what_fails_while_it_is_written_leaves_nothing(tmp_path: Path) -> None:
    wrong = from_dict({"x": ["1", "oops"]}).with_columns(col("x").cast("int64"))
    for write in (wrong.write_parquet, wrong.write_csv):
        with pytest.raises(Exception, match="oops"):
            write(tmp_path / "file")
    with pytest.raises(Exception, match="oops"):
        wrong.with_columns(y=lit_one()).write_parquet(tmp_path / "set", partition_by="y")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FrameError, match="nowhere"):
        wrong.write_csv(tmp_path / "nowhere" / "x.csv")
    with pytest.raises(ColumnNotFoundError, match="'z'"):
        wrong.write_parquet(tmp_path / "set", partition_by="z")
    with pytest.raises(ExpressionError, match="no column"):
        wrong.write_parquet(tmp_path / "set", partition_by="x")
    assert list(tmp_path.iterdir()) == []


def lit_one() -> Any:
    from remote_frame import lit

    return lit(1)


def test_an_old_file_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    from_dict({"x": ["1"]}).write_parquet(path)
    wrong = from_dict({"x": ["oops"]}).with_columns(col("x").cast("int64"))
    with pytest.raises(Exception, match="oops"):
        wrong.write_parquet(path)
    assert read_parquet(path).to_dict() == {"x": ["1"]}
    from_dict({"x": ["2"]}).write_parquet(path)
    assert read_parquet(path).to_dict() == {"x": ["2"]}


# CSV


def test_csv_there_and_back(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    assert from_arrow(TABLE).write_csv(path) == path
    frame = read_csv(path, schema_overrides={"money": "decimal(7,2)", "k": "int32"})
    assert frame.to_dicts() == TABLE.to_pylist()
    inferred = read_csv(path)
    assert [str(t) for t in inferred.dtypes] == [
        *("int64", "string", "double", "date32[day]", "timestamp[us]", "bool")
    ]
    assert "from CSV, t.csv" in repr(inferred)
    assert inferred.filter(col("k") > 2).select("k").to_dict() == {"k": [3, 4]}
    assert inferred.collect().num_rows == 4
    assert pl.read_csv(path).height == 4


def test_csv_options(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("# made by hand\n1;'x;y';-\n2;z;2020-01-31\n")
    frame = read_csv(
        path, separator=";", quote_char="'", has_header=False, skip_rows=1, null_values="-"
    )
    assert frame.to_dict() == {
        "column_1": [1, 2],
        "column_2": ["x;y", "z"],
        "column_3": [None, dt.date(2020, 1, 31)],
    }
    named = read_csv(
        path,
        separator=";",
        quote_char="'",
        has_header=False,
        skip_rows=1,
        null_values=["-"],
        new_columns=["a", "b", "c"],
        columns=["c", "a"],
        n_rows=1,
        try_parse_dates=False,
    )
    assert named.to_dict() == {"a": [1], "c": [None]}
    assert [str(t) for t in named.dtypes] == ["int64", "string"]
    whole = read_csv(
        path,
        separator=";",
        quote_char="'",
        has_header=False,
        skip_rows=1,
        null_values="-",
        schema={"n": "int16", "text": str, "day": dt.date},
    )
    assert [str(t) for t in whole.dtypes] == ["int16", "string", "date32[day]"]
    assert whole.to_dict()["day"] == [None, dt.date(2020, 1, 31)]


def test_times_with_a_zone_stay_text(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("at,on\n2020-01-01T10:00:00Z,10:30:00\n2020-01-01T10:00:00+02:00,\n")
    frame = read_csv(path)
    assert [str(t) for t in frame.dtypes] == ["string", "time64[us]"]
    assert frame.to_dict()["on"] == [dt.time(10, 30), None]


def test_types_are_those_of_all_rows(tmp_path: Path) -> None:
    path = tmp_path / "late.csv"
    path.write_text("x\n" + "1\n" * 50_000 + "late\n")
    assert [str(t) for t in read_csv(path).dtypes] == ["string"]


def test_csv_files_and_compression(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,a\n")
    (tmp_path / "b.csv").write_text("x,y\n2,b\n")
    assert read_csv(tmp_path).sort("x").to_dict() == {"x": [1, 2], "y": ["a", "b"]}
    assert read_csv(str(tmp_path / "?.csv")).sort("x").to_dict()["x"] == [1, 2]
    packed = tmp_path / "c.csv.gz"
    packed.write_bytes(gzip.compress(b"x,y\n3,c\n"))
    assert read_csv(packed).to_dict() == {"x": [3], "y": ["c"]}


def test_bad_csv_is_named(tmp_path: Path) -> None:
    ragged, typed, empty = (tmp_path / f"{n}.csv" for n in ("ragged", "typed", "empty"))
    ragged.write_text("a,b\n1,2\n3,4,5\n")
    typed.write_text("a,b\n1,2\n3,oops\n")
    empty.write_text("")
    before = descriptors()
    with pytest.raises(DataFileError, match=r"ragged\.csv"):
        read_csv(ragged, schema={"a": int, "b": int})
    with pytest.raises(DataFileError, match=r"ragged\.csv.*Line: 3.*3,4,5"):
        read_csv(ragged)
    with pytest.raises(DataFileError, match=r"typed\.csv.*oops"):
        read_csv(typed, schema_overrides={"b": int})
    with pytest.raises(DataFileError, match=r"empty\.csv"):
        read_csv(empty)
    with pytest.raises(DataFileError, match=r"none\.csv: there is no such file"):
        read_csv(tmp_path / "none.csv")
    with pytest.raises(DataFileError, match="there is no such file"):
        read_csv([tmp_path / "none.csv"])
    with pytest.raises(ColumnNotFoundError, match="'c'"):
        read_csv(typed, columns=["c"])
    with pytest.raises(AmbiguousColumnError, match="alike"):
        read_csv(typed, new_columns=["B"])
    with pytest.raises(ExpressionError, match="2 columns"):
        read_csv(typed, new_columns=["x", "y", "z"])
    with pytest.raises(ExpressionError, match="either"):
        read_csv(typed, schema={"a": int}, schema_overrides={"a": int})
    with pytest.raises(DataFileError, match="typed"):
        read_csv(typed, schema_overrides={"zz": int})
    assert descriptors() == before


def test_the_memory_of_a_csv_file_goes_with_its_frame(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a\n1\n")
    before = descriptors()
    frame = read_csv(path)
    path.unlink()
    assert descriptors() == before + 1
    assert frame.select(col("a") + 1).to_dict() == {"a": [2]}
    del frame
    assert descriptors() == before


def test_a_failing_source_leaves_no_memory_file() -> None:
    def batches() -> Any:
        yield pa.record_batch({"a": [1]})
        raise OSError("the disk is gone")

    before = descriptors()
    reader = pa.RecordBatchReader.from_batches(pa.schema([("a", pa.int64())]), batches())
    with pytest.raises(FrameError, match="the disk is gone"):
        SpooledTable.written(reader, "a test")
    assert descriptors() == before


# Other data


def test_conversions() -> None:
    import pandas as pd

    frame = from_arrow(TABLE)
    assert frame.to_polars().equals(pl.DataFrame(TABLE))
    assert frame.to_pandas()["town"].tolist()[0] == "Ulm"
    assert pl.DataFrame(frame.select("k")).to_dict(as_series=False) == {"k": [1, 2, 3, 4]}
    with duckdb.connect() as connection:
        relation = frame.to_duckdb(connection)
        assert relation.aggregate("sum(k)").fetchall() == [(10,)]
        again = from_arrow(connection.sql("select 1 as a, 'x' as b"))
        assert again.to_dicts() == [{"a": 1, "b": "x"}]
    assert from_pandas(pd.DataFrame({"a": [1, None], "b": ["x", "y"]})).to_dict() == {
        "a": [1.0, None],
        "b": ["x", "y"],
    }
    assert from_pandas(pd.DataFrame({"a": [1]}, index=[7]), include_index=True).width == 2
    assert from_polars(pl.DataFrame({"a": [1]}).lazy()).to_dict() == {"a": [1]}
    assert from_polars(pl.DataFrame({"c": ["x"]}, schema={"c": pl.Categorical})).to_dict() == {
        "c": ["x"]
    }
    batch = pa.record_batch({"a": [1]})
    assert from_arrow(batch).to_dict() == {"a": [1]}
    assert from_arrow(pa.RecordBatchReader.from_batches(batch.schema, [batch])).to_dict() == {
        "a": [1]
    }
    typed = from_dict({"a": [1]}, schema=pa.schema([("a", pa.int8())]))
    assert from_dicts(typed.to_dicts()).to_dict() == {"a": [1]}


def test_rows_need_not_have_all_names() -> None:
    data: list[dict[str, Any]] = [{"a": 1}, {"b": 2, "a": None}, {}, {"c": "x"}]
    frame = from_dicts(data)
    assert frame.columns == ["a", "b", "c"]
    assert frame.to_dicts() == pl.from_dicts(data).to_dicts()
    typed = from_dicts(data, schema=pa.schema([("b", pa.int8())]))
    assert typed.to_dict() == {"b": [None, 2, None, None]}


def test_data_that_is_none() -> None:
    with pytest.raises(FrameError, match="no Arrow data"):
        from_arrow({"a": [1]})
    with pytest.raises(FrameError, match="from_dict"):
        from_dict({"a": [1], "b": [1, 2]})
    with pytest.raises(FrameError, match="from_dicts"):
        from_dicts([{"a": 1}, {"a": "x"}])
    with pytest.raises(FrameError, match="from_pandas"):
        from_pandas(5)
    with pytest.raises(FrameError, match="neither a session"):
        from_dict({"a": [1]}, "here")
    with pytest.raises(UnsupportedTypeError, match="deep"):
        from_dict({"deep": [[1]]})


def test_spooled_columns_are_read_again_and_again() -> None:
    spooled = SpooledTable.written(TABLE, "a test")
    assert spooled.rows == 4
    columns = spooled.select([2, 0])
    assert columns.schema.names == ["money", "k"]
    for _ in range(2):
        assert pa.table(columns).to_pydict() == TABLE.select(["money", "k"]).to_pydict()
    assert columns.table().num_rows == 4
    assert spooled.arrow_stream([]).schema.names == ["k"]
    assert columns.select([1]).table().column_names == ["k"]
    assert columns.arrow_stream([]).schema.names == ["money"]
    with pytest.raises(ColumnNotFoundError, match="'kk'"):
        spooled.arrow_stream(["kk"])


def test_concat_says_what_differs() -> None:
    a, b = from_dict({"x": [1], "y": ["a"]}), from_dict({"x": [1.5], "y": ["b"]})
    with pytest.raises(ExpressionError, match="column 'x' is int64 in frame 0 and double"):
        concat([a, b])
    assert concat([a, b], how="vertical_relaxed").sort("y").to_dict()["x"] == [1.0, 1.5]
    with pytest.raises(ExpressionError, match="column 'y'"):
        concat([a, b.drop("y")])
    with pytest.raises(ExpressionError, match="order of columns"):
        concat([a, a.select("y", "x")])
    with pytest.raises(ExpressionError, match="'y'"):
        concat([a, from_dict({"x": [1], "y": [dt.date(2020, 1, 1)]})], how="vertical_relaxed")
    with pytest.raises(ExpressionError, match="needs a frame"):
        concat([])
    with pytest.raises(ExpressionError, match="how='up'"):
        concat([a], how="up")  # type: ignore[arg-type]
    with pytest.raises(ExpressionError, match="RemoteFrames"):
        concat([a, TABLE])  # type: ignore[list-item]
    assert concat([a]).to_dict() == a.to_dict()
    wide = concat([a, b.rename({"x": "z"})], how="diagonal").sort("y")
    assert wide.to_dict() == {"x": [1, None], "y": ["a", "b"], "z": [None, 1.5]}
