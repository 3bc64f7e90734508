"""`ControlPlane`: what everything above needs of a control plane, and the records that it gives
back.

`openwhisk.control.EmbeddedControlPlane` (in this process) and `openwhisk.client.HttpControlPlane`
satisfy it. Records are plain values: a snapshot does not change after it was handed out. GB is
10**9 bytes; times are seconds since the Unix epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import msgspec

from openwhisk.app.model import Application

__all__ = [
    "Activation",
    "ControlPlane",
    "ControlPlaneInfo",
    "ElementRecord",
    "ElementStatus",
    "MemoryRecord",
    "SessionInfo",
    "Status",
    "Transport",
    "Usage",
]

Status = Literal["running", "success", "failed", "cancelled"]
ElementStatus = Literal["waiting", "running", "done", "failed", "cancelled"]
Transport = Literal["auto", "shm", "tcp", "rdma"]


class ElementRecord(msgspec.Struct, kw_only=True):
    """One copy of a compute element.

    Attributes
    ----------
    attempts
        How often it was started.
    start, end
        Of the last attempt, from handing it to a worker to its end.
    limit_bytes
        The most that it could have held (`limits.mem`, and memory elements merged into it).
    reserved
        What it had reserved of that, and was charged for: ``(seconds, bytes)`` of each change since
        `start`; long runs keep some of them. It follows what the worker holds.
    paused_seconds
        For how long it was stopped because it could not have more yet.
    peak_anon_bytes
        The most anonymous memory (RssAnon) that its worker held while it ran, sampled.
    peak_data_bytes
        The most private writable memory (VmData), touched or not: what the limit is about.
    spilled_bytes
        The most that it had on local disk, sampled (`limits.storage` bounds it).
    cpu_seconds
        All threads, all attempts that reported.
    bytes_read, bytes_written
        Through its transports. Views that were mapped count too, as read if they are read-only and
        as written if not.
    metrics
        What the element's code counted itself (`Action.record_metric`), of the last attempt that
        ended by itself.
    """

    name: str
    index: int = 0
    attempts: int = 0
    start: float | None = None
    end: float | None = None
    status: ElementStatus = "waiting"
    error: str | None = None
    limit_bytes: int = 0
    reserved: list[tuple[float, int]] = []
    paused_seconds: float = 0.0
    peak_anon_bytes: int = 0
    peak_data_bytes: int = 0
    spilled_bytes: int = 0
    cores: float = 0.0
    cpu_seconds: float = 0.0
    bytes_read: int = 0
    bytes_written: int = 0
    metrics: dict[str, float] = {}


class MemoryRecord(msgspec.Struct, kw_only=True):
    """One incarnation of a memory element.

    Attributes
    ----------
    generation
        Counts from 1; a memory element that was lost is made again.
    start, end
        From when its bytes could be reserved until they were given back, or passed to a session.
    peak_bytes, gb_s
        The most that it reserved, and its reserved bytes over time. Of an elastic one both are
        known when it is freed, and 0 before that; one that passes to a session while it holds
        bytes is accounted to the session.
    """

    name: str
    generation: int = 1
    start: float
    end: float | None = None
    peak_bytes: int = 0
    gb_s: float = 0.0


class Usage(msgspec.Struct, kw_only=True):
    """What an activation cost.

    Attributes
    ----------
    compute_gb_s, memory_gb_s, core_s
        Reserved bytes and cores over time: of every attempt of every compute element; of the
        activation's memory elements until they were freed, or passed to a session.
    held_gb_s
        Anonymous memory that compute elements really held over time, as their workers measured it
        (every 2 ms), without what these share with their zygote: beside `compute_gb_s`, which is
        what they are charged. Runs whose worker died are not in it.
    cpu_s
        What was really computed.
    peak_compute_bytes, peak_memory_bytes
        The most that was reserved at one moment.
    warm_gb_s
        What idle warm workers, and the zygote that all workers come from, held while the activation
        ran (all activations under way see the same). Pages that workers share with the zygote are
        the zygote's.
    recomputed
        ``element[index]`` of every run that was lost and repeated.
    """

    compute_gb_s: float = 0.0
    memory_gb_s: float = 0.0
    held_gb_s: float = 0.0
    core_s: float = 0.0
    cpu_s: float = 0.0
    peak_compute_bytes: int = 0
    peak_memory_bytes: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    warm_gb_s: float = 0.0
    recomputed: list[str] = []


class Activation(msgspec.Struct, kw_only=True):
    """One invocation of an application.

    Attributes
    ----------
    end
        ``None`` while it is under way.
    result
        ``{sink: result}``, or ``{sink: [result, …]}`` where the sink has several copies. Of a plain
        action: its result.
    error
        What went wrong: a line, then the element's traceback if it raised.
    error_kind
        ``element``, ``limit``, ``aborted``, ``minimum``, ``result``, ``timeout``, ``lost``,
        ``capacity``, ``memory``, ``session``, ``cancelled`` or ``internal``.
    logs
        ``TIME STREAM: [element[index]] text``, in the order in which the elements ended.
    """

    activation_id: str
    name: str
    start: float
    end: float | None = None
    status: Status = "running"
    result: Any = None
    error: str | None = None
    error_kind: str | None = None
    logs: list[str] = []
    elements: list[ElementRecord] = []
    memory: list[MemoryRecord] = []
    usage: Usage = msgspec.field(default_factory=Usage)


class SessionInfo(msgspec.Struct, kw_only=True):
    """A lease on memory that outlives applications.

    Attributes
    ----------
    id
        What the other methods call ``session``.
    memory
        ``activation id/element`` of the memory elements that it owns.
    memory_bytes, memory_gb_s
        What they reserve now, and have cost since they passed to the session.
    """

    id: str
    name: str
    lease: float
    memory: list[str] = []
    memory_bytes: int = 0
    memory_gb_s: float = 0.0


class ControlPlaneInfo(msgspec.Struct, kw_only=True):
    """What a control plane has, and what of it is in use.

    Attributes
    ----------
    memory, memory_reserved
        Bytes for compute and memory elements together, and how many of them are reserved.
    workers, idle_workers, warm_bytes, warm_gb_s
        Worker processes, how many of them wait for work, what those and the zygote hold (anonymous
        memory; what they share counts once), and what that has cost so far.
    memory_server
        Process id of the memory server, once something needed it.
    """

    cores: float
    memory: int
    cores_reserved: float = 0.0
    memory_reserved: int = 0
    workers: int = 0
    idle_workers: int = 0
    warm_bytes: int = 0
    warm_gb_s: float = 0.0
    memory_server: int | None = None
    activations: int = 0
    sessions: list[SessionInfo] = []
    versions: dict[str, str] = {}


class ControlPlane(Protocol):
    """Runs applications. All methods may be called from any thread.

    Every method raises `openwhisk.errors.ControlPlaneClosedError` when the control plane is gone;
    one that names an application, activation, session or element that does not exist raises
    `openwhisk.errors.NotFoundError`.
    """

    def put_application(self, app: Application, *, overwrite: bool = False) -> None:
        """Store an application; activations under way keep the one that they began with.

        Raises
        ------
        ApplicationError
            If it is not valid.
        AlreadyExistsError
            If there is one of that name and `overwrite` is false.
        """

    def delete_application(self, name: str) -> None:
        """Forget an application."""

    def invoke(
        self,
        name: str,
        params: Mapping[str, Any] | None = None,
        *,
        session: str | None = None,
        transport: str = "auto",
    ) -> str:
        """Start an application and return the activation id at once.

        Parameters
        ----------
        params
            JSON data for the elements without parents.
        session
            Owner of memory elements with ``lifetime: session``.
        transport
            How elements reach memory: ``shm``, ``tcp``, or ``auto`` (the fastest there is).
        """

    def wait(self, activation_id: str, timeout: float | None = None) -> Activation:
        """Wait until an activation is over, failed or not.

        Raises
        ------
        WaitTimeoutError
            If it is not over after `timeout` seconds; it goes on.
        """

    def activation(self, activation_id: str) -> Activation:
        """Return an activation as it is now."""

    def cancel(self, activation_id: str) -> None:
        """Stop an activation: its workers are killed, its memory is freed. No effect on one that is
        over.
        """

    def open_session(self, name: str | None = None, lease: float = 60.0) -> SessionInfo:
        """Open a session; it ends when no call has named it for `lease` seconds and no activation
        of it is under way.
        """

    def renew_session(self, session: str) -> None:
        """Start the lease anew."""

    def grant(self, session: str, activation_id: str, element: str, transport: str = "auto") -> str:
        """Return the durl of a memory element that the session owns. It holds a key: do not log or
        store it.

        Raises
        ------
        MemoryLostError
            If the memory server died; the application has to be invoked again.
        """

    def release(self, session: str, activation_id: str, element: str) -> None:
        """Free one memory element of a session: it is granted no more when this returns, and its
        bytes are back soon after. No error if it is gone.
        """

    def close_session(self, session: str) -> None:
        """Cancel the session's activations, free its memory; it is free when this returns."""

    def info(self) -> ControlPlaneInfo:
        """Say what there is and what is in use."""

    def close(self) -> None:
        """Give everything back."""
