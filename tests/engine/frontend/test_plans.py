"""Shapes of plans: what the optimizer and the kernels rely on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from operators.expr import Call, Cast, Column, Expr, ScalarSubquery
from operators.functions import aggregate_type, scalar_type
from operators.rel import (
    Aggregation,
    Filter,
    Join,
    Limit,
    Project,
    Rel,
    Scan,
    Sort,
    Values,
    walk,
)

if TYPE_CHECKING:
    from conftest import Harness, Tpcds


def find(plan: Rel, kind: type[Rel]) -> list[Rel]:
    return [r for r in walk(plan) if isinstance(r, kind)]


def the_join(harness: Harness, sql: str) -> Join:
    (join,) = find(harness.plan(sql), Join)
    assert isinstance(join, Join)
    return join


def expressions(rel: Rel) -> Iterator[Expr]:
    match rel:
        case Scan(predicate=predicate) if predicate is not None:
            yield predicate
        case Filter(predicate=predicate):
            yield predicate
        case Project(exprs=exprs):
            yield from exprs
        case Join(condition=condition) if condition is not None:
            yield condition
        case Sort(keys=keys):
            yield from (k.expr for k in keys)
        case Aggregation(keys=keys, measures=measures):
            yield from keys
            yield from (a for m in measures for a in m.args)


def inner(expr: Expr) -> Iterator[Expr]:
    yield expr
    for child in expr.children():
        yield from inner(child)


def test_equal_columns_become_keys(harness: Harness) -> None:
    join = the_join(harness, "select t.s, u.name from t join u on t.a = u.a")
    assert len(join.left_keys) == len(join.right_keys) == 1
    assert join.null_equal == (False,)
    assert join.condition is None
    assert join.left.schema[join.left_keys[0]].name == "a"


def test_keys_of_different_integers_are_cast_to_one_type(harness: Harness) -> None:
    join = the_join(harness, "select t.s from t join u on t.a = u.k")
    left = join.left.schema[join.left_keys[0]].type
    right = join.right.schema[join.right_keys[0]].type
    assert left == right == pa.int64()


def test_computed_keys_become_columns_and_do_not_stay(harness: Harness) -> None:
    plan = harness.plan("select t.s, u.name from t join u on t.a + 1 = u.a * 2 and t.b > u.k")
    (join,) = find(plan, Join)
    assert isinstance(join, Join)
    assert isinstance(join.left, Project)
    assert len(join.left_keys) == 1
    assert isinstance(join.condition, Call)
    assert join.condition.function == "greater"
    assert plan.schema.names == ("s", "name")


def test_null_equal_keys(harness: Harness) -> None:
    join = the_join(harness, "select t.s from t join u on t.a is not distinct from u.a")
    assert join.null_equal == (True,)


def test_what_is_not_an_equality_stays_a_condition(harness: Harness) -> None:
    join = the_join(harness, "select t.s from t join u on t.a < u.a or t.b = u.a")
    assert join.left_keys == ()
    assert join.condition is not None


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("select t.s from t, u", "cross"),
        ("select t.s from t left join u on t.a = u.a", "left"),
        ("select t.s, u.name from t full join u on t.a = u.a", "full"),
        ("select s from t where a in (select a from u)", "semi"),
        ("select s from t where not exists (select 1 from u where u.a = t.a)", "anti"),
        ("select s from t where b = 0 or exists (select 1 from u where u.a = t.a)", "mark"),
    ],
)
def test_join_kinds(harness: Harness, sql: str, kind: str) -> None:
    assert the_join(harness, sql).kind == kind


def test_rollup_repeats_no_key(harness: Harness) -> None:
    plan = harness.plan("select bo, b, count(*), grouping(b) from t group by rollup(bo, b)")
    (group,) = find(plan, Aggregation)
    assert isinstance(group, Aggregation)
    assert len(group.keys) == 2
    assert group.grouping_sets is not None
    assert sorted(group.grouping_sets, key=len) == [(), (0,), (0, 1)]
    assert group.schema[2].type == pa.int64()
    assert len(group.schema) == len(group.keys) + 1 + len(group.measures)


def test_scans_read_only_the_columns_that_are_used(harness: Harness) -> None:
    (scan,) = find(harness.plan("select a + 1 from t where b > 0"), Scan)
    assert isinstance(scan, Scan)
    assert set(scan.schema.names) <= {"a", "b"}
    assert len(scan.source_schema) == 11


def test_limit_over_sort(harness: Harness) -> None:
    plan = harness.plan("select a from t order by b limit 3 offset 2")
    (limit,) = find(plan, Limit)
    assert isinstance(limit, Limit)
    assert (limit.count, limit.offset) == (3, 2)
    assert find(limit, Sort)


def test_an_empty_table_is_still_scanned(harness: Harness) -> None:
    assert find(harness.plan("select a from n"), Scan)


def test_a_contradiction_is_no_rows(harness: Harness) -> None:
    (values,) = find(harness.plan("select a, s from t where 1 = 0"), Values)
    assert isinstance(values, Values)
    assert values.rows == ()
    assert values.schema.types == (pa.int32(), pa.string())


def test_uncorrelated_subqueries_stay_expressions(harness: Harness) -> None:
    plan = harness.plan("select s from t where a > (select avg(a) from t)")
    found = [e for r in walk(plan) for x in expressions(r) for e in inner(x)]
    assert any(isinstance(e, ScalarSubquery) and e.type == pa.float64() for e in found)


def test_constants_are_folded_by_duckdb(harness: Harness) -> None:
    plan = harness.plan("select 7 / 2 as q, cast(2.5 as int) as i, md5('a') as m")
    assert isinstance(plan, Project)
    assert not [e for x in plan.exprs for e in inner(x) if isinstance(e, Call | Cast)]


def test_result_names_and_types_are_duckdbs(harness: Harness) -> None:
    plan = harness.plan("select sum(a), count(*), avg(d), max(s), 1.50 as m from t")
    assert plan.schema.names == ("sum(a)", "count_star()", "avg(d)", "max(s)", "m")
    assert plan.schema.types == (
        pa.decimal128(38, 0),
        pa.int64(),
        pa.float64(),
        pa.string(),
        pa.decimal32(3, 2),
    )


@pytest.mark.parametrize("number", range(1, 100))
def test_types_agree_with_the_vocabulary(tpcds: Tpcds, number: int) -> None:
    for rel in walk(tpcds.harness.plan(tpcds.queries[number])):
        for top in expressions(rel):
            for e in inner(top):
                if isinstance(e, Call):
                    assert scalar_type(e.function, e.args) == e.type, e.function
        if isinstance(rel, Aggregation):
            for m in rel.measures:
                assert aggregate_type(m.function, m.args) == m.type, m.function
        if isinstance(rel, Join):
            for one, other in zip(rel.left_keys, rel.right_keys, strict=True):
                assert rel.left.schema[one].type == rel.right.schema[other].type


def test_planning_is_repeatable(tpcds: Tpcds) -> None:
    for number in (1, 14, 67):
        plan = tpcds.harness.plan(tpcds.queries[number])
        assert plan == tpcds.harness.plan(tpcds.queries[number])


def test_columns_are_positions_of_their_input(tpcds: Tpcds) -> None:
    for rel in walk(tpcds.harness.plan(tpcds.queries[64])):
        if isinstance(rel, Project | Filter):
            width = len(rel.input.schema)
            used = [e for x in expressions(rel) for e in inner(x) if isinstance(e, Column)]
            assert all(0 <= c.index < width for c in used)
            assert all(c.type == rel.input.schema[c.index].type for c in used)


def test_threads_may_plan_at_once(harness: Harness) -> None:
    failures: list[BaseException] = []

    def work(n: int) -> None:
        try:
            for i in range(5):
                plan = harness.plan(f"select a + {n * 100 + i} as v from t where b > {i}")
                assert plan.schema.names == ("v",)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
