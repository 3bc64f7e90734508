"""`Holdings`: what workers hold, beside what their runs have reserved."""

from __future__ import annotations

import contextlib

from openwhisk._watcher import Watcher
from openwhisk.scheduler.messages import RunId
from openwhisk.scheduler.reservations import Reservation

__all__ = ["Holdings"]


class Holdings:
    """Watches the workers that have runs, and says when one leaves the bounds of its reservation.

    Runs are known here by numbers that never come again.
    """

    def __init__(self) -> None:
        self._watcher = Watcher()
        self._runs: dict[int, RunId] = {}

    def fileno(self) -> int:
        """Readable when `news` has something to say."""
        return self._watcher.fileno()

    def begin(self, number: int, run: RunId, pid: int, reserved: Reservation) -> None:
        """A worker has a run."""
        self._runs[number] = run
        # One that is dead already cannot be watched: its zygote will say so.
        with contextlib.suppress(OSError):
            self._watcher.watch(number, pid, reserved.low, reserved.high)

    def reserved(self, number: int, reserved: Reservation) -> None:
        """A run has other bytes reserved, and is news again when that does not fit."""
        self._watcher.bound(number, reserved.low, reserved.high)

    def end(self, number: int) -> None:
        """A run has left its worker. No effect on one that is not watched."""
        if self._runs.pop(number, None) is not None:
            self._watcher.forget(number)

    def news(self) -> list[tuple[RunId, int]]:
        """Runs whose workers are out of bounds, and what these hold; each is silent until
        `reserved`.
        """
        found = self._watcher.take()
        return [(self._runs[number], held) for number, held in found if number in self._runs]

    def close(self) -> None:
        """Watch no more. Idempotent."""
        self._watcher.close()
