"""`EmbeddedControlPlane`: a control plane in this process."""

from __future__ import annotations

import os
import platform
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from types import TracebackType
from typing import Any, Self

import msgspec
import zmq

from libd.choice import rdma_ports
from openwhisk.api import Activation, ControlPlaneInfo, SessionInfo
from openwhisk.app import complete, validate
from openwhisk.app.model import Application
from openwhisk.control.books import Books
from openwhisk.control.core import Core
from openwhisk.control.machine import available_cores, available_memory
from openwhisk.control.records import ActivationBook
from openwhisk.control.sessions import SessionBook
from openwhisk.errors import (
    AlreadyExistsError,
    ControlPlaneClosedError,
    MemoryLostError,
    NotFoundError,
    OpenWhiskError,
    WaitTimeoutError,
)
from openwhisk.invoker import PATIENCE, InvokerSettings, Program
from openwhisk.invoker.memory import TRANSPORT_TYPES
from openwhisk.scheduler.messages import (
    Cancel,
    CloseSession,
    Invoke,
    OpenSession,
    ReleaseMemory,
    RenewSession,
)

_pack = msgspec.msgpack.Encoder().encode

RENEWAL = 0.01
"""The share of a lease that passes before it is renewed again: a query renews its session's three
times, and each time wakes the control plane's thread, which wants the interpreter."""


