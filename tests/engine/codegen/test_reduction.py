"""Which tables are read by their keys, and which must not be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from engine.codegen import CodegenSettings, ReductionSettings, build_application
from engine.codegen.reduction import reduce_scans
from engine.optimizer import Estimates, optimize
from engine.stages import CutSettings, cut
from engine.stages.fragments import all_relations
from operators.rel import InputSource, Scan

EAGER = ReductionSettings(
    large_rows=50.0, large=0.0, statement=-1e6, selective=9.0, least=-9.0, cheap=1e9, scattered=0.0
)


@pytest.fixture
def tables(differential: Any) -> Any:
    rows = 400
    sales = {
        "item": pa.array([i % 40 for i in range(rows)], pa.int32()),
        "day": pa.array([i // 4 if i % 7 else None for i in range(rows)], pa.int64()),
        "price": pa.array([i * 0.5 for i in range(rows)]),
        "code": pa.array([f"c{i % 9}" for i in range(rows)]),
        "bill": pa.array(range(rows), pa.int64()),
    }
    differential.add("sales", pa.table(sales))
    differential.add(
        "returns",
        pa.table(
            {"bill": pa.array(range(0, 400, 3), pa.int64()), "why": [n % 5 for n in range(134)]}
        ),
    )
    differential.add(
        "items",
        pa.table(
            {"id": pa.array(range(40), pa.int64()), "colour": [f"c{i % 9}" for i in range(40)]}
        ),
    )
    differential.add(
        "days",
        pa.table({"id": pa.array(range(40), pa.int32()), "year": [i // 20 for i in range(40)]}),
    )
    return differential


def reduced(tables: Any, sql: str, settings: ReductionSettings = EAGER) -> dict[str, list[str]]:
    """The inputs read by keys, with the columns that decide; the answer is DuckDB's, too."""
    tables.check(sql)
    from engine.frontend import plan_sql

    estimates = Estimates()
    plan = optimize(plan_sql(sql, tables.catalog), estimates)
    (stage,) = cut(plan, estimates, CutSettings(1)).stages
    after, found = reduce_scans(stage, estimates, 1 << 30, settings)
    sources = {
        n.source.name
        for n in all_relations(after.plan)
        if isinstance(n, Scan) and isinstance(n.source, InputSource)
    }
    assert sources >= set(found)
    return {
        name: sorted({*one.within, *one.nulls, *(k.column for k in one.keys)})
        for name, one in found.items()
    }


SALES_OF = "select sum(price), count(*) from sales "


def test_keys_of_every_filtered_table_count(tables: Any) -> None:
    sql = (
        SALES_OF + "join items on item = items.id join days on day = days.id "
        "where colour = 'c1' and year = 1"
    )
    assert reduced(tables, sql) == {"sales": ["day", "item"]}


def test_ranges_of_the_table_itself_count(tables: Any) -> None:
    assert reduced(tables, SALES_OF + "where day between 3 and 5") == {"sales": ["day"]}
    assert reduced(tables, SALES_OF + "where price < 5") == {}


def test_null_alone_counts(tables: Any) -> None:
    assert reduced(tables, SALES_OF + "where day is null") == {"sales": ["day"]}
    assert reduced(tables, SALES_OF + "where day is null or price > 3") == {}


def test_keys_go_through_groups_and_unions(tables: Any) -> None:
    grouped = "select sum(p) from (select item, sum(price) p from sales group by item) s "
    wanted = "join items on item = items.id where colour = 'c1'"
    assert reduced(tables, grouped + wanted) == {"sales": ["item"]}
    both = (
        "select count(*) from (select item, bill from sales union all "
        "select item, bill from sales where price > 4) "
    )
    assert list(reduced(tables, both + wanted).values()) == [["item"]] * 2
    totals = "select count(*) from (select item, sum(price) p from sales group by rollup (item)) s "
    assert reduced(tables, totals + wanted) == {}


def test_a_semi_join_counts_and_an_anti_join_does_not(tables: Any) -> None:
    wanted = "(select id from items where colour = 'c1')"
    assert reduced(tables, SALES_OF + f"where item in {wanted}") == {"sales": ["item"]}
    assert reduced(tables, SALES_OF + f"where item not in {wanted}") == {}


def test_the_side_that_an_outer_join_keeps_is_read_whole(tables: Any) -> None:
    join = "join (select id from items where colour = 'c1') on item = id"
    assert reduced(tables, SALES_OF + "left " + join) == {}
    assert "sales" not in reduced(tables, SALES_OF + "full " + join)


def test_an_inner_join_above_an_outer_join_counts(tables: Any) -> None:
    sql = (
        "select sum(price), count(why) from sales left join returns on sales.bill = returns.bill "
        "join items on item = items.id where colour = 'c1'"
    )
    assert reduced(tables, sql)["sales"] == ["item"]


def test_keys_that_are_equal_where_null_do_not_count(tables: Any) -> None:
    sql = SALES_OF + "join days on day is not distinct from days.id where year = 1"
    assert reduced(tables, sql) == {}


