"""`LibdAction`: the transports of one compute element, by name, some of them configured late."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from libd.cache import ArenaCache
from libd.durl import Durl
from libd.errors import DurlError, TransportClosedError, TransportTimeoutError
from libd.transport import open_transport, parse_url, setting, transport_types
from libd.units import parse_size

if TYPE_CHECKING:
    from libd._core import Transport
    from libd.server import MemoryServer

__all__ = ["CONFIG_TIMEOUT", "LibdAction"]

CONFIG_TIMEOUT = 30.0
"""Seconds that `LibdAction.get_transport` waits for a late configuration by default."""

_SERVERS = ("rdma_tcp_server", "rdma_uverbs_server")


class LibdAction:
    """The transports of one action.

    Parameters
    ----------
    activation_id
        Names the action in messages.
    transports
        Durls to add; one without settings (``mem1;rdma_tcp;``) is configured later by
        `config_transport`. A durl of type
        ``rdma_tcp_server`` (``server;rdma_tcp_server;url,tcp://*:2333;size,1073741824;``) starts a
        memory server in this process that stops with the action; like the stand-alone one it binds
        loopback unless it has a ``token``. One of type ``rdma_uverbs_server`` serves one-sided RDMA
        too, through the ``device`` that it names or the first there is.
    cache
        Attached arenas; a process that runs many actions gives the same cache to all of them.

    Notes
    -----
    Thread-safe. Transports are connected when they are first asked for.
    """

    def __init__(
        self,
        activation_id: str = "0000",
        transports: Iterable[str | Durl] = (),
        *,
        cache: ArenaCache | None = None,
    ) -> None:
        self.activation_id = activation_id
        self.cache = ArenaCache() if cache is None else cache
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting = 0
        self._durls: dict[str, Durl] = {}
        self._open: dict[str, Transport] = {}
        self._opening: set[str] = set()
        self._servers: dict[str, MemoryServer] = {}
        self._closed = False
        try:
            for durl in transports:
                self.add_transport(durl)
        except BaseException:
            self.close()
            raise

    def add_transport(self, durl: str | Durl) -> None:
        """Add a transport; a durl without settings waits for `config_transport`.

        Raises
        ------
        DurlError
            if the durl is malformed, its name is taken, or its type unknown.
        """
        durl = Durl.parse(durl)
        if durl.type not in _SERVERS and durl.type not in transport_types():
            raise DurlError(
                f"durl {durl.name!r}: no transport of type {durl.type!r} "
                f"(there are {', '.join([*transport_types(), *_SERVERS])})"
            )
        with self._lock:
            self._check_open()
            if durl.name in self._durls:
                raise DurlError(
                    f"action {self.activation_id}: transport {durl.name!r} exists already"
                )
            if durl.type in _SERVERS and durl.configured:
                self._servers[durl.name] = _start_server(durl)
            self._durls[durl.name] = durl
            self._changed.notify_all()

    def config_transport(self, name: str, durl: str | Durl) -> None:
        """Supply the address of a transport that was added without one.

        `durl` may be a whole durl or only its settings (``size,65536;``). Its name and type must be
        the ones that the transport was added with.
        """
        with self._lock:
            self._check_open()
            known = self._durls.get(name)
            if known is None:
                raise DurlError(f"action {self.activation_id}: no transport {name!r} to configure")
            if known.configured:
                raise DurlError(
                    f"action {self.activation_id}: transport {name!r} is configured already"
                )
            if isinstance(durl, str) and "," in durl.partition(";")[0]:
                durl = f"{name};{known.type};{durl}"
            durl = Durl.parse(durl)
            if durl.type != known.type:
                raise DurlError(
                    f"action {self.activation_id}: transport {name!r} was added as {known.type!r}, "
                    f"not {durl.type!r}"
                )
            if not durl.configured:
                raise DurlError(
                    f"action {self.activation_id}: the durl for transport {name!r} has no settings"
                )
            durl = Durl(name, durl.type, durl.config)
            if durl.type in _SERVERS:
                self._servers[name] = _start_server(durl)
            self._durls[name] = durl
            self._changed.notify_all()

    def get_transport(
        self, name: str, interface: str = "rdma", timeout: float | None = None
    ) -> Transport:
        """Return the transport `name`, connected; the same object for every call.

        Blocks until the transport is configured.

        Parameters
        ----------
        name
            The transport's name.
        interface
            What the caller expects to be able to do; ``rdma`` is the one there is.
        timeout
            Seconds to wait for a late configuration; `CONFIG_TIMEOUT` by default.

        Raises
        ------
        TransportTimeoutError
            if the transport is not configured (or not even added) in time, or its server does not
            answer.
        """
        if interface != "rdma":
            raise DurlError(
                f"transport {name!r}: unknown interface {interface!r} (there is 'rdma')"
            )
        deadline = None
        with self._lock:
            while True:
                self._check_open()
                if name in self._open:
                    return self._open[name]
                durl = self._durls.get(name)
                if durl is not None and durl.type in _SERVERS:
                    raise DurlError(f"transport {name!r} is a server; open a transport to it")
                if durl is not None and durl.configured and name not in self._opening:
                    self._opening.add(name)
                    break
                if deadline is None:
                    deadline = time.monotonic() + (CONFIG_TIMEOUT if timeout is None else timeout)
                self._waiting += 1
                try:
                    in_time = self._changed.wait(deadline - time.monotonic())
                finally:
                    self._waiting -= 1
                if not in_time:
                    raise TransportTimeoutError(self._why_not(name, durl))
        try:
            transport = open_transport(durl, self.cache)
        except BaseException:
            with self._lock:
                self._opening.discard(name)
                self._changed.notify_all()
            raise
        with self._lock:
            self._opening.discard(name)
            if self._waiting:
                self._changed.notify_all()
            if self._closed:
                transport.close()
            self._check_open()
            self._open[name] = transport
            return transport

    def _why_not(self, name: str, durl: Durl | None) -> str:
        if durl is None:
            known = ", ".join(sorted(self._durls)) or "none"
            return (
                f"action {self.activation_id}: transport {name!r} was not added in time "
                f"(there are: {known})"
            )
        what = "connected" if durl.configured else "configured (it was added without an address)"
        return f"action {self.activation_id}: transport {name!r} was not {what} in time"

    def _check_open(self) -> None:
        if self._closed:
            raise TransportClosedError(f"action {self.activation_id} is closed")

    @property
    def names(self) -> list[str]:
        """The transports' names, in the order in which they were added."""
        with self._lock:
            return list(self._durls)

    def close(self) -> None:
        """Close all transports and servers; whoever waits for one is woken. May be called twice."""
        with self._lock:
            self._closed = True
            transports, self._open = list(self._open.values()), {}
            servers, self._servers = list(self._servers.values()), {}
            self._changed.notify_all()
        for transport in transports:
            transport.close()
        for server in servers:
            server.stop()
        # A worker keeps its cache, which would keep the memory of servers that are gone resident.
        self.cache.sweep()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _start_server(durl: Durl) -> MemoryServer:
    from libd.server import MemoryServer

    host, port, path = parse_url(setting(durl, "url"), durl)
    if path:
        raise DurlError(f"durl {durl.name!r}: an {durl.type} needs a tcp:// url")
    token = durl.config.get("token")
    if host == "*":
        host = "0.0.0.0" if token else "127.0.0.1"
    rdma = durl.config.get("device", "any") if durl.type == "rdma_uverbs_server" else None
    size = parse_size(setting(durl, "size"))
    return MemoryServer(size, bind=host, port=int(port), token=token, rdma=rdma)
