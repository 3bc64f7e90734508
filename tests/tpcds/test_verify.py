from __future__ import annotations

import random
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tpcds.ties import read_through_ties, tie_groups, widen
from tpcds.verify import Verdict, Widened, verify


def judge(
    connection: duckdb.DuckDBPyConnection, sql: str, ours: pa.Table | None = None
) -> tuple[pa.Table, Verdict]:
    """The oracle's table, and what it says of ours (by default of its own)."""
    oracle = connection.execute(sql).to_arrow_table()

    def again() -> Widened:
        text, keys = widen(connection, sql)
        reader = connection.execute(text).to_arrow_reader(64)
        through = read_through_ties(reader, reader.schema, oracle.num_rows, keys)
        reader.close()
        return Widened(through, keys)

    return oracle, verify(oracle if ours is None else ours, oracle, again)


def table_of(like: pa.Table, rows: Sequence[Sequence[Any]]) -> pa.Table:
    columns = [[row[i] for row in rows] for i in range(like.num_columns)]
    arrays = [pa.array(c, type=f.type) for c, f in zip(columns, like.schema, strict=True)]
    return pa.table(arrays, names=like.column_names)


def rows_of(table: pa.Table) -> list[tuple[Any, ...]]:
    return list(zip(*(c.to_pylist() for c in table.columns), strict=True))


@pytest.fixture
def connection() -> Any:
    with duckdb.connect(config={"threads": 1}) as connection:
        yield connection


VALUES = "(values (1,'a',1.5::double),(2,'b',2.5),(2,'c',null),(3,null,-0.0),(3,'d',9.0)) t(k,s,f)"


def test_an_answer_is_right_as_it_is(connection: Any) -> None:
    assert judge(connection, f"select * from {VALUES} order by k, s")[1] == Verdict(5)


def test_no_rows_are_right_too(connection: Any) -> None:
    assert judge(connection, f"select * from {VALUES} where k > 9 order by k limit 3")[1].matches


@pytest.mark.parametrize("column", [0, 1, 2])
@pytest.mark.parametrize("row", range(5))
def test_each_changed_value_is_caught(connection: Any, row: int, column: int) -> None:
    sql = f"select * from {VALUES} order by k, s"
    oracle, _ = judge(connection, sql)
    rows = [list(r) for r in rows_of(oracle)]
    old = rows[row][column]
    rows[row][column] = [7, "x", 1.0 if old is None or column < 2 else old + 1e-6][column]
    verdict = judge(connection, sql, table_of(oracle, rows))[1]
    assert verdict.difference is not None
    assert verdict.difference.kind == "value"
    assert verdict.difference.row == row
    assert verdict.difference.column == oracle.column_names[column]
    assert f"row {row}" in verdict.difference.message


@pytest.mark.parametrize("row", [0, 2, 4])
def test_a_value_that_became_null_is_caught(connection: Any, row: int) -> None:
    sql = f"select k, k * 2 as d from {VALUES} order by k, s"
    oracle, _ = judge(connection, sql)
    rows = [list(r) for r in rows_of(oracle)]
    rows[row][1] = None
    verdict = judge(connection, sql, table_of(oracle, rows))[1]
    assert verdict.difference is not None
    assert "NULL" in verdict.difference.message


def test_a_dropped_row_is_caught(connection: Any) -> None:
    sql = f"select * from {VALUES} order by k, s"
    oracle, _ = judge(connection, sql)
    verdict = judge(connection, sql, oracle.slice(1))[1]
    assert verdict.difference is not None
    assert verdict.difference.kind == "rows"


def test_a_duplicated_row_is_caught(connection: Any) -> None:
    sql = f"select * from {VALUES} order by k"
    oracle, _ = judge(connection, sql)
    rows = rows_of(oracle)
    rows[1] = rows[2]
    verdict = judge(connection, sql, table_of(oracle, rows))[1]
    assert verdict.difference is not None
    assert verdict.difference.kind == "value"


