"""`Growth`: runs that want more of their limit than they have reserved, and who gets it.

A run that cannot have more is stopped where it is, until somebody else gives bytes back: the oldest
gang is served first, and before anything new begins. Where all that run have been stopped, nobody
would give anything back; then the youngest gang yields. It is repeated with its whole limit
reserved, and never yields again: every gang yields once at most, and the oldest one never.
"""

from __future__ import annotations

from openwhisk.scheduler.ledger import Ledger
from openwhisk.scheduler.messages import Command, PauseTask, Reserve, RunId
from openwhisk.scheduler.reservations import ReservationPolicy
from openwhisk.scheduler.state import Gang, Run

__all__ = ["Growth"]


class Growth:
    """What runs have reserved, within a ledger.

    Attributes
    ----------
    waiting
        Runs that want more than there is now. They are stopped.
    """

    def __init__(self, ledger: Ledger, policy: ReservationPolicy) -> None:
        self._ledger = ledger
        self._policy = policy
        self.waiting: dict[RunId, Run] = {}

    def begin(self, run: Run) -> None:
        """Reserve what a run begins with. There is room for its whole limit."""
        plan = run.task.plan
        whole = run.task.gang.whole
        run.reserved = (self._policy.whole if whole else self._policy.begin)(plan.mem)
        self._ledger.take(plan.cores, run.reserved.size)

    def end(self, run: Run) -> None:
        """Give back all that a run has."""
        self.waiting.pop(run.id, None)
        self._ledger.give_back(run.task.plan.cores, run.reserved.size)

    def forget(self, run: Run) -> None:
        """A run is to end: it gets nothing more."""
        self.waiting.pop(run.id, None)

    def holds(self, run: Run, held: int) -> list[Command]:
        """A run was seen to hold more, or less, than fits what it has reserved."""
        wanted = self._policy.follow(held, run.task.plan.mem)
        if run.task.gang.whole or run.id in self.waiting:
            return []
        if wanted.size > run.reserved.size:
            run.wanted = wanted
            self.waiting[run.id] = run
            return []  # `serve` is next
        self._ledger.give_back(0.0, run.reserved.size - wanted.size)
        run.reserved = wanted
        return [Reserve(run.id, wanted)]

    def serve(self, now: float) -> list[Command]:
        """Let runs have what they wait for, the oldest gang's first; stop those that cannot."""
        commands: list[Command] = []
        for run in sorted(self.waiting.values(), key=lambda r: r.task.gang.started):
            more = run.wanted.size - run.reserved.size
            if self._ledger.used_bytes + more > self._ledger.memory:
                break
            self._ledger.take(0.0, more)
            run.reserved = run.wanted
            del self.waiting[run.id]
            if run.paused is not None:
                if run.started is not None:
                    run.started += now - run.paused  # its time limit is about its own time
                run.paused = None
            commands.append(Reserve(run.id, run.reserved))
        for run in self.waiting.values():
            if run.paused is None:
                run.paused = now
                commands.append(PauseTask(run.id))
        return commands

    def stalled(self, runs: dict[RunId, Run]) -> Gang | None:
        """Return the youngest of the gangs that run if none of them can go on.

        One of which a member is stopped counts as stopped: the others may be waiting for it.
        """
        if not self.waiting or any(run.stopping for run in runs.values()):
            return None
        stopped = {run.task.gang for run in self.waiting.values()}
        if any(run.task.gang not in stopped for run in runs.values()):
            return None
        return max(stopped, key=lambda gang: gang.started)
