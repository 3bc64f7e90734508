"""How much of its limit an element has reserved: what it holds, and a little more.

A limit is the most that an element may ever hold. What it has *reserved* begins small and follows
what its worker is seen to hold, up to the limit. Only that is taken from the ledger, so that others
can have what an element does not hold yet, or any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["NOTHING", "Reservation", "ReservationPolicy"]

_MiB = 1 << 20
_NEVER = 1 << 62


class Reservation(NamedTuple):
    """Bytes that a run has reserved, and between which bytes held that may stay as it is."""

    size: int
    low: int = 0
    high: int = _NEVER


NOTHING = Reservation(0)


@dataclass(frozen=True, slots=True)
class ReservationPolicy:
    """Follows what is held.

    Parameters
    ----------
    first
        Bytes with which an element begins: what a small element needs. Below that, following would
        cost more than it saves. What a worker shares with its zygote is not among them.
    step
        What is reserved is a multiple of this: every change wakes the control plane.
    ahead
        Bytes that are reserved beyond what is held. Two threads that do nothing but touch new pages
        take as much in some ten milliseconds, about what passes before an element that cannot have
        more is stopped.
    share
        An element that holds more than `share` times `ahead` is given that part of it instead.
    """

    first: int = 96 * _MiB
    step: int = 8 * _MiB
    ahead: int = 32 * _MiB
    share: int = 16

    def begin(self, limit: int) -> Reservation:
        """What an element of that limit begins with."""
        return self._reservation(min(limit, self.first), limit)

    def whole(self, limit: int) -> Reservation:
        """All of it, whatever is held."""
        return Reservation(limit)

    def follow(self, held: int, limit: int) -> Reservation:
        """What an element that holds so many bytes should have."""
        wanted = held + max(self.ahead, held // self.share)
        size = max(self.first, -(-wanted // self.step) * self.step)
        return self._reservation(min(limit, size), limit)

    def _reservation(self, size: int, limit: int) -> Reservation:
        # More is asked for when a third of what was ahead is used up; something is given back when
        # it is at least two steps.
        high = _NEVER if size >= limit else size - 2 * self.ahead // 3
        less = size - 2 * self.step
        low = min(less - self.ahead, less * self.share // (self.share + 1))
        return Reservation(size, max(low, 0) if less >= self.first else 0, high)
