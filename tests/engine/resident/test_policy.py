"""Which columns go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.resident.policy import Sieve


def filled(*sizes: int) -> Sieve[int]:
    sieve: Sieve[int] = Sieve()
    for key, size in enumerate(sizes):
        sieve.add(key, size, 1.0)
    return sieve


def test_the_oldest_unused_goes_first() -> None:
    assert filled(10, 10, 10).victims(15, ()) == [0, 1]


def test_what_was_used_has_another_chance() -> None:
    sieve = filled(10, 10, 10)
    sieve.hit(0)
    assert sieve.victims(10, ()) == [1]


def test_pinned_keys_stay() -> None:
    sieve = filled(10, 10)
    assert sieve.victims(10, {0}) == [1]
    assert sieve.victims(20, {0}) is None


def test_dear_columns_outlive_cheap_ones() -> None:
    sieve: Sieve[str] = Sieve()
    sieve.add("text", 10, 9.0)
    sieve.add("number", 10, 0.1)
    sieve.add("other", 10, 0.1)
    sieve.add("fourth", 10, 0.1)
    for key in ("text", "number", "other", "fourth"):
        sieve.hit(key)
    assert sieve.victims(30, ()) == ["number", "other", "fourth"]


def test_a_key_is_added_once() -> None:
    sieve = filled(10)
    with pytest.raises(ValueError, match="already"):
        sieve.add(0, 1, 1.0)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "hit", "free", "remove"]),
            st.integers(0, 8),
            st.integers(1, 50),
            st.sets(st.integers(0, 8), max_size=3),
        ),
        max_size=60,
    )
)
def test_victims_free_what_is_wanted(steps: list[tuple[str, int, int, set[int]]]) -> None:
    sieve: Sieve[int] = Sieve()
    sizes: dict[int, int] = {}
    for what, key, size, pinned in steps:
        if what == "add" and key not in sizes:
            sieve.add(key, size, float(key))
            sizes[key] = size
        elif what == "hit" and key in sizes:
            sieve.hit(key)
        elif what == "remove" and key in sizes:
            assert sieve.remove(key) == sizes.pop(key)
        elif what == "free":
            victims = sieve.victims(size, pinned)
            free = sum(s for k, s in sizes.items() if k not in pinned)
            assert (victims is None) == (free < size)
            if victims is not None:
                assert not pinned & set(victims)
                assert len(set(victims)) == len(victims)
                assert sum(sizes[v] for v in victims) >= size
                for victim in victims:
                    sieve.remove(victim)
                    del sizes[victim]
        assert sieve.bytes == sum(sizes.values())
        assert len(sieve) == len(sizes)
