"""`MemoryHost`: the memory server of this host, started when the first memory element needs it, and
again after it died.

All talk with the server is on one thread of its own, because it blocks. Requests go in by method
calls, answers come out of `take`; the caller is woken for them. Elements that die with the server
are not made again here: the scheduler decides that.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from libd.errors import AuthError, CapacityError
from openwhisk.scheduler.messages import MemoryId

log = logging.getLogger(__name__)

TENANT = "guest"
_ATTEMPTS = 3

TRANSPORT_TYPES = {
    "auto": "rdma_auto",
    "shm": "rdma_shm",
    "tcp": "rdma_tcp",
    "rdma": "rdma_uverbs",
}


class Create(msgspec.Struct, frozen=True):
    """Request: make an element."""

    memory: MemoryId
    size: int
    elastic: bool


class Drop(msgspec.Struct, frozen=True):
    """Request: free an element."""

    memory: MemoryId


class Died(msgspec.Struct, frozen=True):
    """Notice: that server is dead."""

    number: int


class Created(msgspec.Struct, frozen=True):
    """Answer: an element exists on the server of that number."""

    memory: MemoryId
    server: int


class CreateFailed(msgspec.Struct, frozen=True):
    """Answer: an element cannot be made."""

    memory: MemoryId
    message: str


class Dropped(msgspec.Struct, frozen=True):
    """Answer: an element is gone. `peak` and `byte_seconds` are ``None`` where it died with its
    server.
    """

    memory: MemoryId
    peak: int | None = None
    byte_seconds: float | None = None


class ServerStarted(msgspec.Struct, frozen=True):
    """Notice: there is a new server; the receiver closes `pidfd`, readable when it dies."""

    number: int
    pid: int
    pidfd: int


Reply = Created | CreateFailed | Dropped | ServerStarted


class _Held(msgspec.Struct, frozen=True):
    server: int
    grant: Any


class MemoryHost:
    """Memory elements of this host.

    Parameters
    ----------
    capacity
        Bytes that they may take together.
    wake
        Called from the host's thread when `take` has something new.
    """

    def __init__(self, capacity: int, wake: Callable[[], None]) -> None:
        self._capacity = capacity
        self._wake = wake
        self._requests: queue.SimpleQueue[Create | Drop | Died | None] = queue.SimpleQueue()
        self._replies: deque[Reply] = deque()
        self._held: dict[MemoryId, _Held] = {}
        self._thread: threading.Thread | None = None
        self._process: Any = None
        self._control: Any = None
        self._tenant: Any = None
        self._number = 0
        self.pid: int | None = None

    # -- any thread ------------------------------------------------------------------------------

    def create(self, memory: MemoryId, size: int, elastic: bool) -> None:
        """Make an element; answered by `Created` or `CreateFailed`."""
        if self._thread is None:
            # The server must live and die with a thread that lives long enough: this one.
            self._thread = threading.Thread(
                target=self._serve, name="scad-memory-host", daemon=True
            )
            self._thread.start()
        self._requests.put(Create(memory, size, elastic))

    def drop(self, memory: MemoryId) -> None:
        """Free an element; answered by `Dropped` in any case."""
        if self._thread is None:
            self._replies.append(Dropped(memory))
            self._wake()
        else:
            self._requests.put(Drop(memory))

    def server_died(self, number: int) -> None:
        """Say that a server is dead, so that the next request starts another."""
        self._requests.put(Died(number))

    def take(self) -> list[Reply]:
        """Return the answers that are there."""
        replies: list[Reply] = []
        with contextlib.suppress(IndexError):
            while True:
                replies.append(self._replies.popleft())
        return replies

    def durl(self, memory: MemoryId, trans: str, transport: str) -> str:
        """Address of an element. It holds a key.

        Raises
        ------
        KeyError
            If there is no such element (any more).
        """
        found: str = self._held[memory].grant.durl(trans, TRANSPORT_TYPES[transport])
        return found

    def close(self) -> None:
        """Stop the server and the thread. Idempotent."""
        if self._thread is not None:
            self._requests.put(None)
            self._thread.join()
            self._thread = None
        for reply in self.take():
            if isinstance(reply, ServerStarted):
                os.close(reply.pidfd)

    # -- the host's thread -----------------------------------------------------------------------

    def _serve(self) -> None:
        try:
            while (request := self._requests.get()) is not None:
                if isinstance(request, Create):
                    self._create(request)
                elif isinstance(request, Drop):
                    self._drop(request)
                elif request.number == self._number:
                    self._bury()
        finally:
            self._bury()

    def _reply(self, reply: Reply) -> None:
        self._replies.append(reply)
        self._wake()

    def _create(self, request: Create) -> None:
        message = ""
        for _ in range(_ATTEMPTS):
            try:
                if self._process is None:
                    self._start()
                elastic = request.elastic
                grant = self._control.create_element(
                    self._tenant,
                    request.memory.name,
                    0 if elastic else request.size,
                    elastic=elastic,
                    limit=min(request.size, self._capacity) if elastic else None,
                )
            except (CapacityError, AuthError) as error:
                message = str(error)
                break
            except Exception as error:
                # Whatever it is, a server that does not answer properly is of no use to anybody.
                message = f"the memory server cannot be used: {error}"
                log.warning("%s", message)
                self._bury()
            else:
                self._held[request.memory] = _Held(self._number, grant)
                self._reply(Created(request.memory, self._number))
                return
        self._reply(CreateFailed(request.memory, message))

    def _drop(self, request: Drop) -> None:
        held = self._held.pop(request.memory, None)
        if held is not None and held.server == self._number and self._control is not None:
            try:
                stats = self._control.drop_element(self._tenant, held.grant.id)
            except Exception as error:  # whatever it is: an answer that never comes is a hang
                log.warning("memory element %s: %s", request.memory.name, error)
            else:
                self._reply(Dropped(request.memory, stats.peak, stats.byte_seconds))
                return
        self._reply(Dropped(request.memory))

    def _start(self) -> None:
        from libd.server_process import MemoryServerProcess

        self._number += 1
        self._process = MemoryServerProcess(self._capacity)
        self._control = self._process.control
        self._tenant = self._control.create_tenant(TENANT, self._capacity)
        self.pid = self._process.pid
        self._reply(
            ServerStarted(self._number, self._process.pid, os.pidfd_open(self._process.pid))
        )

    def _bury(self) -> None:
        """Make sure that the server is dead, and forget what it held."""
        if self._process is not None:
            self._process.stop()
        self._control = self._process = self._tenant = None
        self.pid = None
        for memory in [m for m, h in self._held.items() if h.server == self._number]:
            del self._held[memory]
