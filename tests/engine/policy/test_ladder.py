from __future__ import annotations

import pytest

from engine.policy import POLICIES, Grain, Ladder, spilling


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("cores", [1, 2, 3, 64, 100])
@pytest.mark.parametrize("copies", [None, 1, 3])
def test_each_grain_is_finer_than_the_one_before_and_only_the_last_may_spill(
    policy: str, cores: int, copies: int | None
) -> None:
    grains = list(Ladder(policy, cores, 1 << 30, copies).rungs())  # type: ignore[arg-type]
    *climb, last = grains
    assert [g.copies for g in climb] == sorted({g.copies for g in climb})
    assert all(g.storage == 0 for g in climb)
    assert last == spilling(climb[-1])
    assert all(g.memory == 1 << 30 for g in grains)


def test_aggregate_and_auto_begin_with_the_whole_query_on_all_cores() -> None:
    assert next(Ladder("aggregate", 4, 1 << 30).rungs()) == Grain(1, 4, 1 << 30)
    assert next(Ladder("auto", 4, 1 << 30).rungs()) == Grain(1, 4, 1 << 30)


def test_disaggregate_begins_with_a_part_for_each_core() -> None:
    assert next(Ladder("disaggregate", 4, 1 << 30).rungs()) == Grain(4, 1, 1 << 30)
    assert next(Ladder("disaggregate", 1, 1 << 30).rungs()) == Grain(2, 1, 1 << 30)


def test_a_number_of_parts_that_was_asked_for_goes_before_the_policy() -> None:
    assert [g.copies for g in Ladder("auto", 2, 1, 3).rungs()][:3] == [3, 6, 12]
    assert next(Ladder("disaggregate", 2, 1, 1).rungs()) == Grain(1, 2, 1)
