"""Semi-joins that reduce big sides, and what stays shared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine.optimizer.semijoins import reduce_semi_joins
from engine.optimizer.sharing import intern
from operators import build
from operators.rel import Join, Rel, walk
from operators.schema import Schema
from tests.engine.optimizer.conftest import Generous, scan


@pytest.mark.parametrize("kind", ["semi", "anti", "mark"])
def test_the_big_side_is_reduced_by_the_small_one(
    same_answer: Callable[[Rel, Rel], None], kind: Any
) -> None:
    plan = intern(build.join(scan("items"), scan("sales"), kind, on=[(0, 0)]))
    reduced = reduce_semi_joins(plan, Generous())
    assert isinstance(reduced, Join)
    assert isinstance(reduced.right, Join)
    assert reduced.right.kind == "semi"
    assert reduced.right.right is reduced.left
    same_answer(plan, reduced)


def test_a_small_side_to_look_into_stays() -> None:
    plan = intern(build.join(scan("sales"), scan("items"), "semi", on=[(0, 0)]))
    assert reduce_semi_joins(plan, Generous()) is plan


class Selective(Generous):
    """A semi-join leaves one row of a thousand."""

    def rows(self, rel: Rel) -> float:
        found = super().rows(rel)
        return found / 1e3 if isinstance(rel, Join) and rel.kind == "semi" else found


def chosen_items() -> Rel:
    items = scan("items")
    return build.filter(items, build.call("equal", build.col(items.schema, 2), build.lit("x")))


def averages(of: Rel) -> Rel:
    """Twice the average amount of each item of a table like `sales`."""
    groups = build.aggregation(
        of,
        [build.col(of.schema, 1), build.col(of.schema, 0)],
        [build.aggregate("avg", build.col(of.schema, 4))],
    )
    twice = build.call("multiply", build.lit(2.0), build.col(groups.schema, 2))
    return build.project(groups, [twice, build.col(groups.schema, 1)])


def semi_joins(plan: Rel) -> list[Join]:
    return [r for r in walk(plan) if isinstance(r, Join) and r.kind == "semi"]


@pytest.mark.parametrize("kind", ["inner", "left", "semi", "anti", "mark"])
@pytest.mark.parametrize("direct", [True, False])
def test_only_groups_that_a_filtered_table_names_are_made(
    same_answer: Callable[[Rel, Rel], None], kind: Any, direct: bool
) -> None:
    """Also where that table stands below another join, whose rows are many."""
    sales = scan("sales")
    wanted = chosen_items()
    if direct:
        left, key, more = wanted, 0, None
    else:
        left, key = build.join(sales, wanted, on=[(0, 0)]), 0
        width = len(left.schema)
        both = Schema(left.schema.fields + averages(sales).schema.fields)
        more = build.call("greater", build.col(both, 4), build.col(both, width))
    plan = intern(build.join(left, averages(sales), kind, on=[(key, 1)], condition=more))
    reduced = reduce_semi_joins(plan, Selective())
    (added,) = [j for j in semi_joins(reduced) if j.left.schema == sales.schema]
    assert added.left_keys == (0,)
    same_answer(plan, reduced)


@pytest.mark.parametrize("kind", ["inner", "right", "full"])
def test_groups_on_the_left_are_made_whole_where_all_are_kept(
    same_answer: Callable[[Rel, Rel], None], kind: Any
) -> None:
    plan = intern(build.join(averages(scan("sales")), chosen_items(), kind, on=[(1, 0)]))
    reduced = reduce_semi_joins(plan, Selective())
    assert len(semi_joins(reduced)) == (kind == "inner")
    same_answer(plan, reduced)


def test_groups_stay_whole_that_are_read_twice_or_by_whatever_key_is_not_theirs() -> None:
    groups = averages(scan("sales"))
    wanted = chosen_items()
    once = build.join(wanted, groups, on=[(0, 1)])
    twice = build.join(once, groups, "cross")
    other = build.join(wanted, groups, on=[(0, 0)])  # a computed column
    nulls = build.join(wanted, groups, on=[(0, 1)], null_equal=[True])
    whole = build.join(scan("items"), groups, on=[(0, 1)])  # all items
    for plan in map(intern, (twice, nulls, whole)):
        assert reduce_semi_joins(plan, Selective()) is plan
    assert reduce_semi_joins(intern(once), Selective()) is not once
    assert not semi_joins(reduce_semi_joins(intern(other), Selective()))
