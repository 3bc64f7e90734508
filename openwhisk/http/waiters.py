"""`Waiters`: coroutines that wait for activations to end, without a thread each."""

from __future__ import annotations

import asyncio

__all__ = ["Waiters"]


class Waiters:
    """Wakes coroutines when activations finish; fed from the control plane's thread."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._closed = False

    def start(self) -> None:
        """Bind to the running event loop."""
        self._loop = asyncio.get_running_loop()

    def close(self) -> None:
        """Wake everybody, also who comes later: the service stops. On the event loop."""
        self._closed = True
        for activation_id in list(self._waiting):
            self._wake(activation_id)

    def finished(self, activation_id: str) -> None:
        """Say that an activation has ended; any thread may call this."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._wake, activation_id)

    def _wake(self, activation_id: str) -> None:
        for event in self._waiting.pop(activation_id, ()):
            event.set()

    def register(self, activation_id: str) -> asyncio.Event:
        """An event that is set when the activation ends; ask for its state *after* registering."""
        event = asyncio.Event()
        if self._closed:
            event.set()
        else:
            self._waiting.setdefault(activation_id, set()).add(event)
        return event

    def forget(self, activation_id: str, event: asyncio.Event) -> None:
        """Nobody waits for this event any more."""
        waiting = self._waiting.get(activation_id)
        if waiting is not None:
            waiting.discard(event)
            if not waiting:
                del self._waiting[activation_id]
