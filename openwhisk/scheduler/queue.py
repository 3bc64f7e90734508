"""`Queue`: who waits, strictly in order: applications to be let in, gangs for cores and bytes."""

from __future__ import annotations

from collections import deque

from openwhisk.scheduler.state import ActivationState, Gang, Phase

__all__ = ["Queue", "set_phase"]


def set_phase(gang: Gang, phase: Phase) -> None:
    """Where a gang is, its tasks are."""
    gang.phase = phase
    for task in gang.tasks:
        task.phase = phase


class Queue:
    """Applications and gangs, in the order in which they came.

    Attributes
    ----------
    applications
        Those that have not been let in.
    """

    def __init__(self) -> None:
        self.applications: deque[ActivationState] = deque()
        self._gangs: dict[int, Gang] = {}
        self._tickets = 0

    def withdraw(self, act: ActivationState) -> None:
        """An application waits no longer to be let in."""
        self.applications = deque(a for a in self.applications if a is not act)

    def advance(self, act: ActivationState) -> None:
        """Queue the gangs of an application that waited for parents which are done."""
        for gang in act.gangs:
            if gang.phase is Phase.WAITING and _ready(gang):
                self._tickets += 1
                gang.ticket = self._tickets
                set_phase(gang, Phase.QUEUED)
                self._gangs[gang.ticket] = gang

    def leave(self, gang: Gang, phase: Phase) -> None:
        """A gang is in another phase, whether it was queued or not."""
        self._gangs.pop(gang.ticket, None)
        set_phase(gang, phase)

    def recall(self, act: ActivationState) -> None:
        """Let gangs wait again whose parents are not done any more."""
        for gang in act.gangs:
            if gang.phase is Phase.QUEUED and not _ready(gang):
                self.leave(gang, Phase.WAITING)

    def first(self) -> Gang | None:
        """The gang whose turn it is."""
        return next((g for g in self._gangs.values() if _has_turn(g)), None)


def _ready(gang: Gang) -> bool:
    return all(gang.activation.finished(parent) for parent in gang.plan.after)


def _has_turn(gang: Gang) -> bool:
    if not gang.activation.tight:
        return True
    # One by one, in the plan's order, so that the peak is the one that was checked.
    if gang.activation.runs:
        return False
    return gang is next(g for g in gang.activation.gangs if g.phase is not Phase.DONE)