def test_swapped_rows_are_caught_as_disorder(connection: Any) -> None:
    sql = f"select * from {VALUES} order by k, s"
    oracle, _ = judge(connection, sql)
    rows = rows_of(oracle)
    rows[0], rows[3] = rows[3], rows[0]
    verdict = judge(connection, sql, table_of(oracle, rows))[1]
    assert verdict.difference is not None
    assert verdict.difference.kind == "order"


def test_rows_that_tie_may_swap(connection: Any) -> None:
    sql = f"select * from {VALUES} order by k"
    oracle, _ = judge(connection, sql)
    rows = rows_of(oracle)
    rows[1], rows[2] = rows[2], rows[1]
    assert judge(connection, sql, table_of(oracle, rows))[1].matches


def test_without_order_any_order_is_right(connection: Any) -> None:
    sql = f"select * from {VALUES}"
    oracle, _ = judge(connection, sql)
    assert judge(connection, sql, table_of(oracle, rows_of(oracle)[::-1]))[1].matches


def test_without_order_but_with_limit_any_rows_are_right(connection: Any) -> None:
    sql = f"select * from {VALUES} limit 2"
    oracle, _ = judge(connection, sql)
    everything = connection.execute(f"select * from {VALUES}").to_arrow_table()
    assert judge(connection, sql, table_of(oracle, rows_of(everything)[3:]))[1].matches
    invented = [*rows_of(everything)[:1], (4, "a", 1.5)]
    assert not judge(connection, sql, table_of(oracle, invented))[1].matches


def test_the_limit_may_choose_among_ties_but_no_further(connection: Any) -> None:
    sql = f"select k, s from {VALUES} order by k limit 2"
    oracle, _ = judge(connection, sql)
    assert judge(connection, sql, table_of(oracle, [(1, "a"), (2, "b")]))[1].matches
    assert judge(connection, sql, table_of(oracle, [(1, "a"), (2, "c")]))[1].matches
    assert not judge(connection, sql, table_of(oracle, [(1, "a"), (3, "d")]))[1].matches
    assert not judge(connection, sql, table_of(oracle, [(2, "b"), (2, "c")]))[1].matches
    assert not judge(connection, sql, table_of(oracle, [(2, "b"), (1, "a")]))[1].matches


def test_sort_keys_need_not_be_columns(connection: Any) -> None:
    sql = f"select s from {VALUES} order by k limit 2"
    oracle, _ = judge(connection, sql)
    assert judge(connection, sql, table_of(oracle, [("a",), ("c",)]))[1].matches
    assert not judge(connection, sql, table_of(oracle, [("c",), ("a",)]))[1].matches


@pytest.mark.parametrize(
    "order",
    [
        "1",
        "2 desc, 1",
        "total",
        "case when k = 1 then total end, s",
        "sum(f)",
        "t.k",
        "k, total desc nulls last",
    ],
)
def test_keys_are_found_however_they_are_written(connection: Any, order: str) -> None:
    sql = f"select k, sum(f) as total, min(s) as s from {VALUES} group by k order by {order}"
    oracle, _ = judge(connection, sql)
    rows = rows_of(oracle)
    assert judge(connection, sql, table_of(oracle, rows[1:] + rows[:1]))[1].difference is not None
    assert judge(connection, sql)[1].matches


def test_positions_count_the_columns_of_a_star(connection: Any) -> None:
    sql = f"select * from {VALUES} order by 1 limit 2"
    oracle, _ = judge(connection, sql)
    swapped = table_of(oracle, [(1, "a", 1.5), (2, "c", None)])
    assert judge(connection, sql, swapped)[1].matches
    wrong = table_of(oracle, [(2, "c", None), (1, "a", 1.5)])
    assert not judge(connection, sql, wrong)[1].matches