class EmbeddedControlPlane:
    """Scheduler, invoker and records in this process; satisfies `openwhisk.api.ControlPlane`.

    Starting it is quick: workers get warm in the background, and the first invocation waits for
    them. Closing it (also at the end of the program, or when it is killed) leaves no process,
    socket, memory or file behind.

    Parameters
    ----------
    cores, memory
        What elements may reserve; by default this machine's cores, and most of the bytes that are
        available. A core that is reserved is not enforced; bytes are.
    preimport
        Names of modules that workers have imported before the first element needs them. Those that
        do not exist are left out.
    prewarm, max_idle
        How many workers are made at once, and how many may wait for work.
    patience
        Seconds without work after which workers beyond `prewarm` end; those that hold more than a
        fresh one wait less.
    result_limit
        Bytes that an element's result may have: the handle of an exchange of 10 000 columns has
        0.5 MB for each partition.
    max_attempts
        How often one copy of an element may be started in all.

    Raises
    ------
    OSError
        If processes or sockets cannot be made.
    """

    def __init__(
        self,
        cores: float | None = None,
        memory: int | None = None,
        preimport: Iterable[str] = (),
        *,
        prewarm: int | None = None,
        max_idle: int | None = None,
        patience: float = PATIENCE,
        result_limit: int = 16_000_000,
        max_attempts: int = 3,
        environment: Mapping[str, str | None] | None = None,
    ) -> None:
        settings = InvokerSettings(
            cores=available_cores() if cores is None else cores,
            memory=available_memory() if memory is None else memory,
            preimport=tuple(preimport),
            prewarm=prewarm,
            max_idle=max_idle,
            patience=patience,
            result_limit=result_limit,
            environment=dict(environment or {}),
        )
        if not settings.cores > 0 or settings.memory <= 0:
            raise ValueError("a control plane needs more than 0 cores and more than 0 bytes")
        self._owner = os.getpid()
        self._settings = settings
        self._lock = threading.Lock()
        self._programs: dict[str, Program] = {}
        self._books = Books()
        self._core = Core(settings, self._books, max_attempts)
        self._core.start()
        # Also when it is forgotten, and at exit.
        self._finalizer = weakref.finalize(self, _stop, self._core, self._owner)

    # -- applications ----------------------------------------------------------------------------

    def put_application(self, app: Application, *, overwrite: bool = False) -> None:
        """See `ControlPlane.put_application`."""
        self._put(app, overwrite=overwrite, plain=False)

    def put_action(self, app: Application, *, overwrite: bool = False) -> None:
        """Store a plain action: an application of one compute element, whose result is the
        activation's result.
        """
        if (
            len(app.compute) != 1
            or len(app) != 1
            or next(iter(app.compute.values())).parallelism != 1
        ):
            raise OpenWhiskError(
                f"a plain action has one compute element; {app.name} has {len(app)} elements"
            )
        self._put(app, overwrite=overwrite, plain=True)

    def _put(self, app: Application, *, overwrite: bool, plain: bool) -> None:
        self._check_open()
        app = complete(app)
        validate(app)
        program = Program.compile(app, plain=plain)
        with self._lock:
            if app.name in self._programs and not overwrite:
                raise AlreadyExistsError(
                    f"there is an application {app.name}; overwrite it or choose another name"
                )
            self._programs[app.name] = program

    def delete_application(self, name: str) -> None:
        """See `ControlPlane.delete_application`."""
        self._check_open()
        with self._lock:
            if self._programs.pop(name, None) is None:
                raise NotFoundError(f"there is no application {name}")

    # -- activations -----------------------------------------------------------------------------

    def invoke(
        self,
        name: str,
        params: Mapping[str, Any] | None = None,
        *,
        session: str | None = None,
        transport: str = "auto",
    ) -> str:
        """See `ControlPlane.invoke`."""
        self._check_open()
        if transport not in TRANSPORT_TYPES:
            raise OpenWhiskError(
                f"no transport {transport!r}; there are {', '.join(TRANSPORT_TYPES)}"
            )
        if transport == "rdma" and not rdma_ports():
            raise OpenWhiskError(
                "transport 'rdma': this machine has no active RDMA port; `scad doctor` says what "
                "there is"
            )
        program = self._programs.get(name)
        if program is None:
            raise NotFoundError(f"there is no application {name}")
        if session is not None:
            self._books.session(session)
        try:
            packed = msgspec.Raw(_pack(dict(params or {})))
        except (TypeError, ValueError, OverflowError) as error:
            raise OpenWhiskError(f"parameters must be JSON data: {error}") from None
        activation = uuid.uuid4().hex
        self._books.open_activation(ActivationBook(activation, program, transport, session))
        self._core.post(Invoke(time.monotonic(), activation, program.plan, packed, session))
        if not self._core.alive:
            # Not before its thread has ended: it may be using the books.
            self._core.stop()
            self._books.closed(None)
        return activation

    def wait(self, activation_id: str, timeout: float | None = None) -> Activation:
        """See `ControlPlane.wait`. Ctrl-C interrupts it."""
        book = self._books.book(activation_id)
        if not book.over.wait(timeout):
            raise WaitTimeoutError(f"activation {activation_id} is not over after {timeout:g} s")
        assert book.final is not None  # not looked up: it may have made room for newer ones
        return book.final

    def activation(self, activation_id: str) -> Activation:
        """See `ControlPlane.activation`."""
        return self._books.activation(activation_id)

    def cancel(self, activation_id: str) -> None:
        """See `ControlPlane.cancel`."""
        self._check_open()
        self._books.book(activation_id)
        self._core.post(Cancel(time.monotonic(), activation_id))

    def on_finished(self, observer: Callable[[Activation], None]) -> None:
        """Have `observer` called with the record of every activation that ends, before its waiters
        go on.

        It is called on the control plane's own thread: hand the record on, and return.
        """
        self._books.observe(observer)

    def settle(self) -> None:
        """Return when observers have been told of every activation whose end can be read now."""
        turned = threading.Event()
        self._core.post(turned.set)
        while not turned.wait(1.0) and self._core.alive:
            pass

    # -- sessions --------------------------------------------------------------------------------

    def open_session(self, name: str | None = None, lease: float = 60.0) -> SessionInfo:
        """See `ControlPlane.open_session`. An open session of that name is renewed."""
        self._check_open()
        if not lease > 0:
            raise OpenWhiskError(f"a lease of {lease:g} s is none")
        id_ = name or f"session-{uuid.uuid4().hex[:12]}"
        info = self._books.open_session(SessionBook(id_, name or id_, lease))
        self._core.post(OpenSession(time.monotonic(), id_, lease))
        return info

    def renew_session(self, session: str) -> None:
        """See `ControlPlane.renew_session`."""
        self._check_open()
        book, now = self._books.session(session), time.monotonic()
        if now - book.renewed >= book.lease * RENEWAL:
            book.renewed = now
            self._core.post(RenewSession(now, session))

    def grant(self, session: str, activation_id: str, element: str, transport: str = "auto") -> str:
        """See `ControlPlane.grant`."""
        self.renew_session(session)
        memory = self._books.kept_memory(session, activation_id, element)
        if transport not in TRANSPORT_TYPES:
            raise OpenWhiskError(
                f"no transport {transport!r}; there are {', '.join(TRANSPORT_TYPES)}"
            )
        try:
            return self._core.invoker.durl(memory, element, transport)
        except KeyError:
            raise MemoryLostError(f"memory element {element} died with its memory server") from None

    def release(self, session: str, activation_id: str, element: str) -> None:
        """See `ControlPlane.release`."""
        self._check_open()
        self._books.release(session, activation_id, element)
        self._core.post(ReleaseMemory(time.monotonic(), session, activation_id, element))

    def close_session(self, session: str) -> None:
        """See `ControlPlane.close_session`."""
        self._check_open()
        over = self._books.session(session).over
        self._core.post(CloseSession(time.monotonic(), session))
        over.wait()

    # -- the control plane itself ----------------------------------------------------------------

    def info(self) -> ControlPlaneInfo:
        """See `ControlPlane.info`."""
        self._check_open()
        ledger, invoker = self._core.scheduler.ledger, self._core.invoker
        return ControlPlaneInfo(
            cores=self._settings.cores,
            memory=self._settings.memory,
            cores_reserved=ledger.used_cores,
            memory_reserved=ledger.used_bytes,
            workers=len(invoker.pool.workers),
            idle_workers=len(invoker.pool.idle),
            warm_bytes=invoker.warm_bytes(),
            warm_gb_s=self._books.warm_gb_s(time.monotonic()),
            memory_server=self._core.invoker.memory.pid,
            activations=self._books.running(),
            sessions=self._books.sessions(),
            versions=_versions(),
        )

    def close(self) -> None:
        """See `ControlPlane.close`. Activations under way end as cancelled. Idempotent."""
        self._finalizer()

    def _check_open(self) -> None:
        if not self._core.alive or os.getpid() != self._owner:
            raise ControlPlaneClosedError("the control plane is closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _stop(core: Core, owner: int) -> None:
    """Stop the core, unless this is a fork of the process that it belongs to."""
    if os.getpid() == owner:
        core.stop()


def _versions() -> dict[str, str]:
    try:
        scad = metadata.version("scad")
    except metadata.PackageNotFoundError:
        scad = "unknown"
    return {"scad": scad, "python": platform.python_version(), "zmq": zmq.zmq_version()}
