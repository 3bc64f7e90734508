"""Rules that compute something in another way: what they make of a plan, and that answers stay."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.optimizer.eager import aggregate_early
from engine.optimizer.fusion import fuse
from engine.optimizer.predicates import exclusive
from engine.optimizer.pruning import prune
from engine.optimizer.reuse import reuse_similar
from engine.optimizer.rollup import cascade_rollups
from engine.optimizer.sharing import intern, shared
from operators import build
from operators.expr import Aggregate, Expr
from operators.printer import format_plan
from operators.rel import Aggregation, Rel, Scan, walk
from tests.engine.optimizer.conftest import Generous, scan

FUNCTIONS = ["count", "sum", "min", "max", "avg"]
quick = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def col(rel: Rel, name: str) -> Expr:
    return build.col(rel.schema, name)


def compare(rel: Rel, name: str, function: str, value: Any) -> Expr:
    return build.call(function, col(rel, name), build.lit(value))


def distinct_scans(plan: Rel, name: str) -> int:
    return len([r for r in _unique(plan) if isinstance(r, Scan) and r.source.name == name])  # type: ignore[attr-defined]


def _unique(plan: Rel) -> list[Rel]:
    return list({id(r): r for r in walk(plan)}.values())


# Strategies


@st.composite
def predicates(draw: Any, rel: Rel) -> Expr | None:
    terms = []
    for name, values in (("store", (0, 3)), ("year", (1998, 2001)), ("count", (0, 99))):
        if name in rel.schema.names and draw(st.booleans()):
            function = draw(st.sampled_from(["equal", "less", "greater_equal", "not_equal"]))
            terms.append(compare(rel, name, function, draw(st.integers(*values))))
    return build.conjunction(terms)


@st.composite
def measures(draw: Any, rel: Rel, names: list[str], *, distinct: bool = False) -> Aggregate:
    function = draw(st.sampled_from(FUNCTIONS))
    if function == "count" and draw(st.booleans()):
        return build.aggregate("count")
    return build.aggregate(
        function,
        col(rel, draw(st.sampled_from(names))),
        distinct=distinct and draw(st.booleans()),
        filter=draw(predicates(rel)) if draw(st.integers(0, 3)) == 0 else None,
    )


@st.composite
def variants(draw: Any) -> list[Rel]:
    """Aggregations of one shape with other filters, measures and columns."""
    joined = draw(st.booleans())
    keys = draw(st.lists(st.sampled_from(["store", "year", "item"]), max_size=2, unique=True))
    window = draw(st.booleans()) and bool(keys)
    made = []
    for _ in range(draw(st.integers(2, 4))):
        below = scan("sales")
        predicate = draw(predicates(below))
        if predicate is not None:
            below = build.filter(below, predicate)
        if joined:
            items = scan("items")
            if draw(st.booleans()):
                items = build.filter(
                    items, compare(items, "class", "equal", draw(st.sampled_from("xy")))
                )
            below = build.join(below, items, on=[(0, 0)])
        wanted = draw(
            st.lists(
                measures(below, ["amount", "weight", "count"], distinct=True),
                min_size=1,
                max_size=3,
            )
        )
        rel: Rel = build.aggregation(below, [col(below, k) for k in keys], wanted)
        if window:
            first = build.col(rel.schema, 0)
            every = [build.col(rel.schema, i) for i in range(len(rel.schema))]
            rel = build.project(rel, [*every, build.window("count", partition_by=[first])])
        made.append(rel)
    return made


# Fusion


@quick
@given(rels=variants())
def test_each_member_can_be_had_from_the_fused_relation(
    same_answer: Callable[[Rel, Rel], None], rels: list[Rel]
) -> None:
    graph = intern(build.set_operation("union", [_counted(r) for r in rels], all=True))
    members = [c.input for c in graph.inputs()]  # type: ignore[attr-defined]
    fused = fuse(members)
    if fused is None:
        return
    for i, member in enumerate(members):
        same_answer(member, prune(fused.member(i, member.schema)))


def _counted(rel: Rel) -> Rel:
    return build.aggregation(rel, [], [build.aggregate("count")])


@quick
@given(rels=variants())
def test_reuse_keeps_answers(same_answer: Callable[[Rel, Rel], None], rels: list[Rel]) -> None:
    plan: Rel = rels[0]
    for rel in rels[1:]:
        plan = build.join(plan, rel, "cross")
    plan = intern(_counted(plan) if len(rels) > 2 else plan)
    same_answer(plan, prune(reuse_similar(plan, Generous())))


def test_scalar_aggregates_over_bands_become_one_grouping() -> None:
    sales = scan("sales")
    bands = []
    for low, high in ((0, 19), (20, 39), (40, 59)):
        terms = [
            compare(sales, "count", "greater_equal", low),
            compare(sales, "count", "less_equal", high),
        ]
        band = build.filter(sales, build.call("and", *terms))
        bands.append(
            build.aggregation(
                band, [], [build.aggregate("avg", col(band, "amount")), build.aggregate("count")]
            )
        )
    plan = build.join(build.join(bands[0], bands[1], "cross"), bands[2], "cross")
    fused = prune(reuse_similar(intern(plan), Generous()))
    assert distinct_scans(fused, "sales") == 1
    grouped = [r for r in _unique(fused) if isinstance(r, Aggregation) and r.keys]
    assert len(grouped) == 1
    assert format_plan(grouped[0]) == (
        "Aggregate [avg(amount), count(*)] by [CASE WHEN count >= 0 AND count <= 19 THEN 0::TINYINT"
        " WHEN count >= 20 AND count <= 39 THEN 1::TINYINT"
        " WHEN count >= 40 AND count <= 59 THEN 2::TINYINT END]\n"
        "  Filter count >= 0 AND count <= 19 OR count >= 20 AND count <= 39"
        " OR count >= 40 AND count <= 59\n"
        "    Scan input sales [amount, count]"
    )


def test_years_of_one_cte_are_grouped_together() -> None:
    def year(which: int) -> Rel:
        sales = scan("sales")
        kept = build.filter(sales, compare(sales, "year", "equal", which))
        keys = [col(kept, "item"), col(kept, "year")]
        return build.aggregation(kept, keys, [build.aggregate("sum", col(kept, "amount"))])

    plan = intern(build.join(year(1999), year(2000), on=[(0, 0)]))
    fused = reuse_similar(plan, Generous())
    assert [type(r).__name__ for r in _unique(fused)].count("Aggregation") == 1
    assert len(shared(prune(fused))) == 1
    assert 'Filter "year" = 1999 OR "year" = 2000' in format_plan(fused)


def test_what_may_fail_is_not_moved_past_a_filter() -> None:
    def member(which: str) -> Rel:
        items = scan("items")
        kept = build.filter(items, compare(items, "class", "equal", which))
        number = build.cast(col(kept, "name"), pa.int32())
        return build.aggregation(build.project(kept, [number]), [], [build.aggregate("count")])

    assert fuse([intern(member("x")), intern(member("y"))]) is None


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ([("count", "less", 5)], [("count", "greater_equal", 5)], True),
        ([("count", "less_equal", 5)], [("count", "greater_equal", 5)], False),
        ([("weight", "less", 5.0)], [("weight", "greater_equal", 5.0)], False),
        ([("store", "equal", 1)], [("store", "equal", 2)], True),
        ([("store", "equal", 1)], [("year", "equal", 2000)], False),
        ([("store", "equal", 1), ("year", "less", 2000)], [("year", "equal", 2001)], True),
        ([("store", "not_equal", 1)], [("store", "equal", 1)], False),
    ],
)
def test_exclusive_predicates(one: list[Any], other: list[Any], apart: bool) -> None:
    sales = scan("sales")
    terms = [[compare(sales, *t) for t in side] for side in (one, other)]
    assert exclusive(terms) is apart


# Aggregation before joins


@quick
@given(data=st.data())
def test_early_aggregation_keeps_answers(
    same_answer: Callable[[Rel, Rel], None], data: st.DataObject
) -> None:
    draw = data.draw
    sales = scan("sales")
    predicate = draw(predicates(sales))
    below: Rel = sales if predicate is None else build.filter(sales, predicate)
    width = len(below.schema)
    below = build.join(below, scan("items"), on=[(0, 0)])
    if draw(st.booleans()):
        below = build.join(below, scan("items"), on=[(1, 0)])
    if draw(st.booleans()):
        below = build.filter(
            below, build.call("not_equal", build.col(below.schema, width + 1), build.lit("c"))
        )
    names = ["store", "year", width + 1, width + 2, "weight"]
    keys = [
        build.col(below.schema, k)
        for k in draw(st.lists(st.sampled_from(names), max_size=3, unique=True))
    ]
    wanted = draw(st.lists(measures(below, ["amount", "weight", "count"]), max_size=3))
    sets = None
    if len(keys) > 1 and draw(st.booleans()):
        sets = [tuple(range(n)) for n in range(len(keys), -1, -1)]
    plan: Rel = build.aggregation(below, keys, wanted, grouping_sets=sets)
    if not (keys or wanted):
        return
    early = aggregate_early(intern(plan), Generous())
    same_answer(plan, prune(early))
    same_answer(plan, prune(cascade_rollups(early, Generous())))


def test_rows_are_aggregated_by_the_join_key_first() -> None:
    joined = build.join(scan("sales"), scan("items"), on=[(0, 0)])
    plan = build.aggregation(
        joined, [col(joined, "name")], [build.aggregate("avg", col(joined, "amount"))]
    )
    early = prune(aggregate_early(intern(plan), Generous()))
    assert format_plan(early) == (
        "Project [name, CAST(sum#1 AS DOUBLE) / CAST(sum#2 AS DOUBLE) AS avg0]\n"
        "  Aggregate [sum(sum), sum(count)] by [name]\n"
        "    Project [sum, count, name]\n"
        '      Join inner on item = "key"\n'
        "        Aggregate [sum(amount), count(amount)] by [item]\n"
        "          Scan input sales [item, amount]\n"
        "        Scan input items [key, name]"
    )


@pytest.mark.parametrize("function", ["count", "sum"])
def test_distinct_aggregates_stay_where_they_are(function: str) -> None:
    joined = build.join(scan("sales"), scan("items"), on=[(0, 0)])
    measure = build.aggregate(function, col(joined, "count"), distinct=True)
    plan = intern(build.aggregation(joined, [col(joined, "name")], [measure]))
    assert aggregate_early(plan, Generous()) is plan


# Grouping sets


@quick
@given(data=st.data())
def test_cascades_keep_answers(
    same_answer: Callable[[Rel, Rel], None], data: st.DataObject
) -> None:
    draw = data.draw
    below: Rel = scan(draw(st.sampled_from(["sales", "none"])))
    keys = [col(below, k) for k in ("store", "year", "item")]
    every = [s for n in range(1, 8) for s in [tuple(i for i in range(3) if n >> i & 1)]]
    chosen = draw(st.lists(st.sampled_from([(), *every]), min_size=2, max_size=5, unique=True))
    sets = [(0, 1, 2), *(s for s in chosen if s != (0, 1, 2))]
    wanted = draw(st.lists(measures(below, ["amount", "weight", "count"]), max_size=3))
    plan = build.aggregation(below, keys, wanted, grouping_sets=sets)
    same_answer(plan, prune(cascade_rollups(intern(plan), Generous())))


def test_a_rollup_groups_rows_once() -> None:
    sales = scan("sales")
    keys = [col(sales, k) for k in ("store", "year")]
    sets = [(0, 1), (0,), ()]
    total = build.aggregate("sum", col(sales, "amount"))
    plan = cascade_rollups(
        intern(build.aggregation(sales, keys, [total], grouping_sets=sets)), Generous()
    )
    assert distinct_scans(plan, "sales") == 1
    levels = [r for r in _unique(plan) if isinstance(r, Aggregation)]
    assert sorted(len(level.keys) for level in levels) == [0, 1, 2]
    assert all(isinstance(level.input, Aggregation) for level in levels if len(level.keys) < 2)


def test_amounts_stay_exact() -> None:
    """Sums of partial sums have the type of sums."""
    sales = scan("sales")
    total = build.aggregate("sum", build.lit(Decimal("0.01")))
    plan = build.aggregation(
        sales, [col(sales, "store"), col(sales, "year")], [total], grouping_sets=[(0, 1), (0,), ()]
    )
    assert cascade_rollups(intern(plan), Generous()).schema.types == plan.schema.types
