"""Rows that go before they are ranked: which plans, how far down, and that answers stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.optimizer import Estimates
from engine.optimizer.leading import keep_leading
from engine.optimizer.pruning import prune
from engine.optimizer.sharing import intern
from engine.stages import CutSettings, cut
from operators import build
from operators.cardinality import estimate
from operators.codec import plan_from_json, plan_to_json
from operators.duckdb import Kernel, lower
from operators.errors import PlanError
from operators.expr import Column, Expr, SortKey
from operators.polars import kernel as polars_kernel
from operators.polars import lower as lower_to_polars
from operators.printer import format_plan
from operators.rel import Aggregation, InputSource, Leading, Rel, walk
from operators.stats import ColumnStats, TableStats
from operators.types import HUGEINT, TIMESTAMP, canonical, canonical_schema
from tests.engine.optimizer.conftest import Generous, scan


class Many(Generous):
    """Scans are huge, and every column has a few values."""

    def column(self, rel: Rel, position: int) -> ColumnStats:
        return ColumnStats(distinct=4.0)


class Varied(Many):
    def column(self, rel: Rel, position: int) -> ColumnStats:
        return ColumnStats(distinct=None)


def col(rel: Rel, name: str) -> Column:
    found = build.col(rel.schema, name)
    assert isinstance(found, Column)
    return found


def ranked(below: Rel, function: str, keys: list[SortKey], groups: list[Expr]) -> Rel:
    window = build.window(function, partition_by=groups, order_by=keys)
    columns = [build.col(below.schema, i) for i in range(len(below.schema))]
    return build.project(below, [*columns, window], [*below.schema.names, "r"])


def first(below: Rel, function: str = "rank", most: int = 3, by: str = "less_equal") -> Rel:
    key = SortKey(col(below, "amount"), descending=True)
    all_ranked = ranked(below, function, [key], [col(below, "store")])
    return build.filter(all_ranked, build.call(by, col(all_ranked, "r"), build.lit(most)))


def led(plan: Rel, estimates: Any = None) -> Rel:
    return keep_leading(intern(plan), estimates or Many())


def leading(plan: Rel) -> list[Leading]:
    return [r for r in walk(plan) if isinstance(r, Leading)]


@pytest.mark.parametrize("function", ["rank", "row_number"])
@pytest.mark.parametrize(
    ("by", "most", "count"),
    [("less_equal", 3, 3), ("less", 3, 2), ("equal", 1, 1), ("equal", 2, 2)],
)
def test_a_filter_on_a_rank_leaves_rows_out_before(
    same_answer: Callable[[Rel, Rel], None], function: str, by: str, most: int, count: int
) -> None:
    plan = first(scan("sales"), function, most, by)
    (found,) = leading(led(plan))
    assert found.count == count
    if function == "rank":  # which of equal rows is the third is anybody's
        same_answer(plan, led(plan))


def test_the_number_may_stand_first_and_columns_be_chosen_between(
    same_answer: Callable[[Rel, Rel], None],
) -> None:
    sales = scan("sales")
    key = SortKey(col(sales, "day"), nulls_first=True)
    all_ranked = ranked(sales, "rank", [key], [])
    chosen = build.project(all_ranked, [col(all_ranked, "r"), col(all_ranked, "day")])
    plan = build.filter(chosen, build.call("greater_equal", build.lit(2), col(chosen, "r")))
    assert len(leading(led(plan))) == 1
    same_answer(plan, led(plan))


def test_it_goes_below_unions_and_projections(same_answer: Callable[[Rel, Rel], None]) -> None:
    sales, returns = scan("sales"), scan("returns")
    names = ("store", "amount")
    one = build.project(sales, [col(sales, n) for n in names])
    groups = build.aggregation(
        returns, [col(returns, "amount")], [build.aggregate("count")], names=["amount", "n"]
    )
    other = build.project(groups, [build.lit(None, pa.int64()), col(groups, "amount")], names)
    plan = first(build.set_operation("union", [one, other], all=True))
    found = leading(led(plan))
    assert [type(r.input).__name__ for r in found] == ["Scan", "Aggregation"]
    assert [len(r.partition_by) for r in found] == [1, 0]
    same_answer(plan, led(plan))


def test_what_must_not_lose_rows_does_not(same_answer: Callable[[Rel, Rel], None]) -> None:
    sales = scan("sales")
    amount, weight, store = (col(sales, n) for n in ("amount", "weight", "store"))
    key = SortKey(amount, descending=True)
    dense = ranked(sales, "dense_rank", [key], [store])
    floats = ranked(sales, "rank", [SortKey(weight)], [store])
    computed = ranked(sales, "rank", [SortKey(build.call("negate", amount))], [store])
    unordered = ranked(sales, "row_number", [], [store])
    two = build.project(
        sales,
        [
            build.window("rank", partition_by=[store], order_by=[key]),
            build.window("count", partition_by=[store]),
        ],
        ["r", "n"],
    )
    nan = ranked(sales, "rank", [key], [weight])
    for rel in (dense, floats, computed, unordered, two, nan):
        plan = build.filter(rel, build.call("less_equal", col(rel, "r"), build.lit(2)))
        assert not leading(led(plan)), format_plan(plan)
    ranks = ranked(sales, "rank", [key], [store])
    late = build.filter(ranks, build.call("greater", col(ranks, "r"), build.lit(2)))
    assert not leading(led(late))
    some = build.filter(ranks, build.call("less_equal", col(ranks, "r"), build.lit(2)))
    twice = build.set_operation("union", [some, ranks], all=True)
    assert not leading(led(twice))
    same_answer(twice, led(twice))


def test_a_group_that_is_named_twice_is_one(same_answer: Callable[[Rel, Rel], None]) -> None:
    sales = scan("sales")
    store, key = col(sales, "store"), SortKey(col(sales, "amount"), descending=True)
    both = build.project(sales, [store, store, col(sales, "amount")], ["a", "b", "amount"])
    again = SortKey(col(both, "amount"), descending=True)
    for rel, groups, by in (
        (sales, [store, store], key),
        (both, [col(both, "a"), col(both, "b")], again),
    ):
        ranks = ranked(rel, "rank", [by], groups)
        plan = build.filter(ranks, build.call("less_equal", col(ranks, "r"), build.lit(2)))
        (found,) = leading(led(plan))
        assert len(found.partition_by) == 1
        same_answer(plan, led(plan))


def test_it_has_to_leave_out_much() -> None:
    assert not leading(led(first(scan("sales")), Varied()))
    assert not leading(led(first(scan("sales"), most=10**7)))
    assert len(leading(led(first(scan("sales"), most=10**4)))) == 1


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_every_row_that_counts_stays_in_both_kernels(kernel: Kernel, data: st.DataObject) -> None:
    small = st.none() | st.integers(0, 3)
    rows_ = data.draw(st.lists(st.tuples(small, small, small), max_size=30))
    columns = list(zip(*rows_, strict=True)) or [()] * 3
    table = pa.table([pa.array(c, pa.int32()) for c in columns], names=["last", "key", "ends"])
    rel: Rel = build.scan(InputSource("t"), table.schema)
    if data.draw(st.booleans()):
        rel = build.filter(rel, build.call("not_equal", col(rel, "ends"), build.lit(2)))
    if data.draw(st.booleans()):
        rel = build.aggregation(
            rel, [col(rel, n) for n in ("last", "key", "ends")], [build.aggregate("count")]
        )
    groups: list[Expr] = [col(rel, n) for n in ("last", "ends")[: data.draw(st.integers(0, 2))]]
    key = SortKey(col(rel, "key"), data.draw(st.booleans()), data.draw(st.booleans()))
    count = data.draw(st.integers(1, 4))
    kept = build.leading(rel, groups, key, count)
    plans = []
    for below in (rel, kept):
        all_ranked = ranked(below, "rank", [key], groups)
        most = build.call("less_equal", col(all_ranked, "r"), build.lit(count))
        plans.append(build.filter(all_ranked, most))
    plans.append(plan_from_json(plan_to_json(prune(plans[1]))))
    wanted, *found = (_sorted(kernel.table(lower(p), {"t": table})) for p in plans)
    assert found == [wanted, wanted]
    fragment = lower_to_polars(kept)
    frames = {i.name: polars_kernel.scan(table) for i in fragment.inputs}
    left = polars_kernel.run(polars_kernel.function(fragment), frames, kept.schema).read_all()
    assert _sorted(left) == _sorted(kernel.table(lower(kept), {"t": table}))


@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize(
    "type",
    [
        pa.int8(),
        pa.int64(),
        pa.decimal64(12, 2),
        pa.decimal128(38, 2),
        HUGEINT,
        pa.date32(),
        TIMESTAMP,
    ],
    ids=str,
)
def test_keys_of_every_type_that_has_an_order(
    kernel: Kernel, type: pa.DataType, descending: bool
) -> None:
    numbers = pa.array([5, 3, None, 9, 3, 7, 1], pa.int32())
    if pa.types.is_timestamp(type):
        keys = numbers.cast(pa.int64()).cast(type)
    else:
        keys = numbers.cast(canonical(type)).cast(type)
    table = pa.table({"k": keys, "row": range(7)})
    rel = build.scan(InputSource("t"), canonical_schema(table.schema))
    kept = build.leading(rel, [], SortKey(col(rel, "k"), descending), 3)
    wanted = [0, 3, 5] if descending else [1, 4, 6]
    assert sorted(kernel.table(lower(kept), {"t": table}).column("row").to_pylist()) == wanted
    fragment = lower_to_polars(kept)
    frames = {
        i.name: polars_kernel.scan(table.cast(rel.schema.to_arrow())) for i in fragment.inputs
    }
    left = polars_kernel.run(polars_kernel.function(fragment), frames, kept.schema).read_all()
    assert sorted(left.column("row").to_pylist()) == wanted


def _sorted(table: pa.Table) -> list[Any]:
    return sorted(zip(*(c.to_pylist() for c in table.columns), strict=True), key=repr)


def test_rows_go_before_they_move() -> None:
    """Cut into stages, every copy keeps the first of its part, and only these are scattered."""
    sales = scan("sales")
    groups = build.aggregation(
        sales,
        [col(sales, "store"), col(sales, "item")],
        [build.aggregate("sum", col(sales, "amount"))],
        names=["store", "item", "amount"],
    )
    estimates = Estimates()
    plan = led(first(groups))
    stages = cut(plan, estimates, CutSettings(parallelism=2, whole_rows=1.0)).stages
    for stage in stages:
        kinds = [type(r) for r in walk(stage.plan)]
        if Leading in kinds:
            assert Aggregation in kinds
    assert sum(Leading in map(type, walk(s.plan)) for s in stages) == 1


def test_estimates_and_text() -> None:
    rel = build.leading(scan("sales"), [], SortKey(Column(pa.int32(), 5)), 7)
    many = TableStats(1e6, (ColumnStats(distinct=9.0),) * 7)
    assert estimate(rel, lambda source: many).rows == 7
    grouped = build.leading(rel.input, [col(rel, "store")], rel.key, 7)
    assert estimate(grouped, lambda source: many).rows == 70
    assert format_plan(grouped).startswith("Leading 7 by count NULLS LAST of each [store]")


def test_groups_and_keys_have_to_be_columns_without_nan() -> None:
    sales = scan("sales")
    day, negated = col(sales, "day"), build.call("negate", col(sales, "count"))
    with pytest.raises(PlanError, match="NaN"):
        build.leading(sales, [], SortKey(col(sales, "weight")), 1)
    with pytest.raises(PlanError, match="at least one"):
        build.leading(sales, [], SortKey(day), 0)
    with pytest.raises(PlanError, match="columns"):
        build.leading(sales, [], SortKey(negated), 1)
    with pytest.raises(PlanError, match="columns"):
        build.leading(sales, [negated], SortKey(day), 1)
