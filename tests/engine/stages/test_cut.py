"""Stages give the answer of the plan that they were cut from, for every operator and kind of
join."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from operators import build
from operators.expr import Aggregate, Column, Expr
from operators.rel import Rel
from operators.types import TIMESTAMP

KINDS = ["inner", "left", "right", "full", "semi", "anti", "mark"]
# Forces every way of bringing two sides together.
NO_BROADCAST = {"broadcast_bytes": 0.0}


def c(rel: Rel, name: str) -> Column:
    return build.col(rel.schema, name)


def on(left: Rel, right: Rel, *names: str) -> list[tuple[int, int]]:
    return [(c(left, n).index, c(right, n).index) for n in names]


def kinds(stages: Any) -> set[str]:
    return {s.output.kind for s in stages.stages}


def test_a_large_table_is_read_in_parts(tables: Any, check: Any) -> None:
    stages = check(tables.scan("sales"))
    assert [s.parallelism for s in stages.stages] == [3]
    assert len(stages.stages[0].parts) == 1


def test_a_small_table_is_read_whole_by_every_copy(tables: Any, check: Any) -> None:
    sales, items = tables.scan("sales"), tables.scan("items")
    stages = check(build.join(sales, items, "inner", on=[(1, 0)]))
    assert [p.table for s in stages.stages for p in s.parts] == ["sales"]
    assert len(stages.stages) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("right", ["returns", "items", "empty"])
@pytest.mark.parametrize("settings", [{}, NO_BROADCAST], ids=["broadcast", "scatter"])
def test_joins(tables: Any, check: Any, kind: Any, right: str, settings: dict[str, float]) -> None:
    left = tables.scan("sales")
    other = tables.scan(right)
    pairs = (
        [(c(left, "item").index, c(other, "key").index)]
        if right == "items"
        else on(left, other, "item", "town")
    )
    check(build.join(left, other, kind, on=pairs), **settings)
    # … and with the small or empty table on the left.
    check(build.join(other, left, kind, on=[(b, a) for a, b in pairs]), **settings)


@pytest.mark.parametrize("kind", KINDS)
def test_joins_with_conditions_and_equal_nulls(tables: Any, check: Any, kind: Any) -> None:
    left, right = tables.scan("sales"), tables.scan("returns")
    both = build.join(left, right, "inner")
    less = build.call("less", build.col(both.schema, 0), build.col(both.schema, len(left.schema)))
    pairs = on(left, right, "item", "customer")
    check(
        build.join(left, right, kind, on=pairs, null_equal=[True, False], condition=less),
        **NO_BROADCAST,
    )


@pytest.mark.parametrize("kind", ["inner", "left", "full", "semi", "anti"])
def test_joins_without_keys(tables: Any, check: Any, kind: Any) -> None:
    left, right = tables.scan("returns"), tables.scan("items")
    both = build.join(left, right, "inner")
    less = build.call("less", build.col(both.schema, "item"), build.col(both.schema, "key"))
    check(build.join(left, right, kind, condition=less))
    check(build.join(right, left, kind, condition=build.call("not", build.lit(False))), copies=[2])


def test_keys_of_different_types_are_not_scattered(tables: Any, check: Any) -> None:
    left, right = tables.scan("sales"), tables.scan("returns")
    pairs = [(c(left, "item").index, c(right, "customer").index)]
    stages = check(build.join(left, right, "full", on=pairs), **NO_BROADCAST)
    assert "hash" not in kinds(stages)


def test_aggregates_in_two_phases_have_duckdb_types_and_digits(tables: Any, check: Any) -> None:
    rel = tables.scan("sales")
    names = ["price", "item", "weight", "customer"]
    measures = [build.aggregate("count")]
    measures += [
        build.aggregate(f, c(rel, n)) for n in names for f in ("sum", "avg", "min", "count")
    ]
    small = build.filter(rel, build.call("less", c(rel, "id"), build.lit(0)))
    for below in (rel, small):
        check(build.aggregation(below, [], measures))
        stages = check(build.aggregation(below, [c(rel, "town")], measures))
        assert len(stages.stages) == 2


def test_averages_of_decimals_are_exact(parquet: Any, check: Any) -> None:
    values = [Decimal(n) / 100 for n in (1, 2, 3, 5, 7, 11, 13, 1117, 999999)] * 11
    rel = parquet("t", pa.table({"x": pa.array(values, pa.decimal128(7, 2))}))
    plan = build.aggregation(rel, [], [build.aggregate("avg", c(rel, "x"))])
    check(plan, exact=True)


@pytest.mark.parametrize("grouped", [False, True])
def test_averages_of_times(tables: Any, check: Any, grouped: bool) -> None:
    """They have no sum to be merged of."""
    rel = tables.scan("sales")
    day = c(rel, "day")
    since = build.lit(dt.datetime(2000, 1, 1), TIMESTAMP)
    times: list[Expr] = [day, build.cast(day, TIMESTAMP), build.call("subtract", day, since)]
    measures = [
        Aggregate(TIMESTAMP if pa.types.is_date(e.type) else e.type, "avg", (e,)) for e in times
    ]
    check(build.aggregation(rel, [c(rel, "town")] if grouped else [], measures))


@pytest.mark.parametrize("function", ["stddev_samp", "var_pop", "median"])
def test_aggregates_without_phases(tables: Any, check: Any, function: str) -> None:
    rel = tables.scan("sales")
    measure = build.aggregate(function, c(rel, "weight"))
    check(build.aggregation(rel, [c(rel, "item")], [measure]))
    check(build.aggregation(rel, [], [measure]))
    key = build.call("add", c(rel, "item"), build.lit(1))
    check(build.aggregation(rel, [key], [measure]))


def test_distinct_aggregates(tables: Any, check: Any) -> None:
    rel = tables.scan("sales")
    distinct = build.aggregate("count", c(rel, "item"), distinct=True)
    total = build.aggregate("sum", c(rel, "item"), distinct=True)
    mean = build.aggregate("avg", c(rel, "price"))
    other = build.aggregate("count", c(rel, "town"), distinct=True)
    positive = build.call("greater", c(rel, "price"), build.lit(0))
    filtered = build.aggregate("sum", c(rel, "price"), filter=positive)
    for measures in ([distinct], [distinct, total, mean], [distinct, other], [filtered, distinct]):
        check(build.aggregation(rel, [], measures))
        check(build.aggregation(rel, [c(rel, "customer")], measures))
    check(build.aggregation(rel, [c(rel, "town"), c(rel, "item")], []))


def test_grouping_sets(tables: Any, check: Any) -> None:
    rel = tables.scan("sales")
    keys = [c(rel, "item"), c(rel, "town"), c(rel, "customer")]
    total = build.aggregate("sum", c(rel, "price"))
    deviation = build.aggregate("stddev_samp", c(rel, "price"))
    rollup = [(0, 1, 2), (0, 1), (0,), ()]
    for measures in ([total], [deviation], [total, deviation]):
        check(build.aggregation(rel, keys, measures, grouping_sets=rollup))
        check(build.aggregation(rel, keys, measures, grouping_sets=rollup[:3]))
        check(build.aggregation(rel, keys, measures, grouping_sets=[(0,), (0,), (1, 2)]))


def test_sorts_and_limits(tables: Any, check: Any) -> None:
    rel = tables.scan("sales")
    keys = [build.sort_key(c(rel, "price"), descending=True), build.sort_key(c(rel, "id"))]
    check(build.sort(rel, keys), ordered=True)
    check(build.limit(build.sort(rel, keys), 17, 5), ordered=True)
    check(build.limit(build.sort(rel, keys), None, 590), ordered=True)
    chosen = build.project(build.sort(rel, keys), [c(rel, "id")])
    check(build.limit(chosen, 3), ordered=True)
    count = build.aggregation(build.limit(rel, 100), [], [build.aggregate("count")])
    check(count)


def test_windows(tables: Any, check: Any) -> None:
    rel = tables.scan("sales")

    def project(*exprs: Expr) -> Rel:
        return build.project(rel, [c(rel, "id"), *exprs])

    order = [build.sort_key(c(rel, "id"))]
    by_item = build.window("rank", partition_by=[c(rel, "item")], order_by=order)
    by_both = build.window("sum", c(rel, "price"), partition_by=[c(rel, "item"), c(rel, "town")])
    overall = build.window("row_number", order_by=order)
    assert "hash" in kinds(check(project(by_item, by_both)))
    assert "hash" not in kinds(check(project(by_item, overall)))


@pytest.mark.parametrize("operation", ["union", "intersect", "except"])
@pytest.mark.parametrize("keep", [True, False])
def test_set_operations(tables: Any, check: Any, operation: Any, keep: bool) -> None:
    def choose(name: str, *columns: str) -> Rel:
        rel = tables.scan(name)
        return build.project(rel, [c(rel, n) for n in columns], ["a", "b"])

    fact, other = choose("sales", "item", "town"), choose("returns", "item", "town")
    small = choose("items", "key", "name")
    for operands in ([fact, other], [fact, small], [small, fact, other], [small, small]):
        if len(operands) == 2 or operation == "union":
            check(build.set_operation(operation, operands, all=keep), gather_rows=1.0)


def test_subqueries(tables: Any, check: Any) -> None:
    rel, other = tables.scan("sales"), tables.scan("returns")
    mean = build.aggregation(other, [], [build.aggregate("avg", c(other, "price"))])
    above = build.call("greater", c(rel, "price"), build.scalar_subquery(mean))
    check(build.filter(rel, above))
    items = build.project(other, [c(other, "item")])
    among = build.in_subquery(c(rel, "customer"), items)
    check(build.filter(rel, build.call("or", among, above)))
    check(build.filter(rel, build.call("not", among)))
    check(build.filter(rel, build.call("or", build.exists(tables.scan("empty")), above)))


def test_a_subplan_that_stands_twice_is_one_stage(tables: Any, check: Any) -> None:
    def totals() -> Rel:
        rel = tables.scan("sales")
        total = build.aggregate("sum", c(rel, "price"))
        return build.aggregation(rel, [c(rel, "item")], [total], names=["item", "total"])

    left, right = totals(), totals()
    stages = check(build.join(left, right, "full", on=[(0, 0)]))
    assert sum(bool(s.parts) for s in stages.stages) == 1


def test_only_needed_columns_are_written(tables: Any, check: Any) -> None:
    left, right = tables.scan("sales"), tables.scan("returns")
    joined = build.join(left, right, "inner", on=on(left, right, "customer"))
    plan = build.project(joined, [build.col(joined.schema, 0)])
    stages = check(plan, **NO_BROADCAST)
    written = {n for s in stages.stages[:-1] for n in s.output.schema.names}
    assert written == {"id", "customer"}


def test_many_joins_are_reordered(tables: Any, check: Any) -> None:
    sales, returns, items = (tables.scan(n) for n in ("sales", "returns", "items"))
    first = build.join(sales, returns, "inner", on=on(sales, returns, "customer"))
    second = build.join(first, items, "inner", on=[(1, 0)])
    cheap = build.filter(second, build.call("equal", build.col(second.schema, "key"), build.lit(3)))
    check(build.project(cheap, [build.col(cheap.schema, i) for i in (0, 9, 7)]))
