"""Who gets the next run."""

from __future__ import annotations

import math

from openwhisk.invoker.workers import State, Worker, WorkerPool
from openwhisk.scheduler.messages import RunId
from openwhisk.worker.messages import Metrics

MiB = 1 << 20


class Outside:
    """Plays zygote and workers."""

    def __init__(self, max_idle: int = 8, spare: int = 0, patience: float = math.inf) -> None:
        self.now = 0.0
        self.forked: list[Worker] = []
        self.killed: list[Worker] = []
        self.sent_home: list[Worker] = []
        self.assigned: list[tuple[Worker, RunId]] = []
        self.pool = WorkerPool(
            fork=self.forked.append,
            kill=self.killed.append,
            quit_=self.sent_home.append,
            assign=lambda worker, run: self.assigned.append((worker, run)),
            max_idle=max_idle,
            spare=spare,
            patience=patience,
            clock=lambda: self.now,
        )

    def greet(self, worker: Worker, data: int = 10 * MiB) -> None:
        self.pool.greeted(worker, data, data)


def run(number: int) -> RunId:
    return RunId("a", "e", number, 1)


def test_a_run_gets_a_new_worker_only_if_none_is_idle() -> None:
    o = Outside()
    o.pool.start(run(0), 100 * MiB)
    assert len(o.forked) == 1
    assert o.assigned == []
    o.greet(o.forked[0])
    assert o.assigned == [(o.forked[0], run(0))]
    assert o.pool.finished(o.forked[0], Metrics(data=10 * MiB)) == run(0)
    o.pool.start(run(1), 100 * MiB)
    assert len(o.forked) == 1
    assert o.assigned[1] == (o.forked[0], run(1))


def test_a_worker_that_kept_too_much_for_a_limit_is_passed_over() -> None:
    o = Outside()
    o.pool.start(run(0), 2000 * MiB)
    o.greet(o.forked[0])
    o.pool.finished(o.forked[0], Metrics(data=300 * MiB))
    # It would fit, but the element would find most of its limit taken by what others left.
    o.pool.start(run(1), 400 * MiB)
    assert len(o.forked) == 2
    o.pool.start(run(2), 2000 * MiB)
    assert o.assigned[1] == (o.forked[0], run(2))
    o.greet(o.forked[1])
    assert o.assigned[2] == (o.forked[1], run(1))


def test_a_little_that_a_worker_kept_is_useful() -> None:
    o = Outside()
    o.pool.start(run(0), 2000 * MiB)
    o.greet(o.forked[0])
    o.pool.finished(o.forked[0], Metrics(data=(10 + 60) * MiB))
    o.pool.start(run(1), (10 + 120) * MiB)
    assert o.assigned[1] == (o.forked[0], run(1))
    o.pool.finished(o.forked[0], Metrics(data=(10 + 60) * MiB))
    o.pool.start(run(2), (10 + 119) * MiB)
    assert len(o.forked) == 2, "it is more than half"


def test_nobody_is_forked_while_a_worker_is_about_to_be_free() -> None:
    o = Outside()
    o.pool.start(run(0), 400 * MiB)
    o.greet(o.forked[0])
    o.pool.finished(o.forked[0], Metrics(data=390 * MiB, restless=True))
    assert o.pool.idle == [o.forked[0]], "what it holds counts as held by a worker that waits"
    o.pool.start(run(1), 400 * MiB)
    assert (len(o.forked), len(o.assigned)) == (1, 1)
    o.pool.start(run(2), 400 * MiB)
    assert len(o.forked) == 2, "one for the second"
    o.pool.rested(o.forked[0], 20 * MiB, 15 * MiB)
    assert o.assigned[1] == (o.forked[0], run(1))
    o.greet(o.forked[1])
    assert o.assigned[2] == (o.forked[1], run(2))


