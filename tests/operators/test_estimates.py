"""Estimates of ranges, of keys against their domain, and of keys that go together."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from operators import build
from operators.parquet_stats import _together, parquet_stats
from operators.rel import InputSource, Rel, Source
from operators.stats import ColumnStats, TableStats, estimate

DATES = TableStats(
    73_049,
    (
        ColumnStats(2_415_022, 2_488_070, 0.0, 73_049),
        ColumnStats(0, 2400, 0.0, 2401),
        ColumnStats(1900, 2100, 0.0, 201),
    ),
)
FACTS = TableStats(
    1e6,
    (
        ColumnStats(2_450_815, 2_452_635, 0.0, 261),
        ColumnStats(1, 1000, 0.0, 1000),
        ColumnStats(1, 50_000, 0.0, 50_000),
    ),
)
INTEGERS = pa.schema([(n, pa.int64()) for n in "abc"])


def scan(name: str) -> Rel:
    return build.scan(InputSource(name), INTEGERS)


def rows(rel: Rel) -> float:
    def look_up(source: Source) -> TableStats:
        assert isinstance(source, InputSource)
        return DATES if source.name == "dates" else FACTS

    return estimate(rel, look_up).rows


def between(rel: Rel, column: int, low: int, high: int) -> Rel:
    value = build.col(rel.schema, column)
    terms = [
        build.call("greater_equal", value, build.lit(low)),
        build.call("less_equal", value, build.lit(high)),
    ]
    return build.filter(rel, build.call("and", *terms))


def test_two_bounds_of_one_column_are_one_range() -> None:
    assert rows(between(scan("dates"), 1, 1200, 1211)) == pytest.approx(365, rel=0.01)


def test_a_filtered_dimension_counts_against_its_keys_in_the_facts_range() -> None:
    year = between(scan("dates"), 1, 1200, 1211)
    joined = build.join(scan("facts"), year, on=[(0, 0)])
    assert rows(joined) == pytest.approx(1e6 * 365 / 1821, rel=0.05)


def test_keys_that_name_a_row_together_are_not_independent() -> None:
    joined = build.join(scan("facts"), scan("facts"), on=[(1, 1), (2, 2)])
    assert rows(joined) == pytest.approx(1e6, rel=0.01)


def test_columns_of_one_table_have_no_more_combinations_than_it_has_rows() -> None:
    year = between(scan("dates"), 1, 1200, 1200)
    joined = build.join(scan("facts"), year, on=[(0, 0)])
    keys = [build.col(joined.schema, i) for i in (4, 5)]
    assert rows(build.aggregation(joined, keys, [])) <= 31


def test_distinct_values_of_row_groups() -> None:
    apart = [(0.0, 9.0, 10), (10.0, 19.0, 10)]
    same = [(0.0, 99.0, 50)] * 8
    assert _together(apart) == pytest.approx(20)
    assert _together(same) == pytest.approx(100, abs=1)
    assert _together([(5.0, 5.0, 1)]) == pytest.approx(1)


def test_sorted_files_have_all_their_values(tmp_path: Path) -> None:
    path = tmp_path / "sorted.parquet"
    pq.write_table(pa.table({"a": list(range(1000))}), path, row_group_size=100)
    assert parquet_stats([str(path)]).columns[0].distinct == 1000
