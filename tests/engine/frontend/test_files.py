"""CSV and Arrow files as tables."""

from __future__ import annotations

import datetime
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from engine.catalog import Catalog, Table
from engine.errors import DataError
from operators.rel import ParquetSource
from remote_frame.executor import FrameSource

DATA = pa.table({"n": pa.array([1, 2, None], pa.int64()), "s": ["a", "b,c", "é"]})
CSV = 'n,s,d\n1,a,2020-02-29\n2,"b,c",1969-12-31\n,é,\n'


def rows(table: Table) -> dict[str, list[Any]]:
    """A table's columns, wherever they are."""
    if table.data is not None:
        return table.data.to_pydict()
    assert isinstance(table.source, FrameSource)
    return table.source.data.table().to_pydict()


def as_file(path: Path) -> None:
    with pa.OSFile(str(path), "wb") as out, pa.ipc.new_file(out, DATA.schema) as writer:
        writer.write_table(DATA)


def as_stream(path: Path) -> None:
    with pa.OSFile(str(path), "wb") as out, pa.ipc.new_stream(out, DATA.schema) as writer:
        writer.write_table(DATA)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("t.arrow", as_file),
        ("t.ipc", as_stream),
        ("t.arrows", as_stream),
        ("t.feather", lambda path: feather.write_feather(DATA, str(path))),
    ],
)
def test_arrow_files(tmp_path: Path, name: str, write: Callable[[Path], None]) -> None:
    write(tmp_path / name)
    table = Catalog().register("t", tmp_path / name)
    assert table.data is not None
    assert table.data.equals(DATA)


def test_csv_is_read_by_duckdbs_rules(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(CSV)
    with gzip.open(tmp_path / "u.csv.gz", "wt") as file:
        file.write(CSV)
    (tmp_path / "v.tsv").write_text("n\ts\n1\ta\n")
    table = Catalog().register("t", tmp_path / "t.csv")
    assert table.schema.types == (pa.int64(), pa.string(), pa.date32())
    dates = [datetime.date(2020, 2, 29), datetime.date(1969, 12, 31), None]
    assert rows(table) == {"n": [1, 2, None], "s": ["a", "b,c", "é"], "d": dates}
    assert Catalog().register("u", tmp_path / "u.csv.gz").rows == 3
    assert Catalog().register("v", tmp_path / "v.tsv").schema.names == ("n", "s")


def test_several_files_are_one_table(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.csv").write_text(f"n\n{number}\n")
    (tmp_path / "README").write_text("not data")
    pattern = str(tmp_path / "*.csv")
    some = [str(tmp_path / "2.csv"), str(tmp_path / "0.csv")]
    for source, expected in ((tmp_path, [0, 1, 2]), (pattern, [0, 1, 2]), (some, [2, 0])):
        assert rows(Catalog().register("t", source)) == {"n": expected}


def test_hidden_files_of_a_directory_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("n\n1\n")
    (tmp_path / "_temporary").mkdir()
    for name in ("_b.csv", ".c.csv", "_d.parquet", "_temporary/e.csv"):
        (tmp_path / name).write_text("other\n2\n")
    assert rows(Catalog().register("t", tmp_path)) == {"n": [1]}


def test_parquet_wins_in_a_directory(tmp_path: Path) -> None:
    pq.write_table(DATA, tmp_path / "a.parquet")
    (tmp_path / "notes.csv").write_text("x\n1\n")
    assert isinstance(Catalog().register("t", tmp_path).source, ParquetSource)


@pytest.mark.parametrize(
    ("files", "source", "says"),
    [
        ({"a.arrow": b"ARROW1 and no more"}, "a.arrow", r"a\.arrow: not a readable Arrow file"),
        ({"a.ipc": b""}, "a.ipc", r"a\.ipc: not a readable Arrow file"),
        ({"a.csv": b"n,m\n1,2\n" + b"3,4,5\n" * 9}, "a.csv", r"a\.csv: "),
        ({"a.csv": b"n\n1\n", "b.arrow": b""}, "*", r"files of several kinds \(arrow and csv\)"),
        ({}, "none.csv", r"none\.csv: there is no such file"),
        ({}, ["none.csv"], r"none\.csv: there is no such file"),
        ({}, ["none.arrow"], r"none\.arrow: there is no such file"),
    ],
)
def test_what_cannot_be_read_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: dict[str, bytes],
    source: str | list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=says):
        Catalog().register("t", source)


def test_files_must_agree(tmp_path: Path) -> None:
    as_file(tmp_path / "a.arrow")
    other = pa.table({"n": [1]})
    feather.write_feather(other, str(tmp_path / "b.arrow"))
    with pytest.raises(DataError, match=r"b\.arrow: its columns differ from those of .*a\.arrow"):
        Catalog().register("t", tmp_path)
