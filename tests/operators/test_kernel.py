"""The DuckDB kernel: inputs, limits, errors, Parquet parts."""

from __future__ import annotations

import decimal
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from operators import build
from operators.duckdb import Fragment, FragmentInput, Kernel, lower
from operators.errors import KernelError, KernelMemoryError, OperatorError, PlanError
from operators.parquet_parts import parquet_part
from operators.parquet_stats import parquet_stats
from operators.rel import InputSource, ParquetSource, Rel
from operators.schema import Field, Schema
from operators.types import HUGEINT


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Kernel.open(1, 300_000_000) as k:
        yield k


def scan(table: pa.Table, columns: list[str] | None = None) -> Rel:
    return build.scan(InputSource("t"), table.schema, columns)


class Stream:
    """Readable again and again, and remembers what it was asked for."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self.asked: list[list[str]] = []

    def arrow_stream(self, columns: list[str]) -> pa.Table:
        self.asked.append(columns)
        return self.table.select(columns)

    def __arrow_c_stream__(self, requested_schema: object = None) -> Any:
        raise AssertionError("all columns were asked for")


def test_only_the_named_columns_are_asked_of_a_stream(kernel: Kernel) -> None:
    data = pa.table({"a": [1, 2], "b": ["x", "y"], "c": [1.0, 2.0]})
    stream = Stream(data)
    fragment = lower(scan(data, ["c"]))
    assert kernel.table(fragment, {"t": stream}).to_pydict() == {"c": [1.0, 2.0]}
    assert stream.asked == [["c"]]


@pytest.mark.parametrize(
    "text",
    [
        "SELECT sum(a) AS s FROM {t}",
        "\n  with u as (SELECT a FROM {t} WHERE a > 1) SELECT sum(a) + 1 AS s FROM u",
        "WITH {t} AS (SELECT a FROM {t} WHERE a > 1) SELECT sum(a) + 1 AS s FROM {t}",
        "WITH {t}(b) AS NOT MATERIALIZED (SELECT a FROM {t}) SELECT sum(b) AS s FROM {t}",
        "WITH RECURSIVE r(n) AS (SELECT 3 UNION ALL SELECT n - 1 FROM r JOIN {t} ON n - 1 = a) "
        "SELECT sum(n) AS s FROM r",
        "FROM {t} SELECT sum(a) AS s",
        "(SELECT sum(a) AS s FROM {t})",
    ],
)
@pytest.mark.parametrize("name", ["t", "Ein Name"])
@pytest.mark.parametrize("form", ["table", "stream"])
def test_statements_begin_in_many_ways(kernel: Kernel, text: str, name: str, form: str) -> None:
    data = pa.table({"a": [1, 2, 3]})
    quoted = f'"{name}"' if " " in name else name
    schema = Schema((Field("s", HUGEINT),))
    inputs = (FragmentInput(name, InputSource(name), ("a",)),)
    fragment = Fragment(text.format(t=quoted), inputs, schema)
    given = Stream(data) if form == "stream" else data
    assert kernel.table(fragment, {name: given}).column(0).to_pylist() == [decimal.Decimal(6)]


def test_counting_needs_no_column(kernel: Kernel) -> None:
    data = pa.table({"a": [1, 2], "b": ["x", "y"]})
    plan = build.aggregation(scan(data, []), [], [build.aggregate("count")])
    assert kernel.table(lower(plan), {"t": data}).to_pydict() == {"count0": [2]}


@pytest.mark.parametrize("kind", ["table", "batch", "reader", "stream"])
def test_inputs_of_every_form(kernel: Kernel, kind: str) -> None:
    data = pa.table({"a": [1, 2, 3]})
    given = {
        "table": data,
        "batch": data.to_batches()[0],
        "reader": data.to_reader(),
        "stream": Stream(data),
    }[kind]
    both = build.join(scan(data), scan(data), on=[(0, 0)])  # reads the input twice
    assert kernel.table(lower(both), {"t": given}).num_rows == 3


def test_types_come_back_exactly(kernel: Kernel) -> None:
    data = pa.table(
        {
            "m": pa.array([decimal.Decimal("1.50")], pa.decimal128(7, 2)),
            "w": pa.array([decimal.Decimal("1.50")], pa.decimal128(15, 2)),
            "s": pa.array(["x"], pa.large_string()),
            "v": pa.array(["x"], pa.string_view()),
            "d": pa.array(["x"]).dictionary_encode(),
            "t": pa.array([1], pa.timestamp("s")),
            "h": pa.array([decimal.Decimal(5)], pa.decimal128(38, 0)),
            "n": pa.nulls(1),
        }
    )
    answer = kernel.table(lower(scan(data)), {"t": data})
    assert answer.schema.types[:7] == [
        pa.decimal32(7, 2),
        pa.decimal64(15, 2),
        pa.string(),
        pa.string(),
        pa.string(),
        pa.timestamp("us"),
        HUGEINT,
    ]
    assert answer["m"].to_pylist() == [decimal.Decimal("1.50")]


def test_a_column_of_another_type_is_cast_to_the_plans(kernel: Kernel) -> None:
    schema = Schema((Field("x", pa.int64()), Field("y", pa.string())))
    wrong = Fragment("SELECT 1::INTEGER AS one, 2 AS two", (), schema)
    answer = kernel.table(wrong)
    assert answer.schema.types == [pa.int64(), pa.string()]
    assert answer.to_pydict() == {"x": [1], "y": ["2"]}


def test_division_is_duckdbs_for_literals_and_columns_alike(kernel: Kernel) -> None:
    data = pa.table({"a": [7], "b": [2]})
    rel = scan(data)
    a, b = build.col(rel.schema, "a"), build.col(rel.schema, "b")
    exprs = [build.call("divide", build.lit(7), build.lit(2)), build.call("divide", a, b)]
    (row,) = kernel.table(lower(build.project(rel, exprs)), {"t": data}).to_pylist()
    assert list(row.values()) == [3.5, 3.5]


def test_money_is_exact_and_a_nested_hugeint_keeps_the_cents(kernel: Kernel) -> None:
    cents = decimal.Decimal("0.25")
    data = pa.table(
        {
            "whole": pa.array([decimal.Decimal(3)], pa.decimal32(4, 0)),
            "m": pa.array([cents], pa.decimal32(7, 2)),
        }
    )
    total = build.aggregation(
        scan(data),
        [build.col(scan(data).schema, "m")],
        [build.aggregate("sum", build.col(scan(data).schema, "whole"))],
    )
    # DuckDB's own common type of DECIMAL(38,0) and DECIMAL(7,2) has no places.
    largest = build.call("least", build.col(total.schema, 1), build.col(total.schema, 0))
    answer = kernel.table(lower(build.project(total, [largest])), {"t": data})
    assert answer.column(0).to_pylist() == [cents]


def test_errors_carry_the_statement_and_the_kernel_goes_on(kernel: Kernel) -> None:
    schema = Schema((Field("x", pa.int32()),))
    with pytest.raises(KernelError, match=r"no_such[\s\S]*in the statement") as caught:
        kernel.table(Fragment("SELECT no_such AS x", (), schema))
    assert caught.value.sql == "SELECT no_such AS x"
    with pytest.raises(KernelError, match="Could not convert"):
        kernel.table(Fragment("SELECT 'a'::INTEGER AS x", (), schema))
    late = "SELECT CAST(if(i = 99999, 'x', '1') AS INTEGER) AS x FROM range(100000) t(i)"
    with pytest.raises(KernelError, match="Could not convert"):
        kernel.table(Fragment(late, (), schema))
    with pytest.raises(KernelError, match="'t'"):
        kernel.table(lower(scan(pa.table({"a": [1]}))))
    assert kernel.table(Fragment("SELECT 5 AS x", (), schema)).to_pydict() == {"x": [5]}


def test_out_of_memory_is_told_apart_and_survived() -> None:
    schema = Schema((Field("x", pa.int64()),))
    greedy = "SELECT count(*) AS x FROM (SELECT i FROM range(5000000) t(i) GROUP BY i)"
    with Kernel.open(1, 20_000_000) as kernel:
        with pytest.raises(KernelMemoryError):
            kernel.table(Fragment(greedy, (), schema))
        assert kernel.table(Fragment("SELECT 5::BIGINT AS x", (), schema)).num_rows == 1
        kernel.limit(1, 500_000_000)
        assert kernel.table(Fragment(greedy, (), schema)).to_pydict() == {"x": [5_000_000]}


def test_spilling_needs_a_directory(tmp_path: Path) -> None:
    schema = Schema((Field("x", pa.int64()),))
    big = "SELECT i AS x FROM range(3000000) t(i) ORDER BY hash(i) LIMIT 10 OFFSET 2999000"
    with Kernel.open(1, 30_000_000) as kernel:
        with pytest.raises(KernelMemoryError):
            kernel.table(Fragment(big, (), schema))
    with Kernel.open(1, 30_000_000, str(tmp_path)) as kernel:
        assert kernel.table(Fragment(big, (), schema)).num_rows == 10
    assert not [f for _, _, files in os.walk(tmp_path) for f in files]


def test_a_plan_that_fixed_its_joins_is_not_reordered(kernel: Kernel) -> None:
    data = pa.table({"a": [1, 2, 3]})
    for build_side in ("left", "right"):
        plan = build.join(scan(data), scan(data), on=[(0, 0)], build=build_side)
        fragment = lower(plan)
        assert fragment.fixed_joins
        assert kernel.table(fragment, {"t": data}).num_rows == 3
    assert not lower(build.join(scan(data), scan(data), on=[(0, 0)])).fixed_joins


# Parquet


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    """Two files: 1000 rows in groups of 100, and 250 in groups of 90."""
    paths = (str(tmp_path / "it's.parquet"), str(tmp_path / "b.parquet"))
    for path, first, rows, group in ((paths[0], 0, 1000, 100), (paths[1], 1000, 250, 90)):
        table = pa.table({"id": range(first, first + rows), "text": ["x"] * rows})
        pq.write_table(table, path, row_group_size=group)
    return paths


@pytest.mark.parametrize("count", [1, 2, 3, 7, 13, 20])
def test_parts_are_disjoint_and_together_everything(
    kernel: Kernel, files: tuple[str, ...], count: int
) -> None:
    plan = build.scan(ParquetSource("numbers", files), pq.read_schema(files[0]), ["id"])
    found: list[int] = []
    sizes = []
    for index in range(count):
        part = kernel.table(lower(plan).with_part(index, count))["id"].to_pylist()
        sizes.append(len(part))
        found += part
    assert sorted(found) == list(range(1250))
    assert max(sizes) - min(sizes) <= 200  # row groups are never cut
    pieces = [p for i in range(count) for p in parquet_part(files, i, count)]
    assert all(p.first % (100 if p.path == files[0] else 90) == 0 for p in pieces)


def test_predicates_hold_in_a_part(kernel: Kernel, files: tuple[str, ...]) -> None:
    schema = pq.read_schema(files[0])
    low = build.call("less", build.col(Schema.from_arrow(schema), "id"), build.lit(150))
    plan = build.scan(ParquetSource("numbers", files), schema, ["id"], low)
    ids = [kernel.table(lower(plan).with_part(i, 2))["id"].to_pylist() for i in range(2)]
    assert sorted(ids[0] + ids[1]) == list(range(150))


def test_parts_that_make_no_sense(files: tuple[str, ...]) -> None:
    plan = build.scan(ParquetSource("numbers", files), pq.read_schema(files[0]))
    for index, count in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(PlanError):
            lower(plan).with_part(index, count)


def test_broken_files_are_named(kernel: Kernel, tmp_path: Path) -> None:
    bad = tmp_path / "bad.parquet"
    bad.write_bytes(b"PAR1 this is not one")
    missing = str(tmp_path / "missing.parquet")
    for path in (str(bad), missing):
        with pytest.raises(OperatorError, match=Path(path).name):
            parquet_stats([path])
        with pytest.raises(OperatorError, match=Path(path).name):
            parquet_part([path], 0, 2)
        one = FragmentInput("t", ParquetSource("t", (path,)), ("x",))
        fragment = Fragment("SELECT x FROM t", (one,), Schema((Field("x", pa.int32()),)))
        with pytest.raises(KernelError, match=Path(path).name):
            kernel.table(fragment)


def test_a_file_with_a_whole_footer_and_broken_pages_is_named(
    kernel: Kernel, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{name}.parquet" for name in ("a", "b", "c", "d", "e")]
    for path in paths:
        pq.write_table(pa.table({"x": pa.array([f"text {i}" for i in range(1000)])}), path)
    data = bytearray(paths[0].read_bytes())
    data[4 : len(data) // 2] = b"\xff" * (len(data) // 2 - 4)
    paths[0].write_bytes(bytes(data))
    schema = Schema((Field("n", pa.int64()),))
    for count, says in ((1, f"{paths[0]})"), (3, f"{paths[2]})"), (5, "and 2 more)")):
        files = tuple(str(p) for p in paths[:count])
        one = FragmentInput("t", ParquetSource("t", files), ("x",))
        fragment = Fragment("SELECT count(x || 'a') AS n FROM t WHERE x > ''", (one,), schema)
        with pytest.raises(KernelError) as caught:
            kernel.table(fragment)
        first = str(caught.value).splitlines()[0]
        assert str(paths[0]) in first
        assert first.endswith(says), first


def test_a_file_written_over_within_a_second_is_read_anew(kernel: Kernel, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    for number in (1, 2, 3):
        # As long as the one before, and statistics in its footer that rule out the others' rows.
        pq.write_table(pa.table({"a": [number] * 50}), path)
        os.utime(path, ns=(0, 1_700_000_000 * 10**9 + number))
        schema = pq.read_schema(path)
        same = build.call("equal", build.col(Schema.from_arrow(schema), "a"), build.lit(number))
        plan = build.scan(ParquetSource("t", (str(path),)), schema, ["a"], same)
        assert kernel.table(lower(plan)).num_rows == 50, number


def test_an_error_of_a_value_says_where_it_was_read(kernel: Kernel, tmp_path: Path) -> None:
    path = tmp_path / "odd.parquet"
    pq.write_table(pa.table({"x": ["1", "two"]}), path)
    one = FragmentInput("t", ParquetSource("t", (str(path), str(path))), ("x",))
    schema = Schema((Field("x", pa.int32()),))
    with pytest.raises(KernelError) as caught:
        kernel.table(Fragment("SELECT x::INTEGER AS x FROM t", (one,), schema))
    first = str(caught.value).splitlines()[0]
    assert "Could not convert" in first
    assert first.endswith(f"(while reading {path})")


def test_statistics_from_footers(files: tuple[str, ...]) -> None:
    stats = parquet_stats(files)
    assert stats.rows == 1250
    id_, text = stats.columns
    assert (id_.min, id_.max, id_.null_fraction, id_.distinct) == (0.0, 1249.0, 0.0, 1250.0)
    assert (text.min, text.max) == (None, None)


def test_conditions_of_joins_over_streams_do_not_become_cross_products() -> None:
    # DuckDB pulls conditions up before it pushes them down; with the second step switched off for
    # streams, the first must be, too. 3,000 rows on each side of four joins: hash joins take
    # milliseconds, cross products would need 10**17 rows.
    table = pa.table({"k": pa.array(range(3_000), pa.int64())})
    joins = " ".join(f"JOIN t{i} ON t0.k = t{i}.k" for i in range(1, 5))
    sql = f"SELECT count(*) FROM t0 {joins}"
    inputs = tuple(FragmentInput(f"t{i}", InputSource(f"t{i}"), ("k",)) for i in range(5))
    fragment = Fragment(sql, inputs, Schema((Field("n", pa.int64()),)), fixed_joins=True)
    with Kernel.open(1, 256 << 20) as kernel:
        result = kernel.table(fragment, {f"t{i}": table for i in range(5)})
    assert result.column(0).to_pylist() == [3_000]


def test_threads_go_when_idle_and_are_back_for_the_next_fragment() -> None:
    asked = Fragment(
        "SELECT current_setting('threads') AS n", (), Schema((Field("n", pa.int64()),))
    )
    with Kernel.open(2, 300_000_000) as kernel:
        before = len(os.listdir("/proc/self/task"))
        for _ in range(2):
            assert kernel.table(asked).to_pydict() == {"n": [2]}
            assert len(os.listdir("/proc/self/task")) == before, "the next one needs them"
            kernel.when_idle()
            assert len(os.listdir("/proc/self/task")) < before
            kernel.when_idle()
        assert kernel.table(asked).to_pydict() == {"n": [2]}
        kernel.limit(3, 300_000_000)
        assert kernel.table(asked).to_pydict() == {"n": [3]}


def test_limits_change_only_where_they_differ_by_more_than_a_little() -> None:
    asked = Fragment(
        "SELECT current_setting('memory_limit') AS m", (), Schema((Field("m", pa.string()),))
    )
    with Kernel.open(1, 1 << 30) as kernel:
        kernel.limit(1, 2 << 30)
        assert kernel.table(asked).to_pydict() == {"m": ["2.0 GiB"]}
        kernel.limit(1, (2 << 30) + (100 << 20))
        assert kernel.table(asked).to_pydict() == {"m": ["2.0 GiB"]}, "a little less will do"
        kernel.limit(1, (2 << 30) - (100 << 20))
        assert kernel.table(asked).to_pydict() == {"m": ["1.9 GiB"]}, "not more, ever"
        kernel.limit(1, 1 << 30)
        assert kernel.table(asked).to_pydict() == {"m": ["1.0 GiB"]}
