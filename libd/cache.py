"""Arenas that this process has attached, shared by all its `LibdAction`s."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from libd._core import Memory

__all__ = ["ArenaCache"]


def _bury(arenas: dict[tuple[bytes, int], Memory]) -> None:
    for dead in [k for k, m in arenas.items() if not m.alive]:
        del arenas[dead]


class ArenaCache:
    """One mapping per (server incarnation, tenant), kept for as long as the tenant lives.

    That it does not is noticed when a transport finds its server gone, when another arena is added,
    and when a `LibdAction` is closed.

    A fresh mapping's first touches are several times slower than later ones, so a worker keeps one
    cache for its whole life and gives it to every action. A cache that a child inherits through
    ``fork`` is empty there.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._arenas: dict[tuple[bytes, int], Memory] = {}

    def _own(self) -> dict[tuple[bytes, int], Memory]:
        if self._pid != os.getpid():
            self._lock = (
                threading.Lock()
            )  # the parent's may have been held by a thread that is not here
            self._pid = os.getpid()
            self._arenas = {}
        return self._arenas

    def get(self, key: tuple[bytes, int]) -> Memory | None:
        """Return the arena attached for `key`, if there is one."""
        return self._own().get(key)

    def holds(self, tenant: int) -> bool:
        """Whether there is an arena of `tenant`, of whichever server; 0: of any tenant."""
        arenas = self._own()
        if not arenas:
            return False
        with self._lock:
            return any(tenant in (0, other) for _, other in arenas)

    def add(self, key: tuple[bytes, int], memory: Memory) -> Memory:
        """Keep `memory`, or return what another thread added meanwhile; forget dead arenas."""
        arenas = self._own()
        if not arenas:
            return arenas.setdefault(key, memory)
        with self._lock:
            _bury(arenas)
            return arenas.setdefault(key, memory)

    def sweep(self) -> None:
        """Forget arenas whose tenant was dropped; views that are still alive keep theirs."""
        arenas = self._own()
        if not arenas:
            return
        with self._lock:
            _bury(arenas)

    def clear(self) -> None:
        """Forget all arenas; transports and views that are still alive keep theirs."""
        arenas = self._own()
        with self._lock:
            arenas.clear()

    def __len__(self) -> int:
        return len(self._own())