def test_floating_values_need_only_be_close() -> None:
    oracle = pa.table({"x": [1.0, 1e300, 0.0, float("nan"), float("inf"), None]})
    close = pa.table(
        {"x": [1.0 + 1e-12, 1e300 * (1 - 1e-12), -0.0, float("nan"), float("inf"), None]}
    )
    assert verify(close, oracle).matches
    far = pa.table({"x": [1.0 + 1e-8, 1e300, 0.0, float("nan"), float("inf"), None]})
    assert not verify(far, oracle).matches
    assert not verify(pa.table({"x": [1.0, 1e300, 0.0, 0.0, float("inf"), None]}), oracle).matches


def test_money_must_be_exact() -> None:
    oracle = pa.table({"m": pa.array([Decimal("10000000000.01")], pa.decimal128(38, 2))})
    off = pa.table({"m": pa.array([Decimal("10000000000.02")], pa.decimal128(38, 2))})
    assert not verify(off, oracle).matches


def one(kind: pa.DataType) -> Any:
    return Decimal(1) if pa.types.is_decimal(kind) else 1


@pytest.mark.parametrize(
    ("ours", "oracle"),
    [
        (pa.int32(), pa.int64()),
        (pa.int64(), pa.decimal128(38, 0)),
        (pa.decimal128(17, 2), pa.decimal128(38, 2)),
        (pa.decimal64(17, 2), pa.decimal128(38, 2)),
        (pa.uint8(), pa.int16()),
    ],
)
def test_widths_may_differ_and_are_noted(ours: pa.DataType, oracle: pa.DataType) -> None:
    verdict = verify(
        pa.table({"x": pa.array([one(ours), None], ours)}),
        pa.table({"x": pa.array([one(oracle), None], oracle)}),
    )
    assert verdict.matches
    assert verdict.notes == (f"x: {ours} for {oracle}",)


@pytest.mark.parametrize(
    ("ours", "oracle"),
    [
        (pa.float64(), pa.int64()),
        (pa.float64(), pa.decimal128(10, 2)),
        (pa.float32(), pa.float64()),
        (pa.decimal128(10, 1), pa.decimal128(10, 2)),
        (pa.string(), pa.int64()),
        (pa.date32(), pa.timestamp("us")),
        (pa.bool_(), pa.int8()),
        (pa.null(), pa.int32()),
    ],
)
def test_other_types_may_not_differ(ours: pa.DataType, oracle: pa.DataType) -> None:
    verdict = verify(
        pa.table({"x": pa.array([None], ours)}), pa.table({"x": pa.array([None], oracle)})
    )
    assert verdict.difference is not None
    assert verdict.difference.kind == "type"
    assert str(oracle) in verdict.difference.message


@pytest.mark.parametrize("layout", [pa.large_string(), pa.string_view()])
def test_layouts_of_strings_are_one_type(layout: pa.DataType) -> None:
    oracle = pa.table({"s": pa.array(["a", None])})
    assert verify(pa.table({"s": pa.array(["a", None], layout)}), oracle) == Verdict(2)
    packed = pa.table({"s": pa.array(["a", None]).dictionary_encode()})
    assert verify(packed, oracle).matches


def test_a_column_too_many_is_caught() -> None:
    oracle = pa.table({"a": [1]})
    verdict = verify(pa.table({"a": [1], "b": [1]}), oracle)
    assert verdict.difference is not None
    assert verdict.difference.kind == "columns"


def test_another_name_is_noted() -> None:
    verdict = verify(pa.table({"b": [1]}), pa.table({"a": [1]}))
    assert verdict.matches
    assert verdict.notes == ("column a is called b",)


def test_nearly_equal_floating_keys_may_swap() -> None:
    near = 1.0 + 2.0**-50
    oracle = pa.table({"f": [1.0, near, 2.0], "s": ["x", "a", "b"]})
    keys = pa.table({"f": oracle["f"], "s": oracle["s"], "k0": oracle["f"], "k1": oracle["s"]})
    swapped = pa.table({"f": [near, 1.0, 2.0], "s": ["a", "x", "b"]})
    assert verify(swapped, oracle, lambda: Widened(keys, 2)).matches
    moved = pa.table({"f": [1.0, 2.0, near], "s": ["x", "b", "a"]})
    assert not verify(moved, oracle, lambda: Widened(keys, 2)).matches


