"""`Connection`: the control plane that queries run on, and the session there that owns their
answers.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from engine.errors import EngineError
from libd import ArenaCache
from libd.errors import ScadError

if TYPE_CHECKING:
    from openwhisk.api import ControlPlane

__all__ = ["LEAST_DEFAULT_MEMORY", "PREIMPORT", "Connection"]

LEAST_DEFAULT_MEMORY = 1 << 30
"""What a compute element may hold at least, where nobody says how much."""

# Imported once per worker pool, so that an element starts in milliseconds. DuckDB imports
# pyarrow.dataset when it is first given Arrow data; pyarrow would import pandas, which comes when
# an element asks for it.
PREIMPORT = (
    "remote_frame.pandas_later",
    "pyarrow.dataset",
    "libd.action",
    "remote_frame.executor",
    "remote_frame.opening",
    "remote_frame.storage",
    "operators.duckdb",
    "engine.element",
    "engine.resident.load",
)


class Connection:
    """A control plane, made when it is first needed, and a session there, opened anew when its
    lease ran out. Safe to use from several threads.

    Parameters
    ----------
    apihost
        ``host:port`` of a control plane; None starts one in this process.
    control
        A control plane to use; it is not closed with the connection.
    compute_memory
        The most bytes that a compute element may hold; None is a quarter of the control plane's.
    lease
        Seconds without a query after which the session's memory goes.
    preimport
        What the workers of a control plane that is started here import besides `PREIMPORT`.

    Attributes
    ----------
    arenas
        Memory that answers were read from, attached for the next ones.
    """

    def __init__(
        self,
        apihost: str | None,
        control: ControlPlane | None,
        compute_memory: int | None,
        *,
        lease: float,
        preimport: Sequence[str] = (),
    ) -> None:
        self._apihost = apihost
        self._control = control
        self._owns_control = control is None
        self._compute_memory = compute_memory
        self._lease = lease
        self._preimport = (*PREIMPORT, *preimport)
        self._cores: int | None = None
        self._session: str | None = None
        self._closed = False
        self._lock = threading.RLock()
        self.arenas = ArenaCache()

    @property
    def control(self) -> ControlPlane:
        """The control plane.

        Raises
        ------
        EngineError
            If the connection is closed.
        """
        with self._lock:
            self.require_open()
            if self._control is None:
                self._control = self._start()
            return self._control

    def require_open(self) -> None:
        """Raise what `control` does if the connection is closed."""
        if self._closed:
            raise EngineError("the session is closed")

    def warm_up(self) -> None:
        """Let a control plane that this connection has to start import what its workers need, while
        the caller goes on. What goes wrong is told when the control plane is used.
        """
        with self._lock:
            if self._control is None and self._apihost is None and not self._closed:
                with suppress(ScadError, OSError):
                    self._control = self._start()

    @property
    def session(self) -> str:
        """The session there, whose lease has just begun."""
        from openwhisk.errors import NotFoundError

        control = self.control
        with self._lock:
            if self._session is not None:
                try:
                    control.renew_session(self._session)
                except NotFoundError:  # idle for longer than its lease
                    self._session = None
            if self._session is None:
                self._session = control.open_session(lease=self._lease).id
            return self._session

    @property
    def cores(self) -> int:
        """Cores that elements run on."""
        if self._cores is None:
            here = self._apihost is None and self._control is None
            self._cores = len(os.sched_getaffinity(0)) if here else int(self.control.info().cores)
        return max(1, self._cores)

    @property
    def compute_memory(self) -> int:
        """The most bytes that a compute element may hold."""
        if self._compute_memory is None:
            self._compute_memory = max(LEAST_DEFAULT_MEMORY, self.control.info().memory // 4)
        return self._compute_memory

    def refuse(self) -> None:
        """Let nothing more begin."""
        with self._lock:
            self._closed = True

    def close(self) -> None:
        """End the session, and the control plane if it was started here. Idempotent."""
        self.refuse()
        self.arenas.clear()
        with self._lock:
            control, self._control = self._control, None
            session, self._session = self._session, None
            if control is None:
                return
            if session is not None:
                with suppress(ScadError):
                    control.close_session(session)
            if self._owns_control:
                control.close()

    def _start(self) -> ControlPlane:
        if self._apihost is not None:
            from openwhisk.client import HttpControlPlane

            return HttpControlPlane(self._apihost)
        from openwhisk.control import EmbeddedControlPlane

        return EmbeddedControlPlane(preimport=self._preimport)
