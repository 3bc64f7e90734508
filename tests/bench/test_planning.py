"""Which queries a planner skips, and that failures are none of them."""

from __future__ import annotations

import pytest

from bench.planning import Planner, _label
from tpcds.queries import query_text


class Picky(Planner):
    """Refuses query 2 and fails at query 3."""

    refusals = (KeyError,)

    def plan(self, sql: str) -> object:
        if sql == query_text(2):
            raise KeyError("not this one")
        if sql == query_text(3):
            raise TypeError("a mistake in the planner")
        return None


def test_refused_queries_are_left_out_and_named() -> None:
    planned = sorted(map(int, Picky().plan_all([1, 2, 4])))
    assert planned == [1, 4]
    assert _label("Picky", [1, 2, 4], planned) == "Picky, 2 of 3 queries (not q2)"
    assert _label("Picky", [1, 4], planned) == "Picky, 2 of 2 queries"


def test_a_planner_that_fails_is_not_one_that_refuses() -> None:
    with pytest.raises(TypeError):
        Picky().plan_all([1, 3])
