"""What goes into the scheduler (events) and what comes out of it (commands).

Results and parameters are opaque to the scheduler: it hands on what it was given, by reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from openwhisk.scheduler.plan import Plan
from openwhisk.scheduler.reservations import Reservation


class RunId(msgspec.Struct, frozen=True):
    """One attempt to run one copy of a compute element."""

    activation: str
    element: str
    index: int
    attempt: int


class MemoryId(NamedTuple):
    """One incarnation of a memory element; `generation` counts from 1 within the activation."""

    activation: str
    name: str
    generation: int


FailureKind = Literal[
    "element",  # user code raised, or gave back something that is no result
    "limit",  # the element exceeded its memory limit
    "aborted",  # native code ended its worker, as some does that cannot have memory
    "minimum",  # its memory limit is less than what a worker holds before it begins
    "result",  # the result is too large
    "timeout",
    "lost",  # workers or memory were lost too often
    "capacity",  # the control plane is too small
    "memory",  # a memory element could not be made
    "session",  # the session is closed
    "cancelled",
    "internal",
]


class Failure(msgspec.Struct, frozen=True):
    """Why an element, and with it the application, failed."""

    kind: FailureKind
    message: str
    element: str | None = None
    index: int | None = None
    traceback: str | None = None


class Event(msgspec.Struct, frozen=True):
    """Something that happened, at `now` (seconds on any monotonic clock)."""

    now: float


class Invoke(Event, frozen=True):
    """Run an application."""

    activation: str
    plan: Plan
    params: Any
    session: str | None = None


class Cancel(Event, frozen=True):
    """Stop an activation. No effect on a finished one."""

    activation: str
    reason: str = "cancelled"


class MemoryCreated(Event, frozen=True):
    """A memory element exists, on the memory server numbered `server`."""

    memory: MemoryId
    server: int


class MemoryFailed(Event, frozen=True):
    """A memory element could not be created."""

    memory: MemoryId
    message: str


class MemoryDropped(Event, frozen=True):
    """A memory element's bytes were given back (or died with their server)."""

    memory: MemoryId


class MemoryServerLost(Event, frozen=True):
    """A memory server died with all that it held."""

    server: int


class TaskStarted(Event, frozen=True):
    """A worker began with a run, which has `reserved` bytes; its time limit counts from here."""

    run: RunId
    reserved: int = 0


class TaskHolds(Event, frozen=True):
    """A run's worker was seen to hold `size` bytes, which does not fit what the run has reserved:
    it is about to hold more, or has held less for a while. It is not looked at again before the
    next `Reserve`.
    """

    run: RunId
    size: int


class TaskDone(Event, frozen=True):
    """A run committed its result."""

    run: RunId
    result: Any


class TaskFailed(Event, frozen=True):
    """A run ended with a failure of its own making; its worker lives."""

    run: RunId
    failure: Failure


class WorkerLost(Event, frozen=True):
    """The worker of a run is dead, whether we stopped it or not."""

    run: RunId
    reason: str


class Tick(Event, frozen=True):
    """Time has passed."""


class OpenSession(Event, frozen=True):
    """Begin a session that ends `lease` seconds after it was last heard of."""

    session: str
    lease: float


class RenewSession(Event, frozen=True):
    """Somebody named the session."""

    session: str


class CloseSession(Event, frozen=True):
    """End a session: its activations are cancelled, its memory is freed."""

    session: str


class ReleaseMemory(Event, frozen=True):
    """Give back one memory element of a session."""

    session: str
    activation: str
    element: str


class Command(msgspec.Struct, frozen=True):
    """Something that has to be done."""


class CreateMemory(Command, frozen=True):
    """Make a memory element; answer with `MemoryCreated` or `MemoryFailed`."""

    memory: MemoryId
    size: int
    elastic: bool


class DropMemory(Command, frozen=True):
    """Give a memory element's bytes back; answer with `MemoryDropped`. Nobody uses it any more."""

    memory: MemoryId


class StartTask(Command, frozen=True):
    """Run one copy of an element; answer with `TaskStarted`, then `TaskDone`, `TaskFailed` or
    `WorkerLost`, and with `TaskHolds` in between.

    `mem` is its limit, `reserved` what it begins with.
    """

    run: RunId
    inputs: Mapping[str, list[Any]] | None
    params: Any
    memories: Mapping[str, MemoryId]
    cores: float
    mem: int
    reserved: Reservation


class Reserve(Command, frozen=True):
    """A run has so much reserved from now on, and goes on if it was stopped."""

    run: RunId
    reserved: Reservation


class PauseTask(Command, frozen=True):
    """Stop a run where it is, so that it holds no more than it does, until the next `Reserve`."""

    run: RunId


class StopTask(Command, frozen=True):
    """Kill the run's worker; answer with `WorkerLost` (or with the end that it came to first)."""

    run: RunId
    reason: str


class TaskRestarted(Command, frozen=True):
    """A run that had begun, or had even ended, is void and will be repeated."""

    run: RunId
    reason: str


class KeepMemory(Command, frozen=True):
    """A memory element now belongs to a session."""

    memory: MemoryId
    session: str


class Finish(Command, frozen=True):
    """An activation is over: every worker has left it and every byte that it does not leave to its
    session is given back.

    `results` maps each sink to the results of its copies; it is ``None`` when `failure` is set.
    """

    activation: str
    results: Mapping[str, list[Any]] | None
    failure: Failure | None


class SessionClosed(Command, frozen=True):
    """A session is over and owns nothing any more."""

    session: str
    reason: str