def test_keys_that_are_no_integers_do_not_count(tables: Any) -> None:
    sql = SALES_OF + "join items on code = colour where items.id < 9"
    assert reduced(tables, sql) == {}


def test_a_window_wants_all_rows(tables: Any) -> None:
    sql = (
        "select sum(r) from (select item, rank() over (order by price) r from sales) "
        "join items on item = id where colour = 'c1'"
    )
    assert reduced(tables, sql) == {}


def test_a_scan_that_others_read_too_is_left_alone(tables: Any) -> None:
    sql = (
        "with s as (select item, day, sum(price) p from sales group by all) "
        "select (select sum(p) from s join items on item = id where colour = 'c1'), "
        "(select sum(p) from s join days on day = id where year = 1)"
    )
    assert reduced(tables, sql) == {}


def test_two_scans_of_one_table_are_read_by_their_own_keys(tables: Any) -> None:
    sql = (
        "select (select sum(price) from sales join items on item = id where colour = 'c1'), "
        "(select sum(price) from sales join days on day = id where year = 1)"
    )
    assert sorted(reduced(tables, sql).values()) == [["day"], ["item"]]


def test_nothing_is_asked_where_it_does_not_pay(tables: Any) -> None:
    sql = SALES_OF + "join items on item = items.id where colour = 'c1'"
    assert reduced(tables, sql, ReductionSettings()) == {}
    assert reduced(tables, sql, replace(EAGER, cheap=0.01)) == {}
    assert reduced(tables, sql, replace(EAGER, cheap=1.0)) == {"sales": ["item"]}
    assert reduced(tables, sql, replace(EAGER, memory=0.0)) == {}


def test_what_the_kernel_prunes_by_row_groups_is_left_to_it(tables: Any) -> None:
    settings = replace(EAGER, scattered=0.5, statement=0.0, asked=99.0, least=0.25)
    by_day = "join days on day = days.id where days.id between 3 and 8 and year = 0"
    assert reduced(tables, SALES_OF + by_day, settings) == {}
    sql = SALES_OF + "join items on item = items.id " + by_day + " and colour = 'c1'"
    assert reduced(tables, sql, replace(settings, least=-99.0)) == {"sales": ["day", "item"]}
    assert reduced(tables, SALES_OF + "where bill between 3 and 8", settings) == {}


def test_more_rows_than_expected_are_left_to_the_kernel(
    tables: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import operators.parquet_filter as parquet_filter

    given: list[Any] = []
    real = parquet_filter.read_filtered

    def read(paths: Any, schema: Any, within: Any, keys: Any, rows: int, nulls: Any) -> Any:
        given.append(real(paths, schema, within, keys, 3, nulls))
        return given[-1]

    monkeypatch.setattr(parquet_filter, "read_filtered", read)
    tables.check(SALES_OF + "join items on item = items.id where colour = 'c1'", copies=(1,))
    assert given
    assert not any(given)


def test_elements_of_one_core_leave_it_to_the_kernel(
    tables: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import operators.parquet_filter as parquet_filter

    monkeypatch.setattr(parquet_filter, "reader_threads", lambda: 99)
    monkeypatch.setattr(parquet_filter, "read_filtered", None)
    tables.check(SALES_OF + "join items on item = items.id where colour = 'c1'", copies=(1,))


def test_tables_in_parts_and_resident_ones_are_not_reduced(tables: Any) -> None:
    from engine.frontend import plan_sql

    sql = SALES_OF + "join items on item = items.id where colour = 'c1'"
    estimates = Estimates()
    plan = optimize(plan_sql(sql, tables.catalog), estimates)
    whole = cut(plan, estimates, CutSettings(1))
    parts = cut(plan, estimates, CutSettings(3, whole_rows=1.0, gather_rows=0.0))

    def texts(stages: Any, **settings: Any) -> str:
        app = build_application(
            "q", stages, CodegenSettings(reduction=EAGER, **settings), estimates=estimates
        )
        return "".join(e.code for e in app.compute.values())

    assert "element.reduced(" in texts(whole)
    assert "element.reduced(" not in texts(whole, resident=True)
    assert "element.reduced(" not in texts(parts)


def test_a_file_that_vanished_is_the_kernels_to_report(tables: Any) -> None:
    from operators.errors import KernelError

    sql = SALES_OF + "join items on item = items.id where colour = 'c1'"
    estimates = Estimates()
    plan = tables.plan(sql, 1, estimates)
    assert tables.run(plan, estimates).num_rows == 1
    Path(tables.folder, "sales.parquet").unlink()
    with pytest.raises(KernelError, match=r"sales\.parquet"):
        tables.run(plan, estimates)


def test_more_keys_than_are_looked_for_are_not_taken_for_all(
    tables: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The statement stops at one key more than that: the table is read without them."""
    import engine.codegen.reduction as reduction
    import operators.parquet_filter as parquet_filter

    for module in (reduction, parquet_filter):
        monkeypatch.setattr(module, "MOST_KEYS", 2)
    monkeypatch.setattr(Estimates, "rows", lambda self, rel: 1.0)  # so that they are asked for
    tables.check(SALES_OF + "join items on item = items.id where colour = 'c1'", copies=(1,))
