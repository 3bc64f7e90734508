"""`Invoker`: commands of the scheduler in, events for the scheduler out.

Everything here runs on the core's thread and never blocks on a worker; what may block, the memory
server's administration, has a thread of its own (`MemoryHost`).
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
import signal
import time
from collections.abc import Callable

import msgspec
import zmq

from openwhisk.invoker.holdings import Holdings
from openwhisk.invoker.memory import MemoryHost, Reply, ServerStarted
from openwhisk.invoker.pending import Pending
from openwhisk.invoker.program import Program
from openwhisk.invoker.server_watch import ServerWatch
from openwhisk.invoker.settings import WORKER_ENVIRONMENT, InvokerSettings, scaled_environment
from openwhisk.invoker.worker_link import WorkerLink
from openwhisk.invoker.workers import State, Worker, WorkerPool
from openwhisk.invoker.zygotes import Zygotes
from openwhisk.scheduler.messages import (
    CreateMemory,
    DropMemory,
    Event,
    Failure,
    MemoryId,
    PauseTask,
    Reserve,
    RunId,
    StartTask,
    StopTask,
    TaskDone,
    TaskFailed,
    TaskHolds,
    TaskStarted,
    WorkerLost,
)
from openwhisk.worker.messages import (
    GONE,
    Configure,
    Done,
    Exited,
    Forked,
    FromWorker,
    Hello,
    Metrics,
    Quit,
    Rested,
)

log = logging.getLogger(__name__)

# Workers that die one after the other before they said hello, while runs wait for them: after that
# many, workers cannot be had.
_STILLBORN = 5


class Invoker:
    """Workers and memory of this host.

    Parameters
    ----------
    settings
        See `InvokerSettings`.
    wake
        Called from another thread when `drain_memory` has something to do.
    on_metrics
        Called with what a run took, and its log lines, before its end is reported.
    """

    def __init__(
        self,
        settings: InvokerSettings,
        *,
        wake: Callable[[], None],
        on_metrics: Callable[[RunId, Metrics, list[str]], None],
    ) -> None:
        self._settings = settings
        self._on_metrics = on_metrics
        self._link = WorkerLink()
        self._poller = zmq.Poller()
        self._poller.register(self._link.socket, zmq.POLLIN)
        self._zygotes = Zygotes(self._configure())
        self._stillborn = 0
        self._pool = WorkerPool(
            fork=lambda worker: self._zygotes.fork(worker.name),
            kill=self._kill,
            quit_=self._send_home,
            assign=self._assign,
            max_idle=settings.idle_workers,
            spare=settings.warm_workers,
            patience=settings.patience,
        )
        self._numbers = itertools.count(1)
        self._pending: dict[RunId, Pending] = {}
        self._programs: dict[str, tuple[Program, str]] = {}
        self._holdings = Holdings()
        self._poller.register(self._holdings.fileno(), zmq.POLLIN)
        self._events: list[Event] = []
        self.memory = MemoryHost(settings.memory, wake)
        self._server = ServerWatch()

    # -- the core's side -------------------------------------------------------------------------

    def open(self) -> None:
        """Start the zygote, from the thread that the processes are to live and die with."""
        self._start_zygote()

    def register(self, fd: int) -> None:
        """Have `poll` return when `fd` is readable, too."""
        self._poller.register(fd, zmq.POLLIN)

    def poll(self, timeout: float | None) -> set[int]:
        """Wait at most `timeout` seconds for anything; deal with it; return what is readable of the
        registered others.
        """
        dues = [d for d in (self._server.next_due(), self._pool.retire()) if d is not None]
        if (first := min(dues, default=math.inf)) < math.inf:
            due = max(0.0, first - time.monotonic())
            timeout = due if timeout is None else min(timeout, due)
        milliseconds = None if timeout is None else max(0, int(timeout * 1000) + 1)
        ready = dict(self._poller.poll(milliseconds))
        if self._link.socket in ready:
            self._receive_from_workers()
        if self._zygotes.fileno() in ready:
            self._receive_from_zygote()
        if self._server.fd >= 0 and self._server.fd in ready:
            self._server_died()
        if self._holdings.fileno() in ready:
            now = time.monotonic()
            self._events += [TaskHolds(now, run, held) for run, held in self._holdings.news()]
        self._events += self._server.due()
        return {fd for fd in ready if isinstance(fd, int)}

    def take_events(self) -> list[Event]:
        """Return what has happened since the last call."""
        events, self._events = self._events, []
        return events

    def begin(self, activation: str, program: Program, transport: str) -> None:
        """Say what an activation runs, before any of its commands."""
        self._programs[activation] = (program, transport)

    def end(self, activation: str) -> None:
        """An activation is over."""
        self._programs.pop(activation, None)

    def start_task(self, command: StartTask) -> None:
        """Run a copy of an element, on an idle worker or a new one."""
        if not self._zygotes.running:
            self._start_zygote()
        program, transport = self._programs[command.run.activation]
        self._pending[command.run] = Pending(
            next(self._numbers), command, program, transport, command.reserved
        )
        self._pool.start(command.run, command.mem)

    def stop_task(self, command: StopTask) -> None:
        """Kill a run's worker."""
        if not self._pool.stop(command.run, command.reason):
            self._lost(command.run, command.reason)

    def reserve(self, command: Reserve) -> None:
        """Watch a run for what it has reserved now, and let it go on if it was stopped."""
        pending, worker = self._pending.get(command.run), self._pool.worker(command.run)
        if pending is None or worker is None:
            return
        pending.reserved = command.reserved
        self._holdings.reserved(pending.number, command.reserved)
        worker.resume()

    def pause_task(self, command: PauseTask) -> None:
        """Stop a run where it is."""
        worker = self._pool.worker(command.run)
        if worker is not None and worker.state is State.BUSY:
            worker.pause()

    def create_memory(self, command: CreateMemory) -> None:
        """Make a memory element, on a memory server that is started if there is none."""
        self.memory.create(command.memory, command.size, command.elastic)

    def drop_memory(self, command: DropMemory) -> None:
        """Give a memory element's bytes back."""
        self.memory.drop(command.memory)

    def durl(self, memory: MemoryId, trans: str, transport: str) -> str:
        """Address of a memory element for the transport called `trans`. It holds a key."""
        return self.memory.durl(memory, trans, transport)

    def drain_memory(self) -> list[Reply]:
        """Take the answers of the memory server's thread; the caller turns them into events."""
        replies = self.memory.take()
        for reply in replies:
            if isinstance(reply, ServerStarted):
                self._watch_server(reply)
        return replies

    @property
    def pool(self) -> WorkerPool:
        """The workers."""
        return self._pool

    def warm_bytes(self) -> int:
        """What the zygote and the idle workers hold; what they share counts once."""
        shared = self._zygotes.shared
        return self._zygotes.held + sum(max(0, w.anon - shared) for w in self._pool.idle)

    def close(self) -> None:
        """Kill all processes, wait for them, close all sockets."""
        if self._zygotes.running:
            self._poller.unregister(self._zygotes.fileno())
            self._zygotes.close()
        self._pool.bury()
        self._server.end()
        self._holdings.close()
        self.memory.close()
        self._link.close()

    # -- runs ------------------------------------------------------------------------------------

    def _assign(self, worker: Worker, run: RunId) -> None:
        pending = self._pending[run]
        try:
            message = pending.message(worker, self.durl, self._settings.result_limit)
        except LookupError as error:  # a memory element whose server has died meanwhile
            worker.reason = f"memory element {error} is gone"
            self._kill(worker)
            return
        now = time.monotonic()
        if not self._link.send(worker.name, message):
            worker.reason = "its worker cannot be reached"
            self._kill(worker)
            return
        self._watch(worker)
        self._events.append(TaskStarted(now, run, pending.reserved.size))

    def _watch(self, worker: Worker) -> None:
        """Have it said when a worker holds more, or less, than its run has reserved.

        Its pid may come later than its greeting.
        """
        pending = None if worker.run is None else self._pending.get(worker.run)
        if pending is None or not worker.pid:
            return
        run, shared = pending.start.run, self._zygotes.shared
        self._holdings.begin(pending.number, run, worker.pid, pending.reserved, shared)

    def _receive_from_workers(self) -> None:
        for name, message in self._link.receive():
            worker = self._pool.workers.get(name)
            if worker is None:
                continue
            if message is None:
                log.warning("worker %s sent a message that cannot be read", worker.pid)
                self._kill(worker)
            else:
                self._on_message(worker, message)

    def _on_message(self, worker: Worker, message: FromWorker) -> None:
        if isinstance(message, Hello):
            if self._link.believes(message):
                self._stillborn = 0
                self._pool.greeted(worker, message.data, message.anon)
            return
        if isinstance(message, Rested):
            self._pool.rested(worker, message.data, message.anon)
            return
        run = worker.run
        if run is None or self._pending[run].number != message.number:
            return
        self._on_metrics(run, self._own(message.metrics), message.logs)
        self._holdings.end(message.number)
        worker.resume()  # it may have been done just before it was stopped
        if self._pool.finished(worker, message.metrics) is None:
            return  # it was stopped: its death is the end that counts
        del self._pending[run]
        now = time.monotonic()
        if isinstance(message, Done):
            self._events.append(TaskDone(now, run, message.result))
        elif message.kind == GONE:
            self._server.hold_back(WorkerLost(now, run, message.message))
        else:
            failure = Failure(
                message.kind,  # type: ignore[arg-type]
                message.message,
                element=run.element,
                index=run.index,
                traceback=message.traceback,
            )
            self._events.append(TaskFailed(now, run, failure))

    def _own(self, metrics: Metrics) -> Metrics:
        """What a run took, without what its worker shares with the zygote."""
        shared = self._zygotes.shared * metrics.seconds
        return msgspec.structs.replace(
            metrics, byte_seconds=max(0.0, metrics.byte_seconds - shared)
        )

    def _left(self, run: RunId) -> bool:
        """A run is no longer under way here. False if that was known."""
        pending = self._pending.pop(run, None)
        if pending is not None:
            self._holdings.end(pending.number)
        return pending is not None

    def _lost(self, run: RunId, reason: str) -> None:
        if self._left(run):
            self._events.append(WorkerLost(time.monotonic(), run, reason))

    def _aborted(self, run: RunId) -> None:
        """Fail a run that ended its own process: it would do so again."""
        if self._left(run):
            message = (
                "native code ended the worker (SIGABRT), as libraries in Rust and C++ do that "
                "cannot have memory: perhaps limits.mem is too small"
            )
            failure = Failure("aborted", message, element=run.element, index=run.index)
            self._events.append(TaskFailed(time.monotonic(), run, failure))

    # -- workers and their zygote ----------------------------------------------------------------

    def _configure(self) -> Configure:
        settings = self._settings
        return Configure(
            self._link.endpoint,
            self._link.token,
            list(settings.preimport),
            {
                **WORKER_ENVIRONMENT,
                **scaled_environment(settings.cores),
                # An element that has all cores may use them all in Polars, which reads this once.
                "POLARS_MAX_THREADS": str(math.ceil(settings.cores)),
                "PYTHONPATH": os.environ.get("PYTHONPATH"),
                "SCAD_AUTH": None,  # the caller's key is none of an element's business
                **settings.environment,
            },
        )

    def _start_zygote(self) -> None:
        self._zygotes.start()
        self._poller.register(self._zygotes.fileno(), zmq.POLLIN)
        for _ in range(self._settings.warm_workers):
            self._pool.add()

    def _kill(self, worker: Worker) -> None:
        self._zygotes.kill(worker.name)

    def _send_home(self, worker: Worker) -> None:
        self._link.send(worker.name, Quit())

    def _receive_from_zygote(self) -> None:
        messages = self._zygotes.receive()
        if messages is None:
            self._zygote_died()
            return
        for message in messages:
            self._on_zygote(message)

    def _on_zygote(self, message: Forked | Exited) -> None:
        worker = self._pool.workers.get(message.worker)
        if worker is None:
            return
        if isinstance(message, Forked):
            if message.pid:
                worker.pid = message.pid
                with contextlib.suppress(OSError):
                    worker.pidfd = os.pidfd_open(message.pid)
                self._watch(worker)
                return
            self._pool.workers.pop(worker.name)
            self._give_up(f"a worker process cannot be made: {message.error}")
        else:
            self._worker_died(worker, message.status)

    def _worker_died(self, worker: Worker, status: int) -> None:
        reason = worker.reason or f"its worker {_how(status)}"
        stillborn = worker.state is State.FORKING
        run = self._pool.exited(worker)
        if run is not None and status == -signal.SIGABRT and not worker.reason:
            self._aborted(run)
        elif run is not None:
            self._lost(run, reason)
        if stillborn:
            self._stillborn += 1
            if self._stillborn >= _STILLBORN:
                self._stillborn = 0
                self._give_up(f"workers die before they can work: the last {_how(status)}")

    def _zygote_died(self) -> None:
        self._poller.unregister(self._zygotes.fileno())
        status = self._zygotes.end()
        log.warning("the zygote %s; starting another", _how(status))
        for run in self._pool.bury():
            self._lost(run, f"its worker's zygote {_how(status)}")
        if self._zygotes.hopeless:
            self._give_up(f"workers cannot be started: their zygote {_how(status)}")
        else:
            self._start_zygote()
            self._pool.refork()

    def _give_up(self, message: str) -> None:
        """Fail the runs that wait for a worker."""
        for run in self._pool.abandon():
            if self._left(run):
                failure = Failure("internal", message, element=run.element, index=run.index)
                self._events.append(TaskFailed(time.monotonic(), run, failure))

    # -- the memory server -----------------------------------------------------------------------

    def _watch_server(self, started: ServerStarted) -> None:
        if self._server.fd >= 0:
            # There is a new one only when the old one is dead, which `poll` has not noticed yet.
            self._server_died()
        self._server.begin(started.number, started.pidfd)
        self._poller.register(self._server.fd, zmq.POLLIN)

    def _server_died(self) -> None:
        log.warning("the memory server died")
        self._poller.unregister(self._server.fd)
        self.memory.server_died(self._server.number)
        self._events += self._server.died()


def _how(status: int) -> str:
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
