"""The memory element of a session's resident columns, seen from the session."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.errors import EngineError
from engine.resident.applications import opening
from engine.resident.layout import ELEMENT, Piece
from libd import LibdAction
from libd.errors import LibdError, ScadError
from openwhisk.app import Application
from openwhisk.errors import MemoryLostError, NotFoundError

if TYPE_CHECKING:
    from libd import Transport
    from openwhisk.api import Activation, ControlPlane

__all__ = ["ResidentMemory"]


@dataclass(slots=True)
class _Element:
    """One memory element, and this side's connection to it."""

    session: str
    activation: str
    action: LibdAction
    transport: Transport


class ResidentMemory:
    """The memory element that holds all resident columns of a session, or none.

    Parameters
    ----------
    budget
        Its size, in bytes.
    transport
        How elements reach it.
    compute_memory
        Bytes of the element that opens it.
    """

    def __init__(self, budget: int, transport: str, compute_memory: Callable[[], int]) -> None:
        self._budget = budget
        self._transport = transport
        self._compute_memory = compute_memory
        self._element: _Element | None = None
        self._opened = 0

    @property
    def number(self) -> int:
        """Which one it is: they are counted."""
        return self._opened

    def durl(self, control: ControlPlane, session: str) -> str | None:
        """Its address for elements of `session`; None if it is not there, or lost."""
        if self._element is None or self._element.session != session:
            return None
        try:
            return control.grant(session, self._element.activation, ELEMENT, self._transport)
        except (MemoryLostError, NotFoundError):
            return None

    def open(self, control: ControlPlane, session: str) -> str:
        """Make one, and return its address.

        Raises
        ------
        EngineError
            If there can be none.
        """
        self.close()
        application = opening(self._budget, self._compute_memory())
        activation = self.run(control, session, application).activation_id
        durl = control.grant(session, activation, ELEMENT, self._transport)
        action = LibdAction(session, transports=[durl])
        self._opened += 1
        transport = action.get_transport(ELEMENT, "rdma")
        self._element = _Element(session, activation, action, transport)
        return durl

    def run(self, control: ControlPlane, session: str, application: Application) -> Activation:
        """Run an application of the session to its end.

        Raises
        ------
        EngineError
            If it fails; the message has the first line of why.
        """
        control.put_application(application)
        try:
            activation = control.wait(
                control.invoke(application.name, session=session, transport=self._transport)
            )
        finally:
            with suppress(ScadError):
                control.delete_application(application.name)
        if activation.status != "success":
            lines = (activation.error or "no reason given").strip().splitlines()
            raise EngineError(f"resident columns could not be filled: {lines[0]}")
        return activation

    def keep(self, piece: Piece) -> None:
        """Take what an element wrote on a lease for as long as the session lasts."""
        assert self._element is not None
        self._element.transport.renew(piece.address, lease=None)

    def free(self, piece: Piece) -> None:
        """Give a piece's bytes back."""
        if self._element is not None:
            with suppress(LibdError):  # gone with its server
                self._element.transport.free(piece.address)

    def close(self) -> None:
        """Let go of it; its memory goes with the session."""
        element, self._element = self._element, None
        if element is not None:
            with suppress(ScadError, BufferError):
                element.action.close()
