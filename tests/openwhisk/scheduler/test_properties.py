"""Whatever happens in whatever order, the scheduler keeps its promises.

A simulated invoker carries commands out in an order that hypothesis chooses, and loses workers and
memory servers. Simulated elements check what they are given: every reference that they can reach
must lead to the bytes that its writer wrote.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from openwhisk.app import Application, complete
from openwhisk.app.model import ComputeElement, Corunning, Limits, MemoryElement
from openwhisk.errors import ApplicationError
from openwhisk.scheduler import Plan, Scheduler, compile_plan
from openwhisk.scheduler.messages import (
    Cancel,
    CloseSession,
    Command,
    CreateMemory,
    DropMemory,
    Event,
    Finish,
    Invoke,
    KeepMemory,
    MemoryCreated,
    MemoryDropped,
    MemoryId,
    MemoryServerLost,
    OpenSession,
    PauseTask,
    Reserve,
    RunId,
    SessionClosed,
    StartTask,
    StopTask,
    TaskDone,
    TaskHolds,
    TaskRestarted,
    TaskStarted,
    Tick,
    WorkerLost,
)
from openwhisk.scheduler.reservations import ReservationPolicy

# Every byte counts, and every element begins with one.
TINY = ReservationPolicy(first=1, step=1, ahead=4, share=1000)

NO_FAULTS: Callable[[int], int] = lambda n: 0  # noqa: E731


class World:
    """Carries out commands in an order that `choose(n)` picks, and checks them."""

    def __init__(
        self,
        plans: list[Plan],
        memory: int,
        cores: float,
        choose: Callable[[int], int],
        faults: int = 0,
        cancels: int = 0,
        max_attempts: int = 3,
        growths: int = 0,
    ) -> None:
        self.plans = {f"act{i}": plan for i, plan in enumerate(plans)}
        self.scheduler = Scheduler(
            cores,
            memory,
            max_attempts=max_attempts,
            reservations=TINY if growths else None,
        )
        self.capacity, self.cores = memory, cores
        self.choose = choose
        self.faults, self.cancels, self.growths = faults, cancels, growths
        self.now = 0.0
        self.server = 1
        self.creating: list[MemoryId] = []
        self.dropping: list[MemoryId] = []
        self.cells: dict[MemoryId, dict[tuple[str, int], str]] = {}
        self.home: dict[MemoryId, int] = {}
        self.created: list[MemoryId] = []
        self.dropped: list[MemoryId] = []
        self.kept: set[MemoryId] = set()
        self.reserved: dict[MemoryId, int] = {}
        self.running: dict[RunId, StartTask] = {}
        self.stopping: set[RunId] = set()
        self.has: dict[RunId, int] = {}
        self.paused: set[RunId] = set()
        self.asking: set[RunId] = set()
        self.yielded = 0
        self.finished: dict[str, Finish] = {}
        self.attempts: dict[tuple[str, str, int], int] = {}
        self.closed: list[str] = []
        self.capacity_high = 0

    # -- driving

    def run(self) -> None:
        self.send(OpenSession(self.now, "s", 1e9))
        for activation, plan in self.plans.items():
            self.send(Invoke(self.now, activation, plan, f"params of {activation}", "s"))
        for _ in range(5000):
            actions = self.actions()
            if not actions:
                break
            actions[self.choose(len(actions))]()
        else:
            pytest.fail("does not terminate")
        assert set(self.finished) == set(self.plans), "an activation hangs"
        assert not self.running
        self.send(CloseSession(self.now, "s"))
        while self.dropping:
            self.drop(self.dropping[0])
        assert self.closed == ["s"]
        assert sorted(self.created) == sorted(self.dropped), "freed exactly once"
        ledger = self.scheduler.ledger
        assert (ledger.used_bytes, ledger.used_cores, ledger.claims, ledger.kept) == (0, 0, 0, 0)

    def actions(self) -> list[Callable[[], None]]:
        """What could happen next, the fruitful first."""
        found: list[Callable[[], None]] = []
        moving = [r for r in self.running if r not in self.paused or r in self.stopping]
        found += [lambda r=r: self.finish_run(r) for r in moving]
        found += [lambda m=m: self.create(m) for m in self.creating]
        found += [lambda m=m: self.drop(m) for m in self.dropping]
        if self.growths:
            quiet = [r for r in moving if r not in self.asking and r not in self.stopping]
            found += [lambda r=r: self.hold(r) for r in quiet * 5]
        if found and self.faults:
            found += [
                lambda r=r: self.lose_worker(r) for r in self.running if r not in self.stopping
            ]
            found.append(self.lose_server)
        if found and self.cancels:
            found += [lambda a=a: self.cancel(a) for a in self.plans if a not in self.finished]
        return found

    def finish_run(self, run: RunId) -> None:
        """The run ends: by its own end, or, if it was to be stopped, in either way."""
        if run in self.stopping and (run in self.paused or self.choose(2) == 0):
            del self.running[run]
            self.end(run)
            self.send(WorkerLost(self.now, run, "stopped"))
            return
        start = self.running.pop(run)
        self.end(run)
        value, refs = self.compute(start)
        self.send(TaskDone(self.now, run, (value, refs)))

    def hold(self, run: RunId) -> None:
        """A run holds other bytes than before, never more than it has reserved."""
        self.growths -= 1
        held = self.has[run] - (self.choose(4) == 0) * self.choose(self.has[run] + 1)
        if TINY.follow(held, self.running[run].mem).size != self.has[run]:
            self.asking.add(run)
            self.send(TaskHolds(self.now, run, held))

    def end(self, run: RunId) -> None:
        self.has.pop(run, None)
        self.paused.discard(run)
        self.asking.discard(run)

    def lose_worker(self, run: RunId) -> None:
        self.faults -= 1
        del self.running[run]
        self.end(run)
        self.send(WorkerLost(self.now, run, "killed"))

    def lose_server(self) -> None:
        self.faults -= 1
        lost, self.server = self.server, self.server + 1
        for memory in [m for m, home in self.home.items() if home == lost]:
            self.cells.pop(memory, None)
        self.send(MemoryServerLost(self.now, lost))

    def cancel(self, activation: str) -> None:
        self.cancels -= 1
        self.send(Cancel(self.now, activation))

    def create(self, memory: MemoryId) -> None:
        self.creating.remove(memory)
        # Sometimes the news that it exists comes after the news that its server is dead.
        stale = self.server > 1 and self.choose(3) == 2
        self.home[memory] = self.server - 1 if stale else self.server
        if not stale:
            self.cells[memory] = {}
        self.send(MemoryCreated(self.now, memory, self.home[memory]))

    def drop(self, memory: MemoryId) -> None:
        self.dropping.remove(memory)
        self.cells.pop(memory, None)
        self.reserved.pop(memory)
        self.send(MemoryDropped(self.now, memory))

    def send(self, event: Event) -> None:
        self.now += 1.0
        commands = self.scheduler.handle(event)
        for command in commands:
            self.obey(command)
        self.check_gangs(commands)
        self.check_capacity()

    # -- obeying and checking

    def obey(self, command: Command) -> None:
        if isinstance(command, CreateMemory):
            if command.memory in self.created:
                assert self.home[command.memory] < self.server, (
                    "made again only after its server died"
                )
            else:
                self.created.append(command.memory)
            plan = self.plans[command.memory.activation].memories[command.memory.name]
            assert (command.size, command.elastic) == (plan.limit, plan.elastic)
            self.reserved[command.memory] = plan.size
            self.creating.append(command.memory)
        elif isinstance(command, DropMemory):
            assert command.memory not in self.dropped, "freed twice"
            users = [s for s in self.running.values() if command.memory in s.memories.values()]
            assert not users, "freed under somebody's feet"
            if command.memory in self.creating:
                self.creating.remove(command.memory)
            self.dropped.append(command.memory)
            self.dropping.append(command.memory)
        elif isinstance(command, StartTask):
            self.start(command)
        elif isinstance(command, StopTask):
            assert command.run in self.running
            assert command.run not in self.stopping
            self.stopping.add(command.run)
        elif isinstance(command, Reserve):
            assert command.run in self.asking, "nobody asked"
            assert command.run not in self.stopping
            self.has[command.run] = command.reserved.size
            self.asking.discard(command.run)
            self.paused.discard(command.run)
        elif isinstance(command, PauseTask):
            assert command.run in self.asking
            assert command.run not in self.paused
            self.paused.add(command.run)
        elif isinstance(command, KeepMemory):
            assert command.memory in self.cells or self.home[command.memory] < self.server
            self.kept.add(command.memory)
        elif isinstance(command, Finish):
            assert command.activation not in self.finished
            assert not [r for r in self.running if r.activation == command.activation]
            left = [m for m in self.reserved if m.activation == command.activation]
            assert set(left) <= self.kept, "all memory is given back before the end"
            self.finished[command.activation] = command
        elif isinstance(command, SessionClosed):
            self.closed.append(command.session)
        else:
            assert isinstance(command, TaskRestarted)
            self.yielded += "needed its memory" in command.reason

    def start(self, command: StartTask) -> None:
        run = command.run
        key = (run.activation, run.element, run.index)
        assert run.attempt > self.attempts.get(key, 0)  # some end before a worker sees them
        self.attempts[key] = run.attempt
        element = self.plans[run.activation].elements[run.element]
        assert set(command.memories) == set(element.memories)
        others = [r for r in self.running if (r.activation, r.element, r.index) == key]
        assert set(others) <= self.stopping, "two attempts at once"
        if element.parents:
            assert command.inputs is not None
            assert set(command.inputs) == set(element.parents)
            for parent, results in command.inputs.items():
                assert len(results) == self.plans[run.activation].elements[parent].count
        else:
            assert command.params == f"params of {run.activation}"
        self.compute(command)
        for name, memory in command.memories.items():
            if self.plans[run.activation].memories[name].shared:
                cell = (run.element, run.index)
                assert cell not in self.cells[memory], "starts again on memory that is not fresh"
            self.cells[memory][run.element, run.index] = self.value(command)
        self.running[run] = command
        assert 0 <= command.reserved.size <= command.mem
        self.has[run] = command.reserved.size
        self.send(TaskStarted(self.now, run))

    def value(self, start: StartTask) -> str:
        """What the element computes: a function of what it is given, and nothing else."""
        values = {p: [r[0] for r in rs] for p, rs in (start.inputs or {}).items()}
        text = f"{start.run.element} {start.run.index} {sorted(values.items())} {start.params}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def compute(self, start: StartTask) -> tuple[str, dict[tuple[MemoryId, str, int], str]]:
        """Check all references within reach; return the value, and the references that a result may
        hold.
        """
        refs: dict[tuple[MemoryId, str, int], str] = {}
        for results in (start.inputs or {}).values():
            for _, theirs in results:
                refs |= theirs
        stopped = start.run in self.stopping
        for (memory, element, index), value in refs.items():
            if memory.name in start.memories and not stopped:
                lost = self.home[memory] < self.server
                assert memory == start.memories[memory.name], "a reference into an old incarnation"
                if not lost or start.run not in self.running:
                    assert self.cells[memory][element, index] == value, "bytes that are not there"
        value = self.value(start)
        for memory in start.memories.values():
            refs[memory, start.run.element, start.run.index] = value
        return value, refs

    def check_gangs(self, commands: list[Command]) -> None:
        started = {
            (c.run.activation, c.run.element, c.run.index)
            for c in commands
            if isinstance(c, StartTask)
        }
        for activation, plan in self.plans.items():
            for gang in plan.gangs:
                members = {(activation, *member) for member in gang.members}
                assert not members & started or members <= started, "a gang starts all or none"

    def check_capacity(self) -> None:
        plans = self.plans
        compute = sum(self.has.values())
        used = compute + sum(self.reserved.values())
        assert used <= self.capacity
        assert self.scheduler.ledger.used_bytes >= used
        cores = sum(s.cores for s in self.running.values())
        if cores > self.cores + 1e-6:
            gangs = {
                (r.activation, g.number)
                for r in self.running
                for g in plans[r.activation].gangs
                if (r.element, r.index) in g.members
            }
            assert len(gangs) == 1, "only a gang that is alone may have more than there is"


@st.composite
def applications(draw: st.DrawFn, number: int = 0, most: int = 4) -> Plan:
    count = draw(st.integers(1, 6))
    names = [f"e{i}" for i in range(count)]
    memories = []
    corunning: dict[str, dict[str, Corunning]] = {n: {} for n in names}
    for m in range(draw(st.integers(0, 3))):
        users = draw(st.lists(st.sampled_from(names), min_size=1, max_size=4, unique=True))
        for user in users:
            corunning[user][f"m{m}"] = Corunning(f"m{m}")
        memories.append(
            MemoryElement(
                f"m{m}",
                corunning=tuple(users),
                limits=Limits(cpu=0.0, mem=draw(st.integers(1, 4))),
                access=draw(st.sampled_from(["shared", "exchange", "exchange"])),
                lifetime=draw(st.sampled_from(["application", "application", "session"])),
                elastic=draw(st.booleans()),
            )
        )
    compute = [
        ComputeElement(
            name,
            "",
            parents=tuple(
                draw(st.lists(st.sampled_from(names[:i]), max_size=3, unique=True)) if i else ()
            ),
            parallelism=draw(st.integers(1, 3)),
            limits=Limits(
                cpu=draw(st.sampled_from([0.5, 1.0, 2.0])), mem=draw(st.integers(1, most))
            ),
            corunning=corunning[name],
        )
        for i, name in enumerate(names)
    ]
    try:
        return compile_plan(complete(Application(f"app{number}", [*compute, *memories])))
    except ApplicationError:
        assume(False)
        raise


def reference(plan: Plan, activation: str) -> dict[str, list[str]]:
    """Results when nothing goes wrong."""
    world = World([plan], 10_000, 1000.0, NO_FAULTS)
    world.plans = {activation: plan}
    world.run()
    return values(world.finished[activation])


def values(finish: Finish) -> dict[str, list[str]]:
    assert finish.failure is None
    assert finish.results is not None
    return {sink: [r[0] for r in results] for sink, results in finish.results.items()}


common = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[
        HealthCheck.filter_too_much,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)


def check(
    data: st.DataObject,
    *,
    count: int,
    faults: int,
    tight: bool,
    cancels: int = 0,
    growths: int = 0,
) -> World:
    most = 20 if growths else 4
    plans = [data.draw(applications(most=most)) for _ in range(count)]
    need = max(max(p.serial_peak, 1) for p in plans)
    memory = need + data.draw(st.integers(0, 3 * most if growths else 6)) if tight else 10_000
    cores = data.draw(st.sampled_from([0.5, 1.0, 2.0, 64.0][2 * bool(growths) :]))
    choices = random.Random(data.draw(st.integers(0, 2**32)))
    world = World(plans, memory, cores, choices.randrange, faults, cancels, growths=growths)
    world.run()
    for activation, finish in world.finished.items():
        if finish.failure is None:
            assert values(finish) == reference(world.plans[activation], activation)
    return world


def check_failures(world: World) -> None:
    """Sessions may keep what others would need; nothing else makes anything fail."""
    for activation, finish in world.finished.items():
        if finish.failure is not None:
            assert finish.failure.kind == "capacity"
            assert world.kept, f"{activation} had all the memory that it needs"


@common
@given(st.data())
def test_everything_succeeds_when_nothing_is_lost(data: st.DataObject) -> None:
    world = check(data, count=data.draw(st.integers(1, 3)), faults=0, tight=False)
    assert all(f.failure is None for f in world.finished.values())
    assert set(world.attempts.values()) == {1}


@common
@given(st.data())
def test_two_losses_of_anything_are_always_survived(data: st.DataObject) -> None:
    world = check(data, count=data.draw(st.integers(1, 2)), faults=2, tight=False)
    assert all(f.failure is None for f in world.finished.values())


@common
@given(st.data())
def test_a_storm_of_losses_ends_with_the_right_answer_or_says_that_it_was_lost(
    data: st.DataObject,
) -> None:
    world = check(data, count=data.draw(st.integers(1, 3)), faults=12, tight=False)
    assert {f.failure.kind for f in world.finished.values() if f.failure} <= {"lost"}
    assert max(world.attempts.values(), default=0) <= 3


@common
@given(st.data())
def test_scarce_memory_delays_but_does_not_block(data: st.DataObject) -> None:
    # Sessions may keep what others would need: those fail, clearly, and nothing hangs.
    world = check(data, count=data.draw(st.integers(1, 4)), faults=0, tight=True)
    check_failures(world)


@common
@given(st.data())
def test_scarce_memory_losses_and_cancellations_together(data: st.DataObject) -> None:
    world = check(data, count=data.draw(st.integers(1, 3)), faults=6, tight=True, cancels=2)
    kinds = {f.failure.kind for f in world.finished.values() if f.failure}
    assert kinds <= {"lost", "capacity", "cancelled"}


@common
@given(st.data())
def test_elements_that_grow_and_shrink_stay_within_what_there_is(data: st.DataObject) -> None:
    world = check(data, count=data.draw(st.integers(1, 4)), faults=0, tight=True, growths=400)
    check_failures(world)


@common
@given(st.data())
def test_growth_losses_and_cancellations_together(data: st.DataObject) -> None:
    world = check(
        data, count=data.draw(st.integers(1, 3)), faults=6, tight=True, cancels=2, growths=200
    )
    kinds = {f.failure.kind for f in world.finished.values() if f.failure}
    assert kinds <= {"lost", "capacity", "cancelled"}


def test_the_simulation_itself_notices_a_reference_to_lost_bytes() -> None:
    limits = Limits(cpu=1.0, mem=1)
    app = Application(
        "app",
        [
            ComputeElement("w", "", limits=limits, corunning={"m": Corunning("m")}),
            ComputeElement("r", "", parents=("w",), limits=limits, corunning={"m": Corunning("m")}),
            MemoryElement("m", corunning=("w", "r"), limits=limits, access="exchange"),
        ],
    )
    world = World([compile_plan(complete(app))], 100, 4.0, NO_FAULTS)
    world.send(OpenSession(0.0, "s", 1e9))
    world.send(Invoke(0.0, "act0", world.plans["act0"], "params of act0", "s"))
    world.create(world.creating[0])
    (memory,) = world.cells
    world.cells[memory].clear()
    with pytest.raises((AssertionError, KeyError)):
        world.finish_run(next(iter(world.running)))


def test_ticks_without_anything_to_do_do_nothing() -> None:
    scheduler = Scheduler(1.0, 1)
    assert scheduler.handle(Tick(1e12)) == []
    assert scheduler.next_deadline() is None
