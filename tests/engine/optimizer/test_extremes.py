"""Conditions of semi, anti and mark joins that the least and the greatest value decide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine.optimizer.extremes import by_extremes
from engine.optimizer.semijoins import reduce_semi_joins
from engine.optimizer.sharing import intern
from operators import build
from operators.errors import UnsupportedPlan
from operators.expr import Expr
from operators.polars import lower as lower_to_polars
from operators.rel import Aggregation, Join, Rel, walk
from operators.schema import Schema
from tests.engine.optimizer.conftest import Generous, scan

ITEM, STORE, YEAR, AMOUNT, WEIGHT, COUNT, DAY = range(7)
COMPARISONS = ["not_equal", "less", "less_equal", "greater", "greater_equal"]


def joined(
    kind: Any, condition: Callable[[Callable[[int], Expr], Callable[[int], Expr]], Expr]
) -> Join:
    """Sales with returns of one item (or none) that meet a condition."""
    sales, returns = scan("sales"), scan("returns")
    both = Schema((*sales.schema, *returns.schema))
    width = len(sales.schema)
    found = build.join(
        sales,
        returns,
        kind,
        on=[(ITEM, ITEM)],
        condition=condition(lambda i: build.col(both, i), lambda i: build.col(both, width + i)),
    )
    assert isinstance(found, Join)
    return found


@pytest.mark.parametrize("kind", ["semi", "anti", "mark"])
@pytest.mark.parametrize("comparison", COMPARISONS)
@pytest.mark.parametrize("column", [STORE, AMOUNT, DAY, COUNT])
@pytest.mark.parametrize("turned", [False, True])
def test_one_partner_decides(
    same_answer: Callable[[Rel, Rel], None], kind: Any, comparison: str, column: int, turned: bool
) -> None:
    plan = joined(
        kind,
        lambda ours, theirs: build.call(
            comparison, *(p(column) for p in ((theirs, ours) if turned else (ours, theirs)))
        ),
    )
    found = by_extremes(plan)
    assert isinstance(found.right, Aggregation)
    assert len(found.right.measures) == (2 if comparison == "not_equal" else 1)
    same_answer(plan, found)


def test_conditions_of_the_right_side_go_below(same_answer: Callable[[Rel, Rel], None]) -> None:
    plan = joined(
        "semi",
        lambda ours, theirs: build.call(
            "and",
            build.call("less", theirs(YEAR), build.lit(2000)),
            build.call("not_equal", ours(COUNT), theirs(COUNT)),
        ),
    )
    found = by_extremes(plan)
    assert found is not plan
    same_answer(plan, found)


@pytest.mark.parametrize("kind", ["semi", "anti", "mark"])
def test_several_keys_and_expressions(same_answer: Callable[[Rel, Rel], None], kind: Any) -> None:
    sales, returns = scan("sales"), scan("returns")
    both = Schema((*sales.schema, *returns.schema))
    width = len(sales.schema)
    later = build.call("add", build.col(both, width + COUNT), build.col(both, width + YEAR))
    earlier = build.call("add", build.col(both, COUNT), build.col(both, YEAR))
    plan = build.join(
        sales,
        returns,
        kind,
        on=[(STORE, STORE), (YEAR, YEAR)],
        condition=build.call("not_equal", later, earlier),
    )
    assert isinstance(plan, Join)
    found = by_extremes(plan)
    assert found is not plan
    same_answer(plan, found)


@pytest.mark.parametrize(
    "condition",
    [
        lambda ours, theirs: build.call("not_equal", ours(WEIGHT), theirs(WEIGHT)),
        lambda ours, theirs: build.call("equal", ours(STORE), theirs(STORE)),
        lambda ours, theirs: build.call("less", ours(STORE), build.lit(2, ours(STORE).type)),
        lambda ours, theirs: build.call(
            "less", build.call("add", ours(COUNT), theirs(COUNT)), ours(COUNT)
        ),
        lambda ours, theirs: build.call(
            "and",
            build.call("less", ours(COUNT), theirs(COUNT)),
            build.call("less", ours(DAY), theirs(DAY)),
        ),
        lambda ours, theirs: build.call(
            "or",
            build.call("less", ours(COUNT), theirs(COUNT)),
            build.call("less", theirs(DAY), ours(DAY)),
        ),
    ],
)
def test_what_one_partner_does_not_decide_stays(condition: Any) -> None:
    plan = joined("semi", condition)
    assert by_extremes(plan) is plan


def test_it_is_done_where_the_right_side_was_reduced_and_polars_can_then_compute_it(
    same_answer: Callable[[Rel, Rel], None],
) -> None:
    items, sales = scan("items"), scan("sales")
    both = Schema((*items.schema, *sales.schema))
    differs = build.call("not_equal", build.col(both, 0), build.col(both, len(items.schema) + YEAR))
    plan = intern(build.join(items, sales, "semi", on=[(0, ITEM)], condition=differs))
    with pytest.raises(UnsupportedPlan, match="a condition of a semi join"):
        lower_to_polars(plan)
    found = reduce_semi_joins(plan, Generous())
    assert sum(isinstance(r, Aggregation) for r in walk(found)) == 1
    assert sum(isinstance(r, Join) and r.kind == "semi" for r in walk(found)) == 2
    same_answer(plan, found)
    lower_to_polars(found)
