"""Left joins that are anti joins, and the order of joins that are not inner."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from engine.optimizer.expressions import every_relation
from engine.optimizer.joinorder import order_joins
from engine.optimizer.outerjoins import anti_joins
from engine.optimizer.sharing import intern
from operators import build
from operators.expr import Expr
from operators.rel import Filter, Join, Project, Rel
from tests.engine.optimizer.conftest import DATA, scan


class Rows:
    """Estimates: the rows that there are; a filter keeps a tenth, also of what it joins."""

    def rows(self, rel: Rel) -> float:
        source = getattr(rel, "source", None)
        if source is not None:
            return float(DATA[source.name].num_rows)
        sizes = [self.rows(i) for i in rel.inputs()]
        if isinstance(rel, Filter):
            return sizes[0] / 10
        if isinstance(rel, Join) and rel.kind in ("semi", "anti"):
            return sizes[0] / 2
        filtered = isinstance(rel, Join) and isinstance(rel.right, Filter)
        return max(sizes) / (10 if filtered else 1)


def is_null(rel: Rel, column: int) -> Expr:
    return build.call("is_null", build.col(rel.schema, column))


def kinds(plan: Rel) -> list[str]:
    return [r.kind for r in every_relation(plan) if isinstance(r, Join)]


def left_join(condition: bool = False) -> Rel:
    """Sales and their returns, by item and store."""
    sales, returns = scan("sales"), scan("returns")
    on = None
    if condition:
        amounts = build.join(sales, returns, "cross").schema
        on = build.call("less", build.col(amounts, 3), build.col(amounts, 10))
    return build.join(sales, returns, "left", on=[(0, 0), (1, 1)], condition=on)


@pytest.mark.parametrize("condition", [False, True])
@pytest.mark.parametrize("key", [7, 8])
def test_what_has_no_partner_is_an_anti_join(
    same_answer: Callable[[Rel, Rel], None], condition: bool, key: int
) -> None:
    joined = left_join(condition)
    rest = build.call("greater", build.col(joined.schema, 5), build.lit(50))
    padded = build.call("is_null", build.col(joined.schema, 9))
    plan = build.filter(joined, build.call("and", rest, is_null(joined, key), padded))
    rewritten = anti_joins(plan)
    assert kinds(rewritten) == ["anti"]
    same_answer(plan, rewritten)


def test_columns_chosen_above_the_join_do_not_hide_it(
    same_answer: Callable[[Rel, Rel], None],
) -> None:
    joined = left_join()
    chosen = build.project(joined, [build.col(joined.schema, i) for i in (8, 0, 10)])
    plan = build.filter(chosen, is_null(chosen, 0))
    rewritten = anti_joins(plan)
    assert kinds(rewritten) == ["anti"]
    same_answer(plan, rewritten)


def test_a_column_that_may_be_null_in_a_partner_says_nothing() -> None:
    joined = left_join()
    for column in (0, 10):  # a key of the left side, no key of the right side
        plan = build.filter(joined, is_null(joined, column))
        assert anti_joins(plan) is plan


def test_keys_that_match_as_nulls_say_nothing() -> None:
    joined = build.join(scan("sales"), scan("returns"), "left", on=[(0, 0)], null_equal=[True])
    plan = build.filter(joined, is_null(joined, 7))
    assert anti_joins(plan) is plan


def test_other_joins_and_other_filters_stay() -> None:
    full = build.join(scan("sales"), scan("returns"), "full", on=[(0, 0)])
    joined = left_join()
    either = build.call("or", is_null(joined, 7), is_null(joined, 5))
    for plan in (build.filter(full, is_null(full, 7)), build.filter(joined, either)):
        assert anti_joins(plan) is plan


@pytest.mark.parametrize("kind", ["semi", "anti", "mark", "left"])
def test_a_filtering_table_is_joined_before_a_look_up(
    same_answer: Callable[[Rel, Rel], None], kind: Any
) -> None:
    sales, items = scan("sales"), scan("items")
    wanted = build.filter(items, build.call("equal", build.col(items.schema, 1), build.lit("a")))
    looked_up = build.join(sales, scan("returns"), kind, on=[(1, 1)])
    plan = intern(build.join(looked_up, wanted, on=[(0, 0)]))
    ordered = order_joins(plan, Rows())
    assert kinds(ordered) == [kind, "inner"]
    same_answer(plan, ordered)


@pytest.mark.parametrize("kind", ["semi", "anti", "mark", "left"])
def test_conditions_on_what_a_look_up_adds_come_after_it(
    same_answer: Callable[[Rel, Rel], None], kind: Any
) -> None:
    sales, returns, items = scan("sales"), scan("returns"), scan("items")
    both = build.join(sales, returns, "cross").schema
    on = build.call("less", build.col(both, 5), build.col(both, 12))
    plan: Rel = build.join(sales, returns, kind, on=[(0, 0)], condition=on)
    if kind == "mark":
        plan = build.filter(plan, build.col(plan.schema, 7))
    elif kind == "left":
        fewer = build.call("greater", build.col(plan.schema, 12), build.col(plan.schema, 5))
        plan = build.filter(plan, build.call("or", is_null(plan, 12), fewer))
        plan = build.join(plan, scan("none"), "left", on=[(7, 0)])
    plan = build.join(plan, items, on=[(0, 0)])
    if kind == "left":
        # An equality with a column that the left join adds.
        stores = build.aggregation(returns, [build.col(returns.schema, 1)], [])
        plan = build.join(plan, stores, on=[(8, 0)])
    plan = intern(plan)
    same_answer(plan, order_joins(plan, Rows()))


def test_random_chains_keep_their_answers(same_answer: Callable[[Rel, Rel], None]) -> None:
    rng = random.Random(7)
    for _ in range(40):
        plan = scan("sales")
        for _ in range(rng.randrange(2, 5)):
            kind: Any = rng.choice(["inner", "semi", "anti", "mark", "left"])
            other = scan(rng.choice(["items", "none"] if kind == "inner" else ["items", "returns"]))
            left = rng.choice([0, 5])
            plan = build.join(plan, other, kind, on=[(left, 0)])
            if rng.random() < 0.4:
                column = rng.randrange(len(plan.schema))
                plan = build.filter(plan, build.call("is_not_null", build.col(plan.schema, column)))
        plan = intern(anti_joins(plan))
        ordered = order_joins(plan, Rows())
        assert isinstance(ordered, Project | Join | Filter)
        same_answer(plan, ordered)
