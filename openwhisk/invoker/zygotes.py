"""`Zygotes`: one zygote at a time, and another one when it dies."""

from __future__ import annotations

import logging

from openwhisk.invoker.procfs import anonymous_bytes
from openwhisk.invoker.zygote import ZygoteLink
from openwhisk.worker.messages import Configure, Exited, Forked, Ready

__all__ = ["Zygotes"]

log = logging.getLogger(__name__)

# Zygotes that die one after the other before one was ready: after that many, workers cannot be had.
_HOPELESS = 3
_PATIENCE = 2.0  # seconds that a zygote has to kill its workers

SHARED = 0.78
"""The share of a zygote's anonymous memory that its workers have in common with it, and that is
charged once. Fresh ones have 54 of 57 MiB, one that had run twelve queries of TPC-DS 44
(``Shared_Dirty`` in smaps_rollup, which takes 1 to 6 ms to read: too long to ask each time)."""


class Zygotes:
    """Starts zygotes, and has them fork; who waits for one that is still importing waits here.

    Parameters
    ----------
    configure
        What every zygote is told first.

    Attributes
    ----------
    hopeless
        Whether so many have died before they were ready that no other one is worth a try.
    held
        Bytes of anonymous memory of the zygote since it is ready, 0 before.
    """

    def __init__(self, configure: Configure) -> None:
        self._configure = configure
        self._link: ZygoteLink | None = None
        self._ready = False
        self.held = 0
        self._stillborn = 0
        self._forks: list[str] = []

    @property
    def running(self) -> bool:
        """Whether there is one."""
        return self._link is not None

    @property
    def hopeless(self) -> bool:
        """See above."""
        return self._stillborn >= _HOPELESS

    def start(self) -> None:
        """Start one, from the thread that it is to live and die with.

        Raises
        ------
        OSError
            If the process cannot be started.
        """
        if self.hopeless:
            self._stillborn = 0
        self._ready = False
        self._link = ZygoteLink(self._configure)

    def fileno(self) -> int:
        """Readable when `receive` has something to say; -1 where there is no zygote."""
        return -1 if self._link is None else self._link.fileno()

    def fork(self, worker: str) -> None:
        """Have a worker made, as soon as that can be."""
        if self._link is None or not self._ready:
            self._forks.append(worker)
        else:
            self._link.fork(worker)

    def kill(self, worker: str) -> None:
        """Have a worker killed. No effect where there is no zygote: its workers died with it."""
        if self._link is not None:
            self._link.kill(worker)

    def receive(self) -> list[Forked | Exited] | None:
        """Return what became of workers, ``None`` if the zygote is dead (then call `end`)."""
        if self._link is None:
            return []
        messages = self._link.receive()
        if messages is None:
            return None
        news: list[Forked | Exited] = []
        for message in messages:
            if isinstance(message, Ready):
                self._on_ready(message)
            else:
                news.append(message)
        return news

    @property
    def shared(self) -> int:
        """Bytes that are the zygote's in what each of its workers holds (see `SHARED`)."""
        return int(self.held * SHARED)

    def _on_ready(self, message: Ready) -> None:
        self._ready = True
        assert self._link is not None
        self.held = anonymous_bytes(self._link.pid)
        self._stillborn = 0
        if message.missing:
            log.info("workers start without %s", ", ".join(message.missing))
        forks, self._forks = self._forks, []
        for worker in forks:
            self.fork(worker)

    def end(self) -> int:
        """Bury a dead zygote; return its exit status. Forks that it was asked for are forgotten."""
        assert self._link is not None
        status = self._link.close()
        self._stillborn = 0 if self._ready else self._stillborn + 1
        self._link = None
        self.held = 0
        self._forks.clear()
        return status

    def close(self) -> None:
        """End the zygote, and with it its workers. Idempotent."""
        if self._link is not None:
            # One that is still importing has no workers, and does not listen yet.
            self._link.close(patience=_PATIENCE if self._ready else 0.0)
            self._link = None
            self.held = 0
