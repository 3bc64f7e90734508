"""The exception tree of ``openwhisk``.

Covers what callers of the room can tell apart and act upon. It does not cover failures of user code
inside an element: those are values (`openwhisk.runtime.ElementFailure`), because a failing element
is an ordinary outcome of an activation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from libd.errors import ScadError

if TYPE_CHECKING:
    from openwhisk.app.model import Problem


class OpenWhiskError(ScadError):
    """Base of every exception that this room raises."""


class ApplicationError(OpenWhiskError):
    """An application (element files, JSON or objects) is wrong.

    Attributes
    ----------
    problems
        Everything that was found, each with its place. ``str(error)`` has one line per problem,
        ``file:line: message``.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        if not problems:
            raise ValueError("an ApplicationError needs at least one problem")
        self.problems = tuple(problems)
        super().__init__("\n".join(str(p) for p in self.problems))


class ElementError(OpenWhiskError):
    """An element cannot be loaded or run: what the runtime itself says, as opposed to what user
    code raises.
    """


class TransportNotGrantedError(ElementError):
    """An element asked for a memory element that was not granted to it."""


class NotFoundError(OpenWhiskError):
    """There is no application, activation, session or element of that name."""

    http_status = 404


class AlreadyExistsError(OpenWhiskError):
    """There is one of that name, and overwriting it was not asked for."""

    http_status = 409


class WaitTimeoutError(OpenWhiskError, TimeoutError):
    """An activation was not over in time; it goes on."""

    http_status = 408


class MemoryLostError(OpenWhiskError):
    """The memory server died with what a session kept there; invoke the application again."""

    http_status = 410


class ControlPlaneClosedError(OpenWhiskError):
    """The control plane was closed, or cannot go on."""

    http_status = 503


class InvokerError(OpenWhiskError):
    """Workers or the memory server cannot be started."""

    http_status = 500