def test_a_worker_that_stays_fat_is_passed_over_after_it_rested() -> None:
    o = Outside()
    o.pool.start(run(0), 400 * MiB)
    o.greet(o.forked[0])
    o.pool.finished(o.forked[0], Metrics(data=390 * MiB, restless=True))
    o.pool.start(run(1), 400 * MiB)
    o.pool.rested(o.forked[0], 380 * MiB, 370 * MiB)
    assert len(o.assigned) == 1
    assert len(o.forked) == 2
    assert o.pool.idle == [o.forked[0]]


def test_a_worker_that_dies_while_it_rests_is_replaced_if_somebody_waits() -> None:
    o = Outside()
    o.pool.start(run(0), 400 * MiB)
    o.greet(o.forked[0])
    o.pool.finished(o.forked[0], Metrics(data=20 * MiB, restless=True))
    o.pool.start(run(1), 400 * MiB)
    assert o.pool.exited(o.forked[0]) is None
    assert len(o.forked) == 2
    assert o.pool.idle == []


def test_what_an_idle_worker_holds_is_known_once_it_rested() -> None:
    o = Outside()
    o.pool.start(run(0), 400 * MiB)
    o.greet(o.forked[0])
    o.pool.finished(o.forked[0], Metrics(data=20 * MiB, anon=60 * MiB))
    o.pool.rested(o.forked[0], 18 * MiB, 12 * MiB)
    assert (o.forked[0].state, o.forked[0].anon) == (State.IDLE, 12 * MiB)
    o.pool.start(run(1), 400 * MiB)
    o.pool.rested(o.forked[0], 17 * MiB, 11 * MiB)  # on its way when the run was assigned
    assert o.pool.is_running(run(1))


def test_a_fresh_worker_takes_a_run_whose_limit_nobody_can_keep() -> None:
    # It says so in the answer; the run must not wait for ever.
    o = Outside()
    o.pool.start(run(0), 1)
    o.greet(o.forked[0])
    assert o.assigned == [(o.forked[0], run(0))]


def test_a_worker_that_gets_free_takes_what_waits_for_a_fork() -> None:
    o = Outside()
    o.pool.start(run(0), 100 * MiB)
    o.greet(o.forked[0])
    o.pool.start(run(1), 100 * MiB)
    o.pool.finished(o.forked[0], Metrics(data=10 * MiB))
    assert o.assigned[1] == (o.forked[0], run(1))
    o.greet(o.forked[1])
    assert o.forked[1].state is State.IDLE


def test_the_fattest_goes_when_too_many_are_idle() -> None:
    o = Outside(max_idle=2)
    for _ in range(3):
        o.pool.add()
    for worker, data in zip(o.forked, (10, 30, 20), strict=True):
        o.greet(worker, data * MiB)
    assert o.sent_home == [o.forked[1]]
    assert set(o.pool.idle) == {o.forked[0], o.forked[2]}


def test_who_waits_too_long_goes_home() -> None:
    o = Outside(spare=1, patience=10)
    assert o.pool.retire() is None
    for _ in range(3):
        o.pool.add()
        o.greet(o.forked[-1], 10 * MiB)
        o.now += 1
    assert o.pool.retire() == 10
    assert o.sent_home == []
    # Work makes waiting begin anew.
    o.pool.start(run(0), 100 * MiB)
    o.now = 9
    o.pool.finished(o.forked[2], Metrics(data=10 * MiB, anon=10 * MiB))
    o.now = 11.5
    assert o.pool.retire() is None, "the spare one waits for ever"
    assert o.sent_home == [o.forked[0], o.forked[1]]
    o.now = 1e6
    assert o.pool.retire() is None
    assert o.pool.idle == [o.forked[2]]


def test_who_holds_more_waits_less() -> None:
    o = Outside(spare=1, patience=10)
    for _ in range(3):
        o.pool.add()
        o.greet(o.forked[-1], 10 * MiB)
    o.pool.start(run(0), 2000 * MiB)
    fat = o.assigned[-1][0]
    o.pool.finished(fat, Metrics(data=500 * MiB, anon=100 * MiB))
    assert o.pool.retire() == 1, "what it holds over that time is what others may hold over ten"
    o.now = 1
    assert o.pool.retire() == 10
    assert o.sent_home == [fat]


