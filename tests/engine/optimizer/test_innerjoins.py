"""Outer joins of which filled rows do not survive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.optimizer.expressions import every_relation
from engine.optimizer.innerjoins import inner_joins
from engine.optimizer.sharing import intern
from operators import build
from operators.expr import Expr
from operators.rel import Join, Rel
from tests.engine.optimizer.conftest import scan

OUTER = ["left", "right", "full"]


def outer(kind: Any) -> Rel:
    """Sales beside items; items' columns begin at 7."""
    return build.join(scan("sales"), scan("items"), kind, on=[(0, 0)])


def kinds(plan: Rel) -> list[str]:
    return [r.kind for r in every_relation(plan) if isinstance(r, Join)]


def col(rel: Rel, at: int) -> Expr:
    return build.col(rel.schema, at)


def not_null(rel: Rel, at: int) -> Expr:
    return build.call("is_not_null", col(rel, at))


SALES, ITEMS = 5, 8
"""A column of each side: how many, and the name."""


@pytest.mark.parametrize(
    ("kind", "columns", "wanted"),
    [
        ("left", [ITEMS], "inner"),
        ("left", [SALES], "left"),
        ("right", [SALES], "inner"),
        ("right", [ITEMS], "right"),
        ("full", [SALES], "left"),
        ("full", [ITEMS], "right"),
        ("full", [SALES, ITEMS], "inner"),
    ],
)
def test_a_condition_on_a_side(
    same_answer: Callable[[Rel, Rel], None], kind: str, columns: list[int], wanted: str
) -> None:
    plan = outer(kind)
    for column in columns:
        plan = build.filter(plan, not_null(plan, column))
    simplified = inner_joins(intern(plan))
    assert kinds(simplified) == [wanted]
    same_answer(plan, simplified)


@pytest.mark.parametrize(
    "keeps",
    [
        lambda r: build.call("is_null", col(r, ITEMS)),
        lambda r: build.call("or", not_null(r, ITEMS), not_null(r, SALES)),
        lambda r: build.call(
            "equal", build.call("coalesce", col(r, ITEMS), build.lit("a")), build.lit("a")
        ),
        lambda r: build.call(
            "is_not_distinct_from", col(r, ITEMS), build.lit(None, build.lit("a").type)
        ),
        lambda r: build.call("not", build.call("and", not_null(r, ITEMS), not_null(r, SALES))),
    ],
)
def test_conditions_that_nulls_meet_change_nothing(keeps: Callable[[Rel], Expr]) -> None:
    plan = outer("left")
    plan = intern(build.filter(plan, keeps(plan)))
    assert kinds(inner_joins(plan)) == ["left"]


@pytest.mark.parametrize(
    "drops",
    [
        lambda r: build.call("equal", col(r, ITEMS), build.lit("a")),
        lambda r: build.in_list(col(r, ITEMS), [build.lit("a"), build.lit("b")]),
        lambda r: build.call("like", col(r, ITEMS), build.lit("%")),
        lambda r: build.call(
            "or", not_null(r, ITEMS), build.call("less", col(r, ITEMS), build.lit("b"))
        ),
        lambda r: build.call(
            "and", not_null(r, SALES), build.call("not_equal", col(r, ITEMS), build.lit("b"))
        ),
    ],
)
def test_conditions_that_nulls_do_not_meet(
    same_answer: Callable[[Rel, Rel], None], drops: Callable[[Rel], Expr]
) -> None:
    plan = outer("left")
    plan = build.filter(plan, drops(plan))
    simplified = inner_joins(intern(plan))
    assert kinds(simplified) == ["inner"]
    same_answer(plan, simplified)


def test_keys_of_joins_above(same_answer: Callable[[Rel, Rel], None]) -> None:
    """As in TPC-DS 93, a table is joined with what an outer join brought."""
    names = build.aggregation(scan("items"), [col(scan("items"), 1)], [])
    for kind, wanted in (("inner", "inner"), ("semi", "inner"), ("anti", "left"), ("left", "left")):
        plan = build.join(outer("left"), names, kind, on=[(ITEMS, 0)])  # type: ignore[arg-type]
        simplified = inner_joins(intern(plan))
        assert kinds(simplified)[1] == wanted
        same_answer(plan, simplified)
    equal = build.join(outer("left"), names, on=[(ITEMS, 0)], null_equal=[True])
    assert kinds(inner_joins(intern(equal)))[1] == "left"


def test_through_groups_projections_and_unions(same_answer: Callable[[Rel, Rel], None]) -> None:
    left = outer("left")
    shown = build.project(left, [col(left, ITEMS), col(left, SALES)])
    both = build.set_operation("union", [shown, shown], all=True)
    groups = build.aggregation(both, [col(both, 0)], [build.aggregate("count")])
    plan = build.filter(groups, not_null(groups, 0))
    assert kinds(inner_joins(plan)) == ["left"]  # two read it
    same_answer(plan, inner_joins(plan))
    alone = build.aggregation(shown, [col(shown, 0)], [build.aggregate("count")])
    plan = build.filter(alone, not_null(alone, 0))
    simplified = inner_joins(intern(plan))
    assert kinds(simplified) == ["inner"]
    same_answer(plan, simplified)


def test_a_limit_counts_filled_rows() -> None:
    left = build.limit(outer("left"), 3)
    plan = intern(build.filter(left, not_null(left, ITEMS)))
    assert kinds(inner_joins(plan)) == ["left"]


def test_what_others_read_too_stays() -> None:
    left = outer("left")
    wanted = build.filter(left, not_null(left, ITEMS))
    plan = intern(build.set_operation("union", [wanted, left], all=True))
    assert kinds(inner_joins(plan)) == ["left"]


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_answers_stay(same_answer: Callable[[Rel, Rel], None], data: st.DataObject) -> None:
    rel: Rel = scan("sales")
    for _ in range(data.draw(st.integers(1, 3))):
        kind: Any = data.draw(st.sampled_from([*OUTER, "inner", "semi", "anti"]))
        other = scan(data.draw(st.sampled_from(["items", "returns"])))
        if data.draw(st.booleans()):
            other = build.filter(other, not_null(other, data.draw(st.integers(0, 2))))
        at = [i for i, f in enumerate(rel.schema) if str(f.type) in ("int32", "int64")]
        key = data.draw(st.sampled_from(at))
        rel = build.aggregation(rel, [col(rel, c) for c in range(len(rel.schema))], [])
        rel = build.join(
            rel, other, kind, on=[(key, 0)], null_equal=[data.draw(st.integers(0, 9)) == 0]
        )
        if data.draw(st.booleans()):
            column = data.draw(st.integers(0, len(rel.schema) - 1))
            function = data.draw(st.sampled_from(["is_not_null", "is_null"]))
            rel = build.filter(rel, build.call(function, col(rel, column)))
    rel = build.aggregation(
        rel, [], [build.aggregate("count"), build.aggregate("count", col(rel, 0))]
    )
    same_answer(rel, inner_joins(intern(rel)))
