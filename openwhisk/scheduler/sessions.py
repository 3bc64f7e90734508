"""`Sessions`: leases, and which memory elements and activations hang on them.

A session lives until it is closed, or until nobody has named it for the length of its lease. An
activation that is under way keeps its session alive: a caller who waits for a long query says
nothing meanwhile, and activations end by themselves.
"""

from __future__ import annotations

from openwhisk.scheduler.messages import Command, Failure, SessionClosed
from openwhisk.scheduler.state import Incarnation, SessionState


class Sessions:
    """Book-keeping of sessions; the scheduler acts on what it says."""

    def __init__(self) -> None:
        self._sessions: dict[str, SessionState] = {}

    def open(self, session: str, lease: float, now: float) -> None:
        """Begin a session; of a known one, renew the lease and take its new length."""
        found = self._sessions.get(session)
        if found is None:
            self._sessions[session] = SessionState(session, lease, now + lease)
        elif found.closing is None:
            found.lease = lease
            found.expires = now + lease

    def renew(self, session: str, now: float) -> None:
        """Start the lease anew."""
        if (found := self._sessions.get(session)) is not None:
            found.expires = now + found.lease

    def join(self, session: str | None, activation: str, now: float) -> Failure | None:
        """Let an activation run in a session; say why not, if so."""
        if session is None:
            return None
        found = self._sessions.get(session)
        if found is None or found.closing is not None:
            return Failure(
                "session", f"there is no session {session}; it was closed, or its lease expired"
            )
        self.renew(session, now)
        found.activations[activation] = None
        return None

    def leave(self, session: str, activation: str, now: float) -> list[Command]:
        """An activation is over; the lease starts anew."""
        found = self._sessions.get(session)
        if found is None:
            return []
        found.activations.pop(activation, None)
        found.expires = now + found.lease
        return self.close_if_empty(session)

    def keep(self, session: str, incarnation: Incarnation) -> None:
        """A memory element passes from its application to the session."""
        found = self._sessions[session]
        incarnation.session = session
        found.memory[incarnation.id.activation, incarnation.id.name] = incarnation

    def memory(self, session: str, activation: str, element: str) -> Incarnation | None:
        """Find a memory element of a session."""
        found = self._sessions.get(session)
        return None if found is None else found.memory.get((activation, element))

    def forget(self, incarnation: Incarnation) -> list[Command]:
        """A memory element of a session is gone."""
        assert incarnation.session is not None
        found = self._sessions.get(incarnation.session)
        if found is None:
            return []
        found.memory.pop((incarnation.id.activation, incarnation.id.name), None)
        return self.close_if_empty(found.id)

    def begin_closing(self, session: str, reason: str) -> tuple[list[str], list[Incarnation]]:
        """Mark a session as closing; return its activations and its memory."""
        found = self._sessions.get(session)
        if found is None or found.closing is not None:
            return [], []
        found.closing = reason
        return list(found.activations), list(found.memory.values())

    def close_if_empty(self, session: str) -> list[Command]:
        """Remove a closing session once nothing hangs on it."""
        found = self._sessions.get(session)
        if found is None or found.closing is None or found.activations or found.memory:
            return []
        del self._sessions[session]
        return [SessionClosed(session, found.closing)]

    def expired(self, now: float) -> list[str]:
        """Sessions whose lease has run out."""
        return [s.id for s in self._sessions.values() if _can_expire(s) and s.expires <= now]

    def next_expiry(self) -> float | None:
        """When the next lease runs out."""
        return min((s.expires for s in self._sessions.values() if _can_expire(s)), default=None)


def _can_expire(session: SessionState) -> bool:
    return session.closing is None and not session.activations