def test_a_spare_worker_that_got_fat_is_replaced() -> None:
    o = Outside(spare=1, patience=10)
    o.pool.start(run(0), 2000 * MiB)
    o.greet(o.forked[0])
    o.pool.finished(o.forked[0], Metrics(data=500 * MiB, anon=100 * MiB))
    o.now = 1
    assert o.pool.retire() is None
    assert o.sent_home == [o.forked[0]]
    o.greet(o.forked[1])
    o.now = 1e6
    assert o.pool.retire() is None
    assert o.pool.idle == [o.forked[1]]


def test_stopping() -> None:
    o = Outside()
    o.pool.start(run(0), 100 * MiB)
    assert not o.pool.stop(run(0), "early"), "nobody has it yet"
    o.greet(o.forked[0])
    assert o.assigned == []
    o.pool.start(run(1), 100 * MiB)
    assert o.pool.stop(run(1), "late")
    assert o.pool.stop(run(1), "again")
    assert o.killed == [o.forked[0]]
    assert o.pool.finished(o.forked[0], Metrics()) is None, "its death is the end that counts"
    assert o.pool.exited(o.forked[0]) == run(1)
    assert o.pool.workers == {}


def test_a_worker_that_dies_before_it_said_hello_is_replaced_if_somebody_waits() -> None:
    o = Outside()
    o.pool.start(run(0), 100 * MiB)
    assert o.pool.exited(o.forked[0]) is None
    assert len(o.forked) == 2
    o.greet(o.forked[1])
    assert o.assigned == [(o.forked[1], run(0))]
    o.pool.add()
    assert o.pool.exited(o.forked[2]) is None
    assert len(o.forked) == 3


def test_burying_returns_what_died_and_keeps_what_waits() -> None:
    o = Outside()
    o.pool.start(run(0), 100 * MiB)
    o.greet(o.forked[0])
    o.pool.start(run(1), 100 * MiB)
    assert o.pool.bury() == [run(0)]
    o.pool.refork()
    assert len(o.forked) == 3
    o.greet(o.forked[2])
    assert o.assigned[-1] == (o.forked[2], run(1))
    o.pool.start(run(2), 100 * MiB)
    assert o.pool.abandon() == [run(2)]


def test_a_lean_worker_is_made_while_nobody_waits() -> None:
    o = Outside(spare=1)
    o.pool.start(run(0), 2000 * MiB)
    o.pool.start(run(1), 2000 * MiB)
    o.greet(o.forked[0])
    o.greet(o.forked[1])
    o.pool.finished(o.forked[0], Metrics(data=300 * MiB))
    assert len(o.forked) == 2, "somebody works, who would have to share the cores with the fork"
    o.pool.finished(o.forked[1], Metrics(data=300 * MiB))
    assert len(o.forked) == 3, "those that are idle kept much"
    o.greet(o.forked[2])
    o.pool.start(run(2), 2000 * MiB)
    assert o.assigned[2] == (o.forked[1], run(2)), "the one used last goes first where it will do"
    o.pool.finished(o.forked[1], Metrics(data=300 * MiB))
    assert len(o.forked) == 3, "one is enough"
    o.pool.start(run(3), 400 * MiB)
    assert o.assigned[3] == (o.forked[2], run(3))
    o.pool.finished(o.forked[2], Metrics(data=20 * MiB))
    assert len(o.forked) == 3, "it kept little"


def test_no_worker_is_made_ahead_where_none_is_to_be_kept() -> None:
    o = Outside(spare=0)
    o.pool.start(run(0), 2000 * MiB)
    o.greet(o.forked[0])
    o.pool.finished(o.forked[0], Metrics(data=300 * MiB))
    assert len(o.forked) == 1
