"""What to evict: SIEVE over columns, with second chances by what a column costs to fill again.

SIEVE (Zhang et al., "SIEVE is Simpler than LRU", NSDI 2024) keeps entries in order of arrival and
moves a hand from the oldest to the newest: an entry that was used since the hand last passed loses
that mark and stays, another one goes. It survives scans that touch everything once, which is what a
batch of queries does. Here the mark is a count, of up to `CHANCES`, so that columns that are dear
to decode for their bytes (strings) outlive cheap ones that were used as often.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["CHANCES", "Sieve"]

K = TypeVar("K", bound=Hashable)

CHANCES = 3


@dataclass(slots=True)
class _Entry:
    size: int
    cost: float
    chances: int = 0


class Sieve(Generic[K]):
    """Keys with their sizes. Not thread-safe."""

    def __init__(self) -> None:
        self._entries: dict[K, _Entry] = {}  # oldest first
        self._hand: K | None = None
        self.bytes = 0
        self._cost = 0.0

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, key: K, size: int, cost: float) -> None:
        """A new key of `size` bytes that took `cost` seconds to fill."""
        if key in self._entries:
            raise ValueError(f"{key!r} is here already")
        self._entries[key] = _Entry(size, cost)
        self.bytes += size
        self._cost += cost

    def hit(self, key: K) -> None:
        """Somebody used it."""
        entry = self._entries[key]
        dear = entry.cost * self.bytes > 2 * self._cost * entry.size
        entry.chances = min(CHANCES, entry.chances + (2 if dear else 1))

    def remove(self, key: K) -> int:
        """Forget a key; its size."""
        if self._hand == key:
            self._hand = self._after(key) if len(self._entries) > 1 else None
        entry = self._entries.pop(key)
        self.bytes -= entry.size
        self._cost -= entry.cost
        return entry.size

    def victims(self, wanted: int, pinned: Collection[K]) -> list[K] | None:
        """Keys to remove so that `wanted` bytes become free, none of them pinned; None if there are
        not enough. The caller removes them.
        """
        free = sum(e.size for k, e in self._entries.items() if k not in pinned)
        if free < wanted:
            return None
        chosen: dict[K, None] = {}
        hand = self._hand if self._hand is not None else next(iter(self._entries), None)
        while wanted > 0:
            assert hand is not None
            entry = self._entries[hand]
            if hand not in pinned and hand not in chosen:
                if entry.chances > 0:
                    entry.chances -= 1
                else:
                    chosen[hand] = None
                    wanted -= entry.size
            hand = self._after(hand)
        self._hand = hand
        return list(chosen)

    def _after(self, key: K) -> K:
        """The next newer key; after the newest the oldest."""
        keys = list(self._entries)
        return keys[(keys.index(key) + 1) % len(keys)]
