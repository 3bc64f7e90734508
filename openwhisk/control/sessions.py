"""`SessionBook`: what callers may know of a session, and what its memory costs."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field

from openwhisk.api import SessionInfo
from openwhisk.control.accounting import GB, Meter
from openwhisk.scheduler.messages import MemoryId


@dataclass(slots=True)
class Kept:
    """A memory element of a session. `lost`: its memory server died. `released`: nobody is let in
    any more, though its bytes are not back yet.
    """

    memory: MemoryId
    size: int
    lost: bool = False
    released: bool = False


@dataclass(slots=True)
class SessionBook:
    """One session; the owner's lock guards it. `over` is set when it owns nothing any more;
    `renewed` is when a call that did nothing else last renewed the lease.
    """

    id: str
    name: str
    lease: float
    meter: Meter = field(default_factory=Meter)
    memory: dict[tuple[str, str], Kept] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)
    renewed: float = -math.inf

    def info(self, now: float) -> SessionInfo:
        """A snapshot."""
        live = {f"{a}/{e}": kept for (a, e), kept in self.memory.items() if not kept.lost}
        return SessionInfo(
            id=self.id,
            name=self.name,
            lease=self.lease,
            memory=list(live),
            memory_bytes=sum(kept.size for kept in live.values()),
            memory_gb_s=(self.meter.memory.until(now) + self.meter.elastic_byte_seconds) / GB,
        )
