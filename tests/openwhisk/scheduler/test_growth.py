"""Elements reserve what they hold: who gets more, who is stopped, who yields."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openwhisk.app.model import ComputeElement
from openwhisk.scheduler.messages import (
    Finish,
    PauseTask,
    Reserve,
    StartTask,
    StopTask,
    TaskHolds,
    TaskRestarted,
    Tick,
    WorkerLost,
)
from openwhisk.scheduler.reservations import ReservationPolicy

Compute = Callable[..., ComputeElement]
New = Callable[..., Any]
MiB = 1 << 20

# An element begins with 10 and has 10 more than it holds, in steps of 5.
POLICY = ReservationPolicy(first=10, step=5, ahead=10, share=1000)


@pytest.fixture
def two(driver: New, compute: Compute) -> Any:
    """Two elements run beside each other where there are 120 bytes: 60 for each at most."""
    d = driver(memory=120, reservations=POLICY)
    for name in "xy":
        d.invoke(name, [compute(name, mem=60)])
        d.begun(f"{name}.{name}0")
    return d


def reserved(d: Any, name: str) -> int:
    run = d.run(name)
    sizes = [c.reserved.size for c in d.log if isinstance(c, StartTask | Reserve) and c.run == run]
    return int(sizes[-1])


def test_an_element_begins_small_and_follows_what_it_holds(driver: New, compute: Compute) -> None:
    d = driver(reservations=POLICY)
    d.invoke("a", [compute("x", mem=100)])
    ledger = d.scheduler.ledger
    assert (reserved(d, "a.x0"), ledger.used_bytes) == (10, 10)
    run = d.run("a.x0")
    assert d.of(StartTask)[0].mem == 100, "the limit is what it was"
    sizes = []
    for held in (5, 42, 93, 100, 60, 0):
        d.send(TaskHolds, run, held)
        sizes.append(reserved(d, "a.x0"))
        assert ledger.used_bytes == sizes[-1]
    assert sizes == [15, 55, 100, 100, 70, 10]
    d.done("a.x0")
    assert ledger.used_bytes == 0


def test_who_cannot_have_more_is_stopped_until_it_can(two: Any) -> None:
    d = two
    d.send(TaskHolds, d.run("x.x0"), 50)
    d.send(TaskHolds, d.run("y.y0"), 40)
    assert (reserved(d, "x.x0"), reserved(d, "y.y0")) == (60, 50)
    d.scheduler.ledger.take(0.0, 10)  # somebody else's
    d.send(TaskHolds, d.run("y.y0"), 45)
    assert d.of(PauseTask) == [PauseTask(d.run("y.y0"))]
    d.send(TaskHolds, d.run("x.x0"), 30)
    assert d.log[-2:] == [Reserve(d.run("x.x0"), POLICY.follow(30, 60)), d.of(Reserve)[-1]]
    assert d.of(Reserve)[-1] == Reserve(d.run("y.y0"), POLICY.follow(45, 60))


def test_the_oldest_is_served_first_and_before_anything_new(two: Any, compute: Compute) -> None:
    d = two
    d.invoke("w", [compute("w", mem=10)])  # which is never stopped
    d.scheduler.ledger.take(0.0, 50)
    d.send(TaskHolds, d.run("y.y0"), 25)
    assert (reserved(d, "y.y0"), d.scheduler.ledger.used_bytes) == (35, 105)
    d.send(TaskHolds, d.run("y.y0"), 45)
    assert d.of(PauseTask) == [PauseTask(d.run("y.y0"))]
    d.send(TaskHolds, d.run("x.x0"), 20)
    d.invoke("z", [compute("z", mem=5)])
    assert [c.run.element for c in d.of(StartTask)] == ["x", "y", "w"], "nothing new"
    d.scheduler.ledger.give_back(0.0, 50)
    d.send(Tick)
    assert [(c.run.element, c.reserved.size) for c in d.of(Reserve)][-2:] == [("x", 30), ("y", 55)]
    assert d.started() == ["x.x0", "y.y0", "w.w0", "z.z0"]


def test_the_time_for_which_one_was_stopped_is_not_its_own(two: Any) -> None:
    d = two
    d.scheduler.ledger.take(0.0, 100)
    d.send(TaskHolds, d.run("y.y0"), 30)
    assert d.of(PauseTask) == [PauseTask(d.run("y.y0"))]
    limit = d.scheduler.next_deadline()
    assert limit is not None
    d.now = limit - 50.0
    d.scheduler.ledger.give_back(0.0, 100)
    before = d.now
    d.send(Tick)
    assert d.of(Reserve)
    d.done("x.x0")
    assert d.scheduler.next_deadline() > before + 90.0


def test_where_all_are_stopped_the_youngest_yields_once(two: Any, compute: Compute) -> None:
    d = two
    d.scheduler.ledger.take(0.0, 60)
    d.send(TaskHolds, d.run("y.y0"), 45)
    d.send(TaskHolds, d.run("x.x0"), 45)
    first = d.run("y.y0")
    assert d.of(PauseTask) == [PauseTask(first), PauseTask(d.run("x.x0"))]
    assert [c.run for c in d.of(StopTask)] == [first]
    assert [c.run for c in d.of(TaskRestarted)] == [first]
    d.send(WorkerLost, first, "stopped")
    assert reserved(d, "x.x0") == 55, "the other has what it waited for"
    assert d.started() == ["x.x0", "y.y0"], "there is no room for all of its limit yet"
    d.done("x.x0")
    d.begun("y.y0")
    assert reserved(d, "y.y0") == 60, "it reserves the whole of it now"
    d.send(TaskHolds, d.run("y.y0"), 1)
    assert reserved(d, "y.y0") == 60
    d.done("y.y0")
    assert {c.activation: c.failure for c in d.of(Finish)} == {"x": None, "y": None}


def test_yielding_is_no_loss_that_counts(driver: New, compute: Compute) -> None:
    d = driver(memory=120, max_attempts=1, reservations=POLICY)
    for name in "xy":
        d.invoke(name, [compute(name, mem=60)])
        d.begun(f"{name}.{name}0")
    d.scheduler.ledger.take(0.0, 60)
    for name in "yx":
        d.send(TaskHolds, d.run(f"{name}.{name}0"), 45)
    d.send(WorkerLost, d.run("y.y0"), "stopped")
    d.done("x.x0")
    d.done("y.y0")
    assert d.finish("y").failure is None


def test_a_gang_counts_as_stopped_with_any_of_its_members(driver: New, compute: Compute) -> None:
    """The others may be waiting for it."""
    from openwhisk.app.model import Corunning

    d = driver(memory=200, reservations=POLICY)
    pair = [
        compute("p", mem=50),
        ComputeElement(
            "q", "", limits=compute("q", mem=50).limits, corunning={"p": Corunning("p")}
        ),
    ]
    d.invoke("x", [compute("x", mem=60)])
    d.invoke("g", pair)
    assert sorted(d.started()) == ["g.p0", "g.q0", "x.x0"]
    d.scheduler.ledger.take(0.0, 150)
    d.send(TaskHolds, d.run("x.x0"), 40)
    assert not d.of(StopTask), "the pair may give something back"
    d.send(TaskHolds, d.run("g.p0"), 40)
    assert {c.run.element for c in d.of(StopTask)} == {"p", "q"}


@given(st.integers(0, 1 << 40), st.integers(1, 1 << 40))
def test_what_is_reserved_covers_what_is_held_and_comes_to_rest(held: int, limit: int) -> None:
    policy = ReservationPolicy()
    held = min(held, limit)
    found = policy.follow(held, limit)
    assert held <= found.size <= limit
    assert found.size == limit or found.size - held >= policy.ahead
    assert found.size <= max(policy.first, held * 17 / 16 + policy.ahead + policy.step)
    assert found.low <= held <= found.high, "no news about what it was reserved for"
    for other in (found.low - 1, found.high + 1):
        if 0 <= other <= limit:
            assert policy.follow(other, limit).size != found.size, "news are worth a change"
