"""Waiting for completions in asyncio: one reader per event loop and transport wakes all who wait.

What is not here: moving bytes. A completion is moved along by `Completion.poll`, which this module
calls when the transport's descriptor polls readable.
"""

from __future__ import annotations

import asyncio
from typing import Protocol
from weakref import WeakKeyDictionary

__all__ = ["landing"]

_LOOK = 0.1
"""Seconds after which completions are looked at although no event came: a thread that waits on the
same transport may have taken the event."""


class _Pollable(Protocol):
    def poll(self) -> bool: ...


class _Watch:
    """Those who wait in one event loop for one descriptor."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int) -> None:
        self._loop = loop
        self._fd = fd
        self._waiting: dict[asyncio.Future[None], _Pollable] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, completion: _Pollable) -> asyncio.Future[None]:
        future: asyncio.Future[None] = self._loop.create_future()
        if not self._waiting:
            self._loop.add_reader(self._fd, self._look)
            self._timer = self._loop.call_later(_LOOK, self._tick)
        self._waiting[future] = completion
        future.add_done_callback(self._forget)
        return future

    def _look(self) -> None:
        for future, completion in list(self._waiting.items()):
            if not future.done() and completion.poll():
                future.set_result(None)

    def _tick(self) -> None:
        self._timer = self._loop.call_later(_LOOK, self._tick)
        self._look()

    def _forget(self, future: asyncio.Future[None]) -> None:
        del self._waiting[future]
        if not self._waiting:
            self._loop.remove_reader(self._fd)
            if self._timer is not None:
                self._timer.cancel()
            # It refers to its loop, which must not live for it.
            _watches.get(self._loop, {}).pop(self._fd, None)


_watches: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[int, _Watch]] = WeakKeyDictionary()


async def landing(completion: _Pollable, fd: int) -> None:
    """Return once `completion` has ended, well or not.

    Cancelling the wait does not cancel the transfer.
    """
    loop = asyncio.get_running_loop()
    watch = _watches.setdefault(loop, {}).setdefault(fd, _Watch(loop, fd))
    await watch.add(completion)
