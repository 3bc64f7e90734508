"""Which queries a planner skips, and that failures are none of them."""

from __future__ import annotations

import pytest

from bench.planning import Planner, Rounds, Summary, _label
from tpcds.queries import query_text


class Picky(Planner):
    """Refuses query 2 and fails at query 3."""

    refusals = (KeyError,)

    def __init__(self) -> None:
        self.texts: list[str] = []

    def plan(self, sql: str) -> object:
        self.texts.append(sql)
        if sql.startswith(query_text(2)):
            raise KeyError("not this one")
        if sql.startswith(query_text(3)):
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


def test_a_text_never_comes_again() -> None:
    planner = Picky()
    planner.plan_all([1, 4])
    planner.plan_all([1, 4])
    assert len(set(planner.texts)) == 4


def test_figures_of_the_same_rounds_share_them() -> None:
    class Counting:
        asked = 0

        def ask(self, method: str, numbers: list[int]) -> dict[str, float]:
            self.asked += 1
            return {"1": 1.0, "2": float(self.asked)}

    worker = Counting()
    rounds = Rounds(worker, [1, 2])  # type: ignore[arg-type]
    least, most = Summary(rounds, min), Summary(rounds, max)
    assert [least.seconds(1), least.seconds(2)] == [1.0, 2.0]
    assert [most.seconds(1), most.seconds(2)] == [1.0, 5.0]
    assert worker.asked == 3
