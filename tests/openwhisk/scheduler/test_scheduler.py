"""The scheduler's rules, one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from openwhisk.app.model import ComputeElement, MemoryElement
from openwhisk.scheduler.messages import (
    Cancel,
    CloseSession,
    CreateMemory,
    DropMemory,
    Failure,
    Finish,
    KeepMemory,
    MemoryFailed,
    MemoryServerLost,
    OpenSession,
    ReleaseMemory,
    RenewSession,
    SessionClosed,
    StartTask,
    StopTask,
    TaskDone,
    TaskFailed,
    TaskRestarted,
    Tick,
    WorkerLost,
)

Compute = Callable[..., ComputeElement]
Memory = Callable[..., MemoryElement]
New = Callable[..., Any]


def test_parameters_joins_and_sinks(driver: New, compute: Compute) -> None:
    d = driver()
    d.invoke(
        "a", [compute("s", parallelism=2), compute("j", "s"), compute("t", "s", parallelism=2)]
    )
    assert [c.params for c in d.of(StartTask)] == [{"p": "a"}, {"p": "a"}]
    assert {c.inputs for c in d.of(StartTask)} == {None}
    d.done("a.s1", "late copy first")
    assert d.started() == ["a.s0", "a.s1"], "a join waits for every copy"
    d.done("a.s0", "first copy")
    join = d.of(StartTask)[2]
    assert join.inputs == {"s": ["first copy", "late copy first"]}
    assert join.params is None
    d.done("a.j0", "J")
    d.done("a.t1", "T1")
    assert d.finish("a") is None, "the first sink does not end it"
    d.done("a.t0", "T0")
    assert d.finish("a") == Finish("a", {"j": ["J"], "t": ["T0", "T1"]}, None)


def test_a_memory_element_lives_from_its_first_to_its_last_corunning_element(
    driver: New, compute: Compute, memory: Memory
) -> None:
    d = driver()
    d.invoke(
        "a",
        [compute("s"), compute("w", "s", memory=("m",)), compute("r", "w", memory=("m",)),
         compute("end", "r"), memory("m", 7)],
    )  # fmt: skip
    assert d.of(CreateMemory) == []
    d.done("a.s0")
    (create,) = d.of(CreateMemory)
    assert create.size == 7
    assert d.started() == ["a.s0"], "it waits for its memory"
    d.create()
    d.done("a.w0")
    assert d.of(DropMemory) == []
    d.done("a.r0")
    assert [c.memory for c in d.of(DropMemory)] == [create.memory]
    assert d.started()[-1] == "a.end0", "nobody waits for memory to be freed"
    d.done("a.end0")
    assert d.finish("a") is None, "an activation is over when its memory is given back"
    d.drop()
    assert d.finish("a").failure is None


def test_the_seeds_three_dependent_steps_around_one_memory_element(
    driver: New, compute: Compute, memory: Memory
) -> None:
    d = driver()
    m = ("m",)
    d.invoke(
        "a",
        [compute("load", memory=m), compute("train", "load", memory=m, parallelism=2),
         compute("test", "train", memory=m), memory("m")],
    )  # fmt: skip
    d.create()
    d.done("a.load0")
    assert d.started()[1:] == ["a.train0", "a.train1"]
    lost = d.run("a.train1")
    d.send(WorkerLost, lost, "killed")
    assert [c.run.element for c in d.of(TaskRestarted)] == ["load", "train", "train"]
    assert [c.run for c in d.of(StopTask)] == [d.run("a.train0")]
    assert len(d.of(CreateMemory)) == 2, "on fresh memory"
    assert d.of(DropMemory) == [], "a doomed worker may still write"
    d.send(WorkerLost, d.run("a.train0"), "stopped")
    assert [c.memory.generation for c in d.of(DropMemory)] == [1]
    d.create()
    assert d.run("a.load0").attempt == 2
    for name in ("load0", "train0", "train1", "test0"):
        d.done(f"a.{name}")
    d.drop()
    assert d.finish("a").failure is None


def test_a_lost_writer_of_an_exchange_is_repeated_alone(
    driver: New, compute: Compute, memory: Memory
) -> None:
    d = driver()
    d.invoke("a", [compute("w", memory=("x",), parallelism=3), memory("x", access="exchange")])
    d.create()
    d.done("a.w0")
    d.send(WorkerLost, d.run("a.w1"), "killed")
    assert [c.run for c in d.of(TaskRestarted)] == [d.of(StartTask)[1].run]
    assert d.started() == ["a.w0", "a.w1", "a.w2", "a.w1"]
    assert len(d.of(CreateMemory)) == 1


def test_a_lost_server_recomputes_back_to_what_is_whole(
    driver: New, compute: Compute, memory: Memory
) -> None:
    # s → (x) → p → (y) → q: q's input is lost; p made it from x, which was freed; s made that.
    d = driver()
    d.invoke(
        "a",
        [compute("o"), compute("s", "o", memory=("x",)), compute("p", "s", memory=("x", "y")),
         compute("q", "p", memory=("y",)), memory("x", access="exchange"),
         memory("y", access="exchange")],
    )  # fmt: skip
    d.done("a.o0")
    d.create()
    d.done("a.s0")
    d.create()
    d.done("a.p0")
    d.drop()
    d.send(MemoryServerLost, 1)
    assert [c.run.element for c in d.of(TaskRestarted)] == ["s", "p", "q"]
    d.send(WorkerLost, d.of(StopTask)[0].run, "stopped")
    d.create(server=2)
    d.done("a.s0")
    d.create(server=2)
    d.done("a.p0")
    d.done("a.q0", "right")
    d.drop()
    assert d.finish("a") == Finish("a", {"q": ["right"]}, None)
    assert d.started().count("a.o0") == 1


def test_the_end_of_an_older_attempt_is_ignored(driver: New, compute: Compute) -> None:
    d = driver()
    d.invoke("a", [compute("e")])
    first = d.run("a.e0")
    d.send(WorkerLost, first, "killed")
    assert d.run("a.e0").attempt == 2
    assert d.send(TaskDone, first, "stale") == []
    assert d.send(TaskFailed, first, Failure("element", "stale")) == []
    d.done("a.e0", "fresh")
    assert d.finish("a").results == {"e": ["fresh"]}


def test_attempts_are_bounded(driver: New, compute: Compute) -> None:
    d = driver(max_attempts=2)
    d.invoke("a", [compute("e"), compute("other")])
    for _ in range(2):
        d.send(WorkerLost, d.run("a.e0"), "out of luck")
    assert d.finish("a") is None, "the other still runs"
    d.send(WorkerLost, d.run("a.other0"), "stopped")
    failure = d.finish("a").failure
    assert (failure.kind, failure.element) == ("lost", "e")
    assert "2 attempts: out of luck" in failure.message


def test_a_failure_stops_the_rest_and_waits_for_its_end(
    driver: New, compute: Compute, memory: Memory
) -> None:
    d = driver()
    d.invoke("a", [compute("bad"), compute("e", memory=("m",)), compute("z", "bad"), memory("m")])
    d.create()
    failure = Failure("element", "ValueError", element="bad", traceback="…")
    d.send(TaskFailed, d.run("a.bad0"), failure)
    assert [c.run for c in d.of(StopTask)] == [d.run("a.e0")]
    d.done("a.e0", "too late")
    d.drop()
    assert d.finish("a") == Finish("a", None, failure)
    assert d.scheduler.ledger.used_bytes == 0


def test_memory_that_cannot_be_made_fails_the_application(
    driver: New, compute: Compute, memory: Memory
) -> None:
    d = driver()
    d.invoke("a", [compute("e", memory=("m", "n")), memory("m"), memory("n")])
    d.send(MemoryFailed, d.of(CreateMemory)[0].memory, "no room")
    d.drop()
    assert d.finish("a").failure == Failure("memory", "memory element m: no room", element="m")
    assert d.started() == []


def test_cancel_at_every_stage(driver: New, compute: Compute, memory: Memory) -> None:
    d = driver(cores=1.0)
    d.invoke("a", [compute("e")])
    d.invoke("b", [compute("e")])  # queued
    d.send(Cancel, "b")
    assert d.finish("b").failure.kind == "cancelled"
    d.send(Cancel, "a")
    assert d.finish("a") is None
    d.send(WorkerLost, d.run("a.e0"), "stopped")
    assert d.finish("a").failure.kind == "cancelled"
    assert d.send(Cancel, "a") == []
    assert d.send(Cancel, "nobody") == []


def test_cores_are_given_in_order(driver: New, compute: Compute) -> None:
    d = driver(cores=2.0)
    d.invoke("a", [compute("e")])
    d.invoke("big", [compute("e", cpu=2.0)])
    d.invoke("c", [compute("e")])
    assert d.started() == ["a.e0"], "who waits for much is not overtaken"
    d.done("a.e0")
    assert d.started() == ["a.e0", "big.e0"]
    d.done("big.e0")
    assert d.started() == ["a.e0", "big.e0", "c.e0"]


def test_a_gang_that_wants_more_than_all_cores_runs_alone(
    driver: New, compute: Compute, memory: Memory
) -> None:
    d = driver(cores=2.0)
    d.invoke("a", [compute("e")])
    d.invoke("g", [compute("e", memory=("m",), parallelism=5), memory("m")])
    d.invoke("c", [compute("e")])
    d.create()
    assert d.started() == ["a.e0"]
    d.done("a.e0")
    d.create()
    assert d.started()[1:] == [f"g.e{i}" for i in range(5)]
    for i in range(4):
        assert "c.e0" not in d.started()
        d.done(f"g.e{i}")
    assert d.started()[-1] == "c.e0", "one of two cores is free again"


def test_what_can_never_fit_says_who_needs_what(
    driver: New, compute: Compute, memory: Memory
) -> None:
    d = driver(memory=10)
    d.invoke("a", [compute("ok"), compute("e", "ok", memory=("m",), mem=4), memory("m", 7)])
    failure = d.finish("a").failure
    assert (failure.kind, failure.element) == ("capacity", "e")
    for text in ("element e", "11 bytes", "memory element m 7", "has 10 bytes"):
        assert text in failure.message
    d.invoke("b", [compute("s", mem=5, parallelism=9)])
    assert d.started() == ["b.s0", "b.s1"], "copies that are not a gang go one by one"


def test_half_run_applications_do_not_block_one_another(
    driver: New, compute: Compute, memory: Memory
) -> None:
    d = driver(memory=10)
    for name in "ab":
        d.invoke(
            name,
            [compute("s", memory=("m",)), compute("t", "s", memory=("m", "n")),
             memory("m", 4), memory("n", 4)],
        )  # fmt: skip
    d.create()
    assert d.started() == ["a.s0"], "both would hold one half and wait for the other"
    d.done("a.s0")
    d.create()
    d.done("a.t0")
    d.drop()
    d.create()
    assert d.started() == ["a.s0", "a.t0", "b.s0"]


def test_an_application_too_large_at_once_runs_step_by_step(
    driver: New, compute: Compute, memory: Memory
) -> None:
    d = driver(memory=10)
    branches = [
        e
        for i in range(3)
        for e in (compute(f"w{i}", memory=(f"m{i}",)), compute(f"r{i}", f"w{i}", memory=(f"m{i}",)),
                  memory(f"m{i}", 6))
    ]  # fmt: skip
    d.invoke("a", branches)
    for i in range(3):
        assert len(d.of(CreateMemory)) == i + 1
        d.create()
        d.done(f"a.w{i}0")
        d.done(f"a.r{i}0")
        d.drop()
    assert d.finish("a").failure is None
    both = [compute("s", memory=("m",)), compute("t", "s", memory=("n",)),
            compute("u", "t", memory=("m",)), memory("m", 6), memory("n", 6)]  # fmt: skip
    d.invoke("b", both)
    failure = d.finish("b").failure
    assert (failure.kind, failure.element) == ("capacity", "t")
    assert "13 bytes when it reaches element t" in failure.message


def test_time_limits_count_from_the_start_of_the_worker(driver: New, compute: Compute) -> None:
    d = driver()
    d.invoke("a", [compute("e", timeout=10.0)])
    assert d.scheduler.next_deadline() is None
    d.begun("a.e0")
    assert d.scheduler.next_deadline() == d.now + 10.0
    d.now += 8.0
    assert d.send(Tick) == []
    assert [type(c) for c in d.send(Tick)] == [StopTask]
    assert d.send(Tick) == []
    d.send(WorkerLost, d.run("a.e0"), "stopped")
    assert d.finish("a").failure.kind == "timeout"


def test_session_memory_passes_to_the_session(
    driver: New, compute: Compute, memory: Memory
) -> None:
    d = driver(memory=10)
    d.send(OpenSession, "s", 100.0)
    app = [compute("w", memory=("m", "n")), memory("m", 4, lifetime="session"), memory("n")]
    d.invoke("a", app, session="s")
    d.create()
    d.done("a.w0")
    d.drop()
    assert d.finish("a").failure is None
    assert [c.memory.name for c in d.of(KeepMemory)] == ["m"]
    assert (d.scheduler.ledger.kept, d.scheduler.ledger.used_bytes) == (4, 4)
    d.invoke("b", [compute("big", mem=7)])
    assert "sessions hold 4" in d.finish("b").failure.message
    d.send(ReleaseMemory, "s", "a", "m")
    d.drop()
    assert d.scheduler.ledger.used_bytes == 0
    d.send(CloseSession, "s")
    assert d.of(SessionClosed) == [SessionClosed("s", "closed")]


def test_a_lease_runs_out_unless_renewed_or_in_use(driver: New, compute: Compute) -> None:
    d = driver()
    d.send(OpenSession, "s", 10.0)
    assert d.scheduler.next_deadline() == 11.0
    d.now = 9.0
    d.send(RenewSession, "s")
    assert d.scheduler.next_deadline() == 20.0
    d.invoke("a", [compute("e")], session="s")
    assert d.scheduler.next_deadline() is None, "an activation under way keeps its session"
    d.now = 50.0
    d.send(Tick)
    d.done("a.e0")
    assert d.scheduler.next_deadline() == d.now + 10.0
    d.now += 9.0
    d.send(Tick)
    assert d.of(SessionClosed) == [SessionClosed("s", "its lease expired")]
    d.invoke("b", [compute("e")], session="s")
    assert d.finish("b").failure.kind == "session"


def test_a_session_ends_when_all_that_hangs_on_it_is_gone(
    driver: New, compute: Compute, memory: Memory
) -> None:
    d = driver()
    d.send(OpenSession, "s", 100.0)
    d.invoke("a", [compute("w", memory=("m",)), memory("m", lifetime="session")], session="s")
    d.create()
    d.done("a.w0")
    d.invoke("b", [compute("e")], session="s")
    d.send(CloseSession, "s")
    d.drop()
    assert d.of(SessionClosed) == []
    d.send(WorkerLost, d.run("b.e0"), "stopped")
    assert d.finish("b").failure.kind == "session"
    assert len(d.of(SessionClosed)) == 1
    d.send(CloseSession, "s")
    assert len(d.of(SessionClosed)) == 1
