"""Relations in Polars: what DuckDB answers, or a refusal that says why."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from operators import build
from operators.duckdb import Kernel
from operators.duckdb import lower as lower_to_duckdb
from operators.errors import KernelError, UnsupportedPlan
from operators.expr import Expr
from operators.polars import kernel, lower
from operators.polars.coding import Worth
from operators.rel import InputSource, ParquetSource, Project, Query, Rel
from operators.schema import Schema
from operators.types import HUGEINT, canonical, canonical_schema

SALES = pa.table(
    {
        "item": pa.array([1, 2, None, 1, 3, 2, 7, None], pa.int32()),
        "day": pa.array([dt.date(2000, 1, 1 + d % 3) if d != 4 else None for d in range(8)]),
        "price": pa.array(
            [Decimal(p) for p in ("1.50", "2.00", "-3.25", "0.00", "9.99")]
            + [None, Decimal("4.00"), Decimal("4.00")],
            pa.decimal128(7, 2),
        ),
        "town": pa.array(["a", "b", None, "a", "é", "b", "", "a"]),
        "weight": pa.array([0.0, -0.0, float("nan"), float("nan"), 1.5, None, 2.0, 2.0]),
    }
)
ITEMS = pa.table(
    {
        "item": pa.array([1, 2, 2, None, 9], pa.int64()),
        "name": pa.array(["one", "two", "zwei", "none", "nine"]),
        "price": pa.array([1, 2, 3, 4, 5], pa.int32()),
    }
)
EMPTY = SALES.slice(0, 0)
TABLES = {"sales": SALES, "items": ITEMS, "empty": EMPTY}


def scan(name: str) -> Rel:
    return build.scan(InputSource(name), canonical_schema(TABLES[name].schema))


def c(rel: Rel, name: int | str) -> Expr:
    return build.col(rel.schema, name)


def rows(table: pa.Table) -> list[tuple[Any, ...]]:
    def value(cell: Any) -> Any:
        return repr(cell + 0.0) if isinstance(cell, float) else cell

    return [tuple(map(value, r)) for r in zip(*(c.to_pylist() for c in table.columns), strict=True)]


def in_polars(plan: Rel, worth: Worth | None = None) -> pa.Table:
    fragment = lower(plan, worth)
    frames = {
        i.name: kernel.scan(TABLES[i.source.name])
        for i in fragment.inputs
        if isinstance(i.source, InputSource)
    }
    return kernel.run(kernel.function(fragment), frames, fragment.schema).read_all()


def check(plan: Rel, *, ordered: bool = False) -> pa.Table:
    ours = in_polars(plan)
    with Kernel.open(1, 1 << 30) as duckdb:
        theirs = duckdb.table(lower_to_duckdb(plan), TABLES)
    assert ours.schema.types == theirs.schema.types == [canonical(t) for t in plan.schema.types]
    got, wanted = rows(ours), rows(theirs)
    if not ordered:
        got, wanted = sorted(got, key=repr), sorted(wanted, key=repr)
    assert got == wanted, lower(plan).text
    # Strings as numbers, wherever they can be.
    coded = rows(in_polars(plan, everywhere))
    assert (coded if ordered else sorted(coded, key=repr)) == wanted, lower(plan, everywhere).text
    return ours


def everywhere(named: Rel, grouped: Rel) -> bool:
    return True


@pytest.mark.parametrize("kind", ["inner", "left", "right", "full", "semi", "anti", "mark"])
@pytest.mark.parametrize("null_equal", [False, True])
def test_joins_of_unlike_widths_and_equal_names(kind: Any, null_equal: bool) -> None:
    sales, items = scan("sales"), scan("items")
    wide = build.project(
        sales, [build.cast(c(sales, "item"), pa.int64()), c(sales, "price"), c(sales, "town")]
    )
    plan = build.join(wide, items, kind, on=[(0, 0)], null_equal=[null_equal])
    answer = check(plan)
    assert answer.num_rows
    again = build.join(plan, items, "inner", on=[(0, 0)]) if kind == "inner" else plan
    check(again)


def test_conditions_of_joins() -> None:
    sales, items = scan("sales"), scan("items")
    wide = build.project(sales, [build.cast(c(sales, "item"), pa.int64()), c(sales, "town")])
    both = Schema((*wide.schema, *items.schema))
    cheap = build.call("less", build.col(both, 4), build.lit(3))
    across = build.call("less", build.col(both, 1), build.col(both, 3))
    for kind in ("inner", "left", "semi", "anti", "mark"):
        check(build.join(wide, items, kind, on=[(0, 0)], condition=cheap))
    check(build.join(wide, items, "inner", on=[(0, 0)], condition=across))
    for kind in ("left", "semi", "full"):
        with pytest.raises(UnsupportedPlan, match=f"a condition of a {kind} join"):
            lower(build.join(wide, items, kind, on=[(0, 0)], condition=across))


def test_a_semi_join_with_a_condition_on_distinct_keys_and_joins_above_it() -> None:
    sales, items = scan("sales"), scan("items")
    wide = build.project(sales, [build.cast(c(sales, "item"), pa.int64()), c(sales, "price")])
    groups = build.aggregation(
        items, [c(items, "item")], [build.aggregate("max", c(items, "price"))]
    )
    both = Schema((*wide.schema, *groups.schema))
    above = build.call("less", build.col(both, 1), build.col(both, 3))
    semi = build.join(wide, groups, "semi", on=[(0, 0)], condition=above)
    assert check(semi).num_rows
    # The partner's columns, which are still there, have names of the relation that comes next.
    check(build.join(semi, items, "inner", on=[(0, 0)]))
    check(build.aggregation(semi, [], [build.aggregate("count")]))


def test_cross_joins_and_scalar_subqueries() -> None:
    sales, items = scan("sales"), scan("items")
    most = build.aggregation(items, [], [build.aggregate("max", c(items, "price"))])
    check(build.join(sales, most, "cross"))
    check(build.join(build.project(sales, [c(sales, "town")]), items, "cross"))
    both = Schema((*sales.schema, *most.schema))
    other = build.scalar_subquery(most)
    dear = build.call("less", build.col(both, "price"), other)
    check(build.join(sales, most, "inner", condition=dear))
    scalar = build.scalar_subquery(most)
    check(build.filter(sales, build.call("less", c(sales, "price"), scalar)))
    check(build.project(sales, [c(sales, "town"), scalar, build.call("add", scalar, scalar)]))
    check(build.filter(items, build.call("equal", c(items, "price"), scalar)))
    few = build.filter(items, build.call("equal", c(items, "price"), build.lit(3)))
    one = build.scalar_subquery(build.project(few, [c(few, "price")]))
    assert check(build.filter(items, build.call("equal", c(items, "price"), one))).num_rows == 1
    check(build.filter(items, build.call("less", c(items, "price"), one)))
    none = build.filter(few, build.call("is_null", c(few, "price")))
    nothing = build.scalar_subquery(build.project(none, [c(none, "price")]))
    assert not check(build.filter(items, build.call("equal", c(items, "price"), nothing))).num_rows
    assert not check(build.filter(items, build.call("less", c(items, "price"), nothing))).num_rows


def test_a_scalar_subquery_of_two_rows_raises() -> None:
    items = scan("items")
    many = build.scalar_subquery(build.project(items, [c(items, "price")]))
    with pytest.raises(KernelError):
        in_polars(build.filter(items, build.call("less", c(items, "price"), many)))


@pytest.mark.parametrize("name", ["sales", "empty"])
def test_aggregations(name: str) -> None:
    rel = scan(name)
    measures = [
        build.aggregate("count"),
        build.aggregate("count", c(rel, "item")),
        build.aggregate("sum", c(rel, "item")),
        build.aggregate("sum", c(rel, "price")),
        build.aggregate("avg", c(rel, "price")),
        build.aggregate("max", c(rel, "weight")),
        build.aggregate("count", c(rel, "town"), distinct=True),
    ]
    # A long expression is written once and used again.
    some = build.call("greater", c(rel, "item"), build.lit(1))
    often = build.case([(some, c(rel, "price"))], build.cast(build.lit(0), c(rel, "price").type))
    seldom = build.case([(some, c(rel, "price"))])
    for one in (often, seldom):
        few = build.call("less", c(rel, "item"), build.lit(3))
        measures += [
            build.aggregate("sum", one),
            build.aggregate("sum", one, distinct=True),
            build.aggregate("sum", one, filter=few),
            build.aggregate("avg", one),
        ]
    check(build.aggregation(rel, [], measures))
    for keys in (["town"], ["item", "day"], ["weight"]):
        check(build.aggregation(rel, [c(rel, k) for k in keys], measures))
        check(build.aggregation(rel, [c(rel, k) for k in keys], []))
    sets = [(0, 1), (0,), ()]
    check(build.aggregation(rel, [c(rel, "town"), c(rel, "item")], measures, grouping_sets=sets))


def test_rows_without_columns_are_counted() -> None:
    rel = scan("sales")
    few = build.filter(rel, build.call("equal", c(rel, "town"), build.lit("a")))
    bare = Project(Schema(()), few, ())
    assert rows(check(build.aggregation(bare, [], [build.aggregate("count")]))) == [(3,)]
    ones = build.project(few, [build.lit(1), build.lit("x")])
    assert check(ones).num_rows == 3


def test_sorts_put_nulls_where_they_are_wanted() -> None:
    rel = scan("sales")
    for descending in (False, True):
        for first in (False, True):
            keys = [
                build.sort_key(c(rel, "item"), descending=descending, nulls_first=first),
                build.sort_key(c(rel, "town"), descending=not descending, nulls_first=not first),
                build.sort_key(c(rel, "price")),
            ]
            ordered = build.sort(rel, keys)
            check(ordered, ordered=True)
            check(build.limit(ordered, 3, 2), ordered=True)
            check(build.limit(ordered, None, 6), ordered=True)


@pytest.mark.parametrize(
    ("operation", "all"),
    [("union", True), ("union", False), ("intersect", False), ("except", False)],
)
def test_set_operations(operation: Any, all: bool) -> None:
    sales, items = scan("sales"), scan("items")
    left = build.project(sales, [build.cast(c(sales, "item"), pa.int64()), c(sales, "town")])
    right = build.project(
        items, [c(items, "item"), build.call("left", c(items, "name"), build.lit(1))]
    )
    check(build.set_operation(operation, [left, right, left], all=all))
    floats = build.project(sales, [c(sales, "weight")])
    check(build.set_operation(operation, [floats, floats], all=all))


def test_what_two_readers_share_is_computed_once() -> None:
    rel = scan("sales")
    groups = build.aggregation(rel, [c(rel, "town")], [build.aggregate("sum", c(rel, "price"))])
    plan = build.join(groups, groups, "inner", on=[(0, 0)])
    text = lower(plan).text
    assert text.count("group_by") == 1
    assert ".cache()" in text
    check(plan)


def test_two_readers_of_one_table_read_it_apart(tmp_path: Path) -> None:
    """Or Polars would hold all of its rows, whatever the two want of them."""
    path = tmp_path / "sales.parquet"
    pq.write_table(SALES, path)
    source = ParquetSource("sales", (str(path),))
    rel = build.scan(source, canonical_schema(SALES.schema))

    def prices() -> Rel:
        chosen = build.project(rel, [c(rel, "item"), c(rel, "price")])
        return build.aggregation(
            chosen, [c(chosen, "item")], [build.aggregate("sum", c(chosen, "price"))]
        )

    plan = build.join(prices(), prices(), "inner", on=[(0, 0)])
    fragment = lower(plan)
    assert [i.source for i in fragment.inputs] == [source, source]
    names = [i.name for i in fragment.inputs]
    assert len(set(names)) == 2
    frames = {name: kernel.scan(source, nth) for nth, name in enumerate(names)}
    query = kernel.function(fragment)
    assert "CACHE" in query(*[kernel.scan(source)] * 2).explain(engine="streaming")
    assert "CACHE" not in query(*frames.values()).explain(engine="streaming")
    with Kernel.open(1, 1 << 30) as duckdb:
        wanted = duckdb.table(lower_to_duckdb(plan), {})
    found = kernel.run(query, frames, fragment.schema).read_all()
    assert sorted(rows(found), key=repr) == sorted(rows(wanted), key=repr)


def test_windows_below_and_above_other_relations() -> None:
    rel = scan("sales")
    ranked = build.project(
        rel,
        [
            c(rel, "town"),
            build.window(
                "rank",
                partition_by=[c(rel, "town")],
                order_by=[build.sort_key(c(rel, "price"), descending=True)],
            ),
            build.window("sum", c(rel, "price"), partition_by=[c(rel, "item")]),
        ],
        ["town", "rank", "town"],
    )
    check(ranked)
    check(build.filter(ranked, build.call("equal", c(ranked, 1), build.lit(1, pa.int64()))))


def test_integers_that_overflow_raise_as_in_duckdb() -> None:
    big = build.values(["n"], [[build.lit(2**62, pa.int64())], [build.lit(1, pa.int64())]])
    total = build.aggregation(big, [], [build.aggregate("sum", c(big, "n"))])
    assert check(total).column(0).to_pylist() == [Decimal(2**62 + 1)]
    assert total.schema.types == (HUGEINT,)
    doubled = build.project(big, [build.call("add", c(big, "n"), c(big, "n"))])
    with pytest.raises(KernelError):
        in_polars(doubled)


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        (lambda: build.join(scan("sales"), scan("items"), "semi"), "a semi join without keys"),
        (
            lambda: build.join(
                scan("sales"), scan("sales"), on=[(0, 0), (3, 3)], null_equal=[True, False]
            ),
            "some keys only may be NULL",
        ),
        (lambda: Query(Schema(()), "select 1", (), ()), "Query"),
        (
            lambda: build.set_operation("except", [scan("items"), scan("items")], all=True),
            "except all",
        ),
        (
            lambda: build.scan(
                ParquetSource("t", ("t.parquet",), (0, 2)), canonical_schema(SALES.schema)
            ),
            "parts of tables",
        ),
    ],
)
def test_refusals_name_the_construct(plan: Callable[[], Rel], why: str) -> None:
    with pytest.raises(UnsupportedPlan, match=why):
        lower(plan())


def test_names_that_are_no_identifiers() -> None:
    data = pa.table({'a "b"\n': [1, 2], "class": [3, 4], "列": [5, 6], "'": [7, 8]})
    rel = build.scan(InputSource("class"), canonical_schema(data.schema))
    fragment = lower(build.filter(rel, build.call("less", c(rel, 0), build.lit(2, pa.int64()))))
    frames = {fragment.inputs[0].name: kernel.scan(data)}
    found = kernel.run(kernel.function(fragment), frames, fragment.schema).read_all()
    assert found.to_pylist() == [{'a "b"\n': 1, "class": 3, "列": 5, "'": 7}]


def test_files_that_are_missing_or_truncated_are_named(tmp_path: Path) -> None:
    path = tmp_path / "sales.parquet"
    pq.write_table(SALES, path)
    source = ParquetSource("sales", (str(path),))
    fragment = lower(build.scan(source, canonical_schema(SALES.schema)))

    def read() -> pa.Table:
        frames = {"sales": kernel.scan(source)}
        return kernel.run(kernel.function(fragment), frames, fragment.schema).read_all()

    assert rows(read()) == rows(SALES)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(KernelError, match=r"sales\.parquet|[Pp]arquet"):
        read()
    path.unlink()
    with pytest.raises(KernelError, match=r"sales\.parquet"):
        read()


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
def test_timestamps_of_every_unit(unit: str, tmp_path: Path) -> None:
    data = pa.table({"t": pa.array([0, 1, None, -5, 10**9], pa.timestamp(unit)), "n": range(5)})
    path = tmp_path / "times.parquet"
    pq.write_table(data, path)
    source = ParquetSource("times", (str(path),))
    rel = build.scan(source, canonical_schema(data.schema))
    late = build.filter(rel, build.call("is_not_null", c(rel, "t")))
    plan = build.aggregation(late, [c(late, "t")], [build.aggregate("count")])
    fragment = lower(plan)
    found = kernel.run(kernel.function(fragment), {"times": kernel.scan(source)}, plan.schema)
    with Kernel.open(1, 1 << 30) as duckdb:
        wanted = duckdb.table(lower_to_duckdb(plan), {})
    assert sorted(rows(found.read_all()), key=repr) == sorted(rows(wanted), key=repr)


def test_nanoseconds_are_left_to_duckdb() -> None:
    with pytest.raises(KernelError, match="nanoseconds"):
        kernel.scan(pa.table({"t": pa.array([-5], pa.timestamp("ns"))}))


def test_dictionaries_of_strings_are_strings(tmp_path: Path) -> None:
    data = pa.table({"s": pa.array(["b", "a", None, "c", "a"]).dictionary_encode(), "n": range(5)})
    pq.write_table(data, tmp_path / "words.parquet")
    source = ParquetSource("words", (str(tmp_path / "words.parquet"),))
    rel = build.scan(source, canonical_schema(data.schema))
    late = build.filter(rel, build.call("greater", c(rel, "s"), build.lit("a")))
    ordered = build.sort(late, [build.sort_key(c(late, "s"), descending=True)])
    fragment = lower(ordered)
    found = kernel.run(kernel.function(fragment), {"words": kernel.scan(source)}, ordered.schema)
    assert found.read_all().column("s").to_pylist() == ["c", "b"]


@pytest.mark.parametrize("name", ["*", "^a.*$"])
def test_names_that_polars_takes_for_patterns_are_refused(name: str) -> None:
    data = pa.table({"ab": [1, 2], name: [3, 4]})
    rel = build.scan(InputSource("t"), canonical_schema(data.schema))
    with pytest.raises(UnsupportedPlan, match="is a pattern"):
        lower(rel)
    renamed = build.project(rel, [c(rel, "ab")], [name])
    with pytest.raises(UnsupportedPlan, match="is a pattern"):
        lower(renamed)
