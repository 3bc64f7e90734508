"""`ServerWatch`: whether the memory server lives, and what was lost if not."""

from __future__ import annotations

import os
import time
from collections import deque

from openwhisk.scheduler.messages import MemoryServerLost, WorkerLost

__all__ = ["ServerWatch"]

_LINGERING = 1.0  # seconds that a process may take to end after its sockets were closed


class ServerWatch:
    """Watches one memory server after the other.

    Workers hear of a server's death before we do: its sockets close first. A run that ended for
    that waits for the news that the server died: with it all that was lost is known, and none is
    repeated in vain.

    Attributes
    ----------
    fd
        Readable when the server is dead; -1 while none is watched.
    number
        Which server it is.
    """

    def __init__(self) -> None:
        self.fd = -1
        self.number = -1
        self._waiting: deque[tuple[float, WorkerLost]] = deque()

    def begin(self, number: int, pidfd: int) -> None:
        """Watch a server; `pidfd` is closed with the watch."""
        self.number, self.fd = number, pidfd

    def hold_back(self, lost: WorkerLost) -> None:
        """A run lost its memory. It is `due` when the server should have died."""
        patience = _LINGERING if self.fd >= 0 else 0.0
        self._waiting.append((lost.now + patience, lost))

    def next_due(self) -> float | None:
        """When `due` has something to say, if nothing happens before."""
        return self._waiting[0][0] if self._waiting else None

    def due(self) -> list[WorkerLost]:
        """Runs that have waited long enough."""
        found = []
        while self._waiting and self._waiting[0][0] <= time.monotonic():
            found.append(self._waiting.popleft()[1])
        return found

    def died(self) -> list[MemoryServerLost | WorkerLost]:
        """The server is dead; what to say of it, and of the runs that waited for that."""
        self.end()
        lost = [lost for _, lost in self._waiting]
        self._waiting.clear()
        return [MemoryServerLost(time.monotonic(), self.number), *lost]

    def end(self) -> None:
        """Watch no more. Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
