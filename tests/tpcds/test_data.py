from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tpcds.data import (
    MANIFEST,
    DataSet,
    Progress,
    cache_root,
    choose_generator,
    ensure,
    open_directory,
)
from tpcds.errors import DataError
from tpcds.tables import TABLES

ENSURE = """
import sys
from pathlib import Path
from tpcds.data import ensure
def report(step):
    sys.stdout.write(f"{step.fraction} {step.message}\\n"); sys.stdout.flush()
ensure(0.01, root=Path(sys.argv[1]), progress=report)
sys.stdout.write("done\\n")
"""


@pytest.fixture
def copy(small: DataSet, tmp_path: Path) -> Path:
    """A copy of the small data set that a test may spoil."""
    target = tmp_path / "copy"
    shutil.copytree(small.directory, target)
    return target


@pytest.fixture
def foreign(copy: Path) -> Path:
    """The same files as if someone else had made them."""
    (copy / MANIFEST).unlink()
    return copy


def rewritten(path: Path, kind: pa.DataType) -> None:
    table = pq.read_table(path)
    pq.write_table(table.set_column(0, table.column_names[0], table.column(0).cast(kind)), path)


def test_the_cache_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root() == tmp_path / "scad" / "tpcds"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for ignored in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert cache_root() == tmp_path / "home" / ".cache" / "scad" / "tpcds"


@pytest.mark.parametrize(
    ("sf", "wanted", "chosen"),
    [
        (0.01, "auto", "dsdgen"),
        (1, "auto", "dsdgen"),
        (2, "auto", "tpcgen"),
        (1, "tpcgen", "tpcgen"),
        (10, "dsdgen", "dsdgen"),
    ],
)
def test_the_generator_follows_the_scale_factor(sf: float, wanted: str, chosen: str) -> None:
    assert choose_generator(sf, wanted) == chosen


