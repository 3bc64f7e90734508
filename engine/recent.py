"""`Recent`: a bounded mapping that forgets what was not asked for longest."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["Recent"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """What was made for the last `limit` keys, as long as the state of the world that it was made
    in lasts. Safe to share between threads.

    Everything is forgotten as soon as somebody comes with another state: what was made for an
    older one keeps nothing alive.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: OrderedDict[K, V] = OrderedDict()
        self._state: Hashable = None
        self._lock = threading.Lock()

    def get(self, key: K, state: Hashable) -> V | None:
        """What was put for a key in this state, or None."""
        with self._lock:
            self._enter(state)
            found = self._items.get(key)
            if found is not None:
                self._items.move_to_end(key)
            return found

    def put(self, key: K, state: Hashable, value: V) -> None:
        """Keep what was made for a key in this state."""
        with self._lock:
            self._enter(state)
            self._items[key] = value
            self._items.move_to_end(key)
            while len(self._items) > self._limit:
                self._items.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._items.clear()

    def __len__(self) -> int:
        return len(self._items)

    def _enter(self, state: Hashable) -> None:
        if state != self._state:
            self._items.clear()
            self._state = state