def test_equal_floating_keys_may_swap_with_a_note() -> None:
    oracle = pa.table({"f": [1.0, 1.0], "s": ["a", "x"]})
    keys = pa.table({"f": oracle["f"], "s": oracle["s"], "k0": oracle["f"], "k1": oracle["s"]})
    ours = pa.table({"f": [1.0 - 2.0**-50, 1.0], "s": ["x", "a"]})
    verdict = verify(ours, oracle, lambda: Widened(keys, 2))
    assert verdict.matches
    assert verdict.notes == ("order among equal floating sort keys differs",)


def test_an_oracle_that_lost_rows_proves_nothing() -> None:
    ours = pa.table({"a": [1, 2]})
    other = pa.table({"a": [2, 1]})
    short = Widened(pa.table({"a": [1], "k": [1]}), 1)
    assert not verify(ours, other, lambda: short).matches


def test_groups_are_chains() -> None:
    keys = [(1.0,), (1.0 + 1e-10,), (1.0 + 5e-10,), (2.0,), (None,), (None,)]
    assert list(tie_groups(keys, loose=False)) == [(0, 3), (3, 4), (4, 6)]
    assert list(tie_groups([], loose=False)) == []


cell = st.one_of(st.none(), st.integers(0, 3))
row = st.tuples(cell, cell, st.one_of(st.none(), st.sampled_from([0.5, 1.0, 1e9 / 3])))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(row, min_size=1, max_size=14),
    limit=st.one_of(st.none(), st.integers(0, 16)),
    seed=st.randoms(use_true_random=False),
    mutation=st.sampled_from(["none", "change", "duplicate", "swap"]),
)
def test_every_valid_answer_and_no_other_is_right(
    rows: list[tuple[Any, ...]], limit: int | None, seed: random.Random, mutation: str
) -> None:
    """An answer sorted from shuffled rows is one of the right ones; what a mutation makes of it
    is judged independently."""
    data = pa.table(
        {
            "k": pa.array([r[0] for r in rows], pa.int32()),
            "v": pa.array([r[1] for r in rows], pa.int64()),
            "f": pa.array([r[2] for r in rows], pa.float64()),
        }
    )
    shuffled = list(rows)
    seed.shuffle(shuffled)
    ours = sorted(shuffled, key=lambda r: (r[0] is None, r[0] or 0))[:limit]
    ours = [(r[0], r[1], None if r[2] is None else r[2] * (1 + 1e-13)) for r in ours]
    right = True
    if mutation != "none":
        assume(len(ours) >= 2)
        a, b = seed.sample(range(len(ours)), 2)
        if mutation == "change":
            ours[a] = (ours[a][0], 17, ours[a][2])
            right = False
        elif mutation == "duplicate":
            assume(rows.count((ours[b][0], ours[b][1], rows_value(rows, ours[b]))) == 1)
            assume(ours[a] != ours[b])
            ours[a] = ours[b]
            right = False
        else:
            assume(ours[a][0] != ours[b][0])
            ours[a], ours[b] = ours[b], ours[a]
            right = False
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("data", data)
        cut = "" if limit is None else f" limit {limit}"
        sql = f"select k, v, f from data order by k nulls last{cut}"
        oracle = connection.execute(sql).to_arrow_table()
        verdict = judge(connection, sql, table_of(oracle, ours))[1]
    assert verdict.matches == right, verdict


def rows_value(rows: Sequence[tuple[Any, ...]], wanted: tuple[Any, ...]) -> float | None:
    """The value that a row had before it was nudged."""
    for candidate in rows:
        old, new = candidate[2], wanted[2]
        nudged = old == new or (None not in (old, new) and abs(old - new) < 1e-3)
        if candidate[:2] == wanted[:2] and nudged:
            return old  # type: ignore[no-any-return]
    raise AssertionError