@pytest.mark.parametrize(
    ("sf", "wanted", "says"),
    [
        (0, "auto", "positive"),
        (-1, "auto", "positive"),
        (float("nan"), "auto", "positive"),
        (float("inf"), "auto", "positive"),
        (1.5, "auto", "whole scale factors"),
        (0.1, "tpcgen", "whole scale factors"),
        (0.001, "auto", "smallest scale factor"),
        (1, "dbgen", "unknown generator"),
    ],
)
def test_impossible_scale_factors_are_refused(sf: float, wanted: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        choose_generator(sf, wanted)


def test_a_generated_set_is_complete_and_described(small: DataSet) -> None:
    assert small.directory.name == "sf0.01-dsdgen"
    assert sorted(small.tables) == sorted(TABLES)
    assert small.generator == "dsdgen"
    assert small.sf == 0.01
    assert small.rows["date_dim"] == 73_049
    assert small.versions["duckdb"] == duckdb.__version__
    names = {path.name for path in small.directory.iterdir()}
    assert names == {f"{table}.parquet" for table in TABLES} | {MANIFEST}
    for table, files in small.tables.items():
        assert small.bytes[table] == sum(path.stat().st_size for path in files)
    assert (
        pq.ParquetFile(small.tables["store_sales"][0]).metadata.row_group(0).column(0).compression
        == "ZSTD"
    )


def test_a_generated_set_is_not_generated_again(small: DataSet) -> None:
    steps: list[Progress] = []
    assert ensure(0.01, root=small.directory.parent, progress=steps.append) == small
    assert steps == []


def test_our_own_directory_may_be_named(small: DataSet) -> None:
    assert open_directory(small.directory) == small
    assert open_directory(small.directory, 0.01) == small
    with pytest.raises(DataError, match=r"holds scale factor 0.01, not 1"):
        open_directory(small.directory, 1)


def test_foreign_files_are_found(foreign: Path) -> None:
    folder = foreign / "store_sales"
    folder.mkdir()
    (foreign / "store_sales.parquet").rename(folder / "part-0.parquet")
    shutil.copy(folder / "part-0.parquet", folder / "part-1.parquet")
    data = open_directory(foreign, 0.01)
    assert data.generator == "unknown"
    assert data.tables["store_sales"] == (folder / "part-0.parquet", folder / "part-1.parquet")
    assert data.rows["store_sales"] == 2 * pq.read_metadata(folder / "part-0.parquet").num_rows


def test_missing_tables_are_named(foreign: Path) -> None:
    (foreign / "item.parquet").unlink()
    (foreign / "web_site.parquet").unlink()
    (foreign / "web_site").mkdir()
    with pytest.raises(DataError, match=r"lacks tables item, web_site$"):
        open_directory(foreign)


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        open_directory(tmp_path / "nothing")


def test_a_table_that_is_there_twice(foreign: Path) -> None:
    (foreign / "item").mkdir()
    with pytest.raises(DataError, match="has item twice"):
        open_directory(foreign)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all", os.urandom(4096)])
def test_a_corrupt_file_is_named(foreign: Path, content: bytes) -> None:
    (foreign / "item.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"item\.parquet is not a readable Parquet file") as caught:
        open_directory(foreign)
    assert "\n" not in str(caught.value)


def test_files_of_two_generators_are_refused(foreign: Path) -> None:
    rewritten(foreign / "reason.parquet", pa.int32())
    with pytest.raises(DataError, match="mixes the data of two generators"):
        open_directory(foreign)


def spoil_size(directory: Path) -> None:
    with (directory / "item.parquet").open("ab") as file:
        file.write(b"x")


def spoil_content(directory: Path) -> None:
    path = directory / "item.parquet"
    path.write_bytes(bytes(path.stat().st_size))


def spoil_by_removal(directory: Path) -> None:
    (directory / "item.parquet").unlink()


def spoil_manifest(directory: Path) -> None:
    text = (directory / MANIFEST).read_text()
    (directory / MANIFEST).write_text(text[: len(text) // 2])


def spoil_entry(directory: Path) -> None:
    manifest = json.loads((directory / MANIFEST).read_text())
    del manifest["tables"]["item"]
    (directory / MANIFEST).write_text(json.dumps(manifest))


def spoil_rows(directory: Path) -> None:
    manifest = json.loads((directory / MANIFEST).read_text())
    manifest["tables"]["item"]["rows"] += 1
    (directory / MANIFEST).write_text(json.dumps(manifest))


def lose_manifest(directory: Path) -> None:
    (directory / MANIFEST).unlink()


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_size,
        spoil_content,
        spoil_by_removal,
        spoil_manifest,
        spoil_entry,
        spoil_rows,
        lose_manifest,
    ],
)
def test_a_damaged_set_is_never_used(
    small: DataSet, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    target = tmp_path / small.directory.name
    shutil.copytree(small.directory, target)
    spoil(target)
    with pytest.raises(DataError, match=str(target)):
        ensure(0.01, root=tmp_path)


def test_a_full_disk_is_noticed_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(DataError, match="on disk, but"):
        ensure(0.01, root=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot generate TPC-DS data"):
        ensure(0.01, root=tmp_path / "file" / "cache")


def first_line(process: Any) -> str:
    """Wait until generation is under way."""
    line: str = process.stdout.readline()
    assert line, process.stderr.read()
    assert line != "done\n"
    return line


@pytest.fixture
def nothing_left(eventually: Any) -> Iterator[Callable[[Path], bool]]:
    """Whether a folder of data sets comes to hold nothing at all."""
    return lambda root: eventually(lambda: not any(root.iterdir()))


def test_sigkill_leaves_nothing_and_the_next_run_succeeds(
    tmp_path: Path, start: Any, children_of: Any, eventually: Any, nothing_left: Any
) -> None:
    process = start("-c", ENSURE, str(tmp_path))
    first_line(process)
    (generator,) = children_of(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert eventually(lambda: not Path(f"/proc/{generator}").exists())
    assert nothing_left(tmp_path)
    again = start("-c", ENSURE, str(tmp_path))
    output, errors = again.communicate()
    assert output.endswith("done\n"), errors
    assert [path.name for path in tmp_path.iterdir()] == ["sf0.01-dsdgen"]


def test_ctrl_c_leaves_nothing(
    tmp_path: Path, start: Any, children_of: Any, eventually: Any
) -> None:
    process = start("-c", ENSURE, str(tmp_path))
    first_line(process)
    (generator,) = children_of(process.pid)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert "KeyboardInterrupt" in errors
    assert not any(tmp_path.iterdir())
    assert not Path(f"/proc/{generator}").exists()


def test_a_killed_generator_is_an_error_and_leaves_nothing(
    tmp_path: Path, start: Any, children_of: Any
) -> None:
    process = start("-c", ENSURE, str(tmp_path))
    first_line(process)
    (generator,) = children_of(process.pid)
    os.kill(generator, signal.SIGKILL)
    _, errors = process.communicate()
    assert "the process of dsdgen ended early (signal 9)" in errors
    assert not any(tmp_path.iterdir())


def test_progress_grows_and_what_an_earlier_run_left_is_removed(tmp_path: Path) -> None:
    stale = tmp_path / ".tmp-sf1-dsdgen-1-0000"
    stale.mkdir()
    (stale / "store_sales.parquet").write_bytes(b"half")
    steps: list[Progress] = []
    ensure(0.01, root=tmp_path, progress=steps.append)
    assert [path.name for path in tmp_path.iterdir()] == ["sf0.01-dsdgen"]
    fractions = [step.fraction for step in steps]
    assert fractions == sorted(fractions)
    assert fractions[0] >= 0
    assert fractions[-1] == 1.0


def test_two_processes_generate_once(tmp_path: Path, start: Any) -> None:
    one = start("-c", ENSURE, str(tmp_path))
    first_line(one)
    two = start("-c", ENSURE, str(tmp_path))
    said_one, said_two = one.communicate()[0], two.communicate()[0]
    assert said_one.endswith("done\n")
    assert said_two == "0.0 waiting for another process that is generating data\ndone\n"
    assert [path.name for path in tmp_path.iterdir()] == ["sf0.01-dsdgen"]


@pytest.mark.slow
def test_tpcgen(small: DataSet, tmp_path: Path) -> None:
    steps: list[Progress] = []
    data = ensure(1, "tpcgen", root=tmp_path, progress=steps.append)
    assert data.directory == tmp_path / "sf1-tpcgen"
    assert data.rows["reason"] == 75 or data.rows["reason"] == 35
    assert len(data.tables["inventory"]) > 1
    assert not (data.directory / "dbgen_version").exists()
    assert "24 of 24 tables" in steps[-2].message
    mixed = tmp_path / "mixed"
    shutil.copytree(data.directory, mixed)
    (mixed / MANIFEST).unlink()
    assert open_directory(mixed).rows == data.rows
    shutil.rmtree(mixed / "item")
    shutil.copy(small.tables["item"][0], mixed / "item.parquet")
    with pytest.raises(DataError, match="mixes the data of two generators"):
        open_directory(mixed)
