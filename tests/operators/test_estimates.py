"""Estimates of ranges, of keys against their domain, and of keys that go together."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from operators import build
from operators.cardinality import estimate
from operators.parquet_dictionary import read_dictionary_page
from operators.parquet_stats import _drawn_from, _together, parquet_stats
from operators.rel import InputSource, Rel, Source
from operators.stats import ColumnStats, TableStats

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


def test_no_more_rows_find_a_partner_than_there_are_pairs() -> None:
    # Both keys of the ten returned orders have most of their values, but a row of the facts is
    # found by at most one.
    few = build.limit(scan("facts"), 10_000)
    on = [(1, 1), (2, 2)]
    assert rows(build.join(scan("facts"), few, "semi", on=on)) <= 10_100
    assert rows(build.join(scan("facts"), few, "anti", on=on)) >= 980_000
    joined = build.join(scan("facts"), few, "left", on=on)
    padded = build.call("is_null", build.col(joined.schema, 4))
    assert rows(build.filter(joined, padded)) >= 980_000


def test_columns_of_one_table_have_no_more_combinations_than_it_has_rows() -> None:
    year = between(scan("dates"), 1, 1200, 1200)
    joined = build.join(scan("facts"), year, on=[(0, 0)])
    keys = [build.col(joined.schema, i) for i in (4, 5)]
    assert rows(build.aggregation(joined, keys, [])) <= 31


def test_distinct_values_of_row_groups() -> None:
    apart = [(0.0, 9.0, 10), (10.0, 19.0, 10)]
    mixed = [(float(i % 2), 99.0 - i % 3, 50) for i in range(8)]
    same = [(0.0, 99.0, 50)] * 8
    assert _together(apart) == pytest.approx(20)
    assert _together(mixed) == pytest.approx(100, abs=1)
    assert _together(same) == 50
    assert _together([(5.0, 5.0, 1)]) == pytest.approx(1)


def test_sorted_files_have_all_their_values(tmp_path: Path) -> None:
    path = tmp_path / "sorted.parquet"
    pq.write_table(pa.table({"a": list(range(1000))}), path, row_group_size=100)
    assert parquet_stats([str(path)]).columns[0].distinct == 1000


def distinct(path: Path) -> list[float | None]:
    return [c.distinct for c in parquet_stats([str(path)]).columns]


def test_distinct_values_come_from_dictionaries(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    table = pa.table(
        {
            "view": pa.array([f"value {i % 7}" for i in range(10_000)], pa.string_view()),
            "text": [f"value {i % 51}" for i in range(10_000)],
            "sparse": [i % 80 * 1_000 for i in range(10_000)],
            "nulls": [None if i % 2 else f"{i % 20}" for i in range(10_000)],
        }
    )
    pq.write_table(table, path, row_group_size=2_500)
    assert distinct(path) == pytest.approx([7, 51, 80, 10], rel=0.01)


def test_a_dictionary_that_was_given_up_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    table = pa.table({"a": [float(i) for i in range(100_000)]})
    pq.write_table(table, path, dictionary_pagesize_limit=10_000, data_page_size=10_000)
    (found,) = distinct(path)
    assert found is not None
    assert found >= 50_000


def test_without_dictionaries_integers_have_as_many_values_as_their_range(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": [i % 30 for i in range(1_000)]}), path, use_dictionary=False)
    assert distinct(path) == [30]


def test_values_that_do_not_repeat_in_a_chunk_are_others_in_the_next() -> None:
    assert _drawn_from([(1_000, 1_000)] * 4, 4_000) == 4_000
    assert _drawn_from([(5, 1_000)] * 4, 4_000) == pytest.approx(5, rel=0.01)
    few = _drawn_from([(632, 1_000)] * 4, 4_000)  # 1,000 values, drawn 1,000 times
    assert few == pytest.approx(1_000 * (1 - 2.718**-4), rel=0.01)


def test_no_dictionary_page_where_there_is_none(tmp_path: Path) -> None:
    path = tmp_path / "t"
    for content in (b"", b"\x15", b"\x00" * 64, b"\xff" * 64, b"\x15\x00\x15\x08\x00"):
        path.write_bytes(content)
        with path.open("rb") as file:
            assert read_dictionary_page(file.fileno(), 0) is None


def test_infinite_values_have_no_range(tmp_path: Path) -> None:
    path = tmp_path / "infinite.parquet"
    inf = float("inf")
    rows = [[-inf, 1.0, 1.0], [2.0, 2.0, 3.0], [inf, inf, inf]]
    for listed in (rows, rows[:1], rows[2:]):
        table = pa.table({"x": [v for one in listed for v in one]})
        pq.write_table(table, path, row_group_size=3)
        (column,) = parquet_stats([str(path)]).columns
        assert column.distinct is not None
        assert 1 <= column.distinct <= len(table)
        assert column.group_share is None
