"""The scheduler's mutable state, and nothing that changes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from openwhisk.scheduler.messages import Failure, MemoryId, RunId
from openwhisk.scheduler.plan import ElementPlan, GangPlan, MemoryPlan, Plan
from openwhisk.scheduler.reservations import NOTHING, Reservation


class Phase(Enum):
    """Where a gang, and with it each of its tasks, is. A lost one goes back to ``WAITING``."""

    WAITING = auto()  # for its parents
    QUEUED = auto()  # for cores and bytes
    STARTING = auto()  # admitted; its memory elements are being made
    RUNNING = auto()
    DONE = auto()
    ENDED = auto()  # failed or cancelled


class Life(Enum):
    """Where an incarnation of a memory element is."""

    CREATING = auto()
    READY = auto()
    DOOMED = auto()  # lost or no longer wanted, but a worker may still write to it
    DROPPING = auto()
    GONE = auto()


@dataclass(eq=False, slots=True)
class Incarnation:
    """One life of a memory element. Fresh memory is a new incarnation.

    `users` are the runs that may touch it now; `touched` the tasks that were ever started on it.
    """

    id: MemoryId
    plan: MemoryPlan
    life: Life = Life.CREATING
    server: int = -1
    users: set[RunId] = field(default_factory=set)
    touched: set[Task] = field(default_factory=set)
    session: str | None = None

    @property
    def alive(self) -> bool:
        """Whether what was written to it is, or will be, there."""
        return self.life is Life.CREATING or self.life is Life.READY


@dataclass(eq=False, slots=True)
class Run:
    """One attempt of a task: what it holds until it is known to have ended.

    `sources` are the incarnations that its inputs may refer to; `reserved` is part of its limit,
    and `wanted` what it waits for where it was `paused` at that time.
    """

    id: RunId
    task: Task
    memories: tuple[Incarnation, ...]
    sources: frozenset[Incarnation]
    dispatched: bool = False
    stopping: bool = False
    started: float | None = None
    reserved: Reservation = NOTHING
    wanted: Reservation = NOTHING
    paused: float | None = None


@dataclass(eq=False, slots=True)
class Task:
    """One copy of a compute element.

    `provenance` is every incarnation that its result may refer to: those it touched, and those its
    inputs may refer to. `excused` attempts do not count: they yielded their memory to others.
    """

    plan: ElementPlan
    index: int
    gang: Gang = field(init=False)
    phase: Phase = Phase.WAITING
    attempts: int = 0
    excused: int = 0
    run: Run | None = None
    result: Any = None
    provenance: frozenset[Incarnation] = frozenset()


@dataclass(eq=False, slots=True)
class Gang:
    """Tasks that start together.

    `ticket` is its place in the queue, `started` that among the gangs that were started. One that
    has yielded its memory reserves the `whole` of its limits the next time.
    """

    plan: GangPlan
    activation: ActivationState
    tasks: list[Task]
    phase: Phase = Phase.WAITING
    ticket: int = 0
    started: int = 0
    whole: bool = False


@dataclass(eq=False, slots=True)
class ActivationState:
    """One application under way."""

    id: str
    plan: Plan
    params: Any
    session: str | None
    tasks: dict[str, list[Task]] = field(default_factory=dict)
    gangs: list[Gang] = field(default_factory=list)
    memory: dict[str, Incarnation] = field(default_factory=dict)
    generations: dict[str, int] = field(default_factory=dict)
    incarnations: dict[MemoryId, Incarnation] = field(default_factory=dict)
    runs: dict[RunId, Run] = field(default_factory=dict)
    open_copies: dict[str, int] = field(default_factory=dict)
    admitted: bool = False
    tight: bool = False
    ending: bool = False
    results: dict[str, list[Any]] | None = None
    failure: Failure | None = None

    @classmethod
    def create(cls, id: str, plan: Plan, params: Any, session: str | None) -> ActivationState:
        """Lay out tasks and gangs, all waiting."""
        act = cls(id, plan, params, session)
        for name, element in plan.elements.items():
            act.tasks[name] = [Task(element, i) for i in range(element.count)]
            act.open_copies[name] = element.count
        for gang_plan in plan.gangs:
            gang = Gang(gang_plan, act, [act.tasks[n][i] for n, i in gang_plan.members])
            for task in gang.tasks:
                task.gang = gang
            act.gangs.append(gang)
        return act

    def finished(self, element: str) -> bool:
        """Whether all copies of an element are done."""
        return self.open_copies[element] == 0


@dataclass(eq=False, slots=True)
class SessionState:
    """A caller's lease, and the memory that it holds."""

    id: str
    lease: float
    expires: float
    memory: dict[tuple[str, str], Incarnation] = field(default_factory=dict)
    activations: dict[str, None] = field(
        default_factory=dict
    )  # in order; so is all that is iterated over
    closing: str | None = None
