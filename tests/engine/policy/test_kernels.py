"""Which kernels a query is run in, and when."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from engine.codegen import CodegenSettings
from engine.optimizer import Estimates
from engine.policy import Grain, RowsOfWork, Sizes, kernels_to_try
from engine.running import chosen_settings
from engine.stages import CutSettings, cut
from openwhisk.api import ElementRecord
from operators import build
from operators.expr import SortKey
from operators.rel import ParquetSource, Rel
from operators.schema import Schema

WHOLE, PARTS = Grain(1, 2, 4 << 30), Grain(2, 1, 4 << 30)
BOTH = ("duckdb", "polars")


def took(seconds: float, paused: float = 0.0) -> list[ElementRecord]:
    return [ElementRecord(name="s1", start=10.0, end=10.0 + seconds, paused_seconds=paused)]


def test_each_kernel_is_tried_and_then_the_fastest_is_used() -> None:
    sizes = Sizes()
    assert sizes.kernel("q", WHOLE, BOTH) == "duckdb"
    sizes.learn("q", WHOLE, took(2.0), "duckdb")
    assert sizes.kernel("q", WHOLE, BOTH) == "polars"
    sizes.learn("q", WHOLE, took(3.0), "polars")
    assert sizes.kernel("q", WHOLE, BOTH) == "duckdb"
    # …of that shape, and at that grain.
    assert sizes.kernel("p", WHOLE, BOTH[::-1]) == "polars"
    assert sizes.kernel("q", PARTS, BOTH[::-1]) == "polars"
    sizes.learn("q", WHOLE, took(4.0, paused=2.5), "polars")
    assert sizes.kernel("q", WHOLE, BOTH) == "polars", "what it waited for memory is not its own"


def test_one_slow_run_is_no_reason_to_change_but_three_are() -> None:
    sizes = Sizes()
    sizes.learn("q", WHOLE, took(1.0), "duckdb")
    sizes.learn("q", WHOLE, took(1.5), "polars")
    for _ in range(2):
        sizes.learn("q", WHOLE, took(9.0), "duckdb")
        assert sizes.kernel("q", WHOLE, BOTH) == "duckdb"
    sizes.learn("q", WHOLE, took(9.0), "duckdb")
    assert sizes.kernel("q", WHOLE, BOTH) == "polars"


def test_each_kernel_has_its_own_memory() -> None:
    sizes = Sizes()
    records = [ElementRecord(name="s1", peak_anon_bytes=600 << 20, peak_data_bytes=700 << 20)]
    unknown = sizes.memory("q", WHOLE, "s1", 0, "duckdb")
    sizes.learn("q", WHOLE, records, "polars")
    assert sizes.memory("q", WHOLE, "s1", 0, "polars") > unknown
    assert sizes.memory("q", WHOLE, "s1", 0, "duckdb") == unknown


def test_polars_is_not_chosen_where_it_failed() -> None:
    sizes = Sizes()
    sizes.learn("q", WHOLE, took(2.0), "duckdb")
    sizes.refuse_polars("q")
    assert chosen_settings(CodegenSettings(), sizes, "q", WHOLE, BOTH).kernel == "duckdb"


def test_what_is_worth_trying() -> None:
    large, small, many_scanned = RowsOfWork(3e6, 2e6), RowsOfWork(3e3, 2e3), RowsOfWork(9e6, 2e6)
    assert kernels_to_try("auto", small, resident=False) == ("polars",)
    assert kernels_to_try("auto", large, resident=True) == BOTH
    assert kernels_to_try("auto", small, resident=True) == ("duckdb",)
    assert kernels_to_try("auto", many_scanned, resident=True) == ("duckdb",)
    for resident in (False, True):
        assert kernels_to_try("duckdb", large, resident) == ("duckdb",)
        assert kernels_to_try("polars", small, resident) == ("polars",)


def test_rows_of_groups_and_windows_count(tmp_path: Path) -> None:
    data = pa.table({"k": pa.array(range(1000), pa.int32()), "v": pa.array([1] * 1000, pa.int32())})
    pq.write_table(data, tmp_path / "t.parquet")
    source = ParquetSource("t", (str(tmp_path / "t.parquet"),))
    scan = build.scan(source, Schema.from_arrow(data.schema), ["k", "v"])
    key, value = (build.col(scan.schema, n) for n in range(2))

    def rows(rel: Rel) -> float:
        estimates = Estimates()
        found = RowsOfWork.expected(cut(rel, estimates, CutSettings(1)), estimates)
        assert found.scanned == 1000
        return found.grouped

    assert rows(scan) == 0
    groups = build.aggregation(scan, [key], [build.aggregate("sum", value)])
    assert 900 <= rows(groups) <= 1100
    assert rows(build.aggregation(scan, [value], [])) < 10
    assert rows(build.aggregation(scan, [], [build.aggregate("sum", value)])) == 0
    ranked = build.project(scan, [build.window("rank", order_by=[SortKey(key)])], ["r"])
    assert rows(ranked) == 1000
