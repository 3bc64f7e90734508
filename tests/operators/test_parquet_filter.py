"""Reading Parquet files by keys and ranges, beside the same conditions in DuckDB."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.duckdb import Kernel
from operators.parquet_filter import filterable, read_filtered
from operators.schema import Field, Schema

MANY = 1 << 40


def schema_of(table: pa.Table) -> Schema:
    return Schema(tuple(Field(f.name, f.type) for f in table.schema))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("filtered")


@pytest.fixture(scope="module")
def duck() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": 1}) as connection:
        # A file that is written again within the clock's resolution is another one here.
        connection.execute("SET enable_external_file_cache = false")
        yield connection


INTEGERS = {"int8": 127, "int16": 32_767, "int32": 2**31 - 1, "int64": 2**63 - 1}


@settings(deadline=None)
@given(data=st.data())
def test_rows_are_those_that_duckdb_gives(
    folder: Path, duck: duckdb.DuckDBPyConnection, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(INTEGERS)))
    most = INTEGERS[name]
    near = st.integers(-3, 3) | st.sampled_from([most, most - 1, -most - 1, -most])
    size = data.draw(st.integers(0, 40))
    listed = st.lists(st.none() | near, min_size=size, max_size=size)
    table = pa.table(
        {
            "key": pa.array(data.draw(listed), name),
            "day": pa.array(
                data.draw(st.lists(st.none() | st.integers(-5, 5), min_size=size, max_size=size)),
                pa.int32(),
            ).cast(pa.date32()),
            "row": pa.array(range(size), pa.int64()),
        }
    )
    path = str(folder / "random.parquet")
    pq.write_table(table, path, row_group_size=data.draw(st.integers(1, 41)))
    keys = pa.array(data.draw(st.lists(st.none() | near | st.just(2**40))), pa.int64())
    low, high = data.draw(st.tuples(*[st.none() | st.integers(-6, 6)] * 2))
    found = read_filtered([path], schema_of(table), {"day": (low, high)}, {"key": keys}, MANY)
    duck.register("keys", pa.table({"k": keys}))
    epoch = "date '1970-01-01'"
    ends = [f"day >= {epoch} + {low}"] * (low is not None) + [f"day <= {epoch} + {high}"] * (
        high is not None
    )
    where = " and ".join(["key in (select k from keys where k is not null)", *ends])
    wanted = duck.execute(f"select row from '{path}' where {where} order by row").fetchall()
    assert found is not None
    assert found.schema.types == table.schema.types
    assert [(r,) for r in found.column("row").to_pylist()] == wanted


def test_values_come_as_duckdb_reads_them(folder: Path) -> None:
    table = pa.table(
        {
            "k": pa.array([1, 2, 3, None], pa.int32()),
            "money": pa.array(
                [decimal.Decimal("-99999.99"), decimal.Decimal("0.01"), None, None],
                pa.decimal128(7, 2),
            ),
            "wide": pa.array(
                [decimal.Decimal(10**37), None, decimal.Decimal(-1), None], pa.decimal128(38, 0)
            ),
            "f": pa.array([float("nan"), -0.0, float("-inf"), None], pa.float64()),
            "g": pa.array([1.5, None, float("inf"), None], pa.float32()),
            "yes": pa.array([True, False, None, None]),
            "text": pa.array(["", "ä\x00b", None, "x" * 100]),
            "day": pa.array([datetime.date(1, 1, 1), datetime.date(9999, 12, 31), None, None]),
        }
    )
    path = str(folder / "types.parquet")
    pq.write_table(table, path, store_decimal_as_integer=True)
    assert all(filterable(t) for t in table.schema.types)
    found = read_filtered([path], schema_of(table), {}, {"k": pa.array([1, 2, 3])}, MANY)
    assert found is not None
    assert found.schema.types == table.schema.types
    assert found.slice(0, 3).drop_columns("f").equals(table.slice(0, 3).drop_columns("f"))
    assert repr(found.column("f").to_pylist()) == repr(table.column("f").to_pylist()[:3])


def test_the_kernel_scans_what_was_read(folder: Path) -> None:
    rows = 10_000
    cents = [decimal.Decimal(n) / 100 for n in range(rows)]
    table = pa.table(
        {"k": pa.array(range(rows), pa.int32()), "m": pa.array(cents, pa.decimal128(7, 2))}
    )
    path = str(folder / "kernel.parquet")
    pq.write_table(table, path)
    found = read_filtered([path], schema_of(table), {"k": (5000, None)}, {}, MANY)
    with Kernel.open(1, 1 << 28) as kernel:
        kernel._connection.register("found", found)
        query = "select count(*), sum(m) from found"
        assert kernel._connection.execute(query).fetchall() == [(5000, sum(cents[5000:]))]


def test_columns_that_have_to_be_null(folder: Path) -> None:
    table = pa.table({"k": pa.array([1, None, 3], pa.int64()), "t": ["a", "b", None]})
    path = str(folder / "nulls.parquet")
    pq.write_table(table, path)
    found = read_filtered([path], schema_of(table), {}, {}, MANY, ["k"])
    assert found is not None
    assert found.to_pylist() == [{"k": None, "t": "b"}]


def test_no_keys_at_all_leave_no_rows(folder: Path) -> None:
    table = pa.table({"k": pa.array([1, None], pa.int64())})
    path = str(folder / "none.parquet")
    pq.write_table(table, path)
    found = read_filtered([path], schema_of(table), {}, {"k": pa.array([], pa.int64())}, MANY)
    assert found is not None
    assert found.num_rows == 0


@pytest.mark.parametrize("rows", [99, 100])
def test_too_many_rows_are_not_held(folder: Path, rows: int) -> None:
    table = pa.table({"k": pa.array(range(100), pa.int64())})
    path = str(folder / "many.parquet")
    pq.write_table(table, path, row_group_size=10)
    found = read_filtered([path], schema_of(table), {"k": (0, None)}, {}, rows)
    assert (found is None) == (rows == 99)


def test_several_files_are_one_table(folder: Path) -> None:
    paths = [str(folder / f"[part] *{n}?.parquet") for n in range(3)]  # no pattern of a glob
    for n, path in enumerate(paths):
        pq.write_table(pa.table({"k": pa.array([n, n + 10], pa.int64())}), path)
    schema = Schema((Field("k", pa.int64()),))
    found = read_filtered(paths, schema, {"k": (1, 11)}, {}, MANY)
    assert found is not None
    assert found.column("k").to_pylist() == [10, 1, 11, 2]


def test_files_of_another_form_are_left_to_the_kernel(folder: Path) -> None:
    path = folder / "other.parquet"
    schema = Schema((Field("k", pa.int64()),))
    for content in (pa.table({"j": [1]}), pa.table({"k": ["text"]})):
        pq.write_table(content, path)
        assert read_filtered([str(path)], schema, {"k": (0, 1)}, {}, MANY) is None
    path.write_bytes(path.read_bytes()[:-9])
    assert read_filtered([str(path)], schema, {"k": (0, 1)}, {}, MANY) is None
    path.unlink()
    assert read_filtered([str(path)], schema, {"k": (0, 1)}, {}, MANY) is None
