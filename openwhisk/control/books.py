"""`Books`: the records of all activations and sessions.

The core writes them on its thread, any thread reads them; `Books.lock` is held while either does.
Records of finished activations are kept up to a number; who wants them for longer takes them from
`observe`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from openwhisk.api import Activation, ElementStatus, SessionInfo
from openwhisk.control.accounting import GB, Integral
from openwhisk.control.records import ActivationBook
from openwhisk.control.sessions import Kept, SessionBook
from openwhisk.errors import MemoryLostError, NotFoundError
from openwhisk.invoker.memory import Dropped
from openwhisk.scheduler.messages import (
    CreateMemory,
    Failure,
    Finish,
    KeepMemory,
    MemoryId,
    PauseTask,
    Reserve,
    RunId,
    SessionClosed,
    TaskDone,
    TaskFailed,
    TaskRestarted,
    TaskStarted,
    WorkerLost,
)
from openwhisk.worker.messages import Metrics

log = logging.getLogger(__name__)

KEPT_RECORDS = 1000


class Books:
    """Activations, sessions, and what idle workers cost."""

    def __init__(self, kept_records: int = KEPT_RECORDS) -> None:
        self.lock = threading.Lock()
        self._kept_records = kept_records
        self._active: dict[str, ActivationBook] = {}
        self._finished: OrderedDict[str, tuple[ActivationBook, Activation]] = OrderedDict()
        self._sessions: dict[str, SessionBook] = {}
        self._warm = Integral()
        self._observers: list[Callable[[Activation], None]] = []
        self._news: deque[tuple[ActivationBook, Activation]] = deque()

    # -- any thread, without the lock ------------------------------------------------------------

    def open_activation(self, book: ActivationBook) -> None:
        """Begin a record."""
        with self.lock:
            book.warm_before = self.warm_gb_s(time.monotonic())
            self._active[book.id] = book

    def open_session(self, book: SessionBook) -> SessionInfo:
        """Begin a session's record; one of that id that is open is renewed."""
        with self.lock:
            found = self._sessions.setdefault(book.id, book)
            found.lease = book.lease
            return found.info(time.monotonic())

    def book(self, activation_id: str) -> ActivationBook:
        """What to wait for: its `over` is set when the record is final.

        Raises
        ------
        NotFoundError
            If there is no such activation.
        """
        with self.lock:
            return self._find(activation_id)

    def activation(self, activation_id: str) -> Activation:
        """The record as it is now. Raises `NotFoundError`."""
        with self.lock:
            if (found := self._finished.get(activation_id)) is not None:
                return found[1]
            now = time.monotonic()
            return self._find(activation_id).snapshot(now, self.warm_gb_s(now))

    def session(self, session: str) -> SessionBook:
        """A session's record. Raises `NotFoundError`."""
        with self.lock:
            return self._find_session(session)

    def sessions(self) -> list[SessionInfo]:
        """All open sessions."""
        with self.lock:
            return [book.info(time.monotonic()) for book in self._sessions.values()]

    def kept_memory(self, session: str, activation: str, element: str) -> MemoryId:
        """Find a memory element that a session owns.

        Raises
        ------
        NotFoundError
            If there is no such session, or it owns no such element (yet).
        MemoryLostError
            If the element died with its server.
        """
        with self.lock:
            kept = self._find_session(session).memory.get((activation, element))
            if kept is None or kept.released:
                raise NotFoundError(
                    f"session {session} owns no memory element {element} of activation {activation}"
                )
            if kept.lost:
                raise MemoryLostError(
                    f"memory element {element} of activation {activation} "
                    "died with its memory server"
                )
            return kept.memory

    def release(self, session: str, activation: str, element: str) -> None:
        """Grant a memory element of a session no more. No error if it is gone.

        Raises
        ------
        NotFoundError
            If there is no such session.
        """
        with self.lock:
            kept = self._find_session(session).memory.get((activation, element))
            if kept is not None:
                kept.released = True

    def observe(self, observer: Callable[[Activation], None]) -> None:
        """Have `observer` called with every finished activation, on the core's thread: it must be
        quick.
        """
        with self.lock:
            self._observers.append(observer)

    def running(self) -> int:
        """How many activations are under way."""
        return len(self._active)

    # -- the core's thread, with the lock --------------------------------------------------------

    def __getitem__(self, activation: str) -> ActivationBook:
        return self._active[activation]

    def measured(self, run: RunId, metrics: Metrics, logs: list[str]) -> None:
        """A worker reports on a run. Called outside of the lock."""
        with self.lock:
            if (book := self._active.get(run.activation)) is not None:
                book.measured(run, metrics, logs)

    def started(self, event: TaskStarted) -> None:
        """A worker begins with a run."""
        if (book := self._active.get(event.run.activation)) is not None:
            book.started(event.run, event.now, event.reserved)

    def reserved(self, command: Reserve) -> None:
        """A run has other bytes reserved than before."""
        run = command.run
        if (book := self._active.get(run.activation)) is not None:
            book.reserved(run, command.reserved.size, time.monotonic())

    def paused(self, command: PauseTask) -> None:
        """A run is stopped until it can have more."""
        run = command.run
        if (book := self._active.get(run.activation)) is not None:
            book.paused(run, time.monotonic())

    def ended(self, event: TaskDone | TaskFailed | WorkerLost) -> None:
        """A run is over."""
        if (book := self._active.get(event.run.activation)) is None:
            return
        status: ElementStatus = "cancelled"
        failure = None
        if isinstance(event, TaskDone):
            status = "done"
        elif isinstance(event, TaskFailed):
            status, failure = "failed", event.failure
        book.ended(event.run, event.now, status, failure)

    def restarted(self, command: TaskRestarted) -> None:
        """A run will be repeated."""
        self._active[command.run.activation].restarted(command.run, command.reason)

    def memory_created(self, command: CreateMemory) -> None:
        """Bytes are reserved for a memory element."""
        size = 0 if command.elastic else command.size
        book = self._active[command.memory.activation]
        book.memory_created(command.memory, size, time.monotonic())

    def memory_dropped(self, reply: Dropped, now: float) -> None:
        """A memory element's bytes were given back."""
        memory = reply.memory
        if (book := self._active.get(memory.activation)) is not None:
            book.memory_gone(memory, now, reply.peak, reply.byte_seconds)
        for session in self._sessions.values():
            kept = session.memory.get((memory.activation, memory.name))
            if kept is not None and kept.memory == memory:
                session.meter.memory_gone(memory, now, reply.peak, reply.byte_seconds)
                if not kept.lost:
                    del session.memory[memory.activation, memory.name]

    def server_lost(self) -> None:
        """The memory server died: what sessions kept there is lost."""
        for session in self._sessions.values():
            for kept in session.memory.values():
                kept.lost = True

    def kept(self, command: KeepMemory) -> None:
        """A memory element passes from its activation to a session, and is charged to that from now
        on.

        What an elastic one held before is charged to the session too: its integral is known when it
        is freed.
        """
        memory, now = command.memory, time.monotonic()
        book = self._active[memory.activation]
        size = book.meter.memories.get(memory, 0)
        book.memory_gone(memory, now)
        session = self._sessions[command.session]
        session.memory[memory.activation, memory.name] = Kept(memory, size)
        session.meter.memory_created(memory, size, now)

    def finished(self, command: Finish) -> None:
        """An activation is over."""
        now = time.monotonic()
        book = self._active.pop(command.activation)
        record = book.finish(command.results, command.failure, now, self.warm_gb_s(now))
        self._file(book, record)

    def session_closed(self, command: SessionClosed) -> None:
        """A session is over."""
        book = self._sessions.pop(command.session, None)
        if book is not None:
            book.over.set()

    def warm(self, held: int, now: float) -> None:
        """Idle workers hold that many bytes."""
        if held != self._warm.now or self._warm.since is None:
            self._warm.add(held - self._warm.now, now)

    def warm_gb_s(self, now: float) -> float:
        """What idle workers have cost so far."""
        return self._warm.until(now) / GB

    # -- the core's thread, without the lock -----------------------------------------------------

    def tell_observers(self) -> None:
        """Hand out what was finished; then wake waiters, who find it stored."""
        while self._news:
            book, record = self._news.popleft()
            for observer in self._observers:
                try:
                    observer(record)
                except Exception:
                    log.exception("an observer of finished activations failed")
            book.over.set()

    def closed(self, error: BaseException | None) -> None:
        """The control plane is gone: end whatever was under way."""
        now = time.monotonic()
        what = "closed" if error is None else f"failed: {error}"
        failure = Failure(
            "cancelled" if error is None else "internal", f"the control plane was {what}"
        )
        with self.lock:
            for book in list(self._active.values()):
                self._file(book, book.finish(None, failure, now, self.warm_gb_s(now)))
            self._active.clear()
            for session in self._sessions.values():
                session.over.set()
            self._sessions.clear()
        self.tell_observers()

    def _file(self, book: ActivationBook, record: Activation) -> None:
        self._finished[book.id] = (book, record)
        while len(self._finished) > self._kept_records:
            self._finished.popitem(last=False)
        self._news.append((book, record))

    def _find(self, activation_id: str) -> ActivationBook:
        if (book := self._active.get(activation_id)) is not None:
            return book
        if (found := self._finished.get(activation_id)) is not None:
            return found[0]
        raise NotFoundError(f"there is no activation {activation_id}")

    def _find_session(self, session: str) -> SessionBook:
        if (book := self._sessions.get(session)) is None:
            raise NotFoundError(
                f"there is no session {session}; it was closed, or its lease expired"
            )
        return book
