"""Registered tables: files, folders, patterns, Arrow data, and what is wrong with them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.catalog import Catalog
from engine.errors import DataError, TableNotFoundError
from engine.frontend import plan_sql
from operators.errors import UnsupportedTypeError
from operators.rel import ParquetSource, Scan
from remote_frame.executor import FrameSource

DATA = pa.table({"K": pa.array([1, 2], pa.int32()), "v": pa.array(["a", None])})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("part-1", "part-0"):
        pq.write_table(DATA, tmp_path / f"{name}.parquet")
    return tmp_path


def test_a_file(folder: Path) -> None:
    catalog = Catalog()
    table = catalog.register("T", folder / "part-0.parquet")
    assert (table.rows, table.schema.names) == (2, ("K", "v"))
    assert table.bytes == (folder / "part-0.parquet").stat().st_size
    assert catalog["t"] is table
    assert "T" in catalog
    assert list(catalog) == ["T"]


def test_a_folder_a_pattern_and_a_list_are_in_order_of_names(folder: Path) -> None:
    catalog = Catalog()
    paths = tuple(str(folder / f"part-{i}.parquet") for i in range(2))
    for source in (folder, str(folder / "part-*.parquet"), list(paths)):
        table = catalog.register("t", source)
        assert table.source == ParquetSource("t", paths)
        assert table.rows == 4


def test_arrow_data(folder: Path) -> None:
    catalog = Catalog()
    for source in (DATA, DATA.to_batches()[0], DATA.to_reader()):
        table = catalog.register("t", source)
        assert isinstance(table.source, FrameSource)
        assert table.source.label == "t"
        assert table.data is not None
        assert table.data.equals(DATA)


def test_types_become_canonical() -> None:
    data = pa.table(
        {
            "d": pa.array([], pa.decimal128(7, 2)),
            "s": pa.array([], pa.large_string()),
            "c": pa.array([], pa.dictionary(pa.int32(), pa.string())),
        }
    )
    table = Catalog().register("t", data)
    assert table.schema.types == (pa.decimal32(7, 2), pa.string(), pa.string())


@pytest.mark.parametrize("name", ["nosuch.parquet", "nosuch-*.parquet", "empty"])
def test_missing_files_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=name.replace("*", r"\*")):
        Catalog().register("t", tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all", b"PAR1" + b"x" * 99])
def test_corrupt_files_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.parquet"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"broken\.parquet.*not a readable Parquet file") as caught:
        Catalog().register("t", path)
    assert "\n" not in str(caught.value)


def test_a_truncated_file_is_named(folder: Path) -> None:
    path = folder / "part-0.parquet"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match=r"part-0\.parquet"):
        Catalog().register("t", folder)


def test_files_of_one_table_must_agree(folder: Path) -> None:
    pq.write_table(pa.table({"other": [1]}), folder / "part-2.parquet")
    with pytest.raises(DataError, match=r"part-2\.parquet: its columns differ"):
        Catalog().register("t", folder)


def test_a_type_that_the_engine_lacks_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"xs": [[1]]}), tmp_path / "t.parquet")
    with pytest.raises(UnsupportedTypeError, match=r"t\.parquet.*'xs'"):
        Catalog().register("t", tmp_path / "t.parquet")


def test_columns_that_differ_only_in_case_are_refused() -> None:
    with pytest.raises(DataError, match="but for case"):
        Catalog().register("t", pa.table({"a": [1], "A": [2]}))


def test_what_is_no_data_is_refused() -> None:
    with pytest.raises(DataError, match="int"):
        Catalog().register("t", 7)


def test_dropping_and_replacing(folder: Path) -> None:
    catalog = Catalog()
    catalog.register("t", DATA)
    assert plan_sql("select k from t", catalog).schema.types == (pa.int32(),)
    catalog.register("T", pa.table({"k": ["x"]}))
    assert plan_sql("select k from t", catalog).schema.types == (pa.string(),)
    catalog.drop("t")
    with pytest.raises(TableNotFoundError):
        plan_sql("select k from t", catalog)
    with pytest.raises(TableNotFoundError):
        catalog.drop("t")
    catalog.close()


def test_scan_reads_everything() -> None:
    catalog = Catalog()
    catalog.register("t", DATA)
    scan = catalog.scan("T")
    assert isinstance(scan, Scan)
    assert scan.schema.names == ("K", "v")
    assert scan.columns == (0, 1)


def test_datafusion_is_imported_by_the_first_query_only() -> None:
    code = (
        "import sys, pyarrow as pa\n"
        "from engine.frontend import plan_sql\n"
        "from engine.catalog import Catalog\n"
        "catalog = Catalog()\n"
        "catalog.register('t', pa.table({'a': [1]}))\n"
        "assert 'datafusion' not in sys.modules\n"
        "plan_sql('select a from t', catalog)\n"
        "assert 'datafusion' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("data", "what"),
    [(pa.table({}), "no columns"), (pa.table({"a": [1], "": [2]}), "name is empty")],
)
def test_tables_that_sql_cannot_name_are_refused(tmp_path: Path, data: pa.Table, what: str) -> None:
    pq.write_table(data, tmp_path / "odd.parquet")
    catalog = Catalog()
    for source in (data, tmp_path / "odd.parquet"):
        with pytest.raises(DataError, match=what):
            catalog.register("odd", source)
    assert list(catalog) == []
