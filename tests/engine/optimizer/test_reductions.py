"""Semi-joins that reduce big sides, and what stays shared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine.optimizer.semijoins import reduce_semi_joins
from engine.optimizer.sharing import intern, shared, unshare
from operators import build
from operators.rel import Aggregation, Filter, Join, Rel
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


def test_filtered_scans_are_copied_for_each_reader_and_groups_are_not() -> None:
    sales = scan("sales")
    kept = build.filter(sales, build.call("is_not_null", build.col(sales.schema, 0)))
    groups = build.aggregation(kept, [build.col(kept.schema, 0)], [])
    joined = build.join(
        build.join(kept, groups, on=[(0, 0)]), build.join(kept, groups, on=[(5, 0)]), "cross"
    )
    plan = intern(joined)
    rows = Generous().rows
    kinds = {type(r) for r in _shared(unshare(plan, rows))}
    assert Aggregation in kinds
    assert Filter not in kinds


def _shared(plan: Rel) -> list[Rel]:
    several = shared(plan)
    found: dict[int, Rel] = {}

    def visit(rel: Rel) -> None:
        if id(rel) in several:
            found[id(rel)] = rel
        for below in rel.inputs():
            visit(below)

    visit(plan)
    return list(found.values())
