"""The gang rule, and the other questions about the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openwhisk.app import (
    Application,
    ApplicationError,
    ComputeElement,
    Corunning,
    Gang,
    Limits,
    MemoryElement,
    ancestors,
    complete,
    depends_on,
    gangs,
    sinks,
    sources,
    topological_order,
    validate,
)
from openwhisk.app.gangs import conflicts
from openwhisk.app.graph import find_cycle

MAIN = "def main(params, action):\n    return {}\n"


def application(
    compute: Mapping[str, Sequence[str]],
    memory: Mapping[str, Sequence[str]] | None = None,
    exchange: Sequence[str] = (),
    copies: Mapping[str, int] | None = None,
    after: Mapping[str, Sequence[str]] | None = None,
) -> Application:
    """Build an application from `compute` (name → parents) and `memory` (name → who coruns)."""
    memory = memory or {}
    elements = [
        ComputeElement(
            name,
            MAIN,
            parents=tuple(parents),
            corunning={m: Corunning(m) for m, users in memory.items() if name in users},
            parallelism=(copies or {}).get(name, 1),
        )
        for name, parents in compute.items()
    ]
    memories = [
        MemoryElement(
            name,
            limits=Limits(cpu=0, mem=1),
            access="exchange" if name in exchange else "shared",
            parents=tuple((after or {}).get(name, ())),
        )
        for name in memory
    ]
    return complete(Application("demo", [*elements, *memories]))


def test_three_dependent_steps_around_one_memory_are_three_gangs() -> None:
    app = application(
        {"load": [], "train": ["load"], "test": ["train"]}, {"m": ["load", "train", "test"]}
    )
    assert gangs(app) == [
        Gang(("load",), ("m",), frozenset(), bound=False),
        Gang(("train",), ("m",), frozenset({"load"}), bound=False),
        Gang(("test",), ("m",), frozenset({"train"}), bound=False),
    ]


def test_elements_that_share_memory_without_dependence_start_together() -> None:
    app = application({"a": [], "b": [], "c": ["a", "b"]}, {"m": ["a", "b", "c"], "n": ["b"]})
    assert gangs(app) == [
        Gang(("a", "b"), ("m", "n"), frozenset(), bound=True),
        Gang(("c",), ("m",), frozenset({"a", "b"}), bound=False),
    ]


def test_an_exchange_binds_nobody() -> None:
    app = application({"a": [], "b": []}, {"x": ["a", "b"]}, exchange=["x"], copies={"a": 4})
    assert gangs(app) == [
        Gang(("a",), ("x",), frozenset(), bound=False),
        Gang(("b",), ("x",), frozenset(), bound=False),
    ]


def test_parallel_copies_that_share_memory_are_bound() -> None:
    app = application({"a": [], "b": []}, {"m": ["a"]}, copies={"a": 2, "b": 2})
    assert [(g.compute, g.bound) for g in gangs(app)] == [(("a",), True), (("b",), False)]


def test_belonging_together_is_transitive() -> None:
    app = application({"a": [], "b": [], "c": [], "d": []}, {"m": ["a", "b"], "n": ["b", "c"]})
    assert [g.compute for g in gangs(app)] == [("a", "b", "c"), ("d",)]


def test_elements_that_corun_directly_are_a_gang() -> None:
    a = ComputeElement("a", MAIN, corunning={"b": Corunning("b")})
    app = complete(Application("demo", [a, ComputeElement("b", MAIN)]))
    assert gangs(app) == [Gang(("a", "b"), (), frozenset(), bound=True)]


def test_a_gang_waits_for_what_its_memory_waits_for() -> None:
    app = application({"first": [], "a": []}, {"m": ["a"]}, after={"m": ["first"]})
    assert gangs(app) == [
        Gang(("first",), (), frozenset(), bound=False),
        Gang(("a",), ("m",), frozenset({"first"}), bound=False),
    ]
    assert sinks(app) == ["first", "a"]


def test_gangs_of_an_impossible_application() -> None:
    app = application({"a": [], "b": ["a"], "c": []}, {"m": ["a", "b", "c"]})
    with pytest.raises(ApplicationError):
        validate(app)
    assert len(conflicts(app)) == 1


def test_order_sources_sinks_and_ancestors() -> None:
    app = application({"d": ["b", "c"], "c": ["a"], "b": ["a"], "a": [], "e": []})
    assert topological_order(app) == ["a", "c", "b", "d", "e"]
    assert sources(app) == ["a", "e"]
    assert sinks(app) == ["d", "e"]
    assert ancestors(app)["d"] == {"a", "b", "c"}
    assert depends_on(app, "d", "a")
    assert not depends_on(app, "a", "d")
    assert not depends_on(app, "a", "a")


def test_order_of_a_cycle_is_an_error_that_prints_it() -> None:
    app = application({"a": ["c"], "b": ["a"], "c": ["b"]})
    with pytest.raises(ApplicationError, match="a -> b -> c -> a"):
        topological_order(app)


def test_long_chains_do_not_recurse() -> None:
    names = [f"e{i}" for i in range(3000)]
    edges = {a: [b] for a, b in pairwise(names)}
    assert find_cycle(edges) is None
    edges[names[-1]] = [names[0]]
    assert find_cycle(edges) == [*names, names[0]]


@st.composite
def applications(draw: st.DrawFn) -> Application:
    size = draw(st.integers(1, 8))
    names = [f"c{i}" for i in range(size)]
    parents = {
        n: draw(st.lists(st.sampled_from(names[:i]), unique=True)) if i else []
        for i, n in enumerate(names)
    }
    memory = {
        f"m{i}": draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
        for i in range(draw(st.integers(0, 4)))
    }
    exchange = [m for m in memory if draw(st.booleans())]
    return application(parents, memory, exchange)


@settings(max_examples=60, deadline=None)
@given(applications())
def test_gangs_partition_and_can_start_in_order(app: Application) -> None:
    above = ancestors(app)
    if conflicts(app):
        with pytest.raises(ApplicationError):
            validate(app)
        with pytest.raises(ApplicationError, match="must start together"):
            gangs(app)
        return
    found = gangs(app)
    assert sorted(n for g in found for n in g.compute) == sorted(app.compute)
    done: set[str] = set()
    for gang in found:
        assert gang.parents <= done
        assert not gang.parents & set(gang.compute)
        done |= set(gang.compute)
    member = {n: i for i, g in enumerate(found) for n in g.compute}
    for memory in app.memory.values():
        for one in memory.corunning:
            assert memory.name in found[member[one]].memory
            for other in memory.corunning:
                free = other != one and one not in above[other] and other not in above[one]
                if free and memory.access == "shared":
                    assert member[one] == member[other]


@given(applications())
def test_topological_order_puts_parents_first(app: Application) -> None:
    order = topological_order(app)
    assert sorted(order) == sorted(app.compute)
    place = {n: i for i, n in enumerate(order)}
    assert all(place[p] < place[n] for n, e in app.compute.items() for p in e.parents)
