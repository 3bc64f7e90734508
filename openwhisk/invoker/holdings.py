"""`Holdings`: what workers hold, beside what their runs have reserved."""

from __future__ import annotations

import contextlib

from openwhisk._watcher import Watcher
from openwhisk.scheduler.messages import RunId
from openwhisk.scheduler.reservations import Reservation

__all__ = ["Holdings"]


class Holdings:
    """Watches the workers that have runs, and says when one leaves the bounds of its reservation.

    Runs are known here by numbers that never come again. What a worker shares with its zygote it
    does not hold.
    """

    def __init__(self) -> None:
        self._watcher = Watcher()
        self._runs: dict[int, tuple[RunId, int]] = {}

    def fileno(self) -> int:
        """Readable when `news` has something to say."""
        return self._watcher.fileno()

    def begin(self, number: int, run: RunId, pid: int, reserved: Reservation, shared: int) -> None:
        """A worker has a run, and shares so many bytes."""
        self._runs[number] = run, shared
        # One that is dead already cannot be watched: its zygote will say so.
        with contextlib.suppress(OSError):
            self._watcher.watch(number, pid, *_bounds(reserved, shared))

    def reserved(self, number: int, reserved: Reservation) -> None:
        """A run has other bytes reserved, and is news again when that does not fit."""
        if (known := self._runs.get(number)) is not None:
            self._watcher.bound(number, *_bounds(reserved, known[1]))

    def end(self, number: int) -> None:
        """A run has left its worker. No effect on one that is not watched."""
        if self._runs.pop(number, None) is not None:
            self._watcher.forget(number)

    def news(self) -> list[tuple[RunId, int]]:
        """Runs whose workers are out of bounds, and what these hold; each is silent until
        `reserved`.
        """
        news = []
        for number, held in self._watcher.take():
            if (known := self._runs.get(number)) is not None:
                run, shared = known
                news.append((run, max(0, held - shared)))
        return news

    def close(self) -> None:
        """Watch no more. Idempotent."""
        self._watcher.close()


def _bounds(reserved: Reservation, shared: int) -> tuple[int, int]:
    """Between what a worker's RssAnon may be."""
    return reserved.low and reserved.low + shared, reserved.high + shared
