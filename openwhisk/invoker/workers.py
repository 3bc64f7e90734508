"""`WorkerPool`: which workers there are, what each is doing, who gets the next run.

It keeps the books; talking to the zygote and to the workers goes through the functions that it was
given.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import select
import signal
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

from openwhisk.scheduler.messages import RunId
from openwhisk.worker.limits import USEFUL, may_keep
from openwhisk.worker.messages import Metrics

# Codes that a worker keeps before it is told to forget them all.
KNOWN_CODES = 256

# A worker that holds so many times what a fresh one holds is not worth keeping for ever.
FAT = 2


class State(Enum):
    """What a worker is doing."""

    FORKING = auto()
    IDLE = auto()
    BUSY = auto()
    RESTING = auto()
    DYING = auto()


@dataclass(eq=False, slots=True)
class Worker:
    """One worker process. `data` and `anon` are bytes that it held when it last said so."""

    name: str
    state: State = State.FORKING
    pid: int = 0
    pidfd: int = -1
    data: int = 0
    anon: int = 0
    run: RunId | None = None
    known: set[int] = field(default_factory=set)
    reason: str = ""
    paused: bool = False
    idle_since: float = 0.0
    used: bool = False

    def pause(self) -> None:
        """Stop the process where it is."""
        if self.pidfd >= 0:
            self.paused = True
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on, if it was stopped."""
        if self.paused:
            self.paused = False
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGCONT)

    def close(self) -> None:
        """Forget the process."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


@dataclass(slots=True)
class Waiting:
    """A run that has no worker yet."""

    run: RunId
    mem: int


class WorkerPool:
    """Assigns runs to workers.

    Parameters
    ----------
    fork, kill, quit_
        How a worker is asked for, killed, and sent home.
    assign
        Called when a worker takes a run.
    max_idle
        How many workers may wait for work.
    spare, patience
        How many of them may wait for ever, and how many seconds the others if they hold no more
        than a fresh one. What waiting may cost is byte·seconds: who holds more waits less.
    clock
        Tells seconds.
    """

    def __init__(
        self,
        *,
        fork: Callable[[Worker], None],
        kill: Callable[[Worker], None],
        quit_: Callable[[Worker], None],
        assign: Callable[[Worker, RunId], None],
        max_idle: int,
        spare: int = 0,
        patience: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fork = fork
        self._kill = kill
        self._quit = quit_
        self._assign = assign
        self._max_idle = max_idle
        self._spare = spare
        self._patience = patience
        self._clock = clock
        self.workers: dict[str, Worker] = {}
        # Those never used stand first, the one used last stands last: its caches are warm.
        self._idle: list[Worker] = []
        self._leanest = 0  # what a fresh worker holds, once there was one
        self._fresh_anon = 0
        self._waiting: deque[Waiting] = deque()
        self._busy: dict[RunId, Worker] = {}

    def add(self) -> None:
        """Make one more worker."""
        worker = Worker(secrets.token_hex(8))
        self.workers[worker.name] = worker
        self._fork(worker)

    def start(self, run: RunId, mem: int) -> None:
        """Give a run to an idle worker that is lean enough for its limit, or else to a new one."""
        for worker in reversed(self._idle):
            if self._lean_enough(worker, mem):
                self._idle.remove(worker)
                self._take(worker, run)
                return
        self._waiting.append(Waiting(run, mem))
        self.refork()

    def stop(self, run: RunId, reason: str) -> bool:
        """Kill the worker of a run. False if it had none: then it is over at once."""
        worker = self._busy.get(run)
        if worker is None:
            self._waiting = deque(w for w in self._waiting if w.run != run)
            return False
        self._condemn(worker, reason)
        return True

    def is_running(self, run: RunId) -> bool:
        """Whether a worker has this run."""
        return run in self._busy

    def worker(self, run: RunId) -> Worker | None:
        """Return the worker of a run, None if it has none (any more)."""
        return self._busy.get(run)

    def greeted(self, worker: Worker, data: int, anon: int) -> None:
        """A new worker is there."""
        worker.data, worker.anon = data, anon
        self._leanest = min(self._leanest or data, data)
        self._fresh_anon = min(self._fresh_anon or anon, anon)
        if worker.state is not State.FORKING:
            return
        # A fresh worker is as lean as one can be: it takes the first that waits, whatever its
        # limit.
        if self._waiting:
            self._take(worker, self._waiting.popleft().run)
        else:
            self._rest(worker)

    def rested(self, worker: Worker, data: int, anon: int) -> None:
        """A worker has given back what it could, and holds so much now."""
        worker.data, worker.anon = data, anon
        if worker.state is State.RESTING:
            self._free(worker)
            self.refork()

    def finished(self, worker: Worker, metrics: Metrics) -> RunId | None:
        """A worker is done with its run. ``None`` if it was to die anyway."""
        worker.data, worker.anon = metrics.data, metrics.anon
        run = worker.run
        if worker.state is not State.BUSY or run is None:
            return None
        del self._busy[run]
        worker.run = None
        if metrics.restless:
            worker.state = State.RESTING
        else:
            self._free(worker)
        return run

    def exited(self, worker: Worker) -> RunId | None:
        """A worker is dead; return the run that it took with it."""
        self.workers.pop(worker.name, None)
        if worker in self._idle:
            self._idle.remove(worker)
        if worker.run is not None:
            self._busy.pop(worker.run, None)
        if worker.state in (State.FORKING, State.RESTING):
            self.refork()
        worker.close()
        return worker.run

    def bury(self) -> list[RunId]:
        """All workers are to be dead, because their zygote is; make sure, and return the runs that
        they took with them.
        """
        workers = list(self.workers.values())
        for worker in workers:
            if worker.pidfd >= 0:
                _await_death(worker.pidfd)
                # What its element had started is in its process group. The pid is not somebody
                # else's while the group is there, and it was given up only just now.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(worker.pid, signal.SIGKILL)
            worker.close()
        runs = [w.run for w in workers if w.run is not None]
        self.workers.clear()
        self._idle.clear()
        self._busy.clear()
        return runs

    def refork(self) -> None:
        """Ask for workers for the runs that wait, as far as none are about to be free."""
        for _ in range(len(self._waiting) - self._count(State.FORKING, State.RESTING)):
            self.add()

    def abandon(self) -> list[RunId]:
        """Give up the runs that wait for a worker."""
        runs = [w.run for w in self._waiting]
        self._waiting.clear()
        return runs

    def retire(self) -> float | None:
        """Send workers home that have waited too long, the fattest first. Where a spare one has, a
        fresh one takes its place.

        Returns
        -------
        float or None
            The time at which the next will have, None if nobody will.
        """
        now = self._clock()
        while True:
            many = len(self._idle) > self._spare
            leaving = [w for w in self._idle if many or self._fat(w)]
            tired = [w for w in leaving if self._tired_at(w) <= now]
            if not tired:
                return min(map(self._tired_at, leaving), default=None)
            self._retire(max(tired, key=lambda w: w.anon))
            if not many:
                self.add()

    def _fat(self, worker: Worker) -> bool:
        return worker.anon > FAT * self._fresh_anon

    def _tired_at(self, worker: Worker) -> float:
        """When a worker will have waited for as long as one that holds so much may."""
        share = min(1.0, max(1, self._fresh_anon) / max(1, worker.anon))
        return worker.idle_since + self._patience * share

    @property
    def idle(self) -> list[Worker]:
        """Workers that wait for work, or are about to."""
        return [*self._idle, *(w for w in self.workers.values() if w.state is State.RESTING)]

    def _lean_enough(self, worker: Worker, mem: int) -> bool:
        """Whether what a worker has kept from earlier runs leaves an element its limit."""
        return worker.data - self._leanest <= may_keep(mem, self._leanest)

    def _replenish(self) -> None:
        """Have a lean worker made while nobody waits for one, if none of those that are idle is.

        Forking takes 20 to 30 ms, which the next run would wait for. While a run has the cores it
        would be in its way.
        """
        quiet = not self._busy and not self._waiting and not self._count(State.FORKING)
        if quiet and self._spare and all(w.data - self._leanest > USEFUL for w in self._idle):
            self.add()

    def _count(self, *states: State) -> int:
        return sum(worker.state in states for worker in self.workers.values())

    def _free(self, worker: Worker) -> None:
        """A worker takes the first run that waits and for which it is lean enough, or waits."""
        for waiting in self._waiting:
            if self._lean_enough(worker, waiting.mem):
                self._waiting.remove(waiting)
                self._take(worker, waiting.run)
                return
        self._rest(worker)
        self._replenish()

    def _take(self, worker: Worker, run: RunId) -> None:
        worker.state = State.BUSY
        worker.used = True
        worker.run = run
        self._busy[run] = worker
        self._assign(worker, run)

    def _rest(self, worker: Worker) -> None:
        worker.state = State.IDLE
        worker.idle_since = self._clock()
        before = self._idle if worker.used else [w for w in self._idle if not w.used]
        self._idle.insert(len(before), worker)
        if len(self._idle) > self._max_idle:
            self._retire(max(self._idle, key=lambda w: w.data))

    def _retire(self, worker: Worker) -> None:
        self._idle.remove(worker)
        worker.state = State.DYING
        self._quit(worker)

    def _condemn(self, worker: Worker, reason: str) -> None:
        if worker.state is not State.DYING:
            worker.state = State.DYING
            worker.reason = reason
            self._kill(worker)


def _await_death(pidfd: int, seconds: float = 5.0) -> None:
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        return
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    poller.poll(seconds * 1000)
