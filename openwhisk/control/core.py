"""`Core`: the one thread on which scheduler and invoker run.

Other threads hand it work through `post`; it sleeps in one poll over workers, zygote, memory server
and that inbox, until the next deadline at most. Nothing is polled for.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from openwhisk.control.books import Books
from openwhisk.invoker import Invoker, InvokerSettings
from openwhisk.invoker.memory import Created, CreateFailed, Dropped, ServerStarted
from openwhisk.scheduler import Scheduler
from openwhisk.scheduler.messages import (
    Command,
    CreateMemory,
    DropMemory,
    Event,
    Finish,
    Invoke,
    KeepMemory,
    MemoryCreated,
    MemoryDropped,
    MemoryFailed,
    MemoryServerLost,
    PauseTask,
    Reserve,
    SessionClosed,
    StartTask,
    StopTask,
    TaskDone,
    TaskFailed,
    TaskRestarted,
    TaskStarted,
    Tick,
    WorkerLost,
)

log = logging.getLogger(__name__)


class Core:
    """Runs scheduler and invoker until `stop`.

    Parameters
    ----------
    settings
        For the invoker; its cores and bytes are the scheduler's too.
    books
        Records; told of everything that happens.
    max_attempts
        See `Scheduler`.
    """

    def __init__(self, settings: InvokerSettings, books: Books, max_attempts: int) -> None:
        self._books = books
        self.scheduler = Scheduler(settings.cores, settings.memory, max_attempts=max_attempts)
        self._inbox: deque[Callable[[], None] | Event] = deque()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._wake_lock = threading.Lock()
        self.invoker = Invoker(settings, wake=self._awaken, on_metrics=books.measured)
        self.invoker.register(self._wake)
        self._stopping = False
        self._failed: BaseException | None = None
        self._opened = threading.Event()
        self._commands: dict[type[Command], Callable[[Any], None]] = {
            StartTask: self.invoker.start_task,
            StopTask: self.invoker.stop_task,
            Reserve: self._reserve,
            PauseTask: self._pause,
            CreateMemory: self._create_memory,
            DropMemory: self.invoker.drop_memory,
            TaskRestarted: books.restarted,
            KeepMemory: books.kept,
            Finish: self._finish,
            SessionClosed: books.session_closed,
        }
        self._observers: dict[type[Event], Callable[[Any], None]] = {
            TaskStarted: books.started,
            TaskDone: books.ended,
            TaskFailed: books.ended,
            WorkerLost: books.ended,
        }
        self._thread = threading.Thread(target=self._run, name="scad-control-plane", daemon=True)

    # -- any thread ------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread and the zygote; raise what prevented it."""
        self._thread.start()
        self._opened.wait()
        if self._failed is not None:
            self.stop()
            raise self._failed

    def post(self, item: Callable[[], None] | Event) -> None:
        """Have an event handled, or a function called, on the core's thread."""
        self._inbox.append(item)
        self._awaken()

    def stop(self) -> None:
        """Kill everything and end the thread. Idempotent."""
        self._stopping = True
        self._awaken()
        if threading.current_thread() is self._thread:
            return  # the collector found the last reference here: the thread ends by itself
        self._thread.join()
        with self._wake_lock:
            if self._wake >= 0:
                os.close(self._wake)
                self._wake = -1

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive() and not self._stopping

    def _awaken(self) -> None:
        with self._wake_lock:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    # -- the core's thread -----------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self.invoker.open()
            self._opened.set()
            while not self._stopping:
                self._turn()
        except BaseException as error:
            self._failed = error
            log.critical("the control plane failed", exc_info=True)
        finally:
            self._stopping = True
            with contextlib.suppress(Exception):
                self.invoker.close()
            self._books.closed(self._failed)
            self._opened.set()

    def _turn(self) -> None:
        deadline = self.scheduler.next_deadline()
        now = time.monotonic()
        timeout = None if deadline is None else max(0.0, deadline - now)
        if self._wake in self.invoker.poll(timeout):
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wake)
            self._read_inbox()
        events = self.invoker.take_events()
        if deadline is not None and time.monotonic() >= deadline:
            events.append(Tick(time.monotonic()))
        with self._books.lock:
            while events:
                for event in events:
                    self._handle(event)
                events = self.invoker.take_events()
            self._books.warm(self.invoker.warm_bytes(), time.monotonic())
        self._books.tell_observers()

    def _read_inbox(self) -> None:
        for _ in range(len(self._inbox)):
            item = self._inbox.popleft()
            if isinstance(item, Event):
                with self._books.lock:
                    self._handle(item)
            else:
                item()
        replies = self.invoker.drain_memory()
        with self._books.lock:
            for reply in replies:
                self._on_memory(reply)

    def _handle(self, event: Event) -> None:
        if (observe := self._observers.get(type(event))) is not None:
            observe(event)
        elif isinstance(event, MemoryServerLost):
            self._books.server_lost()
        elif isinstance(event, Invoke):
            book = self._books[event.activation]
            self.invoker.begin(event.activation, book.program, book.transport)
        for command in self.scheduler.handle(event):
            self._commands[type(command)](command)

    def _reserve(self, command: Reserve) -> None:
        self._books.reserved(command)
        self.invoker.reserve(command)

    def _pause(self, command: PauseTask) -> None:
        self._books.paused(command)
        self.invoker.pause_task(command)

    def _create_memory(self, command: CreateMemory) -> None:
        self._books.memory_created(command)
        self.invoker.create_memory(command)

    def _finish(self, command: Finish) -> None:
        self.invoker.end(command.activation)
        self._books.finished(command)

    def _on_memory(self, reply: Created | CreateFailed | Dropped | ServerStarted) -> None:
        now = time.monotonic()
        if isinstance(reply, Created):
            self._handle(MemoryCreated(now, reply.memory, reply.server))
        elif isinstance(reply, CreateFailed):
            self._handle(MemoryFailed(now, reply.memory, reply.message))
        elif isinstance(reply, Dropped):
            self._books.memory_dropped(reply, now)
            self._handle(MemoryDropped(now, reply.memory))
